#!/bin/sh
# PuTTY's plink and psftp.
set -u
say() { if [ "$2" = "$3" ]; then echo "$1 ok"; else echo "$1 failed: got $2, want $3"; fi; }
command -v plink >/dev/null 2>&1 || { echo "MODULE_NOT_FOUND: plink"; exit 1; }
export HOME="$GATE_WORK" # where it keeps its settings
key=$GATE_WORK/key.ppk
puttygen "$GATE_KEY" --certificate "$GATE_KEY-cert.pub" -O private -o "$key" --new-passphrase /dev/null
set -- -batch -ssh -P "$GATE_PORT" -hostkey "$GATE_HOST_KEY" -i "$key"
to=$GATE_USER@$GATE_HOST

echo "version $(plink -V | sed -n 's/^plink: Release //p')"
out=$(plink "$@" "$to" true 2>&1 </dev/null && echo in)
say certificate "$out" in
out=$(plink "$@" "$to" 'echo out; echo err >&2; exit 3' 2>"$GATE_WORK/err" </dev/null)
say exec "$? $out $(grep -c '^err' "$GATE_WORK/err")" "3 out 1"
out=$(plink "$@" "$to" forbidden 2>&1 </dev/null)
say refused "$? $(echo "$out" | grep -c 'tidegate: Not here')" "1 1"
out=$(echo 'echo from $((40+2)); exit 5' | plink "$@" -t "$to" 2>&1)
say shell "$? $(echo "$out" | grep -c 'from 42')" "5 1"
head -c 300000 /dev/urandom >"$GATE_WORK/sent"
printf 'put %s %s\nget %s %s\nls %s\n' "$GATE_WORK/sent" "$GATE_FOLDER/there" "$GATE_FOLDER/there" "$GATE_WORK/back" "$GATE_FOLDER" >"$GATE_WORK/batch"
shift 2 # psftp knows no -ssh
psftp -batch "$@" -b "$GATE_WORK/batch" "$to" >"$GATE_WORK/listed" 2>&1
say sftp "$(cmp "$GATE_WORK/sent" "$GATE_WORK/back" && grep -c ' there' "$GATE_WORK/listed")" 1
out=$(echo ping | plink -batch "$@" -nc "localhost:$GATE_ECHO" "$to")
say forward "$out" ping
