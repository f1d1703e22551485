#!/usr/bin/env bash
# Prints a Python that has the SDK and the test tools, made once per set of versions. SDK=newest: the newest ones of all.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
requirements=$(cat "$here/requirements.txt")
[[ ${SDK:-pinned} == pinned ]] || requirements=$(sed 's/[=>]=.*//' "$here/requirements.txt")
key=$(sha256sum <<< "$requirements" | cut -c1-12)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-operator/sdk-${SDK:-pinned}-$key
if [[ ! -e $venv/.done || ${SDK:-pinned} != pinned ]]; then
  python3 -m venv "$venv" || { echo "python3 -m venv does not work: install Debian's python3-venv" >&2; exit 1; }
  "$venv/bin/pip" install -q --disable-pip-version-check --upgrade -r <(echo "$requirements") >&2
  touch "$venv/.done"
fi
echo "$venv/bin/python"
