package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestLint(t *testing.T) {
	t.Parallel()
	for name, file := range matrix(t) {
		if out, fault, err := helm("lint", "--strict", chart, "--values", file); err != nil {
			t.Errorf("%s: %s%s", name, out, fault)
		}
	}
}

func TestChartIsOfTheProgramsVersion(t *testing.T) {
	t.Parallel()
	manifest := parse(t, read(t, chart+"/Chart.yaml"))[0]
	version := regexp.MustCompile(`(?m)^version = "(.*)"$`).FindStringSubmatch(read(t, root+"/Cargo.toml"))[1]
	if manifest.at("appVersion") != version {
		t.Errorf("the chart is for %v, the program is %s", manifest.at("appVersion"), version)
	}
}

func TestGeneratedFilesAreFresh(t *testing.T) {
	t.Parallel()
	out, fault, err := run(exec.Command(root+"/deploy/render.sh", "check"))
	if err != nil {
		t.Errorf("%s%s", out, fault)
	}
}

// What the chart makes of the definition is what the program prints, but for its metadata.
func TestDefinitionIsTheProgramsOwn(t *testing.T) {
	t.Parallel()
	var own object
	if err := yaml.Unmarshal([]byte(read(t, root+"/crds/sniroutes.sluice.dev.yaml")), &own); err != nil {
		t.Fatal(err)
	}
	crd := find(render(t), "CustomResourceDefinition", "sniroutes.sluice.dev")
	if !reflect.DeepEqual(crd.at("spec"), own.at("spec")) {
		t.Error("the definition differs from crds/")
	}
	if keep := crd.at("metadata", "annotations", "helm.sh/resource-policy"); keep != "keep" {
		t.Errorf("it would go with the release: %v", keep)
	}
	free := find(render(t, set("crds.keep=false")...), "CustomResourceDefinition", "sniroutes.sluice.dev")
	if free.at("metadata", "annotations") != nil {
		t.Error("crds.keep has no effect")
	}
}

// The program itself reads the configuration file of each installation.
func TestConfigurationIsValid(t *testing.T) {
	t.Parallel()
	routes := t.TempDir()
	for name, file := range matrix(t) {
		objects := render(t, "--values", file)
		config := configuration(t, objects)
		// The only path that has to be there.
		config = strings.ReplaceAll(config, "/etc/sluice/routes", routes)
		path := filepath.Join(t.TempDir(), "sluice.yaml")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		// The last setting is wrong: who complains of it alone has read all others.
		command := exec.Command(os.Getenv("SLUICE_BINARY"), "run", "--config", path, "--log-format=bogus")
		command.Env = []string{"KUBERNETES_SERVICE_HOST=192.0.2.1"}
		_, fault, _ := run(command)
		if !strings.Contains(fault, "--log-format") {
			t.Errorf("%s: %s\n%s", name, fault, config)
		}
	}
}

// No route may lead to a Service of the release, whichever there are. There is at least one, by which sluice
// knows its pods.
func TestEveryServiceIsToldToBeItsOwn(t *testing.T) {
	t.Parallel()
	for name, file := range matrix(t) {
		objects := render(t, "--values", file)
		config := configuration(t, objects)
		if !strings.Contains(config, "source: kubernetes\n") {
			continue
		}
		var settings struct{ OwnServices []string }
		if err := yaml.Unmarshal([]byte(config), &settings); err != nil {
			t.Fatal(err)
		}
		var services []string
		for _, one := range objects {
			if one.text("kind") == "Service" {
				services = append(services, one.text("metadata", "namespace")+"/"+one.text("metadata", "name"))
			}
		}
		slices.Sort(services)
		slices.Sort(settings.OwnServices)
		if len(services) == 0 || !slices.Equal(services, settings.OwnServices) {
			t.Errorf("%s: there are %v, and it is told of %v", name, services, settings.OwnServices)
		}
	}
}

func configuration(t *testing.T, objects []object) string {
	t.Helper()
	for _, one := range objects {
		if config, ok := one.at("data", "sluice.yaml").(string); ok {
			return config
		}
	}
	t.Fatal("there is no configuration")
	return ""
}

