// The checks of node's pg; see conformance_test.go for what they print.
const fs = require("fs"), assert = require("assert");
const { Client } = require("pg");
const options = { ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT), rejectUnauthorized: true, servername: "localhost" } };

async function using(f) {
  const c = new Client(options);
  await c.connect();
  try { return await f(c); } finally { await c.end(); }
}

const checks = {
  types: () => using(async (c) => {
    const r = (await c.query(`select 1.50::numeric n, true b, '\\x00ff'::bytea y, '{"a":1}'::jsonb j, array[1,2] a, null z`)).rows[0];
    assert.deepStrictEqual([r.n, r.b, r.y.toString("hex"), r.j, r.a, r.z], ["1.50", true, "00ff", { a: 1 }, [1, 2], null]);
  }),
  parameters: () => using(async (c) => {
    assert.deepStrictEqual((await c.query("select v from t where id = $1 and v <> $2", [2, "it's \\ é"])).rows, [{ v: "v2" }]);
  }),
  prepared: () => using(async (c) => {
    for (const i of [1, 2, 3]) assert.strictEqual((await c.query({ name: "q", text: "select v from t where id = $1", values: [i] })).rows[0].v, "v" + i);
  }),
  transaction: () => using(async (c) => {
    await c.query("begin"); await c.query("insert into t values (50, 'x')"); await c.query("rollback");
    assert.strictEqual((await c.query("select count(*)::int n from t where id = 50")).rows[0].n, 0);
  }),
  refused: () => using(async (c) => {
    await assert.rejects(c.query("drop table t"), { code: "42501" });
    await assert.rejects(c.query("drop table t where $1", [1]), { code: "42601" });
    assert.strictEqual((await c.query("select 1 n")).rows[0].n, 1);
  }),
  large: () => using(async (c) => {
    assert.strictEqual((await c.query("select i, repeat('x', 100) from generate_series(1, 100000) i")).rowCount, 100000);
  }),
  cursor: () => using(async (c) => {
    await c.query("begin"); await c.query("declare c cursor for select i from generate_series(1, 1000) i");
    assert.strictEqual((await c.query("fetch 600 from c")).rowCount, 600);
    assert.strictEqual((await c.query("fetch all from c")).rowCount, 400);
    await c.query("commit");
  }),
};

(async () => {
  console.log("version", require("pg/package.json").version);
  for (const [name, f] of Object.entries(checks)) {
    try { await f(); console.log(name, "ok"); } catch (e) { console.log(name, "failed:", String(e.message).replace(/\s+/g, " ").slice(0, 200)); }
  }
})();
