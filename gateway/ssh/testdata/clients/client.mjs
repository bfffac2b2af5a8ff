// node's ssh2, as the conformance test drives it. It knows no certificates of
// OpenSSH: it logs in by keyboard-interactive, as a bare client does.
import { createHash, randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';

const require = createRequire(process.env.NODE_PATH + '/');
const { Client } = require('ssh2');
const env = process.env;

const check = async (name, run) => {
  try {
    await run();
    console.log(name, 'ok');
  } catch (e) {
    console.log(name, 'failed:', e.message);
  }
};
const want = (is, what) => { if (!is) throw new Error(JSON.stringify(what)); };
const text = async (stream) => { let all = ''; for await (const piece of stream) all += piece; return all; };

const client = new Client();
let prompts = '';
const login = () => new Promise((resolve, reject) => {
  client.on('keyboard-interactive', (name, instructions, lang, asked, answer) => {
    prompts += instructions + asked.map((p) => p.prompt).join('');
    answer(asked.map(() => ''));
  });
  client.on('ready', resolve).on('error', reject);
  client.connect({
    host: env.GATE_HOST, port: Number(env.GATE_PORT), username: env.GATE_USER, tryKeyboard: true,
    authHandler: ['keyboard-interactive'],
    hostVerifier: (key) => 'SHA256:' + createHash('sha256').update(key).digest('base64').replace(/=+$/, '') === env.GATE_HOST_KEY,
  });
});
// begin listens for the end at once: what waits for a promise may miss it.
const begin = (start) => new Promise((resolve, reject) => start((err, stream) => {
  if (err) { reject(err); return; }
  resolve({ stream, status: new Promise((exit) => stream.on('exit', exit)) });
}));
const run = async (command) => {
  const { stream, status } = await begin((then) => client.exec(command, then));
  const [out, err] = await Promise.all([text(stream), text(stream.stderr)]);
  return { out, err, status: await status };
};

console.log('version', require('ssh2/package.json').version);
await check('keyboard-interactive', async () => { await login(); want(prompts.includes('Open https://'), prompts); });
await check('exec', async () => {
  const r = await run('echo out; echo err >&2; exit 3');
  want(r.out === 'out\n' && r.err === 'err\n' && r.status === 3, r);
});
await check('refused', async () => {
  const r = await run('forbidden');
  want(r.out === '' && r.err.includes('tidegate: Not here') && r.status === 1, r);
});
await check('shell', async () => {
  const { stream, status } = await begin((then) => client.shell(then));
  stream.write('echo from $((40+2)); exit 5\n');
  const out = await text(stream);
  want(out.includes('from 42') && await status === 5, out);
});
await check('sftp', async () => {
  const files = await promisify(client.sftp.bind(client))();
  const sent = randomBytes(300_000);
  const there = env.GATE_FOLDER + '/there';
  await promisify(files.writeFile.bind(files))(there, sent);
  const back = await promisify(files.readFile.bind(files))(there);
  want(sent.equals(back), `${back.length} bytes back`);
  const list = await promisify(files.readdir.bind(files))(env.GATE_FOLDER);
  want(list.some((f) => f.filename === 'there'), list);
});
await check('forward', async () => {
  const stream = await promisify(client.forwardOut.bind(client))('127.0.0.1', 1, 'localhost', Number(env.GATE_ECHO));
  stream.end('ping');
  const back = await text(stream);
  want(back === 'ping', back);
});
client.end();
