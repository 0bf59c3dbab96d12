{{/* What the controller is told about the cluster, as JSON. */}}
{{- define "davit.kubernetes.settings" -}}
{{- $functions := .Values.functions -}}
{{- $runtimes := dict -}}
{{- range $name, $image := .Values.runtimes -}}
{{- if $image -}}{{- $_ := set $runtimes $name (include "davit.image" (dict "root" $ "image" $image)) -}}{{- end -}}
{{- end -}}
{{- $builders := dict -}}
{{- range $name, $image := .Values.builders -}}
{{- if $image -}}{{- $_ := set $builders $name (include "davit.image" (dict "root" $ "image" $image)) -}}{{- end -}}
{{- end -}}
{{- $settings := dict
  "namespace" (include "davit.functions.namespace" .)
  "owner" (include "davit.owner" .)
  "agentImage" (include "davit.image" (dict "root" . "image" .Values.images.davit))
  "runtimes" $runtimes
  "builders" $builders
  "imagePullSecrets" .Values.images.pullSecrets
  "imagePullPolicy" .Values.images.pullPolicy
  "plainHttpRegistries" .Values.images.plainHttpRegistries
  "nodeSelector" $functions.nodeSelector
  "tolerations" $functions.tolerations
  "topologySpreadConstraints" $functions.topologySpreadConstraints
  "podLabels" (mergeOverwrite (deepCopy $functions.podLabels) (dict "app.kubernetes.io/instance" .Release.Name))
  "podAnnotations" $functions.podAnnotations
  "memoryMb" (int $functions.memoryMb)
  "instances" (int $functions.instances)
-}}
{{- with $functions.affinity }}{{ $_ := set $settings "affinity" . }}{{ end -}}
{{- with $functions.runtimeClassName }}{{ $_ := set $settings "runtimeClassName" . }}{{ end -}}
{{- with $functions.priorityClassName }}{{ $_ := set $settings "priorityClassName" . }}{{ end -}}
{{- toPrettyJson $settings -}}
{{- end -}}