// The roles that deploy/ has for those who write their own manifests, and that the tests of the program
// run with.
func TestRightsAreThoseOfDeploy(t *testing.T) {
	t.Parallel()
	rules := func(files ...string) (all []any) {
		for _, file := range files {
			all = append(all, parse(t, read(t, root+"/deploy/"+file))[0].at("rules").([]any)...)
		}
		return all
	}
	objects := render(t)
	cluster := find(objects, "ClusterRole", "sluice-edge")
	if !reflect.DeepEqual(cluster.at("rules"), rules("clusterrole.yaml")) {
		t.Errorf("the ClusterRole differs from deploy/clusterrole.yaml: %s", cluster.text("rules"))
	}
	leader := find(objects, "Role", "sluice-edge-leader")
	if !reflect.DeepEqual(leader.at("rules"), rules("role.yaml")) {
		t.Errorf("the Role differs from deploy/role.yaml: %s", leader.text("rules"))
	}
	if count(objects, "ClusterRole") != 1 || count(objects, "Role") != 1 {
		t.Error("there are more roles")
	}

	reading := find(render(t, set("rbac.configMaps=true")...), "ClusterRole", "sluice-edge")
	if !reflect.DeepEqual(reading.at("rules"), rules("clusterrole.yaml", "clusterrole-configmaps.yaml")) {
		t.Errorf("the ClusterRole with ConfigMaps has other rights: %s", reading.text("rules"))
	}

	some := render(t, set("namespaces={a,b}", "rbac.configMaps=true")...)
	if count(some, "ClusterRole") != 0 || count(some, "ClusterRoleBinding") != 0 {
		t.Error("an installation for namespaces has rights for the cluster")
	}
	for _, one := range some {
		if namespace := one.at("metadata", "namespace"); one.at("kind") == "Role" && namespace != "edge" &&
			!reflect.DeepEqual(one.at("rules"), rules("clusterrole.yaml", "clusterrole-configmaps.yaml")) {
			t.Errorf("other rights in %v", namespace)
		}
	}
	if roles := count(some, "Role"); roles != 3 {
		t.Errorf("%d roles instead of 3", roles)
	}

	serving := render(t, set("terminate=true")...)
	cluster = find(serving, "ClusterRole", "sluice-edge")
	if all := rules("clusterrole.yaml", "clusterrole-terminate.yaml", "clusterrole-configmaps.yaml"); !reflect.DeepEqual(cluster.at("rules"), all) {
		t.Errorf("the ClusterRole of an installation that serves TLS has other rights: %s", cluster.text("rules"))
	}
	tickets := find(serving, "Role", "sluice-edge-ticket-keys")
	if !reflect.DeepEqual(tickets.at("rules"), rules("role-ticket-keys.yaml")) {
		t.Errorf("the Role of the ticket keys differs from deploy/role-ticket-keys.yaml: %s", tickets.text("rules"))
	}
	for values, namespace := range map[string]string{
		"terminate=true,namespaces={a}": "a", "terminate=true,namespaces={a},ticketKeys=": "a",
	} {
		for _, one := range render(t, set(strings.Split(values, ",")...)...) {
			secrets := strings.Contains(one.text("rules"), "secrets")
			if secrets && one.at("kind") == "ClusterRole" {
				t.Errorf("%s: Secrets of the whole cluster may be read", values)
			}
			if tickets := one.text("metadata", "name") == "sluice-edge-ticket-keys"; secrets && !tickets && one.text("metadata", "namespace") != namespace {
				t.Errorf("%s: Secrets of %s may be read", values, one.text("metadata", "namespace"))
			}
		}
	}
	for name, file := range matrix(t) {
		text := renderText(t, "--values", file)
		if !strings.Contains(text, "terminate: true") && strings.Contains(text, "[secrets]") {
			t.Errorf("%s: Secrets may be read though no route serves TLS", name)
		}
	}

	reader := renderText(t, "--values", "values/read-only.yaml")
	for _, verb := range []string{"patch", "create", "update"} {
		if strings.Contains(reader, "verbs: ["+verb) {
			t.Errorf("without statuses to write, it may %s", verb)
		}
	}
	if files := render(t, "--values", "values/files.yaml"); count(files, "ClusterRole")+count(files, "Role") != 0 {
		t.Error("with files there are roles")
	}
}

func count(objects []object, kind string) (found int) {
	for _, one := range objects {
		if one.at("kind") == kind {
			found++
		}
	}
	return found
}

