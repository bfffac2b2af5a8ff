# The checks of Ruby's pg; see conformance_test.go for what they print.
require "pg"

def connect
  PG.connect(sslmode: "verify-full", sslrootcert: ENV["PGSSLROOTCERT"])
end

def session
  c = connect
  yield c
ensure
  c&.close
end

def that(ok, what)
  ok || raise("got #{what.inspect}")
end

def check(name)
  yield
  puts "#{name} ok"
rescue StandardError => e
  puts "#{name} failed: #{e.class} #{e.message.gsub(/\s+/, ' ')[0, 200]}"
end

puts "version #{PG::VERSION}"
check("types") { session { |c|
  r = c.exec_params("select 1.50::numeric, true, '\\x00ff'::bytea, array[1,2], null", [], 0).values[0]
  that(r == ["1.50", "t", "\\x00ff", "{1,2}", nil], r)
  that(c.exec_params("select 7::int", [], 1).getvalue(0, 0) == [7].pack("N"), "binary")
} }
check("parameters") { session { |c|
  r = c.exec_params("select v from t where id = $1 and v <> $2", [2, "it's \\ é"]).values
  that(r == [["v2"]], r)
} }
check("prepared") { session { |c|
  c.prepare("q", "select v from t where id = $1")
  [1, 2, 3].each { |i| r = c.exec_prepared("q", [i]).getvalue(0, 0); that(r == "v#{i}", r) }
} }
check("transaction") { session { |c|
  begin
    c.transaction { |t| t.exec("insert into t values (50, 'x')"); raise "back" }
  rescue RuntimeError
  end
  that(c.exec("select count(*) from t where id = 50").getvalue(0, 0) == "0", "rows")
} }
check("refused") { session { |c|
  begin
    c.exec("drop table t")
    raise "it ran"
  rescue PG::InsufficientPrivilege
  end
  that(c.exec("select 1").getvalue(0, 0) == "1", "nothing")
} }
check("large") { session { |c|
  n = 0
  c.send_query("select i, repeat('x', 100) from generate_series(1, 100000) i")
  c.set_single_row_mode
  c.get_result.stream_each_row { n += 1 }
  that(n == 100_000, n)
} }
check("cursor") { session { |c|
  sum = c.transaction { |t|
    t.exec("declare c cursor for select i from generate_series(1, 1000) i")
    all = 0
    while (r = t.exec("fetch 100 from c")).ntuples > 0 do r.each_row { |row| all += row[0].to_i } end
    all
  }
  that(sum == 500_500, sum)
} }
check("copy") { session { |c|
  c.exec("begin")
  c.copy_data("copy t from stdin") { c.put_copy_data("60\tsixty\n61\tmore\n") }
  out = +""
  c.copy_data("copy (select v from t where id >= 60 order by id) to stdout") { while (row = c.get_copy_data) do out << row end }
  c.exec("rollback")
  that(out == "sixty\nmore\n", out)
} }
check("cancel") { session { |c|
  Thread.new { sleep 1; c.cancel }
  begin
    c.async_exec("select pg_sleep(20)")
    raise "it ran to its end"
  rescue PG::QueryCanceled
  end
} }
