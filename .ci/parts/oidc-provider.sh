#!/bin/sh
# Brings npm's oidc-provider, at the versions of its lock file, to
# .cache/parts/oidc-provider, for the stories of cmd/tidegate. Doing it again
# does nothing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
from=$root/.ci/parts/oidc-provider
dir=$root/.cache/parts/oidc-provider
if cmp -s "$from/package-lock.json" "$dir/package-lock.json" && [ -d "$dir/node_modules/oidc-provider" ]; then
	exit 0
fi
if ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' 2>/dev/null; then
	echo "oidc-provider wants node 20 or newer; got $(node --version 2>/dev/null || echo none)" >&2
	exit 1
fi
mkdir -p "$root/.cache/parts"
work=$(mktemp -d "$root/.cache/parts/oidc-provider.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp "$from/package.json" "$from/package-lock.json" "$work/"
npm ci --prefix "$work" --loglevel=error --ignore-scripts --no-audit --no-fund >/dev/null
rm -rf "$dir"
mv "$work" "$dir"
