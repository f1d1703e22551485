#!/bin/bash
# The chart is well formed, and the API server accepts all of it: with default values, with every option on, with every switch off.
set -euo pipefail
cd "$(dirname "$0")/.."
eval "$(hack/cluster/cluster env)"
chart=charts/sandbox-operator

# Helm remarks on each use that the chart's definitions are a link.
quiet_helm() { helm "$@" 2> >(grep -v 'symbolic link' >&2); }

# A ServiceMonitor is for the Prometheus operator; an API server that does not know the kind cannot judge it.
known_kinds() {
  if kubectl get crd servicemonitors.monitoring.coreos.com >/dev/null 2>&1; then
    cat
  else
    awk 'BEGIN { RS = ORS = "\n---\n" } !/\nkind: ServiceMonitor\n/'
  fi
}

check() { # HELM_ARGUMENT...
  local objects
  quiet_helm lint --quiet --strict "$chart" "$@"
  objects=$(quiet_helm template chart-test "$chart" --namespace default "$@")
  known_kinds <<< "$objects" | kubectl apply --server-side --force-conflicts --dry-run=server -f - >/dev/null
}

check
check --values tests/charts/full-values.yaml
check --set podDisruptionBudget.enabled=false,networkPolicy.enabled=false,crds.install=false
if helm lint --quiet "$chart" --set nonsense=1 >/dev/null 2>&1; then
  echo "a value that does not exist is accepted" >&2
  exit 1
fi
