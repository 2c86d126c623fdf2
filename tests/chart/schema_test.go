package chart

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What does not fit is refused, with a message that names the place and says what would.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const files = "source=files,files.existingConfigMap=r"
	for values, message := range map[string]string{
		"fullnameOverride=a.b":                 "'/fullnameOverride': 'a.b' does not match pattern",
		"kind=StatefulSet":                     "'/kind': value must be one of 'Deployment', 'DaemonSet'",
		"replica=3":                            "additional properties 'replica' not allowed",
		"replicas=two":                         "'/replicas': got string, want null or integer",
		"listeners.https.porta=3":              "'/listeners/https': additional properties 'porta' not allowed",
		"listeners.Https.containerPort=8444":   "'/listeners': additional properties 'Https' not allowed",
		"listeners.more.port=1":                "'/listeners/more': missing property 'containerPort'",
		"listeners.https.containerPort=70000":  "'/listeners/https/containerPort': maximum: got 70,000, want 65,535",
		"listeners.https.protocol=udp":         "value must be one of 'tls', 'tcp'",
		"drain.timeout=30":                     "'/drain/timeout': got number, want string",
		"timeouts.idle=1d":                     "'/timeouts/idle': '1d' does not match pattern",
		"service.type=ExternalName":            "value must be one of 'LoadBalancer', 'NodePort', 'ClusterIP'",
		"service.externalTrafficPolicy=local":  "value must be one of 'Cluster', 'Local'",
		"additionalServices.in.spec=1":         "'/additionalServices/in': additional properties 'spec' not allowed",
		"namespaces={Team}":                    "'/namespaces/0': 'Team' does not match pattern",
		"image.digest=0123":                    "'/image/digest': '0123' does not match pattern",
		"terminate=yes":                        "'/terminate': got string, want boolean",
		"ticketKeys=a/b/c":                     "'/ticketKeys': 'a/b/c' does not match pattern",
		"accessLog=some":                       "value must be one of 'off', 'errors', 'all'",
		"workers=0":                            "'/workers': minimum: got 0, want 1",
		"podAnnotations.a=1":                   "'/podAnnotations/a': got number, want string",
		"files.routes.readme=x":                "'/files/routes': additional properties 'readme' not allowed",
		"metrics.prometheusRule.alerts.foo=1":  "'/metrics/prometheusRule/alerts': additional properties 'foo' not allowed",
		"metrics.serviceMonitor.interval=fast": "'fast' does not match pattern",

		"terminationGracePeriodSeconds=54":                                                               "terminationGracePeriodSeconds: 54 is too short: drain.delay (5s), drain.timeout (30s), a preStop sleep and 20s to end take 55",
		"accessLog=errors,accessLogStart=true":                                                           "accessLogStart: adds lines to accessLog: all",
		"kind=DaemonSet,autoscaling.enabled=true":                                                        "autoscaling.enabled: a DaemonSet has one pod on each node",
		"admin.address=127.0.0.1":                                                                        "admin.address: probes cannot reach 127.0.0.1 in a pod",
		"autoscaling.minReplicas=20":                                                                     "autoscaling.minReplicas: is more than maxReplicas",
		"autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=null":                       "autoscaling: by what?",
		"autoscaling.enabled=true,resources.requests=null":                                               "autoscaling: a percentage of which cpu? Set resources.requests.cpu",
		"hostNetwork=true,admin.address=127.0.0.1":                                                       "admin.service.enabled: nobody but the node can reach the admin port at admin.address 127.0.0.1",
		"hostNetwork=true,admin.address=::1,admin.service.enabled=false,metrics.podMonitor.enabled=true": "metrics.podMonitor.enabled: nobody but the node",
		"metrics.podMonitor.apiVersion=v1":                                                               "'/metrics/podMonitor/apiVersion': 'v1' does not match pattern",
		"listeners.https=null":                                                                           "listeners: there is none",
		"listeners.more.containerPort=8443":                                                              "listeners.more.containerPort: 8443 is the port of listeners.https, too",
		"listeners.more.containerPort=9901":                                                              "listeners.more.containerPort: 9901 is the port of admin.port, too",
		"listeners.more.containerPort=443":                                                               "listeners.more.port: 443 is the port of listeners.https, too",
		"listeners.https.expose=false":                                                                   "service.enabled: no listener is exposed",
		"listeners.admin.containerPort=1":                                                                "listeners.admin: the admin port has that name",
		"listeners.https.alerts=true,listeners.https.protocol=tcp":                                       "listeners.https.alerts: alerts are TLS alerts; they need protocol: tls",
		"hostNetwork=true,listeners.https.hostPort=443":                                                  "listeners.https.hostPort: with hostNetwork the containerPort is the node's",
		"hostNetwork=true,admin.hostPort=9902":                                                           "admin.hostPort: with hostNetwork admin.port is the node's",
		"admin.hostPort=9901,networkPolicy.enabled=true":                                                 "networkPolicy.adminFrom: names nobody outside of the cluster, whom admin.hostPort is for",
		"hostNetwork=true,networkPolicy.enabled=true":                                                    "networkPolicy.enabled: has no effect with hostNetwork",
		"service.type=NodePort,service.loadBalancerClass=x":                                              "service.loadBalancerClass: is for type: LoadBalancer",
		"additionalServices.in.loadBalancerIP=192.0.2.1":                                                 "additionalServices.in.loadBalancerIP: is for type: LoadBalancer",
		"additionalServices.in.listeners={smtp}":                                                         `additionalServices.in.listeners: there is no listener "smtp"`,
		"additionalServices.admin.type=ClusterIP":                                                        "additionalServices.admin: the Service of the admin port has that name",
		"source=files":                                                        "files: there are no routes",
		"files.existingConfigMap=r":                                           "files: routes come from the API server",
		files + ",files.routes.a\\.yaml=x":                                    "files: give either routes or existingConfigMap",
		files + ",sidecar=true":                                               "sidecar: beside what?",
		"sidecar=true,extraContainers[0].name=app":                            "sidecar: takes its routes from a ConfigMap",
		"state.hostPath.path=/x,state.persistence.enabled=true":               "state: give either hostPath.path or persistence.enabled",
		"metrics.serviceMonitor.enabled=true,admin.service.enabled=false":     "metrics.serviceMonitor.enabled: wants admin.service.enabled",
		"metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true": "metrics: every pod would be scraped twice",
		"namespaces={a},rbac.aggregateTo={view}":                              "rbac.aggregateTo: makes ClusterRoles",
		"policy.timeouts.idle=1h":                                             "policy.timeouts.idle: set it by the value timeouts.idle",
		"listeners.https.proxyProtocol.trusted=Require":                       "listeners.https.proxyProtocol.from: names no network",
		"listeners.https.protocol=tcp,listeners.https.proxyProtocol.from={10.0.0.0/8},listeners.https.proxyProtocol.trusted=Accept": "listeners.https.proxyProtocol.trusted: Accept needs protocol: tls",
		"extraConfig.class=x":        "extraConfig.class: is there already",
		"extraConfig.drain.delay=1s": "extraConfig.drain.delay: is there already",
	} {
		_, fault, err := helm("template", "sluice", chart, "--set", values)
		if err == nil {
			t.Errorf("%s: is taken", values)
		} else if !strings.Contains(fault, message) {
			t.Errorf("%s: %q is not in %s", values, message, fault)
		}
	}
}

