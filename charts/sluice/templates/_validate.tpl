{{/* What the schema cannot refuse, because several values have to go together. */}}
{{- define "sluice.validate" -}}
{{- $values := .Values -}}
{{- $faults := list -}}

{{- $needed := include "sluice.neededGrace" . | int64 -}}
{{- if and (not (kindIs "invalid" $values.terminationGracePeriodSeconds)) (lt (int64 $values.terminationGracePeriodSeconds) $needed) -}}
{{- $faults = append $faults (printf "terminationGracePeriodSeconds: %v is too short: drain.delay (%s), drain.timeout (%s), a preStop sleep and 20s to end take %d; leave it out, or shorten the drain" $values.terminationGracePeriodSeconds $values.drain.delay $values.drain.timeout $needed) -}}
{{- end -}}

{{- if and $values.accessLogStart (ne $values.accessLog "all") -}}
{{- $faults = append $faults "accessLogStart: adds lines to accessLog: all; set that, or leave accessLogStart out" -}}
{{- end -}}

{{- if and $values.autoscaling.enabled (eq $values.kind "DaemonSet") -}}
{{- $faults = append $faults "autoscaling.enabled: a DaemonSet has one pod on each node; leave it out, or set kind: Deployment" -}}
{{- end -}}
{{- if gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas) -}}
{{- $faults = append $faults "autoscaling.minReplicas: is more than maxReplicas" -}}
{{- end -}}

{{- if $values.autoscaling.enabled -}}
{{- $scaling := $values.autoscaling -}}
{{- if not (or $scaling.targetCPUUtilizationPercentage $scaling.targetMemoryUtilizationPercentage $scaling.metrics) -}}
{{- $faults = append $faults "autoscaling: by what? Give targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" -}}
{{- end -}}
{{- range $resource, $target := dict "cpu" $scaling.targetCPUUtilizationPercentage "memory" $scaling.targetMemoryUtilizationPercentage -}}
{{- $given := or (dig "requests" $resource "" $values.resources) (dig "limits" $resource "" $values.resources) -}}
{{- if and $target (not $given) -}}
{{- $faults = append $faults (printf "autoscaling: a percentage of which %s? Set resources.requests.%s" $resource $resource) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if not $values.listeners -}}
{{- $faults = append $faults "listeners: there is none; clients need at least one" -}}
{{- end -}}
{{- $ports := dict (toString $values.admin.port) "admin.port" -}}
{{- $exposed := dict -}}
{{- range $name, $listener := $values.listeners -}}
{{- $place := printf "listeners.%s" $name -}}
{{- if eq $name "admin" -}}
{{- $faults = append $faults "listeners.admin: the admin port has that name; take another" -}}
{{- end -}}
{{- $port := toString $listener.containerPort -}}
{{- if hasKey $ports $port -}}
{{- $faults = append $faults (printf "%s.containerPort: %s is the port of %s, too" $place $port (get $ports $port)) -}}
{{- end -}}
{{- $_ := set $ports $port $place -}}
{{- if dig "expose" true $listener -}}
{{- $port := toString (default $listener.containerPort $listener.port) -}}
{{- if hasKey $exposed $port -}}
{{- $faults = append $faults (printf "%s.port: %s is the port of %s, too; set expose: false on one" $place $port (get $exposed $port)) -}}
{{- end -}}
{{- $_ := set $exposed $port $place -}}
{{- end -}}
{{- if and $listener.alerts (eq $listener.protocol "tcp") -}}
{{- $faults = append $faults (printf "%s.alerts: alerts are TLS alerts; they need protocol: tls" $place) -}}
{{- end -}}
{{- with $listener.proxyProtocol -}}
{{- if not .from -}}
{{- $faults = append $faults (printf "%s.proxyProtocol.from: names no network" $place) -}}
{{- end -}}
{{- if and (eq (default "Require" .trusted) "Accept") (eq $listener.protocol "tcp") -}}
{{- $faults = append $faults (printf "%s.proxyProtocol.trusted: Accept needs protocol: tls" $place) -}}
{{- end -}}
{{- end -}}
{{- if and $values.hostNetwork $listener.hostPort (ne (int $listener.hostPort) (int $listener.containerPort)) -}}
{{- $faults = append $faults (printf "%s.hostPort: with hostNetwork the containerPort is the node's; leave hostPort out" $place) -}}
{{- end -}}
{{- end -}}

{{- range list "connect" "idle" -}}
{{- if dig "timeouts" . "" $values.policy -}}
{{- $faults = append $faults (printf "policy.timeouts.%s: set it by the value timeouts.%s" . .) -}}
{{- end -}}
{{- end -}}

