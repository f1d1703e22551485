#!/bin/bash
# Writes crds/ and deploy/sandbox-operator.yaml anew from the types and the chart. With --check: fails if they are not what is committed.
set -euo pipefail
cd "$(dirname "$0")/.."
eval "$(hack/cluster/cluster env)"
cargo run --quiet --locked -- crds crds
{
  echo "# Generated from charts/sandbox-operator by hack/generate.sh; do not edit."
  echo "# kubectl create namespace sandbox-operator && kubectl apply --server-side -f deploy/sandbox-operator.yaml"
  helm template sandbox-operator charts/sandbox-operator --namespace sandbox-operator 2>/dev/null | grep -v '^# Source: '
} > deploy/sandbox-operator.yaml
if [ "${1:-}" = --check ] && [ -n "$(git status --porcelain -- crds deploy/sandbox-operator.yaml)" ]; then
  git --no-pager diff --stat -- crds deploy/sandbox-operator.yaml
  echo "generated files differ from what is committed: run 'make generate' and commit" >&2
  exit 1
fi
