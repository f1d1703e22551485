#!/bin/bash
# Applies FILE, waits until sandbox NAME has finished, and shows its states, logs and record, and whether the cluster enforces
# NetworkPolicy. Fails unless the sandbox is COMPLETED.
# Usage: run-example.sh FILE NAME
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
file=$1 name=$2
kubectl delete sbx "$name" --ignore-not-found --wait > /dev/null
kubectl apply -f "$file"
kubectl get sbx "$name" --watch --no-headers -o custom-columns='STATE:.status.state,REASON:.status.reason' \
  > >(while read -r state; do echo "$(date +%T)  $state"; done) 2> /dev/null &
watch=$!
trap 'kill $watch 2> /dev/null || true' EXIT
kubectl wait "sbx/$name" --for=condition=Finished --timeout=300s > /dev/null || echo "sandbox $name has not finished after 300 s" >&2
echo "--- logs of $name"
pod=$(kubectl get sbx "$name" -o jsonpath='{.status.podName}')
[ -z "$pod" ] || kubectl logs "$pod" -c main || true
echo "---"
kubectl get sbx "$name"
state=$(kubectl get sbx "$name" -o jsonpath='{.status.state}')
[ "$state" = COMPLETED ] || { kubectl get sbx "$name" -o jsonpath='{.status.message}{"\n"}' >&2; exit 1; }
"$here/network-result.sh"
