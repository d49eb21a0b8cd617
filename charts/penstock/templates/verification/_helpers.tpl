{{/* Whether somebody tries that the API server holds the law: empty where not. */}}
{{- define "penstock.verifies" -}}
{{- if and .Values.residency.enabled .Values.residency.verification.enabled }}true{{ end -}}
{{- end }}

{{- define "penstock.verifier.name" -}}
{{ .Release.Name }}-verifier
{{- end }}

{{- define "penstock.verifier.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "penstock.verifier.name" . }}
{{- end }}

{{/* The namespace that bypasses are tried in; the same in every release, as the CustomResourceDefinitions are. */}}
{{- define "penstock.probes.namespace" -}}
penstock-verify
{{- end }}

{{/* CEL, behind another condition: or the probe that stands for the operator and the schedulers, where it may. */}}
{{- define "penstock.cel.orLawfulProbe" -}}
{{- if include "penstock.verifies" . -}}
{{- printf " || (request.userInfo.username == 'penstock:verify:lawful' && request.namespace == '%s')" (include "penstock.probes.namespace" .) -}}
{{- end -}}
{{- end }}

{{- define "penstock.verifier.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: verifier
{{- end }}

{{/* What a Job of the verifier is made from. It fails where a layer is missing, so that whoever watches Jobs hears of it. */}}
{{- define "penstock.verifier.job" -}}
backoffLimit: 3
activeDeadlineSeconds: 300
template:
  metadata:
    labels:
      {{- include "penstock.verifier.selector" . | nindent 6 }}
  spec:
    serviceAccountName: {{ include "penstock.verifier.name" . }}
    restartPolicy: Never
    {{- with .Values.image.pullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "penstock.podSecurityContext" . | nindent 6 }}
    containers:
      - name: verify
        image: {{ include "penstock.image" . }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        args: [verify, --report]
        env:
          - name: PENSTOCK_NAMESPACE
            valueFrom:
              fieldRef:
                fieldPath: metadata.namespace
          - name: PENSTOCK_LOG_LEVEL
            value: {{ .Values.logLevel }}
          - name: PENSTOCK_GPU_RESOURCES
            value: {{ .Values.residency.gpuResources | toJson | quote }}
        resources:
          {{- toYaml .Values.residency.verification.resources | nindent 10 }}
        securityContext:
          {{- include "penstock.containerSecurityContext" . | nindent 10 }}
    {{- with .Values.operator.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.operator.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
