#!/usr/bin/env bash
# Tests of the installed gateway with the unmodified public SDK. Usage: run.sh [PYTEST_ARGUMENT...]
# SDK=newest tests the newest SDK of the package index; it does nothing if that is the pinned version. SDK_VERSION tests that version.
# Descriptors are compared with the pinned SDK only: a newer SDK may add methods that the gateway does not have yet.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
hack=$(cd "$here/../../hack/sdk" && pwd)
version=${SDK_VERSION:-$(sed -n 's/^cwsandbox.*==//p' "$here/requirements.txt")}
if [[ ${SDK:-pinned} == newest ]]; then
  pinned=$version version=$("$here/newest.sh")
  [[ -n $version ]] || { echo "NOT TESTED with the newest SDK: the package index does not answer"; exit 0; }
  [[ $version != "$pinned" ]] || { echo "the pinned SDK, cwsandbox $version, is the newest one"; exit 0; }
  export SDK_VERSION=$version
  set -- --ignore test_protocol.py "$@"
fi
echo "--- cwsandbox $version"
python=$("$hack/venv.sh" "$here/requirements.txt")
export SDK_TEST_NAMESPACE=${SDK_TEST_NAMESPACE:-sdk-tests}
"$hack/tenant.sh" "$SDK_TEST_NAMESPACE" tester
# This one may also register volumes.
"$hack/tenant.sh" "$SDK_TEST_NAMESPACE" editor edit
# This one exhausts its limits.
"$hack/tenant.sh" "$SDK_TEST_NAMESPACE" limited
# This one has all rights, but in another namespace.
"$hack/tenant.sh" "$SDK_TEST_NAMESPACE-other" other-tenant edit
CWSANDBOX_API_KEY=$(kubectl create token tester -n "$SDK_TEST_NAMESPACE" --audience sandbox-operator.dev --duration 2h)
CWSANDBOX_BASE_URL=${CWSANDBOX_BASE_URL:-$("$hack/url.sh")}
export CWSANDBOX_API_KEY CWSANDBOX_BASE_URL
# Calls to the cluster must not go through this machine's proxy.
export no_proxy='*' NO_PROXY='*' PYTHONDONTWRITEBYTECODE=1
cd "$here"
# The timeout ends a run that hangs. pytest exits with 5 if the arguments select no test.
run() { timeout --signal INT --kill-after 30 900 "$python" -m pytest -q -p no:cacheprovider "$@" . || (($? == 5)); }
run -n "${SDK_TEST_WORKERS:-4}" "$@" -m "not alone"
# Tests that restart the gateway run alone.
run "$@" -m alone
# After a failure the sandboxes stay, for debugging.
kubectl delete sandboxes.sandbox-operator.dev --all -n "$SDK_TEST_NAMESPACE" --wait=false > /dev/null