// A setting that the chart does not know yet can be given all the same.
func TestExtraConfigIsAdded(t *testing.T) {
	t.Parallel()
	config := configuration(t, render(t, set("extraConfig.drain.newer=1s", "extraConfig.newest=true")...))
	for _, part := range []string{"drain:\n  delay: 5s\n  newer: 1s\n", "newest: true\n"} {
		if !strings.Contains(config, part) {
			t.Errorf("%q is not in\n%s", part, config)
		}
	}
}

type schema struct {
	Ref                  string             `json:"$ref"`
	Defs                 map[string]*schema `json:"$defs"`
	Type                 any                `json:"type"`
	Properties           map[string]*schema `json:"properties"`
	PatternProperties    map[string]*schema `json:"patternProperties"`
	AdditionalProperties any                `json:"additionalProperties"`
}

// Every value has its default in values.yaml, and every key there is in the schema: so none is
// undocumented, and none is refused.
func TestSchemaAndValuesAgree(t *testing.T) {
	t.Parallel()
	var top schema
	if err := json.Unmarshal([]byte(read(t, chart+"/values.schema.json")), &top); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, chart+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	compare(t, &top, &top, values, "")
}

func compare(t *testing.T, top, here *schema, value any, path string) {
	if name, ok := strings.CutPrefix(here.Ref, "#/$defs/"); ok {
		here = top.Defs[name]
	}
	fields, _ := value.(map[string]any)
	if here.Properties == nil && here.PatternProperties == nil {
		return
	}
	if path != ".global" && here.AdditionalProperties != false {
		t.Errorf("%s takes anything", path)
	}
	for _, of := range here.PatternProperties {
		for name := range fields {
			compare(t, top, of, fields[name], path+"."+name)
		}
	}
	if here.PatternProperties != nil {
		return
	}
	// Those of Kubernetes, which are empty by default.
	if slices.Contains([]string{".strategy", ".updateStrategy", ".lifecycle", ".affinity", ".resources"}, path) {
		return
	}
	if known, given := names(here.Properties), names(fields); !slices.Equal(known, given) {
		t.Errorf("%s: the schema has %v, values.yaml %v", path, known, given)
	}
	for name, of := range here.Properties {
		compare(t, top, of, fields[name], path+"."+name)
	}
}

func names[V any](of map[string]V) []string {
	return slices.Sorted(maps.Keys(of))
}

// Each value, or what it is a part of, has a line of documentation; and the table has it.
func TestEveryValueIsDocumented(t *testing.T) {
	t.Parallel()
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, chart+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, line := range strings.Split(read(t, chart+"/README.md"), "\n") {
		cells := strings.Split(line, " | ")
		if len(cells) == 4 && strings.TrimSpace(strings.TrimSuffix(cells[3], "|")) != "" {
			documented[strings.TrimPrefix(cells[0], "| ")] = true
		}
	}
	var walk func(fields map[string]any, path string)
	walk = func(fields map[string]any, path string) {
		for name, value := range fields {
			place := strings.TrimPrefix(path+"."+name, ".")
			inner, ok := value.(map[string]any)
			if !documented[place] && (!ok || len(inner) == 0) {
				t.Errorf("%s is not documented", place)
			} else if !documented[place] {
				walk(inner, place)
			}
		}
	}
	walk(values, "")
}