// Every release has a Lease of its own, and may write no other.
// The keys of session tickets are sluice's: the chart makes the Secret, and Helm never touches what is in it.
func TestTicketKeys(t *testing.T) {
	t.Parallel()
	for values, name := range map[string]string{
		"terminate=true":                                        "edge/sluice-ticket-keys",
		"terminate=true,ticketKeys=own":                         "edge/own",
		"terminate=true,ticketKeys=other/own":                   "other/own",
		"terminate=true,writeStatus=false":                      "edge/sluice-ticket-keys",
		"terminate=true,ticketKeys=":                            "",
		"terminate=true,resumption=false":                       "",
		"terminate=false":                                       "",
		"terminate=true,source=files,files.existingConfigMap=r": "",
	} {
		objects := render(t, set(strings.Split(values, ",")...)...)
		var settings struct {
			Terminate, Resumption bool
			TicketKeys            string
		}
		if err := yaml.Unmarshal([]byte(configuration(t, objects)), &settings); err != nil {
			t.Fatal(err)
		}
		if settings.TicketKeys != name || settings.Terminate != strings.Contains(values, "terminate=true") {
			t.Errorf("%s: %+v", values, settings)
		}
		if off := strings.Contains(values, "resumption=false"); settings.Terminate && settings.Resumption == off {
			t.Errorf("%s: %+v", values, settings)
		}
		var secrets []string
		for _, one := range objects {
			if one.at("kind") != "Secret" {
				continue
			}
			secrets = append(secrets, one.text("metadata", "namespace")+"/"+one.text("metadata", "name"))
			if one.at("data") != nil || one.at("stringData") != nil {
				t.Errorf("%s: Helm would write what is in the Secret", values)
			}
		}
		if strings.Join(secrets, " ") != name {
			t.Errorf("%s: there are %v", values, secrets)
		}
	}
}

func TestLease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []string
		role   string
		lease  string
	}{
		{nil, "sluice-edge-leader", "sluice-sluice"},
		{set("class=internal"), "sluice-edge-leader", "sluice-internal"},
		{set("class=Internal/Edge_1.x"), "sluice-edge-leader", "sluice-internal-edge-1-x"},
		{set("fullnameOverride=second"), "second-edge-leader", "second-sluice"},
		{set("lease=other/mine"), "sluice-edge-leader", "other/mine"},
	} {
		objects := render(t, c.values...)
		if !strings.Contains(configuration(t, objects), "lease: "+c.lease+"\n") {
			t.Errorf("%q: the Lease is not %s", c.values, c.lease)
		}
		role := find(objects, "Role", c.role)
		namespace, name := "edge", c.lease
		if before, after, cut := strings.Cut(c.lease, "/"); cut {
			namespace, name = before, after
		}
		if role.at("metadata", "namespace") != namespace || role.at("rules", 1, "resourceNames", 0) != name {
			t.Errorf("%q: the Role is for %s", c.values, role.text("rules"))
		}
	}
}

func TestGracePeriodFollowsFromTheDrain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []string
		grace  string
	}{
		{nil, "55"},
		{set("drain.delay=0s", "drain.timeout=0s"), "20"},
		{set("drain.delay=500ms", "drain.timeout=1h1m1s1ms"), "3682"},
		{set("drain.delay=008s"), "58"},
		{set("lifecycle.preStop.sleep.seconds=7"), "62"},
		{set("terminationGracePeriodSeconds=55"), "55"},
		{set("terminationGracePeriodSeconds=3600"), "3600"},
	} {
		pod := workload(t, render(t, c.values...))
		if grace := pod.text("spec", "template", "spec", "terminationGracePeriodSeconds"); grace != c.grace {
			t.Errorf("%q: %s instead of %s", c.values, grace, c.grace)
		}
	}
	// What comes after the drain is what the program says of itself.
	program := regexp.MustCompile(`LAST_STEPS: Duration = Duration::from_secs\((\d+)\)`).FindStringSubmatch(read(t, root+"/src/app/drain.rs"))
	pod := workload(t, render(t, set("drain.delay=0s", "drain.timeout=0s")...))
	if grace := pod.text("spec", "template", "spec", "terminationGracePeriodSeconds"); program == nil || grace != program[1] {
		t.Errorf("the program takes %v seconds after its drain, and gets %s", program, grace)
	}
}

