#!/bin/sh
# Brings node's pg and postgres to .cache/parts/postgres-drivers: clients that
# the PostgreSQL room is tried with. Those from Debian are debian.sh's. Doing
# it again does nothing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.cache/parts/postgres-drivers
want="pg@8.23.1 postgres@3.4.9"
if [ "$(cat "$dir/versions" 2>/dev/null)" = "$want" ]; then
	exit 0
fi
mkdir -p "$dir"
# shellcheck disable=SC2086 # two words
(cd "$dir" && echo '{"private":true}' >package.json && npm install --loglevel=error --no-audit --no-fund --ignore-scripts --save-exact $want >/dev/null)
printf '%s\n' "$want" >"$dir/versions"
