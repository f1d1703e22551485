{{- define "name" -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- end }}
{{- define "labels" -}}
app.kubernetes.io/name: sandbox-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: sandbox-operator
{{- end }}
{{- define "selector" -}}
app.kubernetes.io/name: sandbox-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}
{{- define "gateway.labels" }}{{ include "labels" . | replace "component: operator" "component: gateway" }}{{ end }}
{{- define "gateway.selector" }}{{ include "selector" . | replace "component: operator" "component: gateway" }}{{ end }}
{{- define "image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}
{{- /* What the operator does in a namespace with sandboxes: each verb is used, none is there in reserve. */}}
{{- define "rules" -}}
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes, sandboxsessions]
  verbs: [get, list, watch]
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes]
  verbs: [patch, delete]
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes/status, sandboxsessions/status]
  verbs: [patch]
# Owner references that block their owner's deletion need the right to update its finalizers.
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes/finalizers, sandboxsessions/finalizers]
  verbs: [update]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, delete]
# Files that a Sandbox has inline; get tells ours from a stranger's of the same name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
# Why the kubelet cannot start a pod.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- /* What the gateway does in a namespace with sandboxes, on behalf of callers whose own rights it has checked. */}}
{{- define "gateway.rules" }}
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxtemplates]
  verbs: [get, list]
# Owner references that block their owner's deletion need the right to update its finalizers.
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes/finalizers]
  verbs: [update]
# The tenants' secret stores are read; what a sandbox needs of them, and its files, are Secrets of its own.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, patch]
- apiGroups: [""]
  resources: [pods, pods/log, services]
  verbs: [get]
{{- if .Values.gateway.execViaApiServer }}
- apiGroups: [""]
  resources: [pods/exec]
  verbs: [create, get]
{{- end }}
{{- end }}
{{- /* Where the operator and the gateway connect to. */}}
{{- define "egress" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
  to: [{namespaceSelector: {}}]
# The API server is on no pod that a selector could name.
- ports: {{- range .Values.networkPolicy.apiServerPorts }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
- ports: [{protocol: TCP, port: {{ .Values.sandboxes.agent.port }}}]
  to: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: sandbox-operator.dev/sandbox-uid, operator: Exists}]}}]
{{- end }}
