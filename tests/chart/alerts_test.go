package chart

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// The rules of a release, as Prometheus reads them, in a folder.
func writeRules(t *testing.T, args ...string) string {
	t.Helper()
	rule := find(render(t, args...), "PrometheusRule", "sluice")
	return writeYAML(t, "rules.yaml", rule.at("spec"))
}

func writeYAML(t *testing.T, name string, content any) string {
	t.Helper()
	text, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, fault, err := run(exec.Command("promtool", args...)); err != nil {
		t.Errorf("promtool %s: %s%s", strings.Join(args, " "), out, fault)
	}
}

func TestRulesAreValid(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", writeRules(t, set("metrics.prometheusRule.enabled=true")...))
	for _, values := range []string{"service-monitor", "pod-monitor"} {
		promtool(t, "check", "rules", writeRules(t, "--values", "values/"+values+".yaml"))
	}
}

// Each alert fires when it should and not before: alerts/*.yaml, as promtool has it. They are about the
// rules as they are by default, of a release with a ServiceMonitor.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	rules := writeRules(t, set("metrics.prometheusRule.enabled=true", "metrics.serviceMonitor.enabled=true")...)
	tests, err := filepath.Glob("alerts/*.yaml")
	if err != nil || len(tests) == 0 {
		t.Fatal(tests, err)
	}
	untested := alerts(t)
	for _, file := range tests {
		text := strings.ReplaceAll(read(t, file), "RULES", rules)
		for name := range untested {
			if regexp.MustCompile(`alertname: ` + name + `\n\s+exp_alerts:\n`).MatchString(text) {
				delete(untested, name)
			}
		}
		path := filepath.Join(t.TempDir(), filepath.Base(file))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		promtool(t, "test", "rules", path)
	}
	for name := range untested {
		t.Errorf("no test lets %s fire", name)
	}
}

// alerts are all alerts, by name.
func alerts(t *testing.T) map[string]object {
	t.Helper()
	found := map[string]object{}
	rule := find(render(t, set("metrics.prometheusRule.enabled=true", "metrics.serviceMonitor.enabled=true")...), "PrometheusRule", "sluice")
	for _, one := range rule.at("spec", "groups", 0, "rules").([]any) {
		alert := object(one.(map[string]any))
		found[alert.at("alert").(string)] = alert
	}
	return found
}

func TestAlertsAreWhole(t *testing.T) {
	t.Parallel()
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, chart+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	all := alerts(t)
	known := object(values).at("metrics", "prometheusRule", "alerts").(map[string]any)
	if len(known) != len(all) {
		t.Errorf("%d alerts, %d in values.yaml", len(all), len(known))
	}
	runbook := read(t, root+"/docs/operations.md")
	for name, alert := range all {
		if regexp.MustCompile(`@|<[a-zA-Z]+>`).MatchString(alert.text("expr")) {
			t.Errorf("%s: something is left to fill in: %s", name, alert.text("expr"))
		}
		if !strings.Contains(alert.text("expr"), `job="sluice-admin"`) {
			t.Errorf("%s: is about others, too: %s", name, alert.text("expr"))
		}
		for _, annotation := range []string{"summary", "description"} {
			if alert.at("annotations", annotation) == nil {
				t.Errorf("%s: no %s", name, annotation)
			}
		}
		if want := "docs/operations.md#" + strings.ToLower(name); alert.at("annotations", "runbook") != want {
			t.Errorf("%s: its runbook is %v", name, alert.at("annotations", "runbook"))
		}
		if !strings.Contains(runbook, "\n### "+name+"\n") {
			t.Errorf("%s: docs/operations.md does not say what to do", name)
		}
	}
	for _, match := range regexp.MustCompile(`\n### (Sluice\w+)\n`).FindAllStringSubmatch(runbook, -1) {
		if all[match[1]] == nil {
			t.Errorf("docs/operations.md: there is no alert %s", match[1])
		}
	}
}

