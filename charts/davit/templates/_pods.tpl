{{/* What the pods of the control plane have in common. Every one of them passes Pod Security "restricted". */}}

{{- define "davit.podSecurity" -}}
runAsNonRoot: true
runAsUser: 993
runAsGroup: 993
fsGroup: 993
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "davit.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where Postgres is, as variables. */}}
{{- define "davit.postgres.env" -}}
{{- $external := .Values.postgres.external -}}
{{- if .Values.postgres.bundled.enabled -}}
- name: DATABASE_URL
  value: postgres://davit@{{ include "davit.fullname" . }}-postgres:5432/davit?sslmode=disable
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "davit.fullname" . }}-postgres, key: password}}
{{- else -}}
{{- if $external.urlSecret.name -}}
- name: DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ $external.urlSecret.name }}, key: {{ $external.urlSecret.key }}}}
{{- else -}}
{{- $host := required "Postgres is missing: set postgres.external.urlSecret.name or postgres.external.host, or for a trial postgres.bundled.enabled=true" $external.host -}}
- name: DATABASE_URL
  value: postgres://{{ $external.user }}@{{ $host }}:{{ $external.port }}/{{ $external.database }}
{{- with $external.passwordSecret }}
{{- if .name }}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- end }}
- name: PGSSLMODE
  value: {{ $external.sslMode }}
{{- if $external.caSecret.name }}
- name: PGSSLROOTCERT
  value: /etc/davit/postgres-ca/ca.crt
{{- end }}
{{- if $external.clientCertSecret }}
- name: PGSSLCERT
  value: /etc/davit/postgres-client/tls.crt
- name: PGSSLKEY
  value: /etc/davit/postgres-client/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{- define "davit.postgres.mounts" -}}
{{- if not .Values.postgres.bundled.enabled }}
{{- if .Values.postgres.external.caSecret.name }}
- {name: postgres-ca, mountPath: /etc/davit/postgres-ca, readOnly: true}
{{- end }}
{{- if .Values.postgres.external.clientCertSecret }}
- {name: postgres-client, mountPath: /etc/davit/postgres-client, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "davit.postgres.volumes" -}}
{{- if not .Values.postgres.bundled.enabled }}
{{- with .Values.postgres.external.caSecret }}
{{- if .name }}
- name: postgres-ca
  secret: {secretName: {{ .name }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- with .Values.postgres.external.clientCertSecret }}
- name: postgres-client
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end -}}

{{/* The container that brings the schema up to date. (dict "root" $ "wait" "600s") */}}
{{- define "davit.migrate.container" -}}
name: migrate
image: {{ include "davit.image" (dict "root" .root "image" .root.Values.images.davit) }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
args: [migrate, --wait, {{ .wait }}]
env:
  {{- include "davit.postgres.env" .root | nindent 2 }}
  - {name: DAVIT_LOG_FORMAT, value: {{ .root.Values.log.format }}}
securityContext:
  {{- include "davit.containerSecurity" . | nindent 2 }}
resources:
  requests: {cpu: 50m, memory: 64Mi}
  limits: {memory: 256Mi}
{{- with include "davit.postgres.mounts" .root | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A bundled Postgres is not there before anything is installed, so nothing can migrate it ahead: each pod waits for it and sees to
the schema itself. */}}
{{- define "davit.migrate.init" -}}
{{- if .Values.postgres.bundled.enabled }}
initContainers:
  - {{- include "davit.migrate.container" (dict "root" . "wait" (printf "%ds" (int .Values.migrations.timeoutSeconds))) | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Variables of gateway and controller alike. (dict "root" $ "of" .Values.gateway) */}}
{{- define "davit.env" -}}
{{- $values := .root.Values -}}
{{ include "davit.postgres.env" .root }}
- {name: DAVIT_STATE_DIR, value: /var/lib/davit}
- {name: DAVIT_ADMIN, value: "0.0.0.0:7482"}
- {name: DAVIT_METRICS_TOKEN_FILE, value: /etc/davit/metrics-token/token}
- {name: DAVIT_MASTER_KEY_FILE, value: /etc/davit/master-key/master.key}
- {name: DAVIT_DB_CONNECTIONS, value: {{ .of.databaseConnections | quote }}}
- {name: DAVIT_DRAIN, value: {{ .of.drainSeconds }}s}
- {name: DAVIT_LOG, value: {{ $values.log.filter | quote }}}
- {name: DAVIT_LOG_FORMAT, value: {{ $values.log.format }}}
{{- with $values.artifacts.url }}
- {name: DAVIT_ARTIFACTS_URL, value: {{ . | quote }}}
{{- end }}
{{- with $values.outboundAllow }}
- {name: DAVIT_OUTBOUND_ALLOW, value: {{ join "," . | quote }}}
{{- end }}
{{- range $name, $value := .of.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "davit.mounts" -}}
- {name: state, mountPath: /var/lib/davit}
- {name: tmp, mountPath: /tmp}
- {name: master-key, mountPath: /etc/davit/master-key, readOnly: true}
- {name: metrics-token, mountPath: /etc/davit/metrics-token, readOnly: true}
{{- include "davit.postgres.mounts" . }}
{{- end -}}

{{/* (dict "root" $ "of" .Values.gateway) */}}
{{- define "davit.volumes" -}}
- name: state
  emptyDir: {sizeLimit: {{ .of.stateSize }}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
- name: master-key
  secret:
    secretName: {{ include "davit.masterKey.secret" .root }}
    defaultMode: 0440
    items: [{key: {{ .root.Values.masterKey.key }}, path: master.key}]
- name: metrics-token
  secret:
    secretName: {{ include "davit.metrics.secret" .root }}
    defaultMode: 0440
    items: [{key: {{ .root.Values.metrics.token.key }}, path: token}]
{{- include "davit.postgres.volumes" .root }}
{{- end -}}

{{/* At the start a process may wait half a minute for Postgres before it answers at all. */}}
{{- define "davit.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 90
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 3
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* Where the pods go. (dict "root" $ "of" .Values.gateway "component" "gateway") */}}
{{- define "davit.placement" -}}
{{- $selector := include "davit.selector" . -}}
affinity:
{{- if .of.affinity }}
  {{- toYaml .of.affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
{{- end }}
topologySpreadConstraints:
{{- if .of.topologySpreadConstraints }}
  {{- toYaml .of.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of the pods of a component. (dict "root" $ "of" .Values.gateway "component" "gateway") */}}
{{- define "davit.podLabels" -}}
{{ include "davit.labels" . }}
davit.metrics: "true"
{{- with .of.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
