// The checks of node's postgres; see conformance_test.go for what they print.
import fs from "fs";
import assert from "assert";
import { createRequire } from "module";
import { pathToFileURL } from "url";
const require = createRequire(process.env.NODE_PATH + "/");
const { default: postgres } = await import(pathToFileURL(require.resolve("postgres")));

const connect = (more) => postgres({ max: 1, ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT), servername: "localhost" }, onnotice: () => {}, ...more });
async function using(f, more) {
  const sql = connect(more);
  try { return await f(sql); } finally { await sql.end(); }
}

const checks = {
  types: () => using(async (sql) => {
    const [r] = await sql`select 1.50::numeric n, true b, '\\x00ff'::bytea y, '{"a":1}'::jsonb j, array[1,2] a, null z`;
    assert.deepStrictEqual([r.n, r.b, Buffer.from(r.y).toString("hex"), r.j, [...r.a], r.z], ["1.50", true, "00ff", { a: 1 }, [1, 2], null]);
  }),
  parameters: () => using(async (sql) => {
    const rows = await sql`select v from t where id = ${2} and v <> ${"it's \\ é"}`;
    assert.deepStrictEqual([...rows].map((r) => r.v), ["v2"]);
  }),
  prepared: () => using(async (sql) => {
    for (const i of [1, 2, 3]) assert.strictEqual((await sql`select v from t where id = ${i}`)[0].v, "v" + i);
  }),
  transaction: () => using(async (sql) => {
    await assert.rejects(sql.begin(async (tx) => { await tx`insert into t values (50, 'x')`; throw new Error("back"); }), /back/);
    assert.strictEqual((await sql`select count(*)::int n from t where id = 50`)[0].n, 0);
  }),
  refused: () => using(async (sql) => {
    await assert.rejects(sql`drop table t`, { code: "42501" });
    await assert.rejects(sql.unsafe("select 1; drop table t"), { code: "42501" });
    assert.strictEqual((await sql`select 1 n`)[0].n, 1);
  }),
  large: () => using(async (sql) => {
    assert.strictEqual((await sql`select i, repeat('x', 100) from generate_series(1, 100000) i`).length, 100000);
  }),
  cursor: () => using(async (sql) => {
    let sum = 0;
    await sql`select i from generate_series(1, 1000) i`.cursor(100, (rows) => { for (const r of rows) sum += r.i; });
    assert.strictEqual(sum, 500500);
  }),
  copy: () => using(async (sql) => {
    let out = "";
    for await (const part of await sql`copy (select v from t order by id) to stdout`.readable()) out += part;
    assert.strictEqual(out, "v1\nv2\nv3\n");
  }),
  cancel: () => using(async (sql) => {
    const q = sql`select pg_sleep(20)`;
    setTimeout(() => q.cancel(), 1000);
    await assert.rejects(q, { code: "57014" });
  }),
};

console.log("version", JSON.parse(fs.readFileSync(process.env.NODE_PATH + "/postgres/package.json")).version);
for (const [name, f] of Object.entries(checks)) {
  try { await f(); console.log(name, "ok"); } catch (e) { console.log(name, "failed:", String(e.message).replace(/\s+/g, " ").slice(0, 200)); }
}
process.exit(0);
