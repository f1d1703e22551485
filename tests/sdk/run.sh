#!/usr/bin/env bash
# The public SDK, unmodified, against the gateway that is installed on the cluster. Usage: run.sh [pytest arguments]
# SDK=newest: the newest SDK of the package index, unless that is the pinned one. SDK_VERSION: this one.
# Descriptors are compared with the pinned one's only: what a newer one adds is no defect of ours.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=${SDK_VERSION:-$(sed -n 's/^cwsandbox.*==//p' "$here/requirements.txt")}
if [[ ${SDK:-pinned} == newest ]]; then
  pinned=$version version=$("$here/newest.sh")
  [[ -n $version ]] || { echo "the newest SDK is NOT TESTED: the package index does not answer"; exit 0; }
  [[ $version != "$pinned" ]] || { echo "the newest SDK is the pinned one, cwsandbox $version: nothing more to test"; exit 0; }
  export SDK_VERSION=$version
  set -- --ignore test_protocol.py "$@"
fi
echo "--- cwsandbox $version"
python=$("$here/venv.sh")
export SDK_TEST_NAMESPACE=${SDK_TEST_NAMESPACE:-sdk-tests}
"$here/tenant.sh" "$SDK_TEST_NAMESPACE" tester
# May also register volumes.
"$here/tenant.sh" "$SDK_TEST_NAMESPACE" keeper edit
# Uses up all that a caller may.
"$here/tenant.sh" "$SDK_TEST_NAMESPACE" greedy
# May do everything, but elsewhere.
"$here/tenant.sh" "$SDK_TEST_NAMESPACE-other" stranger edit
CWSANDBOX_API_KEY=$(kubectl create token tester -n "$SDK_TEST_NAMESPACE" --audience sandbox-operator.dev --duration 2h)
CWSANDBOX_BASE_URL=${CWSANDBOX_BASE_URL:-$("$here/url.sh")}
export CWSANDBOX_API_KEY CWSANDBOX_BASE_URL
# A proxy of this machine's has nothing to do with the cluster.
export no_proxy='*' NO_PROXY='*' PYTHONDONTWRITEBYTECODE=1
cd "$here"
# Nothing of it takes so long, unless it hangs. pytest says 5 where the arguments leave no test.
run() { timeout --signal INT --kill-after 30 900 "$python" -m pytest -q -p no:cacheprovider "$@" . || (($? == 5)); }
run -n "${SDK_TEST_WORKERS:-4}" "$@" -m "not alone"
# What restarts the gateway has it for itself.
run "$@" -m alone
# After a failure they stay, to be looked at.
kubectl delete sandboxes.sandbox-operator.dev --all -n "$SDK_TEST_NAMESPACE" --wait=false > /dev/null
