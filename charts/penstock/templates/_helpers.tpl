{{- define "penstock.labels" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "penstock.operator.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "penstock.agent.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "penstock.capper.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: capper
{{- end }}

{{- define "penstock.operator.name" -}}
{{ .Release.Name }}-operator
{{- end }}

{{- define "penstock.agent.name" -}}
{{ .Release.Name }}-agent
{{- end }}

{{- define "penstock.capper.name" -}}
{{ .Release.Name }}-capper
{{- end }}

{{- define "penstock.operator.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "penstock.operator.name" . }}
{{- end }}

{{- define "penstock.agent.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "penstock.agent.name" . }}
{{- end }}

{{- define "penstock.capper.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "penstock.capper.name" . }}
{{- end }}

{{- define "penstock.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "penstock.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where cappers run, the agent asks the kubelet too: only the GPUs of pods whose pool opted in are capped. */}}
{{- define "penstock.agent.podResources" -}}
{{- $usual := "/var/lib/kubelet/pod-resources/kubelet.sock" -}}
{{- ternary $usual .Values.agent.podResourcesSocket (and .Values.capper.enabled (eq .Values.agent.podResourcesSocket "off")) -}}
{{- end }}

{{- define "penstock.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* CEL over a pod: has it our scheduling gate? Takes the name of the variable, `object` or `oldObject`. */}}
{{- define "penstock.cel.gated" -}}
{{ . }}.spec.?schedulingGates.orValue([]).exists(gate, gate.name == 'penstock.dev/placement')
{{- end }}
