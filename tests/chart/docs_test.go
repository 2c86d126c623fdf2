package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
}

// What marks a manifest that the API server does not take: one of a definition that it does not have, or with an addition
// for files.
var foreign = []string{"traefik.io/", "cert-manager.io/", "externaldns.k8s.io/", "dataFiles:"}

func manifestsAreTaken(t *testing.T, api *server) {
	manifests, _, _ := documented(t)
	var objects []object
	namespaces := map[string]bool{}
	for _, one := range manifests {
		if slices.ContainsFunc(foreign, func(mark string) bool { return strings.Contains(one.text, mark) }) {
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