// One value, and the place where it has to arrive.
func TestValuesArrive(t *testing.T) {
	t.Parallel()
	pod := []any{"spec", "template", "spec"}
	container := append(pod, "containers", 0)
	in := func(path []any, more ...any) []any { return append(append([]any{}, path...), more...) }
	for _, c := range []struct {
		values []string
		kind   string
		name   string
		path   []any
		want   string
	}{
		{nil, "Deployment", "sluice", in(container, "image"), "sluice:0.1.0"},
		{set("image.registry=r.example.com/x", "image.tag=v1"), "Deployment", "sluice", in(container, "image"), "r.example.com/x/sluice:v1"},
		{set("global.imageRegistry=g", "image.registry=r"), "Deployment", "sluice", in(container, "image"), "g/sluice:0.1.0"},
		{set("image.tag=v1", "image.digest=sha256:"+strings.Repeat("a", 64)), "Deployment", "sluice", in(container, "image"), "sluice@sha256:" + strings.Repeat("a", 64)},
		{nil, "Deployment", "sluice", in(pod, "securityContext", "sysctls"), "null"},
		{set("listeners.https.containerPort=443"), "Deployment", "sluice", in(pod, "securityContext", "sysctls", 0, "value"), `"443"`},
		{set("listeners.https.containerPort=443"), "Deployment", "sluice", in(container, "securityContext", "capabilities", "add"), "null"},
		{set("listeners.https.containerPort=443", "hostNetwork=true"), "Deployment", "sluice", in(container, "securityContext", "capabilities", "add"), "- NET_BIND_SERVICE"},
		{set("listeners.https.containerPort=443", "hostNetwork=true"), "Deployment", "sluice", in(pod, "securityContext", "sysctls"), "null"},
		{set("hostNetwork=true"), "Deployment", "sluice", in(pod, "dnsPolicy"), "ClusterFirstWithHostNet"},
		{nil, "Deployment", "sluice", []any{"spec", "strategy", "rollingUpdate"}, "maxSurge: 1\nmaxUnavailable: 0"},
		{set("listeners.https.hostPort=443"), "Deployment", "sluice", []any{"spec", "strategy", "rollingUpdate"}, "maxSurge: 0\nmaxUnavailable: 1"},
		{set("admin.hostPort=9901"), "Deployment", "sluice", []any{"spec", "strategy", "rollingUpdate"}, "maxSurge: 0\nmaxUnavailable: 1"},
		{set("admin.hostPort=19901", "admin.hostIP=192.0.2.1"), "Deployment", "sluice", in(container, "ports", 1), "containerPort: 9901\nhostIP: 192.0.2.1\nhostPort: 19901\nname: admin\nprotocol: TCP"},
		{set("kind=DaemonSet", "hostNetwork=true"), "DaemonSet", "sluice", []any{"spec", "updateStrategy", "rollingUpdate"}, "maxSurge: 0\nmaxUnavailable: 1"},
		{set("kind=DaemonSet"), "DaemonSet", "sluice", in(pod, "topologySpreadConstraints"), "null"},
		{set("autoscaling.enabled=true"), "Deployment", "sluice", []any{"spec", "replicas"}, "null"},
		{set("replicas=0"), "Deployment", "sluice", []any{"spec", "replicas"}, "0"},
		{set("replicas=null"), "Deployment", "sluice", []any{"spec", "replicas"}, "null"},
		{set("state.persistence.enabled=true"), "Deployment", "sluice", []any{"spec", "strategy", "rollingUpdate"}, "maxSurge: 0\nmaxUnavailable: 1"},
		{set("state.persistence.enabled=true", "state.persistence.accessModes={ReadWriteMany}"), "Deployment", "sluice", []any{"spec", "strategy", "rollingUpdate"}, "maxSurge: 1\nmaxUnavailable: 0"},
		{set("state.persistence.enabled=true", "state.persistence.subPath=edge"), "Deployment", "sluice", in(container, "volumeMounts", 1, "subPath"), "edge"},
		{nil, "Deployment", "sluice", in(container, "readinessProbe", "failureThreshold"), "2"},
		{set("drain.delay=60s"), "Deployment", "sluice", in(container, "readinessProbe", "failureThreshold"), "13"},
		{set("drain.delay=61s", "readinessProbe.periodSeconds=10"), "Deployment", "sluice", in(container, "readinessProbe", "failureThreshold"), "8"},
		{set("drain.delay=60s", "readinessProbe.failureThreshold=1"), "Deployment", "sluice", in(container, "readinessProbe", "failureThreshold"), "1"},
		{set("podAnnotations.a=x-{{ .Release.Name }}"), "Deployment", "sluice", []any{"spec", "template", "metadata", "annotations", "a"}, "x-sluice"},
		{set("serviceAccount.annotations.a=x-{{ .Release.Namespace }}"), "ServiceAccount", "sluice", []any{"metadata", "annotations", "a"}, "x-edge"},
		{set("extraVolumes=- name: {{ .Release.Name }}-more"), "Deployment", "sluice", in(pod, "volumes", 2, "name"), "sluice-more"},
		{set("extraVolumeMounts=- name: {{ .Release.Name }}-more"), "Deployment", "sluice", in(container, "volumeMounts", 2, "name"), "sluice-more"},
		{set("env=- name: A"), "Deployment", "sluice", in(container, "env", 3, "name"), "A"},
		{nil, "Deployment", "sluice", in(container, "env", 1), "name: SLUICE_NODE\nvalueFrom:\n  fieldRef:\n    fieldPath: spec.nodeName"},
		{nil, "Deployment", "sluice", in(container, "env", 2), "name: SLUICE_ZONE\nvalueFrom:\n  fieldRef:\n    fieldPath: metadata.labels['topology.kubernetes.io/zone']"},
		{set("revisionHistoryLimit=0"), "Deployment", "sluice", []any{"spec", "revisionHistoryLimit"}, "0"},
		{set("startupProbe=null"), "Deployment", "sluice", in(container, "startupProbe"), "null"},
		{nil, "Deployment", "sluice", in(container, "startupProbe", "httpGet"), "path: /livez\nport: admin"},
		{nil, "Deployment", "sluice", in(container, "readinessProbe", "httpGet"), "path: /readyz\nport: admin"},
		{set("hostNetwork=true", "admin.address=127.0.0.1", "admin.service.enabled=false"), "Deployment", "sluice", in(container, "readinessProbe", "httpGet", "host"), "127.0.0.1"},
		{set("readinessProbe.tcpSocket.port=admin"), "Deployment", "sluice", in(container, "readinessProbe", "httpGet"), "null"},
		{set("metrics.annotations=true"), "Deployment", "sluice", []any{"spec", "template", "metadata", "annotations", "prometheus.io/port"}, `"9901"`},
		{nil, "Deployment", "sluice", in(pod, "topologySpreadConstraints", 0, "labelSelector", "matchLabels", "app.kubernetes.io/instance"), "sluice"},
		{nil, "Pod", "sluice-test", []any{"spec", "containers", 0, "args", 1}, "--admin=http://$(SLUICE_ADMIN_SERVICE_HOST):9901"},
		{set("fullnameOverride=a-b"), "Pod", "a-b-test", []any{"spec", "containers", 0, "args", 1}, "--admin=http://$(A_B_ADMIN_SERVICE_HOST):9901"},
		{set("admin.service.clusterIP=None"), "Pod", "sluice-test", []any{"spec", "containers", 0, "args", 1}, "--admin=http://sluice-admin.edge.svc:9901"},
		{nil, "Service", "sluice", []any{"spec", "externalTrafficPolicy"}, "Local"},
		{set("service.type=NodePort"), "Service", "sluice", []any{"spec", "externalTrafficPolicy"}, "null"},
		{set("service.externalTrafficPolicy=Cluster"), "Service", "sluice", []any{"spec", "externalTrafficPolicy"}, "Cluster"},
		{set("service.allocateLoadBalancerNodePorts=false"), "Service", "sluice", []any{"spec", "allocateLoadBalancerNodePorts"}, "false"},
		{set("listeners.more.containerPort=9000", "listeners.https.expose=false"), "Service", "sluice", []any{"spec", "ports"}, "- name: more\n  port: 9000\n  protocol: TCP\n  targetPort: more"},
		{set("service.clusterIPs={10.96.0.9,fd00:96::9}"), "Service", "sluice", []any{"spec", "clusterIPs"}, "- 10.96.0.9\n- fd00:96::9"},
		{[]string{"--values", "values/sidecar.yaml"}, "Service", "sluice", []any{"spec", "ports", 0, "targetPort"}, "8443"},
		{[]string{"--values", "values/sidecar.yaml"}, "Service", "sluice-admin", []any{"spec", "ports", 0, "targetPort"}, "9901"},
		{set("networkPolicy.enabled=true"), "NetworkPolicy", "sluice", []any{"spec", "ingress", 0, "ports", 0, "port"}, "8443"},
		{set("networkPolicy.enabled=true"), "NetworkPolicy", "sluice", []any{"spec", "ingress", 1, "ports", 0, "port"}, "9901"},
		{set("networkPolicy.enabled=true"), "NetworkPolicy", "sluice", []any{"spec", "ingress", 1, "from"}, "- podSelector: {}"},
		{set("networkPolicy.enabled=true", "admin.hostPort=9901", "networkPolicy.adminFrom[0].ipBlock.cidr=192.0.2.0/24"), "NetworkPolicy", "sluice", []any{"spec", "ingress", 1, "from"}, "- ipBlock:\n    cidr: 192.0.2.0/24"},
		{set("admissionPolicy.enabled=true", "admissionPolicy.exemptNamespaces={a,edge}"), "ValidatingAdmissionPolicyBinding", "sluice-edge", []any{"spec", "matchResources", "namespaceSelector", "matchExpressions", 0, "values"}, "- a\n- edge"},
		{set("namespaces={a,edge}"), "SniRoute", "sluice-test", []any{"metadata", "namespace"}, "edge"},
		{set("namespaces={a,b}"), "SniRoute", "sluice-test", []any{"metadata", "namespace"}, "a"},
		{set("namespaces={a,b}", "admissionPolicy.enabled=true"), "SniRoute", "sluice-test", []any{"metadata", "namespace"}, "null"},
		{set("networkPolicy.enabled=true", "metrics.annotations=true"), "NetworkPolicy", "sluice", []any{"spec", "ingress", 1, "from"}, "- podSelector: {}\n" + prometheus},
		{set("networkPolicy.enabled=true", "metrics.podMonitor.enabled=true"), "NetworkPolicy", "sluice", []any{"spec", "ingress", 1, "from", 1}, "namespaceSelector: {}\npodSelector:\n  matchLabels:\n    app.kubernetes.io/name: prometheus"},
		{set("networkPolicy.enabled=true", "networkPolicy.adminFrom[0].ipBlock.cidr=10.0.0.0/8"), "NetworkPolicy", "sluice", []any{"spec", "ingress", 1, "from"}, "- ipBlock:\n    cidr: 10.0.0.0/8"},
		{[]string{"--set-json", `networkPolicy={"enabled":true,"adminFrom":[]}`}, "NetworkPolicy", "sluice", []any{"spec", "ingress", 1}, "null"},
		{set("networkPolicy.enabled=true", "networkPolicy.egress.enabled=true"), "NetworkPolicy", "sluice", []any{"spec", "egress", 1, "to"}, "null"},
		{set("networkPolicy.enabled=true", "networkPolicy.egress.enabled=true", "networkPolicy.egress.apiServer[0].ipBlock.cidr=192.0.2.1/32"), "NetworkPolicy", "sluice", []any{"spec", "egress", 1, "to"}, "- ipBlock:\n    cidr: 192.0.2.1/32"},
		{set("metrics.podMonitor.enabled=true", "metrics.podMonitor.apiVersion=azmonitoring.coreos.com/v1"), "PodMonitor", "sluice", []any{"apiVersion"}, "azmonitoring.coreos.com/v1"},
		{set("metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.apiVersion=azmonitoring.coreos.com/v1"), "ServiceMonitor", "sluice", []any{"apiVersion"}, "azmonitoring.coreos.com/v1"},
		{set("metrics.prometheusRule.enabled=true", "metrics.prometheusRule.apiVersion=example.com/v1"), "PrometheusRule", "sluice", []any{"apiVersion"}, "example.com/v1"},
		{set("service.externalIPs={192.0.2.11}"), "Service", "sluice", []any{"spec", "externalIPs"}, "- 192.0.2.11"},
		{set("additionalServices.in.listeners={https}", "listeners.more.containerPort=9000"), "Service", "sluice-in", []any{"spec", "ports", 1}, "null"},
		{set("podDisruptionBudget.minAvailable=0"), "PodDisruptionBudget", "sluice", []any{"spec", "minAvailable"}, "0"},
		{set("metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.namespace=m"), "ServiceMonitor", "sluice", []any{"spec", "namespaceSelector", "matchNames", 0}, "edge"},
	} {
		found := find(render(t, c.values...), c.kind, c.name)
		if got := found.text(c.path...); got != c.want {
			t.Errorf("%q: %v is %q, not %q", c.values, c.path, got, c.want)
		}
	}
}

