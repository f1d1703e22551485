#!/usr/bin/env bash
# A ServiceAccount that may use sandboxes in its own namespace. Usage: tenant.sh NAMESPACE NAME
set -euo pipefail
kubectl create serviceaccount "$2" -n "$1" --dry-run=client -o yaml | kubectl apply -f - > /dev/null
kubectl create rolebinding "$2-sandboxes" -n "$1" --clusterrole sandbox-operator-user --serviceaccount "$1:$2" \
  --dry-run=client -o yaml | kubectl apply -f - > /dev/null
