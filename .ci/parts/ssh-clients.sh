#!/bin/sh
# Brings node's ssh2 to .cache/parts/ssh-clients: a client that the SSH room is
# tried with. Those from Debian are debian.sh's. Doing it again does nothing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.cache/parts/ssh-clients
want="ssh2@1.17.0"
if [ "$(cat "$dir/versions" 2>/dev/null)" = "$want" ]; then
	exit 0
fi
mkdir -p "$dir"
(cd "$dir" && echo '{"private":true}' >package.json && npm install --loglevel=error --no-audit --no-fund --ignore-scripts --save-exact "$want" >/dev/null)
printf '%s\n' "$want" >"$dir/versions"
