{{- /* sandboxes.constraints as YAML. All or part of it is missing after an upgrade with the values of an older chart. */}}
{{- define "constraints" -}}
{{- $c := deepCopy (.Values.sandboxes.constraints | default dict) }}
{{- range $field, $value := dict "egress" dict "nodeSelector" dict "maxResources" dict "podLabelKeys" (list "*") "podAnnotationKeys" (list "*") }}
{{- if or (not (hasKey $c $field)) (kindIs "invalid" (get $c $field)) }}{{ $_ := set $c $field $value }}{{ end }}
{{- end }}
{{- $_ := set $c "maxResources" (include "strings" $c.maxResources | fromYaml) }}
{{- toYaml $c }}
{{- end }}
{{- /* Of a binding: only the watched namespaces, since another installation may serve others. */}}
{{- define "admission.namespaces" -}}
{{- with .Values.watchNamespaces }}
matchResources:
  namespaceSelector:
    matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
{{- end }}
{{- end }}

{{- /* (list VALUES NAME): whether to create an admission policy: unless it is switched off. */}}
{{- define "admission.policy" -}}
{{- $switches := index . 0 | default dict }}
{{- if ne (get $switches (index . 1) | toString) "false" }}yes{{ end }}
{{- end }}

{{- /* Rules in CEL over the variables of constraints.yaml, as a YAML list of field, must, constraint and expression. */}}
{{- define "constraints.rules" -}}
{{- $c := . }}
{{- range $field := list "runtimeClassName" "priorityClassName" "serviceAccountName" }}
{{- with get $c (printf "%ss" $field | replace "Classs" "Classes") }}
{{- $expression := printf "!has(variables.fields.%s) || variables.fields.%s in %s" $field $field (toJson .) }}
{{- include "constraints.rule" (list $field (printf "must be one of %s" (without . "" | join ", ")) (printf "%ss" $field) $expression) }}
{{- end }}
{{- end }}
{{- with $c.images }}
{{- $patterns := list }}
{{- range . }}
{{- $last := splitList "/" . | last }}
{{- $end := "([:@][^/]*)?" }}
{{- if not $last }}{{ $end = ".+" }}{{ else if contains "@" $last }}{{ $end = "" }}{{ else if contains ":" $last }}{{ $end = "(@[^/]*)?" }}{{ end }}
{{- $patterns = append $patterns (printf "%s%s" (regexQuoteMeta .) $end) }}
{{- end }}
{{- $matches := printf "matches(%s)" (printf "^(%s)$" (join "|" $patterns) | toJson) }}
{{- $must := printf "must be an image of %s" (join ", " .) }}
{{- include "constraints.rule" (list "containerImage" $must "images" (printf "!has(variables.fields.containerImage) || variables.fields.containerImage.%s" $matches)) }}
{{- include "constraints.rule" (list "sidecars[].image" $must "images" (printf "variables.sidecars.all(s, s.image.%s)" $matches)) }}
{{- end }}
{{- range $key, $value := $c.nodeSelector }}
{{- $expression := printf "variables.fields.?nodeSelector[?%s].orValue(%s) == %s" (toJson $key) (toJson $value) (toJson $value) }}
{{- include "constraints.rule" (list (printf "nodeSelector[%q]" $key) (printf "must be %q" $value) "nodeSelector" $expression) }}
{{- end }}
{{- if not (kindIs "invalid" $c.tolerations) }}
{{- $covered := list "false" }}
{{- range $c.tolerations }}
{{- $parts := list "true" }}
{{- if .key }}{{ $parts = append $parts (printf "t.?key.orValue('') == %s" (toJson .key)) }}{{ end }}
{{- if eq (default "Equal" .operator) "Equal" }}
{{- $parts = append $parts (printf "t.?operator.orValue('Equal') == 'Equal' && t.?value.orValue('') == %s" (default "" .value | toJson)) }}
{{- else if ne .operator "Exists" }}{{ $parts = append $parts "false" }}{{ end }}
{{- if .effect }}{{ $parts = append $parts (printf "t.?effect.orValue('') == %s" (toJson .effect)) }}{{ end }}
{{- $covered = append $covered (printf "(%s)" (join " && " $parts)) }}
{{- end }}
{{- $expression := printf "variables.fields.?tolerations.orValue([]).all(t, %s)" (join " || " $covered) }}
{{- include "constraints.rule" (list "tolerations[]" "must be a toleration that the list has" "tolerations" $expression) }}
{{- end }}
{{- if not (kindIs "invalid" $c.hostUsers) }}
{{- $expression := printf "variables.fields.?hostUsers.orValue(%t) == %t" $c.hostUsers $c.hostUsers }}
{{- include "constraints.rule" (list "hostUsers" (printf "must be %t" $c.hostUsers) "hostUsers" $expression) }}
{{- end }}
{{- with $c.securityProfiles }}
{{- $must := printf "must be one of %s, in sidecars too" (join ", " .) }}
{{- $expression := printf "variables.containers.all(c, !has(c.securityProfile) || c.securityProfile in %s)" (toJson .) }}
{{- include "constraints.rule" (list "securityProfile" $must "securityProfiles" $expression) }}
{{- end }}
{{- range $name, $most := $c.maxResources }}
{{- /* What is not set gets defaults, which this does not count. Sums of decimal fractions are not exact; the operator's are. */}}
{{- $of := printf "c.?resources.?limits[?%s].orValue(c.?resources.?requests[?%s].orValue(dyn('0')))" (toJson $name) (toJson $name) }}
{{- $expression := printf "variables.containers.map(c, quantity(string(%s)).asApproximateFloat()).sum() <= quantity(%s).asApproximateFloat() * 1.000001" $of (toString $most | toJson) }}
{{- include "constraints.rule" (list (printf "resources.limits[%q]" $name) (printf "must be at most %s for all containers together" (toString $most)) "maxResources" $expression) }}
{{- end }}
{{- with $c.maxLifetimeSeconds }}
{{- $expression := printf "variables.fields.?maxLifetimeSeconds.orValue(0) <= %d" (int .) }}
{{- include "constraints.rule" (list "maxLifetimeSeconds" (printf "must be at most %d" (int .)) "maxLifetimeSeconds" $expression) }}
{{- end }}
{{- $egress := $c.egress }}
{{- $modes := $egress.modes }}
{{- if and (not $modes) (not (kindIs "invalid" $egress.cidrs)) }}{{ $modes = list "None" "Rules" }}{{ end }}
{{- with $modes }}
{{- $must := printf "must be one of %s" (join ", " .) }}
{{- $expression := printf "!variables.fields.?network.?egress.hasValue() || variables.egress.?mode.orValue('Internet') in %s" (toJson .) }}
{{- include "constraints.rule" (list "network.egress.mode" $must "egress.modes" $expression) }}
{{- if not (has "Internet" .) }}
{{- include "constraints.rule" (list "network.egress.rules[].internet" "must be left out" "egress.modes" "variables.rules.all(r, !has(r.internet))") }}
{{- end }}
{{- end }}
{{- if not (kindIs "invalid" $egress.cidrs) }}
{{- $expression := printf "variables.rules.all(r, !has(r.cidr) || (isCIDR(r.cidr) && %s.exists(a, cidr(a).containsCIDR(r.cidr))))" (toJson $egress.cidrs) }}
{{- include "constraints.rule" (list "network.egress.rules[].cidr" (printf "must be inside one of %s" (join ", " $egress.cidrs)) "egress.cidrs" $expression) }}
{{- end }}
{{- if has $egress.pods (list "SameNamespace" "None") }}
{{- include "constraints.rule" (list "network.egress.rules[].namespaceSelector" "must be left out" "egress.pods" "variables.rules.all(r, !has(r.namespaceSelector))") }}
{{- end }}
{{- if eq $egress.pods "None" }}
{{- include "constraints.rule" (list "network.egress.rules[].podSelector" "must be left out" "egress.pods" "variables.rules.all(r, !has(r.podSelector))") }}
{{- end }}
{{- range $field, $constraint := dict "podLabels" "podLabelKeys" "podAnnotations" "podAnnotationKeys" }}
{{- $patterns := list }}
{{- range get $c $constraint }}
{{- if eq . "*/*" }}{{ $patterns = append $patterns ".*" }}
{{- else if eq . "*" }}{{ $patterns = append $patterns "[^/.]*" }}
{{- else if hasSuffix "/*" . }}{{ $patterns = append $patterns (printf "%s/.*" (trimSuffix "/*" . | regexQuoteMeta)) }}
{{- else }}{{ $patterns = append $patterns (regexQuoteMeta .) }}{{ end }}
{{- end }}
{{- /* No entry: no key. An empty pattern would match an empty key only, which is none. */}}
{{- $expression := printf "variables.fields.?%s.orValue({}).all(k, k.matches(%s))" $field (printf "^(%s)$" (join "|" $patterns) | toJson) }}
{{- include "constraints.rule" (list $field (printf "keys must match one of %s" (get $c $constraint | join ", ")) $constraint $expression) }}
{{- end }}
{{- end }}

{{- /* (list FIELD MUST CONSTRAINT EXPRESSION) */}}
{{- define "constraints.rule" }}
- {{ dict "field" (index . 0) "must" (index . 1) "constraint" (index . 2) "expression" (index . 3) | toJson }}
{{- end }}
