#!/usr/bin/env bash
# Attacks from inside sandboxes on the network around them. Usage: run.sh [PYTEST_ARGUMENT...]
# Needs what `cluster up --for-tests` adds: enforcement of NetworkPolicy and the stand-in for the internet.
set -euo pipefail
if [[ ${SANDBOX_OPERATOR_EXISTING_CLUSTER:-} == 1 ]]; then
  echo "NOT TESTED: an existing cluster has no stand-in for the internet"
  exit 0
fi
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/../../hack/sdk/venv.sh" "$here/../sdk/requirements.txt")
export PYTHONDONTWRITEBYTECODE=1
cd "$here"
# The timeout ends a run that hangs.
timeout --signal INT --kill-after 30 600 "$python" -m pytest -q -p no:cacheprovider "$@" .
