package chart

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// A real API server takes every object of each kind of installation, and its pods in a namespace that
// enforces the level of Pod Security that the file of values promises in its first line.
func TestApiServerTakesIt(t *testing.T) {
	api := apiServer(t)
	prepare(t, api)
	for name, file := range matrix(t) {
		t.Run(name, func(t *testing.T) {
			objects := render(t, "--values", file)
			dryRun(t, api, objects)
			level := podSecurity(t, file)
			dryRun(t, api, []object{pod(t, api, objects, level)})
			if level != "restricted" {
				if fault := tryDryRun(t, api, []object{pod(t, api, objects, "restricted")}); !strings.Contains(fault, "violates PodSecurity") {
					t.Errorf("it would pass restricted, too: %s", fault)
				}
			}
		})
	}
}

// What is in deploy/ can be applied as it is.
func TestApiServerTakesDeploy(t *testing.T) {
	api := apiServer(t)
	prepare(t, api)
	for _, pattern := range []string{"*.yaml", "samples/*.yaml"} {
		files, err := filepath.Glob(root + "/deploy/" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			objects := parse(t, read(t, file))
			for _, one := range objects {
				if namespace, ok := one.at("metadata", "namespace").(string); ok {
					ensureNamespace(t, api, namespace)
				}
			}
			dryRun(t, api, objects)
		}
	}
}

