{{/* What sluice is told, and what follows from it for the pod. */}}

{{- define "sluice.kubernetes" -}}
{{- if eq .Values.source "kubernetes" }}true{{ end -}}
{{- end -}}

{{/* Whether a pod may have to go before the next one can come: they would want the same port of a node, or a
     volume that one node at a time can have. */}}
{{- define "sluice.standsInTheWay" -}}
{{- $stands := or .Values.hostNetwork .Values.admin.hostPort -}}
{{- range .Values.listeners -}}
{{- $stands = or $stands .hostPort -}}
{{- end -}}
{{- $claim := .Values.state.persistence -}}
{{- if and (include "sluice.kubernetes" .) .Values.state.enabled $claim.enabled -}}
{{- $stands = or $stands (not (has "ReadWriteMany" $claim.accessModes)) -}}
{{- end -}}
{{- if $stands }}true{{ end -}}
{{- end -}}

{{/* The smallest port that is listened on. */}}
{{- define "sluice.lowestPort" -}}
{{- $lowest := int .Values.admin.port -}}
{{- range .Values.listeners -}}
{{- $lowest = min $lowest (int .containerPort) -}}
{{- end -}}
{{- $lowest -}}
{{- end -}}

{{/* Whether Prometheus is to find the pods. */}}
{{- define "sluice.isScraped" -}}
{{- $metrics := .Values.metrics -}}
{{- if or $metrics.annotations $metrics.podMonitor.enabled $metrics.serviceMonitor.enabled }}true{{ end -}}
{{- end -}}

{{/* Whether the admin port is left to the node. In the node's network it is a port of the node, so that
     anybody could reach it; it is opened there for those alone that somebody has asked for. */}}
{{- define "sluice.adminIsLocal" -}}
{{- $asked := or .Values.admin.address .Values.admin.hostPort (include "sluice.isScraped" .) -}}
{{- if and .Values.hostNetwork (not $asked) }}true{{ end -}}
{{- end -}}

{{/* The address of the admin port that is not every one, if there is such. */}}
{{- define "sluice.adminHost" -}}
{{- if include "sluice.adminIsLocal" . -}}
{{- ternary "127.0.0.1" "::1" (has "IPv4" .Values.addressFamilies) -}}
{{- else -}}
{{- default "" .Values.admin.address | trimPrefix "[" | trimSuffix "]" -}}
{{- end -}}
{{- end -}}

{{/* Who may reach the admin port, as a NetworkPolicy has it. */}}
{{- define "sluice.adminFrom" -}}
{{- if kindIs "slice" .Values.networkPolicy.adminFrom -}}
{{- toYaml .Values.networkPolicy.adminFrom -}}
{{- else -}}
- podSelector: {}
{{- if include "sluice.isScraped" . }}
- namespaceSelector: {}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: prometheus
{{- end }}
{{- end -}}
{{- end -}}

{{/* With IPv6, the socket takes IPv4 as well. */}}
{{- define "sluice.adminAddress" -}}
{{- $any := ternary "::" "0.0.0.0" (has "IPv6" .Values.addressFamilies) -}}
{{- $address := default $any (include "sluice.adminHost" .) -}}
{{- ternary (printf "[%s]" $address) $address (contains ":" $address) -}}:{{ .Values.admin.port }}
{{- end -}}

{{/* A duration such as 1m30s in milliseconds. */}}
{{- define "sluice.milliseconds" -}}
{{- $scale := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(h|ms|m|s)" . -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | atoi) (get $scale (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* The grace period that the drain needs, in seconds: the last resets, log lines, the Lease and the saving
     of the table take 20 at most, LAST_STEPS in src/app/drain.rs. */}}
{{- define "sluice.neededGrace" -}}
{{- $drain := add (include "sluice.milliseconds" .Values.drain.delay | int64) (include "sluice.milliseconds" .Values.drain.timeout | int64) -}}
{{- $sleep := dig "preStop" "sleep" "seconds" 0 .Values.lifecycle | int64 -}}
{{- add (div (add $drain 999) 1000) $sleep 20 -}}
{{- end -}}

{{- define "sluice.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- include "sluice.neededGrace" . -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* How many failures of the readiness probe the drain's delay has room for, and one more. A pod that ends is
     taken off the list of ready endpoints at once; if it is the last of its node, it goes on getting what
     load balancers still send there, but only as long as the probe does not fail. */}}
{{- define "sluice.unreadyAfter" -}}
{{- $period := default 10 .Values.readinessProbe.periodSeconds | int64 | mul 1000 -}}
{{- $delay := include "sluice.milliseconds" .Values.drain.delay | int64 -}}
{{- max 2 (add 1 (div (add $delay (sub $period 1)) $period)) -}}
{{- end -}}

