{{- /*
Checks of the values that the schema cannot express with a helpful message. What the operator, the gateway or the API server would
refuse is refused here, by `helm install` and `helm template`, with the name of the value and what to write instead. All problems are
reported at once.
*/}}
{{- define "validate" -}}
{{- $v := .Values }}
{{- $found := dict "problems" list }}

{{- if not (regexMatch "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$" $v.image.repository) }}
{{- include "validate.problem" (list $found "image.repository" $v.image.repository "is not the name of a repository: write registry.example.com/team/sandbox-operator, for instance, in lower case, and the tag in image.tag, or the digest in image.digest") }}
{{- end }}
{{- if not (regexMatch "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$" $v.image.tag) }}
{{- include "validate.problem" (list $found "image.tag" $v.image.tag "is not a tag: write at most 128 letters, digits, '_', '.' and '-'") }}
{{- end }}
{{- if not (regexMatch "^(sha256:[0-9a-f]{64})?$" ($v.image.digest | default "")) }}
{{- include "validate.problem" (list $found "image.digest" $v.image.digest "is not a digest: write sha256: and 64 hex digits") }}
{{- end }}
{{- range $i, $secret := $v.imagePullSecrets }}
{{- include "validate.name" (list $found (printf "imagePullSecrets[%d].name" $i) $secret.name) }}
{{- end }}
{{- range $i, $namespace := $v.watchNamespaces }}
{{- include "validate.label" (list $found (printf "watchNamespaces[%d]" $i) $namespace "the name of a namespace") }}
{{- end }}
{{- include "validate.labels" (list $found "nodeSelector" $v.nodeSelector) }}
{{- include "validate.keys" (list $found "podAnnotations" $v.podAnnotations) }}
{{- if $v.priorityClassName }}
{{- include "validate.name" (list $found "priorityClassName" $v.priorityClassName) }}
{{- end }}
{{- include "validate.tolerations" (list $found "tolerations" $v.tolerations) }}
{{- include "validate.resources" (list $found "resources" $v.resources) }}
{{- if not (regexMatch "^([0-9]+(ms|[smhdwy]))+$" $v.serviceMonitor.interval) }}
{{- include "validate.problem" (list $found "serviceMonitor.interval" $v.serviceMonitor.interval "is not a duration: write 30s or 1m, for instance") }}
{{- end }}
{{- if and $v.serviceMonitor.enabled $v.networkPolicy.enabled (not $v.networkPolicy.metricsFrom) }}
{{- include "validate.problem" (list $found "serviceMonitor.enabled" true "needs networkPolicy.metricsFrom: write the peers that may read metrics, such as the namespace of Prometheus") }}
{{- end }}

