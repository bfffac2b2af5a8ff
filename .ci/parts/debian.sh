#!/usr/bin/env bash
# debian.sh demo installs what the demo starts: PostgreSQL's server and client,
# git. debian.sh test installs what the tests need besides, debian.sh bench
# what the benchmarks are measured beside, debian.sh conformance the clients of
# `make conformance` alone. Nothing is left running: the
# package's own cluster, if the install made one, is dropped again.
set -euo pipefail
what=${1:?want demo, test, bench or conformance}

packages=()
need() { # program package
  command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages+=(postgresql)
need psql postgresql-client
need git git
need gcc gcc
echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || packages+=(libc6-dev) # gcc only recommends it
if [ "$what" = test ]; then
  need npm npm # fetches what has no Debian package, at versions of our choice
  [ -x /usr/sbin/sshd ] || packages+=(openssh-server)
  need ssh openssh-client
  need rsync rsync
  need plink putty-tools
  need ansible-playbook ansible-core # runs the playbook of docs/guides/keys.md
  need jq jq
  need mkfs.ext4 e2fsprogs
  need xauth xauth # sshd wants it to lend a display
  [ -e /usr/include/libssh/libssh.h ] || packages+=(libssh-dev)
  /usr/bin/python3 -c 'import paramiko' 2>/dev/null || packages+=(python3-paramiko)
  need javac default-jdk-headless
  [ -e /usr/share/java/postgresql.jar ] || packages+=(libpostgresql-jdbc-java)
  /usr/bin/python3 -c 'import psycopg2' 2>/dev/null || packages+=(python3-psycopg2)
  /usr/bin/python3 -c 'import psycopg' 2>/dev/null || packages+=(python3-psycopg)
fi
[ "$what" != bench ] || need pgbouncer pgbouncer
if [ "$what" = conformance ]; then
  ls /usr/lib/*/odbc/psqlodbcw.so >/dev/null 2>&1 || packages+=(odbc-postgresql)
  /usr/bin/python3 -c 'import pyodbc' 2>/dev/null || packages+=(python3-pyodbc)
  ruby -e 'require "pg"' 2>/dev/null || packages+=(ruby ruby-pg)
  php -r 'exit(extension_loaded("pdo_pgsql") ? 0 : 1);' 2>/dev/null || packages+=(php-cli php-pgsql)
fi
[ ${#packages[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "missing: ${packages[*]}; install them with your system's package manager" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "missing: ${packages[*]}; run this line, then again:" >&2
  echo "  sudo apt-get install -y --no-install-recommends ${packages[*]}" >&2
  exit 1
fi

before=$(ls -d /etc/postgresql/*/* 2>/dev/null || true)
guard=/usr/sbin/policy-rc.d # tells Debian's packages not to start daemons
made_guard=no
if [ ! -e "$guard" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$guard"
  chmod 755 "$guard"
  made_guard=yes
fi
trap '[ "$made_guard" = no ] || rm -f "$guard"' EXIT

echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -q >/dev/null
apt-get -o DPkg::Lock::Timeout=300 install -qy --no-install-recommends "${packages[@]}" >/dev/null

for cluster in $(ls -d /etc/postgresql/*/* 2>/dev/null || true); do
  grep -qxF "$cluster" <<<"$before" && continue
  pg_dropcluster --stop "$(basename "$(dirname "$cluster")")" "$(basename "$cluster")"
done
