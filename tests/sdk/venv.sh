#!/usr/bin/env bash
# Prints a Python that has the SDK and the test tools, made once per set of versions. SDK_VERSION: of cwsandbox, instead of the pinned one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
requirements=$(cat "$here/requirements.txt")
if [[ -n ${SDK_VERSION:-} ]]; then
  # wandb is of the version that goes with it.
  requirements=$(sed "s/^\(cwsandbox.*\)==.*/\1==$SDK_VERSION/; s/^wandb==.*/wandb/" <<< "$requirements")
fi
venv=${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-operator/sdk-${SDK_VERSION:-pinned}-$(sha256sum <<< "$requirements" | cut -c1-12)
if [[ ! -e $venv/.done ]]; then
  python3 -m venv "$venv" || { echo "python3 -m venv does not work: install Debian's python3-venv" >&2; exit 1; }
  "$venv/bin/pip" install -q --disable-pip-version-check --upgrade -r <(echo "$requirements") >&2
  touch "$venv/.done"
fi
echo "$venv/bin/python"
