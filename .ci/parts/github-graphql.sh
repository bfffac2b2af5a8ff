#!/bin/sh
# Brings GitHub's GraphQL schema to .cache/parts/github-graphql, for the tests
# of workflows/forge. Doing it again does nothing.
set -eu
version=15.25.0
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.cache/parts/github-graphql
file=schema.graphql
if [ -s "$dir/$file" ] && [ "$(cat "$dir/version" 2>/dev/null)" = "$version" ]; then
	exit 0
fi
mkdir -p "$dir"
work=$(mktemp -d "$dir/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --loglevel=error --ignore-scripts "@octokit/graphql-schema@$version" >/dev/null)
tar -xzf "$work/octokit-graphql-schema-$version.tgz" -C "$work" "package/$file"
mv "$work/package/$file" "$dir/$file"
printf '%s\n' "$version" >"$dir/version"
