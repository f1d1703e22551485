#!/bin/bash
# Installs the chart with IMAGE on the current cluster, and waits until it is ready.
set -euo pipefail
cd "$(dirname "$0")/.."
image=$1
namespace=sandbox-operator
kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted --overwrite >/dev/null
helm upgrade --install sandbox-operator charts/sandbox-operator --namespace "$namespace" \
  --set "image.repository=${image%:*}" --set "image.tag=${image##*:}" --wait --timeout 180s >/dev/null
# An image of the same tag but other content does not make Helm roll anything.
id=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null || true)
kubectl --namespace "$namespace" patch deployment sandbox-operator --type merge \
  --patch '{"spec":{"template":{"metadata":{"annotations":{"sandbox-operator.dev/image-id":"'"$id"'"}}}}}' >/dev/null
kubectl --namespace "$namespace" rollout status deployment sandbox-operator --timeout 180s
