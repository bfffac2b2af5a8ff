#!/bin/sh
# Brings GitHub's own examples of webhook payloads to .cache/parts/github-webhooks,
# for the tests of workflows/forge. Doing it again does nothing.
set -eu
version=7.6.1
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.cache/parts/github-webhooks
file=index.json
if [ -s "$dir/$file" ] && [ "$(cat "$dir/version" 2>/dev/null)" = "$version" ]; then
	exit 0
fi
mkdir -p "$dir"
work=$(mktemp -d "$dir/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --loglevel=error --ignore-scripts "@octokit/webhooks-examples@$version" >/dev/null)
tar -xzf "$work/octokit-webhooks-examples-$version.tgz" -C "$work" "package/api.github.com/$file"
mv "$work/package/api.github.com/$file" "$dir/$file"
printf '%s\n' "$version" >"$dir/version"
