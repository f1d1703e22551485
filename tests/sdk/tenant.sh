#!/usr/bin/env bash
# A namespace with a ServiceAccount that may use sandboxes there. Usage: tenant.sh NAMESPACE NAME [CLUSTERROLE]
set -euo pipefail
apply() { kubectl apply -f - > /dev/null; }
role=${3:-sandbox-operator-user}
kubectl create namespace "$1" --dry-run=client -o yaml | apply
kubectl create serviceaccount "$2" -n "$1" --dry-run=client -o yaml | apply
kubectl create rolebinding "$2-$role" -n "$1" --clusterrole "$role" --serviceaccount "$1:$2" --dry-run=client -o yaml | apply
