// Package chart tests the Helm chart: what it renders, what it refuses, its alerts, and that a real
// API server takes all of it. `make test-chart` runs it, with
//
//	HELM_BIN            the folder of helm and helm-docs (tests/env/helm.sh)
//	KUBEBUILDER_ASSETS  the folder of etcd, kube-apiserver and kubectl (tests/env/kube.sh)
//	SLUICE_BINARY       the program
package chart

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	root  = "../.."
	chart = root + "/charts/sluice"
)

func TestMain(m *testing.M) {
	for _, name := range []string{"HELM_BIN", "KUBEBUILDER_ASSETS", "SLUICE_BINARY"} {
		if os.Getenv(name) == "" {
			fmt.Fprintf(os.Stderr, "%s is not set: run make test-chart\n", name)
			os.Exit(2)
		}
	}
	code := m.Run()
	stopServer()
	os.Exit(code)
}

// object is one object of Kubernetes.
type object map[string]any

func (o object) String() string {
	return fmt.Sprintf("%s %s", o.at("kind"), o.at("metadata", "name"))
}

// at is what is found along a path of keys (string) and indexes (int), or nil.
func (o object) at(path ...any) any {
	var here any = map[string]any(o)
	for _, step := range path {
		switch step := step.(type) {
		case string:
			fields, _ := here.(map[string]any)
			here = fields[step]
		case int:
			items, _ := here.([]any)
			if step >= len(items) {
				return nil
			}
			here = items[step]
		}
	}
	return here
}

// text is the same, as YAML on one line.
func (o object) text(path ...any) string {
	found, err := yaml.Marshal(o.at(path...))
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(found))
}

// helm runs helm.
func helm(args ...string) (stdout, stderr string, err error) {
	return run(exec.Command(filepath.Join(os.Getenv("HELM_BIN"), "helm"), args...))
}

func run(command *exec.Cmd) (stdout, stderr string, err error) {
	var out, fault bytes.Buffer
	command.Stdout, command.Stderr = &out, &fault
	err = command.Run()
	return out.String(), fault.String(), err
}

// render is what a release `sluice` in the namespace `edge` consists of.
func render(t *testing.T, args ...string) []object {
	t.Helper()
	return parse(t, renderText(t, args...))
}

// rendered is what was rendered before, by the arguments: helm takes a while.
var rendered sync.Map

func renderText(t *testing.T, args ...string) string {
	t.Helper()
	key := strings.Join(args, " ")
	if text, ok := rendered.Load(key); ok {
		return text.(string)
	}
	out, fault, err := helm(append([]string{"template", "sluice", chart, "--namespace", "edge"}, args...)...)
	if err != nil {
		t.Fatalf("helm template %q: %s", args, fault)
	}
	rendered.Store(key, out)
	return out
}

// set is --set for each of the pairs.
func set(pairs ...string) (args []string) {
	for _, pair := range pairs {
		args = append(args, "--set", pair)
	}
	return args
}

func parse(t *testing.T, text string) (objects []object) {
	t.Helper()
	for _, document := range strings.Split("\n"+text, "\n---") {
		var one object
		if err := yaml.Unmarshal([]byte(document), &one); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if one != nil {
			objects = append(objects, one)
		}
	}
	return objects
}

// find is the object of that kind and name; nil if there is none.
func find(objects []object, kind, name string) object {
	for _, one := range objects {
		if one.at("kind") == kind && one.at("metadata", "name") == name {
			return one
		}
	}
	return nil
}

// workload is the Deployment or DaemonSet.
func workload(t *testing.T, objects []object) object {
	t.Helper()
	for _, one := range objects {
		if kind := one.at("kind"); kind == "Deployment" || kind == "DaemonSet" {
			return one
		}
	}
	t.Fatal("there is no workload")
	return nil
}

// matrix are the files of values that everything is tested with, by name.
func matrix(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"values/*.yaml", root + "/deploy/values/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no values in %s: %v", pattern, err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".yaml")
			if strings.Contains(file, "deploy") {
				name = "deploy/" + name
			}
			all[name] = file
		}
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
