#!/bin/sh
# Brings GitHub's OpenAPI description to .cache/parts/github-openapi, for the
# tests of workflows/forge/hub. Doing it again does nothing.
set -eu
version=23.0.2
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.cache/parts/github-openapi
file=api.github.com.json
if [ -s "$dir/$file" ] && [ "$(cat "$dir/version" 2>/dev/null)" = "$version" ]; then
	exit 0
fi
mkdir -p "$dir"
work=$(mktemp -d "$dir/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --loglevel=error --ignore-scripts "@octokit/openapi@$version" >/dev/null)
tar -xzf "$work/octokit-openapi-$version.tgz" -C "$work" "package/generated/$file"
mv "$work/package/generated/$file" "$dir/$file"
printf '%s\n' "$version" >"$dir/version"
