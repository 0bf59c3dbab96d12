{{/* Images. */}}

{{/* One of davit's. (dict "root" $ "image" .Values.images.davit) */}}
{{- define "davit.image" -}}
{{- $images := .root.Values.images -}}
{{- $registry := required "images.registry is not set: push davit's images to a registry of yours with scripts/push-images.sh, and give the file that it writes with -f" $images.registry -}}
{{- $tag := .image.tag | default $images.tag | default .root.Chart.AppVersion -}}
{{- printf "%s/%s:%s" $registry .image.repository $tag -}}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "davit.postgres.image" -}}
{{- with .Values.postgres.bundled.image -}}
{{- with .registry }}{{ . }}/{{ end -}}
{{- .repository }}:{{ .tag }}
{{- with .digest }}@{{ . }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "davit.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
