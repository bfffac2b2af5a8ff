# The checks of psql; see conformance_test.go for what they print.
set -u
export PGSSLMODE=verify-full PSQLRC=/dev/null
run() { psql -X -At -v ON_ERROR_STOP=1 "$@" 2>&1; }

check() { # name, wanted, got
  if [ "$2" = "$3" ]; then echo "$1 ok"; else echo "$1 failed: got $(tr '\n' ' ' <<<"$3" | cut -c1-300), want $(tr '\n' ' ' <<<"$2")"; fi
}

echo "version $(psql --version | cut -d' ' -f3)"
check types "1.50|t|\\x00ff|{1,2}|" "$(run -c "select 1.50::numeric, true, '\\x00ff'::bytea, array[1,2], null")"
check parameters "v2" "$(run -v id=2 -v "v=it's é" <<<"select v from t where id = :id and v <> :'v'")"
check prepared "PREPARE
v1
v3
DEALLOCATE" "$(run <<<"prepare q(int) as select v from t where id = \$1; execute q(1); execute q(3); deallocate q;" 2>&1)"
check transaction "BEGIN
INSERT 0 1
ROLLBACK
0" "$(run <<<"begin;
insert into t values (50, 'x');
rollback;
select count(*) from t where id = 50;")"
check refused "ERROR:  The test's rule refuses this.
DETAIL:  Rule: test-rule.
1" "$(psql -X -At <<<"drop table t;
select 1;" 2>&1)"
check large 100000 "$(run -c "select i, repeat('x', 100) from generate_series(1, 100000) i" | wc -l)"
check cursor 500500 "$(run -v FETCH_COUNT=100 <<<"select i from generate_series(1, 1000) i;" | awk '{s += $1} END {print s}')"
check copy "BEGIN
COPY 2
sixty
more
ROLLBACK" "$(run <<<"begin;
\\copy t from program 'printf \"60\\\\tsixty\\\\n61\\\\tmore\\\\n\"'
\\copy (select v from t where id >= 60 order by id) to stdout
rollback;" 2>&1)"
interrupted() { # where the machine stands still the interrupt may overtake the statement, and cancels nothing
  for _ in 1 2 3; do
    got=$(timeout --foreground -s INT 6 psql -X -At -c "select pg_sleep(30)" 2>&1)
    case $got in *ERROR*) break ;; esac
  done
  echo "$got"
}
check cancel "Cancel request sent
ERROR:  canceling statement due to user request" "$(interrupted)"
family=$(run <<'END' 2>&1
\d
\d t
\d+ t
\dt+
\di
\ds
\dv+
\dm
\dn+
\df lower
\da
\dT
\dD
\du
\dg+
\dp
\ddp
\dx
\dy
\dF
\dO
\dL
\dc
\dC
\dl
\dRp
\dRs
\dP
\drds
\db
\l+
\sf lower(text)
\conninfo
END
)
wrong="ERROR"
if [ "$(run -c "show server_version" | cut -d. -f1)" != "$(psql --version | cut -d' ' -f3 | cut -d. -f1)" ]; then
  wrong="Rule:|Tidegate|understood" # psql asks a newer server for columns that it no longer has; the gateway refuses nothing
fi
if grep -qE "$wrong" <<<"$family"; then echo "introspection failed: $(grep -E "$wrong" <<<"$family" | head -3 | tr '\n' ' ')"; else echo "introspection ok"; fi
watched=$(timeout 20 psql -X -At <<<"select 'again' \\watch 0.2" 2>&1 | grep --line-buffered again | head -2 | wc -l)
generated=$(run <<<"select 'select v from t where id = ' || i from generate_series(1, 2) i \\gexec")
if [ "$watched" -ge 2 ] && [ "$generated" = "v1
v2" ]; then echo "tools ok"; else echo "tools failed: watched $watched times, generated $generated"; fi
