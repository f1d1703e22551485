#!/usr/bin/env bash
# Prints the newest version of the SDK in the package index, or nothing if the index does not answer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/../../hack/sdk/venv.sh" "$here/requirements.txt")
report=$(timeout 60 "$python" -m pip install -q --disable-pip-version-check --retries 1 --timeout 20 \
  --dry-run --ignore-installed --no-deps --report - cwsandbox) || exit 0
"$python" -c 'import json, sys; print(json.load(sys.stdin)["install"][0]["metadata"]["version"])' <<< "$report"
