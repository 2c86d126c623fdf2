{{/* Names, labels and the image. */}}

{{- define "sluice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is added to it: Services have at most 63 characters. */}}
{{- define "sluice.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "sluice.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sluice.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sluice.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* For objects that releases of several namespaces put into the same place. */}}
{{- define "sluice.uniqueName" -}}
{{- printf "%s-%s" (include "sluice.fullname" .) (include "sluice.namespace" .) -}}
{{- end -}}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sluice.hasAdminService" -}}
{{- if and .Values.admin.service.enabled (not (include "sluice.adminIsLocal" .)) }}true{{ end -}}
{{- end -}}

{{- define "sluice.adminServiceName" -}}
{{- printf "%s-admin" (include "sluice.fullname" .) -}}
{{- end -}}

{{- define "sluice.podsServiceName" -}}
{{- printf "%s-pods" (include "sluice.fullname" .) -}}
{{- end -}}

{{- define "sluice.serviceName" -}}
{{- default (include "sluice.fullname" .) .Values.service.nameOverride -}}
{{- end -}}

{{/* The name of one of additionalServices: (dict "context" $ "name" … "service" …) */}}
{{- define "sluice.additionalServiceName" -}}
{{- default (printf "%s-%s" (include "sluice.fullname" .context) .name) .service.nameOverride -}}
{{- end -}}

{{/* What Kubernetes sees as one: never changes over the life of a release. */}}
{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sluice.labels" -}}
{{- $own := include "sluice.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" (.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge $own .Values.commonLabels | toYaml -}}
{{- end -}}

{{/* Labels and annotations of an object: (dict "context" $ "labels" … "annotations" …). Annotations may
     be templates. */}}
{{- define "sluice.metadata" -}}
{{- $labels := merge (include "sluice.labels" .context | fromYaml) (default dict .labels) -}}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with merge (deepCopy (default dict .annotations)) .context.Values.commonAnnotations }}
annotations:
  {{- tpl (toYaml .) $.context | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "sluice.image" -}}
{{- $image := .Values.image -}}
{{- $registry := default $image.registry .Values.global.imageRegistry -}}
{{- $repository := ternary (printf "%s/%s" $registry $image.repository) $image.repository (not (empty $registry)) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion $image.tag | toString) -}}
{{- end -}}
{{- end -}}

{{- define "sluice.imagePullSecrets" -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
- name: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end }}
{{- end }}
{{- end -}}

{{/* Where `helm test` makes its route. */}}
{{- define "sluice.testNamespace" -}}
{{- $own := include "sluice.namespace" . -}}
{{- if or (not .Values.namespaces) (has $own .Values.namespaces) }}{{ $own }}{{ else }}{{ first .Values.namespaces }}{{ end -}}
{{- end -}}

{{/* Whether there is a test. The admission policy lets a route of the release's own namespace claim any
     name, and would refuse the test's elsewhere. */}}
{{- define "sluice.hasTest" -}}
{{- $refused := and .Values.admissionPolicy.enabled (ne (include "sluice.testNamespace" .) (include "sluice.namespace" .)) -}}
{{- if and .Values.tests.enabled (include "sluice.hasAdminService" .) (include "sluice.kubernetes" .) (not $refused) }}true{{ end -}}
{{- end -}}

{{/* The Lease: by default one for each release and class, as the program would name it. */}}
{{- define "sluice.lease" -}}
{{- $class := .Values.class | lower | replace "." "-" | replace "_" "-" | replace "/" "-" | trunc 150 -}}
{{- default (printf "%s-%s" (include "sluice.fullname" .) ($class | trimSuffix "-")) .Values.lease -}}
{{- end -}}
{{- define "sluice.leaseName" -}}
{{- include "sluice.lease" . | splitList "/" | last -}}
{{- end -}}
{{- define "sluice.leaseNamespace" -}}
{{- $parts := include "sluice.lease" . | splitList "/" -}}
{{- ternary (first $parts) (include "sluice.namespace" .) (eq (len $parts) 2) -}}
{{- end -}}

{{/* The Secret with the keys of session tickets, as NAMESPACE/NAME, if the pods share them. */}}
{{- define "sluice.ticketKeys" -}}
{{- $values := .Values -}}
{{- $default := printf "%s-ticket-keys" (include "sluice.fullname" .) -}}
{{- $name := ternary $default $values.ticketKeys (kindIs "invalid" $values.ticketKeys) -}}
{{- if and $values.terminate $values.resumption $name (include "sluice.kubernetes" .) -}}
{{- ternary $name (printf "%s/%s" (include "sluice.namespace" .) $name) (contains "/" $name) -}}
{{- end -}}
{{- end -}}