// A release is installed, upgraded with a newer definition of SniRoute, rolled back and uninstalled. The
// definition and the routes are what is left, and the next release takes them up.
func TestRelease(t *testing.T) {
	api := apiServer(t)
	api.must(t, "delete", "crd", "sniroutes.sluice.dev", "--ignore-not-found")
	older := filepath.Join(t.TempDir(), "sluice")
	if err := os.CopyFS(older, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	crd := filepath.Join(older, "files/crds/sniroutes.sluice.dev.yaml")
	before := strings.ReplaceAll(read(t, crd), "maxItems: 64", "maxItems: 2")
	if err := os.WriteFile(crd, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	release := func(args ...string) {
		t.Helper()
		if out, fault, err := api.helm(append(args, "--namespace", "release")...); err != nil {
			t.Fatalf("helm %q: %s%s", args, out, fault)
		}
	}
	limit := func() string {
		return api.must(t, "get", "crd", "sniroutes.sluice.dev", "-o",
			"jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.hostnames.maxItems}")
	}
	left := func() string {
		kinds := "deploy,svc,cm,sa,role,rolebinding,pdb,clusterrole,clusterrolebinding"
		return api.must(t, "get", kinds, "-n", "release", "-l", "app.kubernetes.io/instance=sluice", "-o", "name")
	}

	release("install", "sluice", older, "--create-namespace")
	if limit() != "2" {
		t.Errorf("the older definition is not there: %s", limit())
	}
	release("upgrade", "sluice", chart, "--set", "replicas=3")
	if limit() != "64" {
		t.Errorf("the definition is not upgraded: %s", limit())
	}
	if replicas := api.must(t, "get", "deploy", "sluice", "-n", "release", "-o", "jsonpath={.spec.replicas}"); replicas != "3" {
		t.Errorf("%s replicas", replicas)
	}
	apply(t, api, `{"apiVersion": "sluice.dev/v1alpha1", "kind": "SniRoute", "metadata": {"name": "kept", "namespace": "release"},
		"spec": {"hostnames": ["kept.example.com"], "backends": [{"address": "192.0.2.1:443"}]}}`)
	release("rollback", "sluice", "1")
	release("uninstall", "sluice")
	if left := left(); left != "" {
		t.Errorf("these are left: %s", left)
	}
	if route := api.must(t, "get", "sniroute", "-n", "release", "-o", "name"); route != "sniroute.sluice.dev/kept\n" {
		t.Errorf("the routes are gone: %q", route)
	}
	release("install", "sluice", chart)
	if limit() != "64" {
		t.Errorf("the definition is not taken up again: %s", limit())
	}
	// A second one beside it, in the same namespace, and a third of the same name in another.
	release("install", "internal", chart, "--set", "crds.enabled=false,class=internal,requireClass=true")
	if out, fault, err := api.helm("install", "sluice", chart, "--namespace", "other", "--create-namespace", "--set", "crds.enabled=false"); err != nil {
		t.Errorf("%s%s", out, fault)
	}
	release("uninstall", "sluice")
	release("uninstall", "internal")
}

// The policy lets a namespace claim its own domain, and nothing else. It takes a moment to be in force.
func TestAdmissionPolicy(t *testing.T) {
	api := apiServer(t)
	prepare(t, api)
	for name, domain := range map[string]string{"shop": "shop.example.com", "bare": "", "free": ""} {
		ensureNamespace(t, api, name)
		api.must(t, "label", "namespace", name, "--overwrite", "sluice.dev/domain="+domain)
	}
	route := func(namespace, hostname, backend string) string {
		return fmt.Sprintf(`{"apiVersion": "sluice.dev/v1alpha1", "kind": "SniRoute", "metadata": {"name": "guarded", "namespace": %q},
			"spec": {"hostnames": [%q], "backends": [%s]}}`, namespace, hostname, backend)
	}
	const service, address = `{"service": {"name": "shop", "port": 443}}`, `{"address": "192.0.2.1:443"}`
	// It was there before, and may be changed as long as what it asks for is not.
	apply(t, api, route("bare", "old.example.com", service))
	objects := render(t, "--set", "admissionPolicy.enabled=true,admissionPolicy.exemptNamespaces={free}")
	policy := []object{
		find(objects, "ValidatingAdmissionPolicy", "sluice-edge"), find(objects, "ValidatingAdmissionPolicyBinding", "sluice-edge"),
	}
	for _, one := range policy {
		manifest, err := yaml.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, api, string(manifest))
	}
	t.Cleanup(func() {
		for _, one := range policy {
			api.must(t, "delete", strings.ToLower(one["kind"].(string)), "sluice-edge")
		}
	})
	refused := func(namespace, hostname, backend string) string {
		return tryDryRun(t, api, parse(t, route(namespace, hostname, backend)))
	}
	deadline := time.Now().Add(time.Minute)
	for refused("bare", "a.example.com", service) == "" {
		if time.Now().After(deadline) {
			t.Fatal("the policy does not come into force")
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, c := range []struct{ namespace, hostname, backend, fault string }{
		{"shop", "shop.example.com", service, ""},
		{"shop", "*.shop.example.com", service, ""},
		{"shop", "A.Shop.example.com", service, ""},
		{"shop", "myshop.example.com", service, "may claim shop.example.com and names below it"},
		{"shop", "*.example.com", service, "may claim shop.example.com and names below it"},
		{"shop", "*", service, "may claim shop.example.com and names below it"},
		{"shop", "shop.example.com", address, "name a Service instead of an address"},
		{"bare", "a.example.com", service, "it has no label sluice.dev/domain"},
		{"bare", "old.example.com", service, ""},
		{"free", "a.example.com", address, ""},
		// The release's own, where `helm test` makes its route.
		{"edge", "a.example.com", address, ""},
	} {
		fault := refused(c.namespace, c.hostname, c.backend)
		if (c.fault == "") != (fault == "") || !strings.Contains(fault, c.fault) {
			t.Errorf("%v: %q", c, fault)
		}
	}
}

// prepare makes what releases expect to be there: definitions of others, namespaces, classes.
func prepare(t *testing.T, api *server) {
	t.Helper()
	folders := []string{root + "/crds"}
	for _, script := range [][]string{{"kube.sh", "gateway"}, {"prometheus.sh", "operator"}} {
		out, fault, err := run(exec.Command(root+"/tests/env/"+script[0], script[1]))
		if err != nil {
			t.Fatal(fault)
		}
		folders = append(folders, strings.TrimSpace(out))
	}
	for _, folder := range folders {
		api.must(t, "apply", "--server-side", "--force-conflicts", "-f", folder)
	}
	api.must(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=300s")
	for _, namespace := range []string{"edge", "team-a", "team-b", "monitoring"} {
		ensureNamespace(t, api, namespace)
	}
	for _, level := range []string{"restricted", "privileged"} {
		ensureNamespace(t, api, level)
		api.must(t, "label", "namespace", level, "--overwrite", "pod-security.kubernetes.io/enforce="+level)
	}
	apply(t, api, `{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "sandboxed"}, "handler": "sandboxed"}`)
}

func ensureNamespace(t *testing.T, api *server, name string) {
	t.Helper()
	apply(t, api, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": %q}}`, name))
	ensureAccount(t, api, name, "default")
}

// Without controllers, nobody else makes them, and pods need one.
func ensureAccount(t *testing.T, api *server, namespace, name string) {
	t.Helper()
	apply(t, api, fmt.Sprintf(`{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": %q, "namespace": %q}}`, name, namespace))
}

func apply(t *testing.T, api *server, manifest string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.json")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	api.must(t, "apply", "--server-side", "--force-conflicts", "-f", path)
}

// pod is what the workload would make, in the namespace that enforces a level.
func pod(t *testing.T, api *server, objects []object, level string) object {
	t.Helper()
	template := workload(t, objects).at("spec", "template").(map[string]any)
	spec := object(template)
	account, ok := spec.at("spec", "serviceAccountName").(string)
	if !ok {
		account = "default"
	}
	ensureAccount(t, api, level, account)
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "sluice", "namespace": level},
		"spec":     template["spec"],
	}
}

// The first line of a file of values; those of deploy/ have the level in their namespace's labels.
func podSecurity(t *testing.T, file string) string {
	t.Helper()
	for _, level := range []string{"restricted", "privileged"} {
		for _, mark := range []string{"# pod-security: ", "pod-security.kubernetes.io/enforce: "} {
			if strings.Contains(read(t, file), mark+level) {
				return level
			}
		}
	}
	return "restricted"
}

func dryRun(t *testing.T, api *server, objects []object) {
	t.Helper()
	if fault := tryDryRun(t, api, objects); fault != "" {
		t.Error(fault)
	}
}

// tryDryRun has the API server check objects, and returns what it has against them, or warns of.
func tryDryRun(t *testing.T, api *server, objects []object) string {
	t.Helper()
	var text strings.Builder
	for _, one := range objects {
		document, err := yaml.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "---\n%s", document)
	}
	path := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, fault, _ := api.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", path)
	return fault
}
