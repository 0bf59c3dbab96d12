{{/* A step of `helm test`: a command of davit's client. (dict "root" $ "name" "invoke" "args" (list …)) */}}
{{- define "davit.test.container" -}}
{{- $name := include "davit.fullname" .root -}}
{{- $tls := ne "" (include "davit.gateway.tlsSecret" .root) -}}
name: {{ .name }}
image: {{ include "davit.image" (dict "root" .root "image" .root.Values.images.davit) }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
args: {{ toJson .args }}
env:
  - {name: HOME, value: /scratch}
  - {name: DAVIT_URL, value: "http://{{ $name }}-controller:{{ .root.Values.controller.service.port }}"}
  - {name: DAVIT_GATEWAY_URL, value: "{{ ternary "https" "http" $tls }}://{{ $name }}-gateway.{{ .root.Release.Namespace }}.svc:{{ .root.Values.gateway.service.port }}"}
  - name: DAVIT_TOKEN
    valueFrom: {secretKeyRef: {name: {{ include "davit.adminToken.secret" .root }}, key: {{ .root.Values.adminToken.key }}}}
  {{- if $tls }}
  - {name: SSL_CERT_FILE, value: /etc/davit/gateway-ca/ca.crt}
  {{- end }}
securityContext:
  {{- include "davit.containerSecurity" . | nindent 2 }}
resources:
  requests: {cpu: 50m, memory: 64Mi}
  limits: {memory: 256Mi}
volumeMounts:
  - {name: work, mountPath: /scratch}
  {{- if $tls }}
  - {name: gateway-ca, mountPath: /etc/davit/gateway-ca, readOnly: true}
  {{- end }}
{{- end -}}
