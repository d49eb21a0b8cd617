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

{{/* CEL: is whoever asks listed here? Takes the list of users and that of groups. */}}
{{- define "penstock.cel.listed" -}}
(request.userInfo.username in {{ include "penstock.cel.strings" (first .) }} || {{ "" -}}
request.userInfo.groups.exists(group, group in {{ include "penstock.cel.strings" (last .) }}))
{{- end }}

{{/* CEL: is whoever asks of a group that may break the glass? */}}
{{- define "penstock.cel.breaksGlass" -}}
request.userInfo.groups.exists(group, group in {{ include "penstock.cel.strings" .Values.breakGlass.groups }})
{{- end }}

{{- define "penstock.breakGlass" -}}
a member of the group {{ join " or " .Values.breakGlass.groups }}
{{- end }}

{{/* CEL: a list of strings. */}}
{{- define "penstock.cel.strings" -}}
[{{ range $at, $one := . }}{{ if $at }}, {{ end }}'{{ $one }}'{{ end }}]
{{- end }}

{{/* CEL: is a rule of the variable `term` about this place label, by this operator? Takes `{label, operator}`. */}}
{{- define "penstock.cel.rule" -}}
rule.key == 'penstock.dev.node-restriction.kubernetes.io/{{ .label }}' && rule.operator == '{{ .operator }}'
{{- end }}

{{/* CEL: does `term` hold the law of one axis, which is a variable: `*`, what is allowed, or with `!` what is denied. */}}
{{- define "penstock.cel.holds" -}}
{{- $in := include "penstock.cel.rule" (dict "label" . "operator" "In") -}}
{{- $exists := include "penstock.cel.rule" (dict "label" . "operator" "Exists") -}}
{{- $notIn := include "penstock.cel.rule" (dict "label" . "operator" "NotIn") -}}
{{- $rules := "term.?matchExpressions.orValue([])" -}}
{{- $denies := printf "variables.%s.exists(code, code.startsWith('!'))" . -}}
('*' in variables.{{ . }} || {{ "" -}}
{{ $rules }}.exists(rule, {{ $in }} && rule.values.all(value, {{ $denies }} ? !(('!' + value) in variables.{{ . }}) : value in variables.{{ . }})) || {{ "" -}}
({{ $denies }} && {{ $rules }}.exists(rule, {{ $exists }}) && variables.{{ . }}.all(code, code == '!' || {{ $rules }}.exists(rule, {{ $notIn }} && code.substring(1) in rule.values))))
{{- end }}

{{/* The namespaces that a policy selects, or did; never where the cluster itself, this release or the vendor's agents run. */}}
{{- define "penstock.residency.namespaces" -}}
matchLabels:
  penstock.dev/law: required
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: {{ concat (list "kube-system" .Release.Namespace) .Values.residency.exemptNamespaces | uniq | toJson }}
{{- end }}

{{/* How the names of resources begin that make a pod ours to judge; by the first a pod asks for a device without a claim. */}}
{{- define "penstock.residency.gpuResources" -}}
{{ include "penstock.cel.strings" (concat (list "deviceclass.resource.kubernetes.io/") .Values.residency.gpuResources) }}
{{- end }}

{{/* CEL: the annotations by which a pod asks its node's container runtime for devices. Takes `object` or `oldObject`. */}}
{{- define "penstock.cel.deviceAnnotations" -}}
{{ . }}.metadata.?annotations.orValue({}).transformMapEntry(key, value, {{ "" -}}
key.matches('cdi[.]k8s[.]io/|^cdi[.]nri[.]io/|^(cdi-)?devices[.]|^io[.]kubernetes[.]cri-o[.]Devices'), {key: value})
{{- end }}

{{- define "penstock.residency.schedulers" -}}
{{- $names := list -}}
{{- range .Values.residency.schedulers }}{{ $names = append $names .name }}{{ end -}}
{{- include "penstock.cel.strings" $names -}}
{{- end }}

{{- define "penstock.residency.binders" -}}
{{- $users := list -}}
{{- range .Values.residency.schedulers }}{{ $users = concat $users .users }}{{ end -}}
{{- include "penstock.cel.strings" ($users | uniq) -}}
{{- end }}

{{/* Users and groups as people read them. */}}
{{- define "penstock.residency.names" -}}
{{- join ", " (concat (first .) (last .)) | default "nobody" -}}
{{- end }}
