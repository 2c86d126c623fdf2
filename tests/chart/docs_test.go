package chart

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A block of YAML in the documentation.
type block struct {
	place, text string
}

// documented are all blocks of YAML that people may copy: manifests, values of the chart, and
// configuration files, which say so in their first line.
func documented(t *testing.T) (manifests, values, configs []block) {
	t.Helper()
	pages := []string{root + "/README.md", chart + "/README.md"}
	more, err := filepath.Glob(root + "/docs/*.md")
	if err != nil || len(more) == 0 {
		t.Fatal(more, err)
	}
	for _, page := range append(pages, more...) {
		for _, rest := range strings.Split(read(t, page), "\n```yaml\n")[1:] {
			text, _, _ := strings.Cut(rest, "\n```\n")
			one := block{place: page + ": " + text[:min(60, len(text))], text: text + "\n"}
			switch {
			case strings.HasPrefix(text, "# sluice.yaml"):
				configs = append(configs, one)
			case strings.Contains(text, "kind: ") && strings.Contains(text, "apiVersion: "):
				manifests = append(manifests, one)
			default:
				values = append(values, one)
			}
		}
	}
	if len(manifests) < 15 || len(values) < 3 || len(configs) < 1 {
		t.Fatalf("only %d manifests, %d values, %d configurations", len(manifests), len(values), len(configs))
	}
	return manifests, values, configs
}

func TestDocumentedValues(t *testing.T) {
	t.Parallel()
	_, values, _ := documented(t)
	for _, one := range values {
		path := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(path, []byte(one.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, fault, err := helm("template", "sluice", chart, "--values", path); err != nil {
			t.Errorf("%s: %s", one.place, fault)
		}
	}
}

func TestDocumentedConfigurations(t *testing.T) {
	t.Parallel()
	_, _, configs := documented(t)
	for _, one := range configs {
		folder := t.TempDir()
		text := strings.ReplaceAll(one.text, "/etc/sluice/routes", folder)
		path := filepath.Join(folder, "sluice.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// The last setting is wrong: who complains of it alone has read all others.
		_, fault, _ := run(exec.Command(os.Getenv("SLUICE_BINARY"), "run", "--config", path, "--log-format=bogus"))
		if !strings.Contains(fault, "--log-format") {
			t.Errorf("%s: %s", one.place, fault)
		}
	}
}

// A real API server takes every manifest, and the policy does what is said of it.
func TestDocumentedManifests(t *testing.T) {
	api := apiServer(t)
	prepare(t, api)
	t.Run("are taken", func(t *testing.T) { manifestsAreTaken(t, api) })
	t.Run("policy", func(t *testing.T) { policyKeepsTenantsToTheirNames(t, api) })
}

// All but those of definitions that it does not have.
func manifestsAreTaken(t *testing.T, api *server) {
	manifests, _, _ := documented(t)
	var objects []object
	namespaces := map[string]bool{}
	for _, one := range manifests {
		if strings.Contains(one.text, "traefik.io/") {
			continue
		}
		for _, object := range parse(t, one.text) {
			if namespace, ok := object.at("metadata", "namespace").(string); ok {
				namespaces[namespace] = true
			}
			objects = append(objects, object)
		}
	}
	for namespace := range namespaces {
		ensureNamespace(t, api, namespace)
	}
	dryRun(t, api, objects)
}

// That of docs/security.md keeps a namespace to its own domain, and to Services.
func policyKeepsTenantsToTheirNames(t *testing.T, api *server) {
	_, text, _ := strings.Cut(read(t, root+"/docs/security.md"), "\n```yaml\n")
	policy, _, _ := strings.Cut(text, "\n```\n")
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	api.must(t, "apply", "-f", path)
	// Other tests make routes of their own.
	defer api.must(t, "delete", "-f", path)
	for _, namespace := range []string{"tenant", "unlabelled"} {
		ensureNamespace(t, api, namespace)
	}
	api.must(t, "label", "namespace", "tenant", "--overwrite", "sluice.dev/domain=a.example.com")
	try := func(namespace, hostname, backend string) string {
		return tryDryRun(t, api, parse(t, fmt.Sprintf(`apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: { name: route, namespace: %s }
spec: { hostnames: [%q], backends: [%s] }`, namespace, hostname, backend)))
	}
	const service, address = "{ service: { name: a, port: 443 } }", "{ address: '192.0.2.1:443' }"
	// A new policy takes a moment.
	for deadline := time.Now().Add(60 * time.Second); try("unlabelled", "x", service) == "" && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	for _, c := range []struct{ namespace, hostname, backend, fault string }{
		{"tenant", "a.example.com", service, ""},
		{"tenant", "A.Example.com", service, ""},
		{"tenant", "*.x.a.example.com", service, ""},
		{"tenant", "xa.example.com", service, "may claim a.example.com and names below it"},
		{"tenant", "*.example.com", service, "may claim a.example.com"},
		{"tenant", "*", service, "may claim a.example.com"},
		{"tenant", "a.example.com", address, "name a Service instead of an address"},
		{"unlabelled", "a.example.com", service, "may claim no name"},
	} {
		fault := try(c.namespace, c.hostname, c.backend)
		if (fault == "") != (c.fault == "") || !strings.Contains(fault, c.fault) {
			t.Errorf("%+v: %q", c, fault)
		}
	}
}
