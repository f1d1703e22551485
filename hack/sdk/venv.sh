#!/usr/bin/env bash
# Prints the path of a Python interpreter that has the packages of a requirements file. The environment is created once per set of versions.
# Usage: venv.sh REQUIREMENTS_FILE. SDK_VERSION: install this version of cwsandbox instead of the pinned one.
set -euo pipefail
requirements=$(cat "$1")
if [[ -n ${SDK_VERSION:-} ]]; then
  # wandb must match the version of cwsandbox, so pip chooses it.
  requirements=$(sed "s/^\(cwsandbox.*\)==.*/\1==$SDK_VERSION/; s/^wandb==.*/wandb/" <<< "$requirements")
fi
venv=${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-operator/sdk-${SDK_VERSION:-pinned}-$(sha256sum <<< "$requirements" | cut -c1-12)
if [[ ! -e $venv/.done ]]; then
  python3 -m venv "$venv" || { echo "python3 -m venv failed: install Debian's python3-venv" >&2; exit 1; }
  "$venv/bin/pip" install -q --disable-pip-version-check --upgrade -r <(echo "$requirements") >&2
  touch "$venv/.done"
fi
echo "$venv/bin/python"
