#!/bin/sh
# Brings the object stores that gateway/archive is tried with to
# .cache/parts/object-stores: versitygw, an S3 server, and fake-gcs-server,
# both built here (5 minutes of CPU, once), and npm's azurite, Microsoft's own
# emulator of Azure's storage. Doing it again does nothing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/.cache/parts/object-stores
mkdir -p "$dir"
built() { # name module version
	if [ -x "$dir/$1" ] && [ "$(cat "$dir/$1.version" 2>/dev/null)" = "$3" ]; then
		return 0
	fi
	echo "building $1 $3 (once, some minutes)"
	(cd "$dir" && GOBIN=$dir GOFLAGS='' go install -trimpath -ldflags='-s -w' "$2@$3")
	printf '%s\n' "$3" >"$dir/$1.version"
}
built versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0
built fake-gcs-server github.com/fsouza/fake-gcs-server v1.56.1

want="azurite@3.37.0"
if [ "$(cat "$dir/azurite.version" 2>/dev/null)" = "$want" ]; then
	exit 0
fi
echo "installing $want"
(cd "$dir" && echo '{"private":true}' >package.json && npm install --loglevel=error --no-audit --no-fund --ignore-scripts --save-exact "$want" >/dev/null)
printf '%s\n' "$want" >"$dir/azurite.version"