const prometheus = "- namespaceSelector: {}\n  podSelector:\n    matchLabels:\n      app.kubernetes.io/name: prometheus"

// In the network of the node, the admin port is the node's alone until somebody asks for more.
func TestAdminPortInTheNodesNetwork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values  []string
		address string
		host    string
	}{
		{set(), "127.0.0.1:9901", "127.0.0.1"},
		{set("addressFamilies={IPv6}"), "'[::1]:9901'", "::1"},
		{set("admin.port=9000"), "127.0.0.1:9000", "127.0.0.1"},
		{set("metrics.annotations=true"), "'[::]:9901'", ""},
		{set("metrics.podMonitor.enabled=true"), "'[::]:9901'", ""},
		{set("metrics.serviceMonitor.enabled=true", "addressFamilies={IPv4}"), "0.0.0.0:9901", ""},
		{set("admin.hostPort=9901"), "'[::]:9901'", ""},
		{set("admin.address=192.0.2.1"), "192.0.2.1:9901", "192.0.2.1"},
	} {
		objects := render(t, append(c.values, set("hostNetwork=true")...)...)
		if config := configuration(t, objects); !strings.Contains(config, "admin: "+c.address+"\n") {
			t.Errorf("%q: the address is not %s:\n%s", c.values, c.address, config)
		}
		container := []any{"spec", "template", "spec", "containers", 0}
		for _, probe := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
			want := c.host
			if want == "" {
				want = "null"
			}
			if got := workload(t, objects).text(append(container, probe, "httpGet", "host")...); strings.Trim(got, `"'`) != want {
				t.Errorf("%q: %s asks %s, not %s", c.values, probe, got, want)
			}
		}
		// Without a way to it, nobody is shown one.
		local := strings.HasPrefix(c.address, "127.") || strings.Contains(c.address, "::1")
		for kind, name := range map[string]string{"Service": "sluice-admin", "Pod": "sluice-test"} {
			if there := find(objects, kind, name) != nil; there == local {
				t.Errorf("%q: %s %s is there: %v", c.values, kind, name, there)
			}
		}
	}
	inPod := render(t)
	if config := configuration(t, inPod); !strings.Contains(config, "admin: '[::]:9901'\n") || find(inPod, "Service", "sluice-admin") == nil {
		t.Errorf("in the network of a pod, the admin port is not open:\n%s", config)
	}
}

