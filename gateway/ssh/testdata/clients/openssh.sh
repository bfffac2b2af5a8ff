#!/bin/sh
# OpenSSH's ssh and sftp, as the conformance test drives them: a line for each
# check, "name ok" or "name failed: …".
set -u
say() { if [ "$2" = "$3" ]; then echo "$1 ok"; else echo "$1 failed: got $2, want $3"; fi; }
set -- -F /dev/null -o Port="$GATE_PORT" -o IdentityFile="$GATE_KEY" -o IdentitiesOnly=yes -o UserKnownHostsFile="$GATE_KNOWN_HOSTS" \
	-o StrictHostKeyChecking=yes -o PreferredAuthentications=publickey -o LogLevel=ERROR
to=$GATE_USER@$GATE_HOST
unset SSH_AUTH_SOCK

echo "version $(ssh -V 2>&1 | sed 's/^OpenSSH_\([^ ]*\).*/\1/')"
out=$(ssh "$@" "$to" true 2>&1 && echo in)
say certificate "$out" in
out=$(ssh "$@" "$to" 'echo out; echo err >&2; exit 3' 2>"$GATE_WORK/err")
say exec "$? $out $(cat "$GATE_WORK/err")" "3 out err"
out=$(ssh "$@" "$to" forbidden 2>&1)
say refused "$? $(echo "$out" | grep -c 'tidegate: Not here')" "1 1"
out=$(echo 'echo from $((40+2)); exit 5' | ssh "$@" -tt "$to" 2>&1)
say shell "$? $(echo "$out" | grep -c 'from 42')" "5 1"
head -c 300000 /dev/urandom >"$GATE_WORK/sent"
printf 'put %s %s\nget %s %s\nls %s\n' "$GATE_WORK/sent" "$GATE_FOLDER/there" "$GATE_FOLDER/there" "$GATE_WORK/back" "$GATE_FOLDER" >"$GATE_WORK/batch"
sftp -b "$GATE_WORK/batch" "$@" "$to" >"$GATE_WORK/listed" 2>&1
say sftp "$(cmp "$GATE_WORK/sent" "$GATE_WORK/back" && grep -v '^sftp>' "$GATE_WORK/listed" | grep -c '/there *$')" 1
out=$(echo ping | ssh "$@" -W "localhost:$GATE_ECHO" "$to")
say forward "$out" ping
