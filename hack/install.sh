#!/bin/bash
# Installs the chart with IMAGE on the current cluster and waits until it is ready. Usage: install.sh IMAGE
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/lib.sh
image=$1
namespace=sandbox-operator
kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted --overwrite >/dev/null
# The gateway knows the hash of each API key and its ServiceAccount. This key is for the tests.
key=$(printf %s 0123456789abcdef0123456789abcdef01234567 | sha256sum | cut -d' ' -f1)
kubectl create secret generic sandbox-operator-api-keys -n "$namespace" --from-literal="$key=sdk-tests/tester" --dry-run=client -o yaml |
  kubectl apply -f - >/dev/null
# The scale benchmark has 10,000 sandboxes in one namespace. --force-conflicts: during development kubectl may own fields of the same objects, for instance of definitions that were applied by hand.
quiet_helm upgrade --install --force-conflicts sandbox-operator charts/sandbox-operator --namespace "$namespace" \
  --set sandboxes.publicServices.type=NodePort --set gateway.service.type=NodePort --set gateway.apiKeysSecret=sandbox-operator-api-keys --set gateway.execViaApiServer=true \
  --set-string 'sandboxes.constraints.maxResources.example\.com/scarce=1' --set 'sandboxes.constraints.podLabelKeys={*,example.com/*}' \
  --set sandboxes.maxActivePerNamespace=12000 --set "image.repository=${image%:*}" --set "image.tag=${image##*:}" --wait --timeout 180s >/dev/null
# Helm does not restart pods for a new image with the same tag.
id=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null || true)
for deployment in sandbox-operator sandbox-operator-gateway; do
  kubectl --namespace "$namespace" patch deployment "$deployment" --type merge \
    --patch '{"spec":{"template":{"metadata":{"annotations":{"sandbox-operator.dev/image-id":"'"$id"'"}}}}}' >/dev/null
done
for deployment in sandbox-operator sandbox-operator-gateway; do
  kubectl --namespace "$namespace" rollout status deployment "$deployment" --timeout 180s > /dev/null
done
echo "installed $image in namespace $namespace"
