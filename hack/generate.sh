#!/bin/bash
# Regenerates crds/ from the types and deploy/sandbox-operator.yaml from the chart. --check: fails if they differ from what is committed.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/lib.sh
cargo run --quiet --locked -- crds crds
{
  echo "# Generated from charts/sandbox-operator by hack/generate.sh; do not edit."
  echo "# kubectl create namespace sandbox-operator && kubectl apply --server-side -f deploy/sandbox-operator.yaml"
  quiet_helm template --skip-tests sandbox-operator charts/sandbox-operator --namespace sandbox-operator | grep -v '^# Source: '
} > deploy/sandbox-operator.yaml
if [ "${1:-}" = --check ] && [ -n "$(git status --porcelain -- crds deploy/sandbox-operator.yaml)" ]; then
  git --no-pager diff --stat -- crds deploy/sandbox-operator.yaml
  echo "generated files differ from what is committed: run 'make generate' and commit the result" >&2
  exit 1
fi