// A changed configuration makes new pods; changed routes in a ConfigMap do not.
func TestConfigurationRollsOut(t *testing.T) {
	t.Parallel()
	sum := func(args ...string) any {
		return workload(t, render(t, args...)).at("spec", "template", "metadata", "annotations", "checksum/config")
	}
	if sum() == sum(set("timeouts.idle=2h")...) {
		t.Error("a changed configuration changes no pod")
	}
	files := []string{"--values", "values/files.yaml"}
	if sum(files...) != sum(append(files, set("files.routes.text\\.yaml=x")...)...) {
		t.Error("changed routes restart pods")
	}
}

// A sidecar starts before the app and ends after it: it is an init container that goes on.
func TestSidecar(t *testing.T) {
	t.Parallel()
	pod := object(workload(t, render(t, "--values", "values/sidecar.yaml")).at("spec", "template", "spec").(map[string]any))
	for _, c := range []struct {
		path []any
		want string
	}{
		{[]any{"initContainers", 0, "name"}, "first"},
		{[]any{"initContainers", 0, "image"}, "sluice-first:1"},
		{[]any{"initContainers", 1, "name"}, "sluice"},
		{[]any{"initContainers", 1, "restartPolicy"}, "Always"},
		{[]any{"initContainers", 1, "startupProbe", "httpGet", "path"}, "/readyz"},
		{[]any{"containers", 0, "name"}, "app"},
		{[]any{"containers", 1}, "null"},
		{[]any{"automountServiceAccountToken"}, "false"},
		{[]any{"volumes", 1, "configMap", "name"}, "routes"},
	} {
		if got := pod.text(c.path...); got != c.want {
			t.Errorf("%v is %q, not %q", c.path, got, c.want)
		}
	}
}

