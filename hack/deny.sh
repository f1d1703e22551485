#!/bin/bash
# Licences, bans and sources by cargo-deny, built once into the cache; advisories where their database can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-operator/cargo-deny-$version
if [ ! -x "$cache/bin/cargo-deny" ]; then
  echo "building cargo-deny $version"
  cargo install --quiet --locked --root "$cache" --target-dir "$cache/target" cargo-deny --version "$version"
  rm -rf "$cache/target"
fi
"$cache/bin/cargo-deny" --log-level error check licenses bans sources
timeout 60 "$cache/bin/cargo-deny" --log-level error check advisories 2>/dev/null || echo "advisories: the database cannot be reached, or reports something; run 'cargo deny check advisories' where it can"
