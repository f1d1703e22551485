#!/usr/bin/env bash
# Creates a namespace with a ServiceAccount that may use sandboxes in it. Usage: tenant.sh NAMESPACE NAME [CLUSTERROLE]
set -euo pipefail
apply() { kubectl apply -f - > /dev/null; }
role=${3:-sandbox-operator-user}
kubectl create namespace "$1" --dry-run=client -o yaml | apply
kubectl create serviceaccount "$2" -n "$1" --dry-run=client -o yaml | apply
kubectl create rolebinding "$2-$role" -n "$1" --clusterrole "$role" --serviceaccount "$1:$2" --dry-run=client -o yaml | apply