// Nothing but the pods has the labels that Services and budgets select by.
func TestTestPodGetsNoTraffic(t *testing.T) {
	t.Parallel()
	objects := render(t)
	selector := find(objects, "Service", "sluice").at("spec", "selector").(map[string]any)
	labels := find(objects, "Pod", "sluice-test").at("metadata", "labels").(map[string]any)
	if labels["app.kubernetes.io/name"] == selector["app.kubernetes.io/name"] {
		t.Error("the Service selects the test's pod")
	}
}

// Releases of one name in two namespaces have no object in common but the definition.
func TestReleasesDoNotClash(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, namespace := range []string{"a", "b"} {
		args := []string{"--namespace", namespace}
		for _, one := range render(t, append(args, set("crds.enabled=false", "rbac.aggregateTo={view}")...)...) {
			if one.at("metadata", "namespace") != nil {
				continue
			}
			if names[one.String()] {
				t.Errorf("both have %s", one)
			}
			names[one.String()] = true
		}
	}
	if len(names) != 6 {
		t.Errorf("%d objects of the cluster", len(names))
	}
}

// The notes have a route to begin with, and the way to it, for each kind of installation.
func TestNotes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ values, want string }{
		{"service.type=LoadBalancer", "jsonpath='{.status.loadBalancer"},
		{"service.type=NodePort", "curl --connect-to ::$NODE:$PORT https://"},
		{"service.type=ClusterIP", "port-forward service/sluice 8443:443"},
		{"service.enabled=false", "There is no Service"},
		{"listeners.https.hostPort=444", "port 444 of the nodes"},
		{"hostNetwork=true,metrics.annotations=true", "port 8443 of the nodes"},
		{"requireClass=true", "className: sluice"},
		{"namespaces={team}", "namespace: team }"},
	} {
		out, fault, err := helm("install", "sluice", chart, "--namespace", "edge", "--dry-run=client", "--set", c.values)
		_, notes, _ := strings.Cut(out, "NOTES:")
		for _, part := range []string{c.want, "kubectl apply -f -", "hostnames: [my-app.example.com]", "helm test sluice -n edge"} {
			if err != nil || !strings.Contains(notes, part) {
				t.Errorf("%s: %q is not in %s%s", c.values, part, notes, fault)
			}
		}
	}
}

