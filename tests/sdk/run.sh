#!/usr/bin/env bash
# The public SDK, unmodified, against the gateway that is installed on the cluster. Usage: run.sh [pytest arguments]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/venv.sh")
export SDK_TEST_NAMESPACE=${SDK_TEST_NAMESPACE:-sdk-tests}
"$here/tenant.sh" "$SDK_TEST_NAMESPACE" tester
CWSANDBOX_API_KEY=$(kubectl create token tester -n "$SDK_TEST_NAMESPACE" --audience sandbox-operator.dev --duration 2h)
CWSANDBOX_BASE_URL=${CWSANDBOX_BASE_URL:-$("$here/url.sh")}
export CWSANDBOX_API_KEY CWSANDBOX_BASE_URL
# A proxy of this machine's has nothing to do with the cluster.
export no_proxy='*' NO_PROXY='*' PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "$python" -m pytest -q -p no:cacheprovider -n "${SDK_TEST_WORKERS:-4}" "$@" .
