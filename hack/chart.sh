#!/bin/bash
# Checks the chart with default values, with every option set, and with every switch off, and that it refuses wrong values with a helpful
# message. Needs Helm only. --server: an API server checks all objects as well, without creating them.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/lib.sh
server=${1:-}
chart=charts/sandbox-operator

# Objects in the chart's second namespace can be checked only if the namespace exists.
if [[ $server == --server ]]; then
  kubectl wait --for=delete namespace/default-probe --timeout=60s > /dev/null
  kubectl create namespace default-probe > /dev/null
  trap 'kubectl delete namespace default-probe --wait=false > /dev/null' EXIT
fi

# A ServiceMonitor belongs to the Prometheus operator: an API server without that kind cannot check it.
known_kinds() {
  if kubectl get crd servicemonitors.monitoring.coreos.com > /dev/null 2>&1; then
    cat
  else
    awk 'BEGIN { RS = ORS = "\n---\n" } !/\nkind: ServiceMonitor\n/'
  fi
}

check() { # HELM_ARGUMENT...
  local objects
  quiet_helm lint --quiet --strict "$chart" "$@"
  # Without the pod of `helm test`: it needs a ServiceAccount that exists.
  objects=$(quiet_helm template --skip-tests chart-test "$chart" --namespace default "$@")
  [[ $server != --server ]] || known_kinds <<< "$objects" | kubectl apply --server-side --force-conflicts --dry-run=server -f - > /dev/null
}

refuses() { # TEXT HELM_ARGUMENT...: the chart must refuse the arguments, and the message must contain TEXT
  local text=$1 message
  shift
  if message=$(quiet_helm template chart-test "$chart" "$@" 2>&1 > /dev/null); then
    echo "the chart accepts $*" >&2
    exit 1
  fi
  [[ $message == *"$text"* ]] || { printf 'for %s the message must contain "%s", but it is:\n%s\n' "$*" "$text" "$message" >&2; exit 1; }
}

check
check --values tests/charts/full-values.yaml
check --set podDisruptionBudget.enabled=false,networkPolicy.enabled=false,crds.install=false
check --set sandboxes.network.enforcement=Ignore
# Numbers where Kubernetes wants text, as --set passes them.
check --set podAnnotations.build=7,sandboxes.defaults.limits.cpu=1,sandboxes.constraints.maxResources.cpu=1,sandboxes.network.dns.podLabels.version=1

# With the values of an older chart (helm upgrade --reuse-values).
check --set sandboxes.constraints=null,admissionPolicies=null,image.digest=null,networkPolicy.metricsFrom=null
check --set sandboxes.network.apiServer=null,sandboxes.network.nat64Prefixes=null,sandboxes.network.enforcement=null,sandboxes.maxActivePerNamespace=null

# The programs refuse null where they expect a list.
if quiet_helm template chart-test "$chart" --namespace default | grep -E '^    +(never|notByDefault|apiServer|nat64Prefixes|watchNamespaces): null'; then
  echo "a list of a configuration is null" >&2
  exit 1
fi

refuses "additional properties 'nonsense' not allowed" --set nonsense=1
refuses 'sandboxes.defaults.limits.memory: "2GB" is not a quantity: write 2G for powers of 1000, or 2Gi' --set sandboxes.defaults.limits.memory=2GB
refuses 'sandboxes.defaults.sharedMemory: "64MB" is not a quantity: write 64M for powers of 1000, or 64Mi' --set sandboxes.defaults.sharedMemory=64MB
refuses 'sandboxes.defaults.requests.cpu: "3" is above sandboxes.defaults.limits.cpu, 2' --set sandboxes.defaults.requests.cpu=3
refuses 'sandboxes.defaults.requests.cpu: "-1" is not a quantity' --set sandboxes.defaults.requests.cpu=-1
refuses 'sandboxes.defaults.containerImage: "My image" is not the name of an image' --set 'sandboxes.defaults.containerImage=My image'
refuses 'sandboxes.defaults.maxLifetimeSeconds: "86400" is above sandboxes.constraints.maxLifetimeSeconds, 3600: lower it' --set sandboxes.constraints.maxLifetimeSeconds=3600
refuses 'sandboxes.constraints.egress.cidrs[0]: "10.0.0.1" is not an address range' --set 'sandboxes.constraints.egress.cidrs={10.0.0.1}'
refuses 'sandboxes.constraints.podLabelKeys[0]: "*.example.com/*" is not a key: write *, example.com/*' --set 'sandboxes.constraints.podLabelKeys={*.example.com/*}'
refuses "at '/sandboxes/constraints/images': minItems: got 0, want 1" --set-json 'sandboxes.constraints.images=[]'
refuses "additional properties 'runtimeClasses' not allowed" --set 'sandboxes.constraints.runtimeClasses={gvisor}'
refuses 'resources.limits.memory: "lots" is not a quantity' --set resources.limits.memory=lots
refuses 'gateway.resources.requests.memory: "3Gi" is above gateway.resources.limits.memory, 2Gi' --set gateway.resources.requests.memory=3Gi
refuses 'sandboxes.network.never[0]: "10.0.0.1" is not an address range: write 10.0.0.1/32' --set 'sandboxes.network.never={10.0.0.1}'
refuses 'sandboxes.network.never[0]: "10.1.2.129/25" has bits set behind its prefix: write 10.1.2.128/25' --set 'sandboxes.network.never={10.1.2.129/25}'
refuses 'sandboxes.network.notByDefault[0]: "2001:db8::" is not an address range: write 2001:db8::/128' --set 'sandboxes.network.notByDefault={2001:db8::}'
refuses 'sandboxes.network.dns.addresses[0]: "10.0.0.0/33" is not an address range: write a prefix length from 0 to 32' --set 'sandboxes.network.dns.addresses={10.0.0.0/33}'
refuses 'sandboxes.network.nat64Prefixes[0]: "64:ff9b::/97" is not the prefix of a translator' --set 'sandboxes.network.nat64Prefixes={64:ff9b::/97}'
refuses 'sandboxes.network.apiServer: "" is empty, and with watchNamespaces' --set 'watchNamespaces={team}'
refuses 'must be one of' --set sandboxes.network.enforcement=Maybe
refuses 'sandboxes.publicServices.host: "http://nodes" is not a host' --set sandboxes.publicServices.host=http://nodes
refuses 'watchNamespaces[0]: "Team_A" is not the name of a namespace' --set 'watchNamespaces={Team_A}'
refuses 'image.repository: "app:1" is not the name of a repository' --set image.repository=app:1
refuses 'image.digest: "latest" is not a digest: write sha256:' --set image.digest=latest
refuses 'gateway.tls.secret: "My_Secret" is not the name of an object' --set gateway.tls.secret=My_Secret
refuses 'gateway.config.runners[1].id: "a" is the id of another runner' \
  --set gateway.config.runners[0].id=a,gateway.config.runners[0].nodeLabels.x=v,gateway.config.runners[1].id=a,gateway.config.runners[1].nodeLabels.x=w
refuses 'serviceMonitor.interval: "30" is not a duration' --set-string serviceMonitor.interval=30
refuses 'serviceMonitor.enabled: "true" needs networkPolicy.metricsFrom' --set serviceMonitor.enabled=true
