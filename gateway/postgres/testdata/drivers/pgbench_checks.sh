# The checks of pgbench; see conformance_test.go for what they print.
set -u
export PGSSLMODE=verify-full
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf '%s\n' '\set aid random(1, 100000)' 'begin;' 'update pgbench_accounts set abalance = abalance + 1 where aid = :aid;' 'select abalance from pgbench_accounts where aid = :aid;' 'rollback;' >"$dir/transaction"
printf '%s\n' '\startpipeline' 'select 1;' 'select 2;' 'select 3;' '\endpipeline' >"$dir/pipeline"

check() { # name, arguments: 4 clients do 25 of each, and none fails
  local name=$1
  shift
  local said
  if said=$(pgbench -n -c 4 -j 2 -t 25 "$@" 2>&1) && grep -q "actually processed: 100/100" <<<"$said" && grep -q "failed transactions: 0 " <<<"$said"; then
    return 0
  fi
  echo "$name failed: $(tail -3 <<<"$said" | tr '\n' ' ')"
  return 1
}

echo "version $(pgbench --version | cut -d' ' -f3)"
check parameters -S -M extended && echo "parameters ok"
check prepared -S -M prepared && echo "prepared ok"
check transaction -f "$dir/transaction" && check transaction -f "$dir/transaction" -M prepared && echo "transaction ok"
check pipeline -f "$dir/pipeline" -M extended && echo "pipeline ok"
check tools -S -M simple && check tools -S -M extended -C && check tools -S -M prepared && echo "tools ok"