{{/* The Services of this release that lead to its pods, as a list in JSON. */}}
{{- define "sluice.servicesOfPods" -}}
{{- $names := list -}}
{{- if .Values.service.enabled -}}
{{- $names = append $names (include "sluice.serviceName" .) -}}
{{- end -}}
{{- range $name, $service := .Values.additionalServices -}}
{{- if ne (toString $service.enabled) "false" -}}
{{- $names = append $names (include "sluice.additionalServiceName" (dict "context" $ "name" $name "service" $service)) -}}
{{- end -}}
{{- end -}}
{{- if include "sluice.hasAdminService" . -}}
{{- $names = append $names (include "sluice.adminServiceName" .) -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* Whether there is a Service for the sole purpose of telling sluice which pods are its own. */}}
{{- define "sluice.hasPodsService" -}}
{{- if and (include "sluice.kubernetes" .) (not (include "sluice.servicesOfPods" . | fromJsonArray)) }}true{{ end -}}
{{- end -}}

{{/* The Services of this release, which no route may lead to, as a list in JSON. */}}
{{- define "sluice.ownServices" -}}
{{- $names := include "sluice.servicesOfPods" . | fromJsonArray -}}
{{- if include "sluice.hasPodsService" . -}}
{{- $names = append $names (include "sluice.podsServiceName" .) -}}
{{- end -}}
{{- $own := list -}}
{{- range $names -}}
{{- $own = append $own (printf "%s/%s" (include "sluice.namespace" $) .) -}}
{{- end -}}
{{- toJson $own -}}
{{- end -}}

{{/* The configuration file. */}}
{{- define "sluice.config" -}}
{{- $values := .Values -}}
{{- $config := dict "source" $values.source "class" $values.class "requireClass" $values.requireClass -}}
{{- $config = merge $config (dict "admin" (include "sluice.adminAddress" .) "maxHello" ($values.maxHello | int) "maxHellos" ($values.maxHellos | int)) -}}
{{- $config = merge $config (pick $values "timeouts" "drain" "log" "accessLog" "hostnames" "healthChecks" "whenFull" | deepCopy) -}}
{{- if $values.accessLogStart }}{{ $_ := set $config "accessLogStart" true }}{{ end -}}
{{- $listen := list -}}
{{- range $name, $listener := $values.listeners -}}
{{- range $family := $values.addressFamilies -}}
{{- $any := ternary "0.0.0.0" "[::]" (eq $family "IPv4") -}}
{{- $one := dict "name" $name "address" (printf "%s:%d" $any (int $listener.containerPort)) -}}
{{- $one = merge $one (pick $listener "protocol" "alerts") -}}
{{- range $key := list "proxyProtocol" "access" "limits" -}}
{{- with get $listener $key }}{{ $_ := set $one $key . }}{{ end -}}
{{- end -}}
{{- $listen = append $listen $one -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "listen" $listen -}}
{{- $addresses := dict -}}
{{- range $key := list "allow" "deny" -}}
{{- with get $values.addresses $key }}{{ $_ := set $addresses $key . }}{{ end -}}
{{- end -}}
{{- with $addresses }}{{ $_ := set $config "addresses" . }}{{ end -}}
{{- range $key := list "policy" "policyCeiling" -}}
{{- with get $values $key }}{{ $_ := set $config $key . }}{{ end -}}
{{- end -}}
{{- with $values.dns.servers }}{{ $_ := set $config "dns" (dict "servers" .) }}{{ end -}}
{{- if $values.terminate }}{{ $config = merge $config (pick $values "terminate" "resumption") }}{{ end -}}
{{- with include "sluice.ticketKeys" . }}{{ $_ := set $config "ticketKeys" . }}{{ end -}}
{{- with $values.workers }}{{ $_ := set $config "workers" (int .) }}{{ end -}}
{{- if include "sluice.kubernetes" . -}}
{{- $_ := set $config "writeStatus" $values.writeStatus -}}
{{- with include "sluice.ownServices" . | fromJsonArray }}{{ $_ := set $config "ownServices" . }}{{ end -}}
{{- with $values.namespaces }}{{ $_ := set $config "namespaces" . }}{{ end -}}
{{- if $values.writeStatus -}}
{{- $config = merge $config (dict "lease" (include "sluice.lease" .) "leaseDuration" $values.leaseDuration) -}}
{{- end -}}
{{- if $values.state.enabled }}{{ $_ := set $config "stateDir" $values.state.mountPath }}{{ end -}}
{{- else -}}
{{- $_ := set $config "routes" (list "/etc/sluice/routes") -}}
{{- end -}}
{{- range $key, $value := $values.extraConfig -}}
{{- $own := get $config $key -}}
{{- if and (hasKey $config $key) (not (and (kindIs "map" $own) (kindIs "map" $value))) -}}
{{- fail (printf "\nextraConfig.%s: is there already; set it by the value that is named like it" $key) -}}
{{- else if hasKey $config $key -}}
{{- range $inner := keys $value | sortAlpha -}}
{{- if hasKey $own $inner -}}
{{- fail (printf "\nextraConfig.%s.%s: is there already; set it by the value that is named like it" $key $inner) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config $key (merge (deepCopy $own) $value) -}}
{{- else -}}
{{- $_ := set $config $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
