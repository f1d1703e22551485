#!/usr/bin/env bash
# Runs a Python script that uses the public SDK against the gateway of the current cluster. Usage: run-script.sh SCRIPT
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/sdk/venv.sh" "$here/../deploy/sdk/requirements.txt")
"$here/sdk/tenant.sh" sdk-example me
log=$(mktemp)
kubectl port-forward -n sandbox-operator service/sandbox-operator-gateway :80 > "$log" 2>&1 &
forward=$!
trap 'kill $forward 2> /dev/null; rm -f "$log"' EXIT
for _ in $(seq 100); do
  port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$log")
  [[ -z $port ]] || break
  kill -0 $forward 2> /dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
[[ -n $port ]] || { echo "kubectl port-forward did not start: $(cat "$log")" >&2; exit 1; }
CWSANDBOX_BASE_URL=http://127.0.0.1:$port
CWSANDBOX_API_KEY=$(kubectl create token me -n sdk-example --audience sandbox-operator.dev)
export CWSANDBOX_BASE_URL CWSANDBOX_API_KEY no_proxy=127.0.0.1
echo "--- $1"
"$python" "$1"
