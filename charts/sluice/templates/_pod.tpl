{{/* The pod, of whatever kind of workload. */}}
{{- define "sluice.podTemplate" -}}
metadata:
  labels:
    {{- $labels := merge (include "sluice.selectorLabels" . | fromYaml) .Values.podLabels .Values.commonLabels }}
    {{- toYaml $labels | nindent 4 }}
  annotations:
    {{- $annotations := dict "checksum/config" (include "sluice.config" . | sha256sum) }}
    {{- if .Values.metrics.annotations }}
    {{- $_ := set $annotations "prometheus.io/scrape" "true" }}
    {{- $_ := set $annotations "prometheus.io/port" (toString .Values.admin.port) }}
    {{- $_ := set $annotations "prometheus.io/path" "/metrics" }}
    {{- end }}
    {{- tpl (merge (deepCopy .Values.podAnnotations) $annotations .Values.commonAnnotations | toYaml) . | nindent 4 }}
spec:
  {{- if include "sluice.kubernetes" . }}
  serviceAccountName: {{ include "sluice.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.automountServiceAccountToken }}
  {{- else }}
  {{- if or .Values.serviceAccount.create .Values.serviceAccount.name }}
  serviceAccountName: {{ include "sluice.serviceAccountName" . }}
  {{- end }}
  automountServiceAccountToken: false
  {{- end }}
  enableServiceLinks: {{ .Values.enableServiceLinks }}
  terminationGracePeriodSeconds: {{ include "sluice.grace" . }}
  {{- with include "sluice.imagePullSecrets" . | trim }}
  imagePullSecrets:
    {{- . | nindent 4 }}
  {{- end }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  {{- end }}
  {{- if kindIs "bool" .Values.hostUsers }}
  hostUsers: {{ .Values.hostUsers }}
  {{- end }}
  {{- with default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) .Values.dnsPolicy }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.shareProcessNamespace }}
  shareProcessNamespace: true
  {{- end }}
  {{- range $field := list "priorityClassName" "runtimeClassName" "schedulerName" }}
  {{- with get $.Values $field }}
  {{ $field }}: {{ . }}
  {{- end }}
  {{- end }}
  securityContext:
    {{- include "sluice.podSecurityContext" . | nindent 4 }}
  {{- $init := include "sluice.listOrTemplate" (dict "context" . "value" .Values.initContainers) }}
  {{- if or .Values.sidecar $init }}
  initContainers:
    {{- with $init }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if .Values.sidecar }}
    {{- include "sluice.container" . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    {{- if not .Values.sidecar }}
    {{- include "sluice.container" . | nindent 4 }}
    {{- end }}
    {{- with include "sluice.listOrTemplate" (dict "context" . "value" .Values.extraContainers) }}
    {{- . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "sluice.volumes" . | nindent 4 }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- include "sluice.affinity" $ | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and .Values.topologySpreadConstraints (eq .Values.kind "Deployment") }}
  topologySpreadConstraints:
    {{- include "sluice.topologySpreadConstraints" . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "sluice.container" -}}
- name: sluice
  image: {{ include "sluice.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if .Values.sidecar }}
  restartPolicy: Always
  {{- end }}
  args:
    - run
    - --config=/etc/sluice/config/sluice.yaml
    {{- with .Values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: SLUICE_NODE
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
    {{- /* Kubernetes copies the label from the node to the pod. Without it, the variable is empty. */}}
    - name: SLUICE_ZONE
      valueFrom:
        fieldRef:
          fieldPath: metadata.labels['topology.kubernetes.io/zone']
    {{- with include "sluice.listOrTemplate" (dict "context" . "value" .Values.env) }}
    {{- . | nindent 4 }}
    {{- end }}
  {{- with .Values.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    {{- range $name, $listener := .Values.listeners }}
    - name: {{ $name }}
      containerPort: {{ int $listener.containerPort }}
      protocol: TCP
      {{- with $listener.hostPort }}
      hostPort: {{ int . }}
      {{- end }}
      {{- with $listener.hostIP }}
      hostIP: {{ . | quote }}
      {{- end }}
    {{- end }}
    - name: admin
      containerPort: {{ .Values.admin.port }}
      protocol: TCP
      {{- with .Values.admin.hostPort }}
      hostPort: {{ int . }}
      {{- end }}
      {{- with .Values.admin.hostIP }}
      hostIP: {{ . | quote }}
      {{- end }}
  {{- range $probe, $path := dict "livenessProbe" "/livez" "readinessProbe" "/readyz" "startupProbe" (ternary "/readyz" "/livez" .Values.sidecar) }}
  {{- $given := get $.Values $probe }}
  {{- if kindIs "map" $given }}
  {{ $probe }}:
    {{- if not (or $given.httpGet $given.exec $given.tcpSocket $given.grpc) }}
    httpGet:
      path: {{ $path }}
      port: admin
      {{- with include "sluice.adminHost" $ }}
      {{- if $.Values.hostNetwork }}
      host: {{ . | quote }}
      {{- end }}
      {{- end }}
    {{- end }}
    {{- if and (eq $probe "readinessProbe") (kindIs "invalid" $given.failureThreshold) }}
    failureThreshold: {{ include "sluice.unreadyAfter" $ }}
    {{- end }}
    {{- with $given }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- end }}
  {{- with .Values.lifecycle }}
  lifecycle:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "sluice.securityContext" . | nindent 4 }}
  volumeMounts:
    - name: config
      mountPath: /etc/sluice/config
      readOnly: true
    {{- if not (include "sluice.kubernetes" .) }}
    - name: routes
      mountPath: /etc/sluice/routes
      readOnly: true
    {{- else if .Values.state.enabled }}
    - name: state
      mountPath: {{ .Values.state.mountPath }}
      {{- if and .Values.state.persistence.enabled .Values.state.persistence.subPath }}
      subPath: {{ .Values.state.persistence.subPath }}
      {{- end }}
    {{- end }}
    {{- with include "sluice.listOrTemplate" (dict "context" . "value" .Values.extraVolumeMounts) }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "sluice.volumes" -}}
- name: config
  configMap:
    name: {{ include "sluice.fullname" . }}
{{- if not (include "sluice.kubernetes" .) }}
- name: routes
  configMap:
    name: {{ default (printf "%s-routes" (include "sluice.fullname" .)) .Values.files.existingConfigMap }}
{{- else if .Values.state.enabled }}
- name: state
  {{- if .Values.state.hostPath.path }}
  hostPath:
    path: {{ .Values.state.hostPath.path }}
    type: {{ .Values.state.hostPath.type | quote }}
  {{- else if .Values.state.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ default (include "sluice.fullname" .) .Values.state.persistence.existingClaim }}
  {{- else }}
  emptyDir: {{ toJson .Values.state.emptyDir }}
  {{- end }}
{{- end }}
{{- with include "sluice.listOrTemplate" (dict "context" . "value" .Values.extraVolumes) }}
{{ . }}
{{- end }}
{{- end -}}

{{/* A port below 1024 wants a sysctl, which Pod Security "restricted" allows: a capability would do
     nothing for a user that is not root. Nodes keep theirs to themselves, so pods of their network
     get the capability, for those that are root. */}}
{{- define "sluice.podSecurityContext" -}}
{{- $context := deepCopy .Values.podSecurityContext -}}
{{- $lowest := include "sluice.lowestPort" . | int -}}
{{- $name := "net.ipv4.ip_unprivileged_port_start" -}}
{{- $given := false -}}
{{- range $context.sysctls }}{{ if eq .name $name }}{{ $given = true }}{{ end }}{{ end -}}
{{- if and (lt $lowest 1024) (not .Values.hostNetwork) (not $given) -}}
{{- $sysctl := dict "name" $name "value" (toString $lowest) -}}
{{- $_ := set $context "sysctls" (append (default list $context.sysctls) $sysctl) -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{- define "sluice.securityContext" -}}
{{- $context := deepCopy .Values.securityContext -}}
{{- $capability := "NET_BIND_SERVICE" -}}
{{- if and (lt (include "sluice.lowestPort" . | int) 1024) .Values.hostNetwork -}}
{{- $capabilities := default dict $context.capabilities -}}
{{- if not (has $capability (default list $capabilities.add)) -}}
{{- $_ := set $capabilities "add" (append (default list $capabilities.add) $capability) -}}
{{- end -}}
{{- $_ := set $context "capabilities" $capabilities -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* A value that is a list, or a template of one. */}}
{{- define "sluice.listOrTemplate" -}}
{{- if kindIs "string" .value -}}
{{- tpl .value .context | fromYamlArray | toYaml -}}
{{- else if .value -}}
{{- toYaml .value -}}
{{- end -}}
{{- end -}}

{{- define "sluice.topologySpreadConstraints" -}}
{{- $all := list -}}
{{- range .Values.topologySpreadConstraints -}}
{{- $one := deepCopy . -}}
{{- if not $one.labelSelector -}}
{{- $_ := set $one "labelSelector" (dict "matchLabels" (include "sluice.selectorLabels" $ | fromYaml)) -}}
{{- if not $one.matchLabelKeys }}{{ $_ := set $one "matchLabelKeys" (list "pod-template-hash") }}{{ end -}}
{{- end -}}
{{- $all = append $all $one -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{- define "sluice.affinity" -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- $selector := dict "matchLabels" (include "sluice.selectorLabels" . | fromYaml) -}}
{{- range $kind := list "podAffinity" "podAntiAffinity" -}}
{{- $terms := default dict (get $affinity $kind) -}}
{{- range default list $terms.requiredDuringSchedulingIgnoredDuringExecution -}}
{{- if not .labelSelector }}{{ $_ := set . "labelSelector" $selector }}{{ end -}}
{{- end -}}
{{- range default list $terms.preferredDuringSchedulingIgnoredDuringExecution -}}
{{- if not .podAffinityTerm.labelSelector }}{{ $_ := set .podAffinityTerm "labelSelector" $selector }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}
