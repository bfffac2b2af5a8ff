#!/usr/bin/env bash
# Installs pgbouncer, beside which `make bench-postgres` measures. No daemon is
# left running.
set -euo pipefail
"$(dirname "$0")/debian.sh" demo
command -v pgbouncer >/dev/null 2>&1 && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "missing: pgbouncer; run this line, then again:" >&2
  echo "  sudo apt-get install -y --no-install-recommends pgbouncer" >&2
  exit 1
fi
guard=/usr/sbin/policy-rc.d # tells Debian's packages not to start daemons
if [ ! -e "$guard" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$guard"
  chmod 755 "$guard"
  trap 'rm -f "$guard"' EXIT
fi
echo "installing pgbouncer"
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -q >/dev/null
apt-get -o DPkg::Lock::Timeout=300 install -qy --no-install-recommends pgbouncer >/dev/null
