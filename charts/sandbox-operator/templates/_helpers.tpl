{{- define "name" -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- end }}
{{- /* The namespace of the pods that check whether NetworkPolicy is enforced. */}}
{{- define "probe.namespace" -}}{{ .Release.Namespace | trunc 57 | trimSuffix "-" }}-probe{{- end }}
{{- /* Whether it is checked; the value is missing after an upgrade with the values of an older chart. */}}
{{- define "network.checked" -}}{{ if ne (.Values.sandboxes.network.enforcement | default "Warn") "Ignore" }}yes{{ end }}{{- end }}
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
{{- define "test.labels" }}{{ include "labels" . | replace "component: operator" "component: test" }}{{ end }}
{{- define "image" -}}
{{- with .Values.image.digest }}{{ $.Values.image.repository }}@{{ . }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}
{{- /* A map as YAML with text as its values. */}}
{{- define "strings" }}
{{- $strings := dict }}
{{- range $key, $value := . }}{{ $_ := set $strings $key (toString $value) }}{{ end }}
{{- toYaml $strings }}
{{- end }}
{{- /* The operator's rights in a namespace with sandboxes. It uses every one of these verbs. */}}
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
# An owner reference with blockOwnerDeletion needs the right to update the owner's finalizers.
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
# Inline files of a Sandbox. `get` shows whether an existing ConfigMap of that name belongs to the Sandbox. There are no rights on Secrets.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
# Events say why the kubelet cannot start a pod.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- /* Rights to check whether NetworkPolicy is enforced. The first policy of a check owns its other objects. */}}
{{- define "probe.rules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, create]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, create, delete]
{{- end }}
{{- /* The gateway's rights in a namespace with sandboxes. It acts for callers after it has checked their own rights. */}}
{{- define "gateway.rules" }}
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxtemplates]
  verbs: [get, list]
# An owner reference with blockOwnerDeletion needs the right to update the owner's finalizers.
- apiGroups: [sandbox-operator.dev]
  resources: [sandboxes/finalizers]
  verbs: [update]
# It reads the tenants' secret stores, and creates Secrets for the values and files of a sandbox.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, patch]
- apiGroups: [""]
  resources: [pods, pods/log, services]
  verbs: [get]
{{- if .Values.gateway.apiKeysSecret }}
# An API key is valid only while its ServiceAccount exists.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
{{- end }}
{{- if .Values.gateway.execViaApiServer }}
- apiGroups: [""]
  resources: [pods/exec]
  verbs: [create, get]
{{- end }}
{{- end }}
{{- /* Egress rules of operator and gateway: DNS, API server, agents. */}}
{{- define "egress" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
  to: [{namespaceSelector: {}}]
# Selectors cannot name the API server, because it does not run in a pod with an address of its own.
- ports: {{- range .Values.networkPolicy.apiServerPorts }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
- ports: [{protocol: TCP, port: {{ .Values.sandboxes.agent.port }}}]
  to: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: sandbox-operator.dev/sandbox-uid, operator: Exists}]}}]
{{- end }}
