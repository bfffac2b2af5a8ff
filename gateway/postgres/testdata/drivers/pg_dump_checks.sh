# The checks of pg_dump; see conformance_test.go for what they print.
set -u
export PGSSLMODE=verify-full

check() { # name, what must be in the output, arguments
  local name=$1 want=$2
  shift 2
  local said
  if said=$(pg_dump --no-password "$@" 2>&1) && grep -qF "$want" <<<"$said"; then return 0; fi
  echo "$name failed: $(tail -3 <<<"$said" | tr '\n' ' ')"
  return 1
}

echo "version $(pg_dump --version | cut -d' ' -f3)"
check introspection "CREATE TABLE public.t (" --schema-only -t public.t && echo "introspection ok"
check copy "COPY public.t (id, v) FROM stdin;" -t public.t && echo "copy ok"
check large "100000	1	0" -t public.pgbench_accounts && echo "large ok"
check cursor "INSERT INTO public.t VALUES (1, 'v1')" --inserts -t public.t && echo "cursor ok"
check tools "PGDMP" -Fc -t public.t && check tools "INSERT INTO public.t (id, v) VALUES" --column-inserts -t public.t && check tools "COPY public.t" -n public --exclude-table-data='*_seq' && echo "tools ok"
