{{/* Objects that gateway and controller have alike. Each takes (dict "root" $ "of" .Values.gateway "component" "gateway"). */}}

{{- define "davit.metadata" -}}
name: {{ include "davit.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "davit.labels" . | nindent 2 }}
{{- end -}}

{{- define "davit.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "davit.metadata" . | nindent 2 }}
  {{- with .of.serviceAccountAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{- define "davit.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "davit.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .of.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready serves nobody, so it may not hold up who empties its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "davit.selector" . | nindent 6 }}
{{- end -}}

{{/* Besides: "portName" of the service, "target" port of the pods, "affinity" if a client stays with one pod. */}}
{{- define "davit.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "davit.metadata" . | nindent 2 }}
  {{- with .of.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .of.service.type }}
  {{- with .of.service.externalTrafficPolicy }}
  externalTrafficPolicy: {{ . }}
  {{- end }}
  {{- if .affinity }}
  sessionAffinity: ClientIP
  {{- end }}
  selector:
    {{- include "davit.selector" . | nindent 4 }}
  ports:
    - {name: {{ .portName }}, port: {{ .of.service.port }}, targetPort: {{ .target }}}
{{- end -}}

{{- define "davit.ingress" -}}
{{- $secret := include "davit.ingress.tlsSecret" . -}}
{{- $issuer := .of.ingress.issuerRef -}}
{{- $annotations := dict -}}
{{- if $issuer -}}
{{- $kind := ternary "issuer" "cluster-issuer" (eq "Issuer" (default "Issuer" $issuer.kind)) -}}
{{- $annotations = dict (printf "cert-manager.io/%s" $kind) $issuer.name -}}
{{- end -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "davit.metadata" . | nindent 2 }}
  {{- with mergeOverwrite $annotations .of.ingress.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .of.ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  rules:
    {{- range .of.ingress.hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: {service: {name: {{ include "davit.fullname" $.root }}-{{ $.component }}, port: {number: {{ $.of.service.port }}}}}
    {{- end }}
  {{- if $secret }}
  tls:
    - secretName: {{ $secret }}
      hosts:
        {{- toYaml .of.ingress.hosts | nindent 8 }}
  {{- end }}
{{- end -}}

{{- define "davit.httpRoute" -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "davit.metadata" . | nindent 2 }}
  {{- with .of.httpRoute.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs:
    {{- toYaml .of.httpRoute.parentRefs | nindent 4 }}
  {{- with .of.httpRoute.hostnames }}
  hostnames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches:
        - path: {type: PathPrefix, value: /}
      # How long a call may take is davit's to say.
      timeouts: {request: 0s}
      backendRefs:
        - {name: {{ include "davit.fullname" .root }}-{{ .component }}, port: {{ .of.service.port }}}
{{- end -}}