{{- if and $values.hostNetwork $values.admin.hostPort (ne (int $values.admin.hostPort) (int $values.admin.port)) -}}
{{- $faults = append $faults "admin.hostPort: with hostNetwork admin.port is the node's; leave hostPort out" -}}
{{- end -}}

{{- if and $values.service.enabled (not $exposed) -}}
{{- $faults = append $faults "service.enabled: no listener is exposed; set it to false, or expose: true on a listener" -}}
{{- end -}}
{{- range $name, $service := merge (dict "" $values.service) $values.additionalServices -}}
{{- $place := ternary "service" (printf "additionalServices.%s" $name) (eq $name "") -}}
{{- if eq $name "admin" -}}
{{- $faults = append $faults "additionalServices.admin: the Service of the admin port has that name; take another" -}}
{{- end -}}
{{- if and (ne (default "ClusterIP" $service.type) "LoadBalancer") (or $name $values.service.enabled) -}}
{{- range list "loadBalancerClass" "loadBalancerIP" "loadBalancerSourceRanges" "allocateLoadBalancerNodePorts" -}}
{{- $value := get $service . -}}
{{- if or (kindIs "bool" $value) (not (empty $value)) -}}
{{- $faults = append $faults (printf "%s.%s: is for type: LoadBalancer" $place .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $listener := $service.listeners -}}
{{- if not (hasKey $values.listeners $listener) -}}
{{- $faults = append $faults (printf "%s.listeners: there is no listener %q" $place $listener) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $address := default "" $values.admin.address | trimPrefix "[" | trimSuffix "]" -}}
{{- if or (hasPrefix "127." $address) (eq "::1" $address) -}}
{{- if not $values.hostNetwork -}}
{{- $faults = append $faults (printf "admin.address: probes cannot reach %s in a pod; leave it out" $address) -}}
{{- end -}}
{{- range $name, $wanted := dict "admin.service.enabled" $values.admin.service.enabled "metrics.podMonitor.enabled" $values.metrics.podMonitor.enabled "metrics.annotations" $values.metrics.annotations -}}
{{- if $wanted -}}
{{- $faults = append $faults (printf "%s: nobody but the node can reach the admin port at admin.address %s; set it to false" $name $address) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if include "sluice.kubernetes" . -}}
{{- if or $values.files.routes $values.files.existingConfigMap -}}
{{- $faults = append $faults "files: routes come from the API server; set source: files, or leave them out" -}}
{{- end -}}
{{- if $values.sidecar -}}
{{- $faults = append $faults "sidecar: takes its routes from a ConfigMap; set source: files" -}}
{{- end -}}
{{- else if not (or $values.files.routes $values.files.existingConfigMap) -}}
{{- $faults = append $faults "files: there are no routes; give files.routes or files.existingConfigMap" -}}
{{- else if and $values.files.routes $values.files.existingConfigMap -}}
{{- $faults = append $faults "files: give either routes or existingConfigMap" -}}
{{- end -}}
{{- if and $values.sidecar (not $values.extraContainers) -}}
{{- $faults = append $faults "sidecar: beside what? The app goes into extraContainers" -}}
{{- end -}}

{{- if and $values.state.hostPath.path $values.state.persistence.enabled -}}
{{- $faults = append $faults "state: give either hostPath.path or persistence.enabled" -}}
{{- end -}}
{{- if and $values.metrics.serviceMonitor.enabled (not $values.admin.service.enabled) -}}
{{- $faults = append $faults "metrics.serviceMonitor.enabled: wants admin.service.enabled; use metrics.podMonitor without it" -}}
{{- end -}}
{{- if and $values.metrics.serviceMonitor.enabled $values.metrics.podMonitor.enabled -}}
{{- $faults = append $faults "metrics: every pod would be scraped twice; give either serviceMonitor or podMonitor" -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $values.hostNetwork -}}
{{- $faults = append $faults "networkPolicy.enabled: has no effect with hostNetwork; leave one of them out" -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $values.admin.hostPort (empty $values.networkPolicy.adminFrom) -}}
{{- $faults = append $faults "networkPolicy.adminFrom: names nobody outside of the cluster, whom admin.hostPort is for; give their networks, such as {ipBlock: {cidr: 192.0.2.0/24}}, or leave admin.hostPort out" -}}
{{- end -}}
{{- if and $values.rbac.aggregateTo $values.namespaces -}}
{{- $faults = append $faults "rbac.aggregateTo: makes ClusterRoles, which an installation for namespaces has none of; leave it out" -}}
{{- end -}}

{{- with $faults -}}
{{- fail (printf "\n%s" (join "\n" .)) -}}
{{- end -}}
{{- end -}}
