#!/usr/bin/env bash
# The public SDK, unmodified, against the gateway that is installed on the cluster. Usage: run.sh [pytest arguments]
# SDK=newest takes the newest one from PyPI in place of the pinned one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-operator

requirements=$(cat "$here/requirements.txt")
[[ ${SDK:-pinned} == pinned ]] || requirements=$(sed 's/==.*//' "$here/requirements.txt")
venv=$cache/sdk-${SDK:-pinned}-$(sha256sum <<< "$requirements" | cut -c1-12)
if [[ ! -e $venv/.done || ${SDK:-pinned} != pinned ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check --upgrade -r <(echo "$requirements")
  touch "$venv/.done"
fi

export SDK_TEST_NAMESPACE=${SDK_TEST_NAMESPACE:-sdk-tests}
kubectl create namespace "$SDK_TEST_NAMESPACE" --dry-run=client -o yaml | kubectl apply -f - > /dev/null
"$here/tenant.sh" "$SDK_TEST_NAMESPACE" tester
CWSANDBOX_API_KEY=$(kubectl create token tester -n "$SDK_TEST_NAMESPACE" --audience sandbox-operator.dev --duration 2h)
CWSANDBOX_BASE_URL=${CWSANDBOX_BASE_URL:-$("$here/url.sh")}
export CWSANDBOX_API_KEY CWSANDBOX_BASE_URL
# A proxy of this machine's has nothing to do with the cluster.
export no_proxy='*' NO_PROXY='*'
cd "$here"
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider -n "${SDK_TEST_WORKERS:-4}" "$@" .