func TestAlertValuesArrive(t *testing.T) {
	t.Parallel()
	rule := find(render(t, "--values", "values/service-monitor.yaml"), "PrometheusRule", "sluice")
	text := rule.text("spec")
	for _, part := range []string{"> 7.5", "severity: page", "team: edge", "dashboard: sluice",
		"runbook_url: https://runbooks.example.com/operations.md#sluicepanics", "sluice:connections:rate5m"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in the rules", part)
		}
	}
	if strings.Contains(text, "SluiceNoLeader") {
		t.Error("an alert that is turned off is there")
	}
	reader := find(render(t, set("metrics.prometheusRule.enabled=true", "writeStatus=false")...), "PrometheusRule", "sluice").text("spec")
	for _, alert := range []string{"SluiceNoLeader", "SluiceStatusWritesFailing", "SluiceEventsDropped", "SluiceTargetDown"} {
		if strings.Contains(reader, alert) {
			t.Errorf("%s makes no sense there", alert)
		}
	}
}

// dashboard is the dashboard, and its queries with the variables filled in.
func dashboard(t *testing.T) (board object, queries []string) {
	t.Helper()
	config := find(render(t, "--values", "values/service-monitor.yaml"), "ConfigMap", "sluice-dashboard")
	if err := json.Unmarshal([]byte(config.at("data", "sluice.json").(string)), &board); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$namespace", ".*", "$route", ".*")
	var walk func(value any)
	walk = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			if query, ok := value["expr"].(string); ok {
				queries = append(queries, fill.Replace(query))
			}
			if query, ok := value["query"].(string); ok && strings.HasPrefix(query, "label_values(") {
				series, _, _ := strings.Cut(strings.TrimPrefix(query, "label_values("), ", ")
				queries = append(queries, fill.Replace(series))
			}
			for _, inner := range value {
				walk(inner)
			}
		case []any:
			for _, inner := range value {
				walk(inner)
			}
		}
	}
	walk(map[string]any(board))
	return board, queries
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	board, queries := dashboard(t)
	if len(queries) < 30 {
		t.Errorf("%d queries", len(queries))
	}
	rules := []any{}
	for i, query := range queries {
		rules = append(rules, map[string]any{"record": fmt.Sprintf("query:%d", i), "expr": query})
		if strings.Contains(query, "$") {
			t.Errorf("a variable that the dashboard does not have: %s", query)
		}
	}
	groups := []any{map[string]any{"name": "dashboard", "rules": rules}}
	promtool(t, "check", "rules", writeYAML(t, "rules.yaml", map[string]any{"groups": groups}))
	// Panels do not overlap, nor reach beyond the edge.
	taken := map[[2]int]string{}
	for _, one := range board.at("panels").([]any) {
		panel := object(one.(map[string]any))
		at := func(field string) int { return int(panel.at("gridPos", field).(float64)) }
		if at("x")+at("w") > 24 {
			t.Errorf("%s is too wide", panel.text("title"))
		}
		for x := at("x"); x < at("x")+at("w"); x++ {
			for y := at("y"); y < at("y")+at("h"); y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s covers %s", panel.text("title"), other)
				}
				taken[[2]int{x, y}] = panel.text("title")
			}
		}
	}
}

