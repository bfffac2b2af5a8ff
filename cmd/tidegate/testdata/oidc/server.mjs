// An OpenID provider behind TLS, for the stories of `tidegate serve`. It takes
// its settings as one line of JSON on standard input, says "ready" on standard
// output when it serves, and ends when standard input does.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const lines = createInterface({ input: process.stdin });
const settings = JSON.parse(await new Promise((resolve) => lines.once('line', resolve)));
lines.on('close', () => process.exit(0));
const { default: Provider } = await import(pathToFileURL(settings.module));

const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
const issuer = `https://127.0.0.1:${settings.port}`;
const provider = new Provider(issuer, {
  clients: [{
    client_id: settings.audience, application_type: 'native', token_endpoint_auth_method: 'none',
    redirect_uris: [settings.redirect], response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  }],
  pkce: { required: () => true },
  jwks: { keys: [{ ...key, use: 'sig', alg: 'RS256', kid: 'tests' }] },
  cookies: { keys: ['only for tests'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false, // the e-mail stands in the ID token, as at Okta
  ttl: { IdToken: 3600 },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: `okta-${id}`, email: `${id}@acme.test`, email_verified: true }),
  }),
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
});
createServer({ cert: settings.certificate, key: settings.key }, provider.callback())
  .listen(settings.port, '127.0.0.1', () => console.log('ready'));
