#!/usr/bin/env bash
# Installs the clients that the PostgreSQL room is tried with: psycopg 2 and 3
# and JDBC from Debian, node's pg and postgres in .cache/parts/postgres-drivers.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
packages=()
/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || packages+=(python3-psycopg2)
/usr/bin/python3 -c 'import psycopg' 2>/dev/null || packages+=(python3-psycopg)
command -v javac >/dev/null 2>&1 || packages+=(default-jdk-headless)
[ -e /usr/share/java/postgresql.jar ] || packages+=(libpostgresql-jdbc-java)
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "missing: ${packages[*]}; run this line, then again:" >&2
    echo "  sudo apt-get install -y --no-install-recommends ${packages[*]}" >&2
    exit 1
  fi
  echo "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o DPkg::Lock::Timeout=300 update -q >/dev/null
  apt-get -o DPkg::Lock::Timeout=300 install -qy --no-install-recommends "${packages[@]}" >/dev/null
fi
dir=$root/.cache/parts/postgres-drivers
want="pg@8.23.1 postgres@3.4.9"
if [ "$(cat "$dir/versions" 2>/dev/null)" != "$want" ]; then
  mkdir -p "$dir"
  # shellcheck disable=SC2086 # two words
  (cd "$dir" && echo '{"private":true}' >package.json && npm install --silent --no-audit --no-fund --ignore-scripts --save-exact $want >/dev/null)
  echo "$want" >"$dir/versions"
fi