// Every metric that an alert or the dashboard asks for is in a real scrape, with the labels and their
// values.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	scrape := scrape(t)
	labels := map[string]map[string]bool{"up": {}}
	for _, line := range strings.Split(scrape, "\n") {
		name, rest, _ := strings.Cut(strings.Split(line, " ")[0], "{")
		if strings.HasPrefix(line, "#") || name == "" {
			continue
		}
		if labels[name] == nil {
			labels[name] = map[string]bool{}
		}
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(rest, -1) {
			labels[name][label[1]] = true
		}
	}
	values := map[string][]string{
		"outcome": quoted(t, root+"/src/outcome.rs"),
		"limit":   quoted(t, root+"/src/outcome.rs"),
		"mode":    {"enforce", "report"},
		"error":   {"emfile", "enfile", "other"},
		"result":  {"ok", "error"},
		"state":   {"serving", "resting", "ejected", "unhealthy", "idle", "busy", "served", "stale", "refused"},
		"ring":    {"node", "zone", "any"},
		"problem": quoted(t, root+"/src/control/checks/problems.rs"),
		"kind":    {"SniRoute", "Service", "EndpointSlice", "ReferenceGrant", "ConfigMap", "Secret", "File"},
	}
	target := []string{"job", "instance", "namespace", "exported_namespace", "route", "secret", "le"}
	_, queries := dashboard(t)
	for _, alert := range alerts(t) {
		queries = append(queries, alert.at("expr").(string))
	}
	for _, query := range queries {
		for _, selected := range regexp.MustCompile(`\b((?:sluice|process)_\w+|up)\b(?:\{([^}]*)\})?`).FindAllStringSubmatch(query, -1) {
			name := selected[1]
			if labels[name] == nil {
				t.Errorf("no metric %s, in %s", name, query)
				continue
			}
			for _, matcher := range regexp.MustCompile(`(\w+)=~?"([^"]*)"`).FindAllStringSubmatch(selected[2], -1) {
				label, wanted := matcher[1], matcher[2]
				if !labels[name][label] && !slices.Contains(target, label) {
					t.Errorf("%s has no label %s, in %s", name, label, query)
				}
				for _, value := range strings.Split(wanted, "|") {
					if known := values[label]; known != nil && !slices.Contains(known, value) {
						t.Errorf("no %s is %s, in %s", label, value, query)
					}
				}
			}
		}
		for _, grouped := range regexp.MustCompile(`\b(?:by|on|without) \(([^)]*)\)`).FindAllStringSubmatch(query, -1) {
			for _, label := range strings.Split(grouped[1], ", ") {
				if values[label] == nil && label != "direction" && label != "version" && !slices.Contains(target, label) {
					t.Errorf("nothing has a label %s, in %s", label, query)
				}
			}
		}
	}
}

// All words in quotes in a file.
func quoted(t *testing.T, path string) (words []string) {
	for _, match := range regexp.MustCompile(`"(\w+)"`).FindAllStringSubmatch(read(t, path), -1) {
		words = append(words, match[1])
	}
	return words
}

// pair is a certificate that its own key has signed, and the key, in PEM.
func pair(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"a.example.com"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, bytes []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", encoded)
}

// scrape is what a sluice with one route, which serves TLS itself, says at /metrics.
func scrape(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	route := `{"apiVersion": "sluice.dev/v1alpha1", "kind": "SniRoute", "metadata": {"name": "a", "namespace": "b"},
		"spec": {"hostnames": ["a.example.com"], "backends": [{"address": "192.0.2.1:443"}],
			"tls": {"mode": "Terminate", "certificates": [{"secret": "c"}]}}}`
	secret := `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c", "namespace": "b"},
		"dataFiles": {"tls.crt": "c.crt", "tls.key": "c.key"}}`
	certificate, key := pair(t)
	for name, text := range map[string]string{"a.json": route, "b.json": secret, "c.crt": certificate, "c.key": key} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(os.Getenv("SLUICE_BINARY"), "run", "--routes", folder, "--terminate",
		"--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log-format=json")
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if found := regexp.MustCompile(`"admin port".*?"address":"([^"]*)"|"address":"([^"]*)".*"admin port"`).FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1] + found[2]
			}
		}
	}()
	var admin string
	select {
	case admin = <-address:
	case <-time.After(60 * time.Second):
		t.Fatal("it does not say where the admin port is")
	}
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		text := get("http://" + admin + "/metrics")
		// Workers start once there is a table.
		if strings.Contains(text, "\nsluice_routes 1\n") && strings.Contains(text, "\nsluice_worker_connections{") {
			return text
		}
	}
	t.Fatal("the route is not served")
	return ""
}

func get(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(body)
}