// What else has to be done is said, and what does not do what it seems to.
func TestNotesSayWhatElseIsNeeded(t *testing.T) {
	t.Parallel()
	const label, egress, ports = "kubectl label namespace", "WARNING: networkPolicy.egress bounds nothing", "WARNING: ports 443, 6443 of every address"
	const bound = "networkPolicy.enabled=true,networkPolicy.egress.enabled=true"
	const backends, apiServer = ",networkPolicy.egress.backends[0].to[0].podSelector.a=b", ",networkPolicy.egress.apiServer[0].ipBlock.cidr=192.0.2.1/32"
	for values, want := range map[string]string{
		"admissionPolicy.enabled=true": label + " default sluice.dev/domain=example.com",
		"admissionPolicy.enabled=true,namespaces={team},admissionPolicy.domainLabel=a/b": label + " team a/b=example.com",
		"admissionPolicy.enabled=true,namespaces={edge}":                                 "",
		"networkPolicy.enabled=true":                                                     "",
		bound:                                                                            egress,
		bound + apiServer:                                                                egress,
		bound + backends:                                                                 ports,
		bound + backends + apiServer:                                                     "",
	} {
		out, fault, err := helm("install", "sluice", chart, "--namespace", "edge", "--dry-run=client", "--set", values)
		_, notes, _ := strings.Cut(out, "NOTES:")
		for _, part := range []string{label, egress, ports} {
			if expected := strings.HasPrefix(want, part); err != nil || strings.Contains(notes, part) != expected {
				t.Errorf("%s: %q is to be there: %v, in %s%s", values, part, expected, notes, fault)
			}
		}
		if !strings.Contains(notes, want) {
			t.Errorf("%s: %q is not in %s", values, want, notes)
		}
	}
}

// A budget that lets no pod go is told of: it would hold up whoever drains a node.
func TestNotesWarnOfABudgetThatBlocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values string
		warns  bool
	}{
		{"replicas=1", false},
		{"podDisruptionBudget.minAvailable=1", false},
		{"podDisruptionBudget.minAvailable=50%", false},
		{"podDisruptionBudget.minAvailable=1,replicas=1", true},
		{"podDisruptionBudget.minAvailable=100%", true},
		{"podDisruptionBudget.maxUnavailable=0", true},
		{"podDisruptionBudget.maxUnavailable=0,podDisruptionBudget.enabled=false", false},
		{"podDisruptionBudget.minAvailable=3,autoscaling.enabled=true,autoscaling.minReplicas=3", true},
		{"podDisruptionBudget.minAvailable=3,autoscaling.enabled=true,autoscaling.minReplicas=4", false},
	} {
		out, fault, err := helm("install", "sluice", chart, "--namespace", "edge", "--dry-run=client", "--set", c.values)
		if warns := strings.Contains(out, "WARNING: the PodDisruptionBudget"); err != nil || warns != c.warns {
			t.Errorf("%s: warns: %v %s", c.values, warns, fault)
		}
	}
}

// What a release puts into the ConfigMap of routes is served.
func TestRoutesOfFilesAreValid(t *testing.T) {
	t.Parallel()
	for name, file := range matrix(t) {
		for _, one := range render(t, "--values", file) {
			routes, _ := one.at("data").(map[string]any)
			if !strings.HasSuffix(one.String(), "-routes") {
				continue
			}
			folder := t.TempDir()
			for key, text := range routes {
				if err := os.WriteFile(filepath.Join(folder, key), []byte(text.(string)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if out, fault, err := run(exec.Command(os.Getenv("SLUICE_BINARY"), "check", folder)); err != nil {
				t.Errorf("%s: %s%s", name, out, fault)
			}
		}
	}
}

// Every sample is right but for the Services and Secrets, which are the reader's.
func TestSamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(root + "/deploy/samples/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, file := range files {
		out, fault, _ := run(exec.Command(os.Getenv("SLUICE_BINARY"), "check", file))
		for _, line := range strings.Split(strings.TrimSpace(out+fault), "\n") {
			if !strings.Contains(line, "there is no Service") && !strings.HasSuffix(line, " does not exist") {
				t.Error(line)
			}
		}
	}
}