{{- $defaults := $v.sandboxes.defaults }}
{{- include "validate.image" (list $found "sandboxes.defaults.containerImage" $defaults.containerImage) }}
{{- include "validate.resources" (list $found "sandboxes.defaults" (pick $defaults "requests" "limits")) }}
{{- $_ := include "validate.quantity" (list $found "sandboxes.defaults.sharedMemory" $defaults.sharedMemory) }}
{{- range $field := list "runtimeClassName" "priorityClassName" "serviceAccountName" }}
{{- if get $defaults $field }}
{{- include "validate.name" (list $found (printf "sandboxes.defaults.%s" $field) (get $defaults $field)) }}
{{- end }}
{{- end }}
{{- include "validate.labels" (list $found "sandboxes.defaults.nodeSelector" $defaults.nodeSelector) }}
{{- include "validate.tolerations" (list $found "sandboxes.defaults.tolerations" $defaults.tolerations) }}
{{- $constraints := include "constraints" . | fromYaml }}
{{- include "validate.labels" (list $found "sandboxes.constraints.nodeSelector" $constraints.nodeSelector) }}
{{- include "validate.tolerations" (list $found "sandboxes.constraints.tolerations" $constraints.tolerations) }}
{{- include "validate.ranges" (list $found "sandboxes.constraints.egress.cidrs" $constraints.egress.cidrs) }}
{{- range $name, $quantity := $constraints.maxResources }}
{{- include "validate.resourceName" (list $found "sandboxes.constraints.maxResources" $name) }}
{{- $_ := include "validate.quantity" (list $found (printf "sandboxes.constraints.maxResources.%s" $name) $quantity) }}
{{- end }}
{{- range $field, $entries := dict "podLabelKeys" $constraints.podLabelKeys "podAnnotationKeys" $constraints.podAnnotationKeys }}
{{- range $i, $entry := $entries }}
{{- if not (regexMatch "^(\\*|\\*/\\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?/\\*|([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)$" $entry) }}
{{- include "validate.problem" (list $found (printf "sandboxes.constraints.%s[%d]" $field $i) $entry "is not a key: write *, example.com/*, example.com/name or */*") }}
{{- end }}
{{- end }}
{{- end }}
{{- if $constraints.maxLifetimeSeconds }}
{{- range $field, $seconds := dict "sandboxes.defaults.maxLifetimeSeconds" $defaults.maxLifetimeSeconds "gateway.config.defaultLifetimeSeconds" $v.gateway.config.defaultLifetimeSeconds }}
{{- if gt (int $seconds) (int $constraints.maxLifetimeSeconds) }}
{{- include "validate.problem" (list $found $field (int $seconds) (printf "is above sandboxes.constraints.maxLifetimeSeconds, %d: lower it" (int $constraints.maxLifetimeSeconds))) }}
{{- end }}
{{- end }}
{{- end }}
{{- $network := $v.sandboxes.network }}
{{- include "validate.ranges" (list $found "sandboxes.network.never" $network.never) }}
{{- include "validate.ranges" (list $found "sandboxes.network.apiServer" $network.apiServer) }}
{{- if and $v.watchNamespaces (not $network.apiServer) (not $network.never) }}
{{- include "validate.problem" (list $found "sandboxes.network.apiServer" "" "is empty, and with watchNamespaces the operator cannot read the addresses of the API server: write those of the Service kubernetes, of its endpoints and of your nodes here and in sandboxes.network.never") }}
{{- end }}
{{- include "validate.ranges" (list $found "sandboxes.network.nat64Prefixes" $network.nat64Prefixes) }}
{{- range $i, $prefix := $network.nat64Prefixes }}
{{- if not (regexMatch ":.*/(32|40|48|56|64|96)$" $prefix) }}
{{- include "validate.problem" (list $found (printf "sandboxes.network.nat64Prefixes[%d]" $i) $prefix "is not the prefix of a translator: write an IPv6 range with a prefix length of 32, 40, 48, 56, 64 or 96") }}
{{- end }}
{{- end }}
{{- include "validate.ranges" (list $found "sandboxes.network.notByDefault" $network.notByDefault) }}
{{- include "validate.ranges" (list $found "sandboxes.network.dns.addresses" $network.dns.addresses) }}
{{- include "validate.label" (list $found "sandboxes.network.dns.namespace" $network.dns.namespace "the name of a namespace") }}
{{- include "validate.labels" (list $found "sandboxes.network.dns.podLabels" $network.dns.podLabels) }}
{{- $public := $v.sandboxes.publicServices }}
{{- include "validate.keys" (list $found "sandboxes.publicServices.annotations" $public.annotations) }}
{{- if not (regexMatch "^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\])?$" $public.host) }}
{{- include "validate.problem" (list $found "sandboxes.publicServices.host" $public.host "is not a host: write a DNS name or an IP address (IPv6 in brackets), without scheme, port or path") }}
{{- end }}

{{- $gateway := $v.gateway }}
{{- range $field, $secret := dict "gateway.apiKeysSecret" $gateway.apiKeysSecret "gateway.tls.secret" $gateway.tls.secret }}
{{- if $secret }}
{{- include "validate.name" (list $found $field $secret) }}
{{- end }}
{{- end }}
{{- include "validate.keys" (list $found "gateway.service.annotations" $gateway.service.annotations) }}
{{- include "validate.resources" (list $found "gateway.resources" $gateway.resources) }}
{{- $ids := dict }}
{{- range $i, $runner := $gateway.config.runners }}
{{- $at := printf "gateway.config.runners[%d]" $i }}
{{- if hasKey $ids $runner.id }}
{{- include "validate.problem" (list $found (printf "%s.id" $at) $runner.id "is the id of another runner: ids must be unique") }}
{{- end }}
{{- $_ := set $ids $runner.id true }}
{{- include "validate.labels" (list $found (printf "%s.nodeLabels" $at) $runner.nodeLabels) }}
{{- include "validate.tolerations" (list $found (printf "%s.tolerations" $at) $runner.tolerations) }}
{{- end }}
{{- $gpus := $gateway.config.gpus }}
{{- include "validate.resourceName" (list $found "gateway.config.gpus.resource" $gpus.resource) }}
{{- range $type, $labels := $gpus.types }}
{{- include "validate.labels" (list $found (printf "gateway.config.gpus.types.%s" $type) $labels) }}
{{- end }}
{{- range $size, $labels := $gpus.memoryGb }}
{{- include "validate.labels" (list $found (printf "gateway.config.gpus.memoryGb.%s" $size) $labels) }}
{{- end }}

