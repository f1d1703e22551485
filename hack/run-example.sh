#!/bin/bash
# Applies FILE, shows the states of sandbox NAME as they change, then its logs; fails unless it ends COMPLETED.
set -euo pipefail
file=$1 name=$2
kubectl delete sbx "$name" --ignore-not-found --wait >/dev/null
kubectl apply -f "$file"
seen=
for _ in $(seq 600); do
  read -r state reason < <(kubectl get sbx "$name" -o jsonpath='{.status.state} {.status.reason}{"\n"}')
  if [ "$state" != "$seen" ]; then
    echo "$(date +%T)  ${state:-PENDING}  ${reason:-}"
    seen=$state
  fi
  case $state in COMPLETED | FAILED | TERMINATED) break ;; esac
  sleep 0.2
done
pod=$(kubectl get sbx "$name" -o jsonpath='{.status.podName}')
echo "--- logs of $name"
[ -z "$pod" ] || kubectl logs "$pod" -c main || true
echo "---"
kubectl get sbx "$name"
[ "$seen" = COMPLETED ]
