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
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "embark.labels" -}}
{{ include "embark.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
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

{{/* What the webhook has beyond the operator's namespace, where another release may have the same. */}}
{{- define "embark.injection" -}}
{{- printf "%s-%s" (include "embark.fullname" .) .Release.Namespace | trunc 200 | trimSuffix "-" }}-injection
{{- end -}}
