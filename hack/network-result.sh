#!/bin/bash
# Shows in two lines the operator's result whether the cluster enforces NetworkPolicy. Waits for the first check of its leader.
set -euo pipefail
namespace=sandbox-operator name=sandbox-operator
value() { kubectl get configmap -n "$namespace" "$name-network" -o jsonpath="{.data.$1}"; }
for _ in $(seq 120); do
  since=$(kubectl get lease -n "$namespace" "$name" -o jsonpath='{.spec.acquireTime}')
  checked=$(value checkedAt)
  [[ -z $since || ! $checked > $since ]] || break
  sleep 1
done
echo "--- network: $(value message)"
case $(value result) in
  Enforced) echo "Sandboxes reach only what their network rules allow. To check again: helm test $name -n $namespace --logs" ;;
  NotEnforced) echo 'Do not run code here that you do not trust. On the cluster that `make run` created, `make test-cluster` adds enforcement' ;;
  *) echo "Do not run code here that you do not trust. Details: kubectl describe configmap -n $namespace $name-network" ;;
esac
