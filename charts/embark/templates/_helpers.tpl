{{/* The name of everything: the release's, with the chart's unless that is in it already. */}}
{{- define "embark.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "embark.selector" -}}
app.kubernetes.io/name: embark-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "embark.labels" -}}
{{ include "embark.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "embark.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "embark.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* An image of the values `image`, by digest when there is one, of the chart `root` */}}
{{- define "embark.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The Service of the webhook, the Secret of its certificates and what else is of the operator's namespace. */}}
{{- define "embark.webhook" -}}
{{- include "embark.fullname" . }}-webhook
{{- end -}}

{{/* What is of the whole cluster, where a release of another namespace may have the same name. */}}
{{- define "embark.clusterwide" -}}
{{- printf "%s-%s" (include "embark.fullname" .) .Release.Namespace | trunc 200 | trimSuffix "-" -}}
{{- end -}}

{{/* What the webhook has beyond the operator's namespace. */}}
{{- define "embark.injection" -}}
{{- include "embark.clusterwide" . }}-injection
{{- end -}}

{{/* What the operator may do where models are. */}}
{{- define "embark.rules" -}}
# What it is told.
- apiGroups: [embark.dev]
  resources: [embeddingmodels]
  {{- /* A model that was applied together with a pod is asked for by its name. */}}
  verbs: [{{ if .Values.webhook.enabled }}get, {{ end }}list, watch]
- apiGroups: [embark.dev]
  resources: [embeddingmodels/status]
  verbs: [patch]
# What it makes. To apply an object that is not there yet takes create and patch.
- apiGroups: [""]
  resources: [configmaps, serviceaccounts]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [""]
  resources: [services]
  verbs: [create, get, list, patch, watch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, get, list, patch, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, get, list, patch, watch]
# Where that kind exists.
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [create, get, list, patch, watch]
# What it looks at: pods for their words, revisions for the contracts that they still need. A pod is patched so that the
# kubelet looks at a policy that has changed.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch, watch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
# What it tells.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
