{{/* A port of the pod: by name, but for a sidecar, whose names older Kubernetes does not know. */}}
{{- define "sluice.targetPort" -}}
{{- ternary (int .port) .name .context.Values.sidecar -}}
{{- end -}}

{{/* A Service for listeners: (dict "context" $ "name" … "service" …) */}}
{{- define "sluice.service" -}}
{{- $service := .service -}}
{{- $type := default "ClusterIP" $service.type -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ include "sluice.namespace" .context }}
  {{- include "sluice.metadata" (dict "context" .context "labels" (merge (dict "app.kubernetes.io/component" "listeners") (default dict $service.labels)) "annotations" $service.annotations) | nindent 2 }}
spec:
  type: {{ $type }}
  {{- with $service.clusterIP }}
  clusterIP: {{ . | quote }}
  {{- end }}
  {{- if has $type (list "LoadBalancer" "NodePort") }}
  {{- with default (ternary "Local" "" (eq $type "LoadBalancer")) $service.externalTrafficPolicy }}
  externalTrafficPolicy: {{ . }}
  {{- end }}
  {{- with $service.healthCheckNodePort }}
  healthCheckNodePort: {{ . }}
  {{- end }}
  {{- end }}
  {{- range $field := list "internalTrafficPolicy" "trafficDistribution" "loadBalancerClass" "loadBalancerIP" "ipFamilyPolicy" "sessionAffinity" }}
  {{- with get $service $field }}
  {{ $field }}: {{ . }}
  {{- end }}
  {{- end }}
  {{- range $field := list "loadBalancerSourceRanges" "ipFamilies" "clusterIPs" "externalIPs" "sessionAffinityConfig" }}
  {{- with get $service $field }}
  {{ $field }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- if kindIs "bool" $service.allocateLoadBalancerNodePorts }}
  allocateLoadBalancerNodePorts: {{ $service.allocateLoadBalancerNodePorts }}
  {{- end }}
  {{- if $service.publishNotReadyAddresses }}
  publishNotReadyAddresses: true
  {{- end }}
  selector:
    {{- include "sluice.selectorLabels" .context | nindent 4 }}
  ports:
    {{- range $name, $listener := .context.Values.listeners }}
    {{- $has := dig "expose" true $listener }}
    {{- with $service.listeners }}{{ $has = has $name . }}{{ end }}
    {{- if $has }}
    - name: {{ $name }}
      port: {{ default $listener.containerPort $listener.port | int }}
      targetPort: {{ include "sluice.targetPort" (dict "context" $.context "name" $name "port" $listener.containerPort) }}
      protocol: TCP
      {{- with $listener.appProtocol }}
      appProtocol: {{ . }}
      {{- end }}
      {{- if and $listener.nodePort (ne $type "ClusterIP") $.own }}
      nodePort: {{ int $listener.nodePort }}
      {{- end }}
    {{- end }}
    {{- end }}
{{- end -}}
