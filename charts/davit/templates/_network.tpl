{{/* Peers and rules of NetworkPolicies. */}}

{{- define "davit.network.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "davit.fullname" .root }}-{{ .name }}
  namespace: {{ .namespace | default .root.Release.Namespace }}
  labels:
    {{- include "davit.labels" (dict "root" .root "component" "network") | nindent 4 }}
{{- end -}}

{{/* Pods of functions and builds. (dict "root" $ "more" (dict …)) */}}
{{- define "davit.network.functions" -}}
app.kubernetes.io/managed-by: davit
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .more }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The pods of components of this release, from any namespace. (dict "root" $ "components" (list …)) */}}
{{- define "davit.network.components" -}}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ .root.Release.Namespace }}}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: davit
      app.kubernetes.io/instance: {{ .root.Release.Name }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: [{{ join ", " .components }}]}
{{- end -}}

{{/* Egress rules: names, and the outside world. (dict "root" $ "internet" true "extra" (list …)); with "names" "node" names are asked of
whom the nodes ask, since pods of functions and builds do not use the cluster's DNS. */}}
{{- define "davit.network.outside" -}}
{{- $network := .root.Values.networkPolicy -}}
{{- with $network.dns -}}
{{- if eq "node" (default "cluster" $.names) -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  {{- with .nodeResolvers }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  {{- end }}
{{- else -}}
- to:
    - namespaceSelector:
        matchLabels:
          {{- toYaml .namespaceLabels | nindent 10 }}
      podSelector:
        matchLabels:
          {{- toYaml .podLabels | nindent 10 }}
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    - {protocol: UDP, port: {{ .port }}}
    - {protocol: TCP, port: {{ .port }}}
{{- end }}
{{- end }}
{{- if .internet }}
- to:
    {{- range $all := list "0.0.0.0/0" "::/0" }}
    {{- $six := contains ":" $all }}
    - ipBlock:
        cidr: {{ $all }}
        {{- $private := list }}
        {{- range $network.private }}{{ if eq $six (contains ":" .) }}{{ $private = append $private . }}{{ end }}{{ end }}
        {{- with $private }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- end }}
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Egress rule: Postgres. */}}
{{- define "davit.network.postgres" -}}
{{- if .Values.postgres.bundled.enabled -}}
- to:
    {{- include "davit.network.components" (dict "root" . "components" (list "postgres")) | nindent 4 }}
  ports: [{port: 5432}]
{{- else -}}
- ports: [{port: {{ .Values.postgres.external.port }}}]
  {{- with .Values.postgres.external.cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Egress rules that gateway and controller have: Postgres, functions, and where webhooks and users' databases may lie. */}}
{{- define "davit.network.inside" -}}
{{ include "davit.network.postgres" . }}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ include "davit.functions.namespace" . }}}
      podSelector:
        matchLabels:
          {{- include "davit.network.functions" (dict "root" .) | nindent 10 }}
  ports: [{port: 9000}]
{{- with .Values.outboundAllow }}
- to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Ingress rule: health and metrics. The kubelet comes from the node, which NetworkPolicies leave in. */}}
{{- define "davit.network.metrics" -}}
{{- with .Values.networkPolicy.metrics.from }}
- from:
    {{- toYaml . | nindent 4 }}
  ports: [{port: admin}]
{{- end }}
{{- end -}}
