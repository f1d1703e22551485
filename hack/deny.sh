#!/bin/bash
# Checks the dependencies with cargo-deny: licences, bans, sources, and known vulnerabilities (advisories). It fails on an advisory.
# Where the advisory database cannot be downloaded, it says so and passes; ADVISORIES=required makes that an error too.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-operator/cargo-deny-$version
if [ ! -x "$cache/bin/cargo-deny" ]; then
  echo "building cargo-deny $version"
  cargo install --quiet --locked --root "$cache" --target-dir "$cache/target" cargo-deny --version "$version"
  rm -rf "$cache/target"
fi
deny() { "$cache/bin/cargo-deny" --log-level error "$@"; }
deny check licenses bans sources

if timeout 120 "$cache/bin/cargo-deny" --log-level error fetch db > "$cache/fetch.log" 2>&1; then
  deny check --disable-fetch advisories
  exit
fi
cat >&2 << EOF
************************************************************************
NOT CHECKED: known vulnerabilities of the dependencies.
The advisory database (https://github.com/rustsec/advisory-db) cannot be
downloaded here: $(grep -m 1 -o "failed to fetch.*" "$cache/fetch.log" | cut -c 1-120 || echo "no answer within 120 s")
Run hack/deny.sh where it can, for instance in CI.
************************************************************************
EOF
[ "${ADVISORIES:-}" != required ]
