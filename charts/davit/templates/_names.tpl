{{/* Names and labels. */}}

{{- define "davit.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component. (dict "root" $ "component" "gateway") */}}
{{- define "davit.selector" -}}
app.kubernetes.io/name: davit
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "davit.labels" -}}
{{ include "davit.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "davit.functions.namespace" -}}
{{- default .Release.Namespace .Values.functions.namespace -}}
{{- end -}}

{{/* The ConfigMap that owns every pod of functions and builds. */}}
{{- define "davit.owner" -}}
{{ include "davit.fullname" . }}-instances
{{- end -}}

{{- define "davit.masterKey.secret" -}}
{{- default (printf "%s-master-key" (include "davit.fullname" .)) .Values.masterKey.existingSecret -}}
{{- end -}}

{{- define "davit.metrics.secret" -}}
{{- default (printf "%s-metrics-token" (include "davit.fullname" .)) .Values.metrics.token.existingSecret -}}
{{- end -}}

{{- define "davit.adminToken.secret" -}}
{{- default (printf "%s-admin-token" (include "davit.fullname" .)) .Values.adminToken.existingSecret -}}
{{- end -}}

{{/* Where the gateway is called, as clients are told. */}}
{{- define "davit.publicUrl" -}}
{{- $gateway := .Values.gateway -}}
{{- $tls := include "davit.gateway.tlsSecret" . -}}
{{- if $gateway.publicUrl -}}
{{- $gateway.publicUrl -}}
{{- else if and $gateway.ingress.enabled $gateway.ingress.hosts -}}
{{- printf "%s://%s" (ternary "https" "http" (ne "" (include "davit.ingress.tlsSecret" (dict "root" . "of" $gateway "component" "gateway")))) (first $gateway.ingress.hosts) -}}
{{- else if and $gateway.httpRoute.enabled $gateway.httpRoute.hostnames -}}
{{- printf "https://%s" (first $gateway.httpRoute.hostnames) -}}
{{- else -}}
{{- $scheme := ternary "https" "http" (ne "" $tls) -}}
{{- $usual := ternary 443 80 (ne "" $tls) -}}
{{- printf "%s://%s-gateway.%s.svc" $scheme (include "davit.fullname" .) .Release.Namespace -}}
{{- if ne (int $gateway.service.port) $usual }}:{{ $gateway.service.port }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The secret with the certificate that the pods of the gateway speak TLS with, if they do. */}}
{{- define "davit.gateway.tlsSecret" -}}
{{- $tls := .Values.gateway.tls -}}
{{- if $tls.secretName -}}
{{- $tls.secretName -}}
{{- else if $tls.certManager.issuerRef -}}
{{- include "davit.fullname" . }}-gateway-tls
{{- end -}}
{{- end -}}

{{/* The secret with the certificate of an ingress, if it has one. (dict "root" $ "of" .Values.gateway "component" "gateway") */}}
{{- define "davit.ingress.tlsSecret" -}}
{{- if .of.ingress.tlsSecret -}}
{{- .of.ingress.tlsSecret -}}
{{- else if .of.ingress.issuerRef -}}
{{- include "davit.fullname" .root }}-{{ .component }}-ingress-tls
{{- end -}}
{{- end -}}