{{- if $found.problems }}
{{- fail (printf "\n\nThe chart's values have %d problem(s):\n  %s\n" (len $found.problems) (join "\n  " $found.problems)) }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD VALUE TEXT) */}}
{{- define "validate.problem" -}}
{{- $found := index . 0 }}
{{- $_ := set $found "problems" (append $found.problems (printf "%s: %q %s" (index . 1) (toString (index . 2)) (index . 3))) }}
{{- end }}

{{- /* (list FOUND FIELD VALUE): an image, with or without tag and digest */}}
{{- define "validate.image" -}}
{{- if not (regexMatch "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@[a-z0-9]+:[0-9a-f]{32,})?$" (index . 2)) }}
{{- include "validate.problem" (concat . (list "is not the name of an image: write registry.example.com/team/image:tag, for instance, in lower case and without spaces")) }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD VALUE): the name of an object */}}
{{- define "validate.name" -}}
{{- if or (gt (len (index . 2)) 253) (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" (index . 2))) }}
{{- include "validate.problem" (concat . (list "is not the name of an object: write lower-case letters, digits, '-' and '.'")) }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD VALUE WHAT): a DNS label */}}
{{- define "validate.label" -}}
{{- if or (gt (len (index . 2)) 63) (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" (index . 2))) }}
{{- include "validate.problem" (list (index . 0) (index . 1) (index . 2) (printf "is not %s: write at most 63 lower-case letters, digits and '-'" (index . 3))) }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD MAP): the keys of labels or annotations */}}
{{- define "validate.keys" -}}
{{- $found := index . 0 }}
{{- $field := index . 1 }}
{{- range $key, $_ := index . 2 }}
{{- if not (regexMatch "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$" $key) }}
{{- include "validate.problem" (list $found $field $key "is not a key: write at most 63 letters, digits, '-', '_' and '.', with or without a prefix such as example.com/") }}
{{- end }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD MAP): labels */}}
{{- define "validate.labels" -}}
{{- include "validate.keys" . }}
{{- $found := index . 0 }}
{{- $field := index . 1 }}
{{- range $key, $value := index . 2 }}
{{- if not (regexMatch "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$" (toString $value)) }}
{{- include "validate.problem" (list $found (printf "%s.%s" $field $key) $value "is not the value of a label: write at most 63 letters, digits, '-', '_' and '.'") }}
{{- end }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD NAME): the name of a resource */}}
{{- define "validate.resourceName" -}}
{{- if not (regexMatch "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$" (index . 2)) }}
{{- include "validate.problem" (concat . (list "is not the name of a resource: write cpu, memory or nvidia.com/gpu, for instance")) }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD VALUE): a quantity that is not negative. It prints the value as a number, or nothing. */}}
{{- define "validate.quantity" -}}
{{- $text := toString (index . 2) }}
{{- if regexMatch "^\\+?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?$" $text }}
{{- $suffix := regexFind "([numkMGTPE]|[KMGTPE]i)$" $text }}
{{- $factors := dict "" 1.0 "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 }}
{{- mulf (float64 (trimSuffix $suffix $text)) (get $factors $suffix) }}
{{- else if regexMatch "^[0-9.]+[kKMGTPE]i?[bB]$" $text }}
{{- $number := regexFind "^[0-9.]+" $text }}
{{- $unit := regexFind "[kKMGTPE]" $text }}
{{- include "validate.problem" (concat . (list (printf "is not a quantity: write %s%s for powers of 1000, or %s%si for powers of 1024, without B" $number (replace "K" "k" $unit) $number (upper $unit)))) }}
{{- else }}
{{- include "validate.problem" (concat . (list "is not a quantity: write a number that is not negative, with one of Kubernetes' suffixes if needed, such as 500m, 2G or 2Gi")) }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD RESOURCES): requests and limits */}}
{{- define "validate.resources" -}}
{{- $found := index . 0 }}
{{- $field := index . 1 }}
{{- $values := dict "requests" dict "limits" dict }}
{{- range $kind, $of := $values }}
{{- range $name, $quantity := get (index $ 2) $kind }}
{{- include "validate.resourceName" (list $found (printf "%s.%s" $field $kind) $name) }}
{{- $number := include "validate.quantity" (list $found (printf "%s.%s.%s" $field $kind $name) $quantity) }}
{{- if $number }}
{{- $_ := set $of $name $number }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $request := $values.requests }}
{{- if and (hasKey $values.limits $name) (gt (float64 $request) (float64 (get $values.limits $name))) }}
{{- $limit := get (get (index $ 2) "limits") $name }}
{{- include "validate.problem" (list $found (printf "%s.requests.%s" $field $name) (get (get (index $ 2) "requests") $name) (printf "is above %s.limits.%s, %s: raise the limit or lower the request" $field $name (toString $limit))) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD TOLERATIONS) */}}
{{- define "validate.tolerations" -}}
{{- $found := index . 0 }}
{{- $field := index . 1 }}
{{- range $i, $toleration := index . 2 }}
{{- $at := printf "%s[%d]" $field $i }}
{{- $operator := default "Equal" $toleration.operator }}
{{- if and (eq $operator "Exists") $toleration.value }}
{{- include "validate.problem" (list $found (printf "%s.value" $at) $toleration.value "must be left out with operator Exists") }}
{{- end }}
{{- if and (ne $operator "Exists") (not $toleration.key) }}
{{- include "validate.problem" (list $found (printf "%s.key" $at) "" "is missing: write the taint's key, or operator Exists to tolerate all taints") }}
{{- end }}
{{- end }}
{{- end }}

{{- /* (list FOUND FIELD RANGES): address ranges, without host bits in IPv4 */}}
{{- define "validate.ranges" -}}
{{- $found := index . 0 }}
{{- $field := index . 1 }}
{{- range $i, $range := index . 2 }}
{{- $at := printf "%s[%d]" $field $i }}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" }}
{{- $address := regexReplaceAll "/.*$" $range "" }}
{{- $isV4 := regexMatch (printf "^(%s\\.){3}%s$" $octet $octet) $address }}
{{- $isV6 := and (contains ":" $address) (regexMatch "^[0-9A-Fa-f:.]{2,45}$" $address) (not (regexMatch ":::|::.*::|[0-9A-Fa-f]{5}" $address)) }}
{{- $prefix := regexFind "/(0|[1-9][0-9]{0,2})$" $range | trimPrefix "/" }}
{{- $longest := ternary 32 128 $isV4 }}
{{- if not (or $isV4 $isV6) }}
{{- include "validate.problem" (list $found $at $range "is not an address range: write 10.0.0.0/8 or 2001:db8::/32, for instance") }}
{{- else if not (contains "/" $range) }}
{{- include "validate.problem" (list $found $at $range (printf "is not an address range: write %s/%d for this one address, or the prefix length of the range" $address $longest)) }}
{{- else if or (not $prefix) (gt (int $prefix) $longest) }}
{{- include "validate.problem" (list $found $at $range (printf "is not an address range: write a prefix length from 0 to %d after the '/'" $longest)) }}
{{- else if $isV4 }}
{{- $number := 0 }}
{{- range splitList "." $address }}{{ $number = add (mul $number 256) (int .) }}{{ end }}
{{- $size := 1 }}
{{- range until (int (sub 32 (int $prefix))) }}{{ $size = mul $size 2 }}{{ end }}
{{- $rest := mod $number $size }}
{{- if ne (int $rest) 0 }}
{{- $base := sub $number $rest }}
{{- $network := printf "%d.%d.%d.%d" (mod (div $base 16777216) 256) (mod (div $base 65536) 256) (mod (div $base 256) 256) (mod $base 256) }}
{{- include "validate.problem" (list $found $at $range (printf "has bits set behind its prefix: write %s/%s for the range, or %s/32 for the address" $network $prefix $address)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
