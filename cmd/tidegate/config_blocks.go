package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/archive"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
)

var (
	namePattern       = regexp.MustCompile(`\A[a-z0-9][a-z0-9._-]{0,62}\z`)
	repositoryPattern = regexp.MustCompile(`\A([A-Za-z0-9][A-Za-z0-9-]{0,38})/([A-Za-z0-9._-]{1,100})\z`)
	principalPattern  = regexp.MustCompile(`\A(?:user:[A-Za-z0-9][A-Za-z0-9-]{0,38}|team:[A-Za-z0-9][A-Za-z0-9-]{0,38}/[a-z0-9][a-z0-9._-]{0,99})\z`)
	targetPattern     = regexp.MustCompile(`\A(?:postgres [^\s:/\[\]]+:[0-9]{1,5}/[^\s/]{1,63}|ssh [^\s:/\[\]]+:[0-9]{1,5})\z`)
)

// read takes the whole file apart.
func (c *serveConfig) read(b *block) {
	c.readTop(b)
	if c.Parts.Control {
		c.readControl(b)
	} else {
		b.elsewhere(partControl, "github", "temporal", "secret", "rules", "control", "console")
	}
	c.readLedger(b.needBlock("ledger", "it is where the truth is"))
	if c.Parts.Gateway || b.hasConsole() {
		c.readIssuers(b)
	} else {
		b.elsewhere(partGateway, "issuer")
	}
	if c.Parts.Gateway {
		c.readGateway(b.needBlock("gateway", "people connect to it"))
		c.readRecordings(b.needBlock("recordings", "no session without one"))
	} else {
		b.elsewhere(partGateway, "gateway", "recordings")
	}
	c.readSSH(b.block("ssh"))
	c.readMetrics(b.block("metrics"))
	c.readTraces(b.block("traces"))
	c.readLog(b.block("log"))
	b.done()
}

// readControl takes apart what the control side alone needs.
func (c *serveConfig) readControl(b *block) {
	c.readGitHub(b.needBlock("github", "where people ask and agree"))
	c.readTemporal(b.needBlock("temporal", "it drives the grants' lives"))
	c.readSecrets(b)
	c.readRules(b.needBlock("rules", "who may change policies"))
	c.readConsole(b)
	c.readDoor(b)
}

func (c *serveConfig) readTop(b *block) {
	c.Parts = b.parts()
	id := b.need("installation", "roles at the targets carry it")
	if id.ok() && !mint.ValidInstallation(id.text) {
		b.errorf(id.at, "Wrong installation", "Got %q, want 4 to 12 small letters and digits.", id.text)
	}
	dir := b.need("state_dir", "the keys lie there")
	c.Installation, c.StateDir = id.text, b.path(dir.text)
	b.stateDir(dir, c.Parts)
}

// stateDir judges the state folder and the keys that are in it. Neither needs
// to be there before the first start.
func (b *block) stateDir(v value, p parts) {
	if !v.ok() {
		return
	}
	if !filepath.IsAbs(v.text) {
		b.errorf(v.at, "Relative folder", "Got %q for state_dir, want an absolute path: it must not depend on where serve is started.", v.text)
		return
	}
	b.keepFromDev(v)
	keys, err := filepath.Glob(filepath.Join(v.text, keysDir, "*"))
	if err != nil {
		b.errorf(v.at, "Wrong folder", "Can't list the keys in %s: %v.", v.text, err)
	}
	b.onlyOurs(v, append(keys, v.text, filepath.Join(v.text, keysDir)))
	if err := p.keysApart(v.text); err != nil {
		b.errorf(v.at, "Keys of the other part", "%s.", sentence(err))
	}
}

// onlyOurs refuses files and folders that others can use. What is not there
// yet is made by us.
func (b *block) onlyOurs(v value, paths []string) {
	for _, path := range paths {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			b.errorf(v.at, "Not ours alone", "Can't use %s: %s.", path, plainly(err))
			continue
		case info.IsDir():
			err = private(path, info, "700")
		default:
			err = onlyOurs(path, info)
		}
		if err != nil {
			b.errorf(v.at, "Not ours alone", "Can't use %s: %v.", path, err)
		}
	}
}

func (c *serveConfig) readGitHub(b *block) {
	if b == nil {
		return
	}
	repo := b.need("repository", "the access repository, as owner/name")
	base, ca := b.text("base_url"), b.text("ca_file")
	if m := repositoryPattern.FindStringSubmatch(repo.text); m != nil {
		c.Forge.Owner, c.Forge.Repo = m[1], m[2]
	} else if repo.ok() {
		b.errorf(repo.at, "Wrong repository", `Got %q, want owner/name such as "acme/access".`, repo.text)
	}
	b.httpsURL(base)
	c.Forge.BaseURL = base.text
	c.Forge.RepoID, c.Forge.MainBranch = b.number("repository_id", 1<<53), b.text("main_branch").text
	if roots := b.pemCertificates(ca); roots != nil {
		c.Forge.Transport = trusting(roots)
	}
	token := b.text("token_file")
	c.Forge.Token = b.secretFile(token)
	c.readApp(b.block("app"))
	b.oneLogin(token, base)
	c.readWebhook(b.needBlock("webhook", "GitHub says there what happened, and who pushed"))
	before := len(b.diags)
	b.done()
	if _, err := forge.New(c.Forge); err != nil && before == len(b.diags) && !b.failedIn() {
		b.errorf(b.at, "GitHub refused", "Can't use the block github: %v.", err)
	}
}

// failedIn reports whether something in the block is wrong already.
func (b *block) failedIn() bool {
	r := b.body.Range()
	return slices.ContainsFunc(b.diags, func(d access.Diagnostic) bool {
		return d.Severity == access.SeverityError && d.Line >= b.at.Start.Line && d.Line <= r.End.Line
	})
}

func (b *block) oneLogin(token, base value) {
	app := slices.ContainsFunc(b.body.Blocks, func(in *hclsyntax.Block) bool { return in.Type == "app" })
	switch {
	case app == b.has("token_file"):
		b.errorf(b.at, "Wrong login", "Got %s of token_file and the block app, want exactly one: who Tidegate is at GitHub.", map[bool]string{true: "both", false: "neither"}[app])
	case token.ok() && !base.ok():
		b.errorf(token.at, "Wrong login", "Got a token for github.com, where only an App may write check runs; want the block app.")
	case token.ok():
		b.warnf(token.at, "a token as login", "GitHub Enterprise lets only an App write check runs, as github.com does; use the block app there.")
	}
}

// trusting is the default transport with other roots.
func trusting(roots []byte) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: pool(roots), MinVersion: tls.VersionTLS12}
	return t
}

func pool(roots []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(roots)
	return p
}

func (c *serveConfig) readApp(b *block) {
	if b == nil {
		return
	}
	for _, name := range []string{"id", "installation_id"} {
		if !b.has(name) {
			b.errorf(b.at, "Missing attribute", "Got no %s in %s, want the number that GitHub shows.", name, b.name)
		}
	}
	c.Forge.App = forge.App{
		ID: b.number("id", 1<<53), InstallationID: b.number("installation_id", 1<<53),
		PrivateKeyPEM: b.secretFile(b.need("private_key_file", "it signs in as the App")),
	}
	b.done()
}

func (c *serveConfig) readWebhook(b *block) {
	if b == nil {
		return
	}
	listen := b.need("listen", "the address for GitHub's events")
	host := b.listenAddress(listen)
	c.Webhook = webhookConfig{
		Listen: listen.text, TLS: b.keyPair(),
		Secret:  b.secretFile(b.need("secret_file", "the secret that GitHub signs events with")),
		Proxies: b.prefixes("proxies"),
	}
	if listen.ok() && !b.has("certificate_file") && !b.has("key_file") && !loopback(host) {
		b.errorf(listen.at, "Plain text", "Got %q without a certificate, want certificate_file and key_file, or a loopback address behind a proxy with TLS.", listen.text)
	}
	b.done()
}

func (c *serveConfig) readTemporal(b *block) {
	if b == nil {
		return
	}
	address := b.need("address", "Temporal's frontend")
	host := b.address(address)
	c.Temporal.HostPort, c.Temporal.Namespace = address.text, b.need("namespace", "Tidegate's own at Temporal").text
	conf := temporalTLS(b.block("tls"))
	c.Temporal.ConnectionOptions.TLS = conf
	key := b.text("api_key_file")
	if secret := b.secretFile(key); !secret.IsZero() {
		c.Temporal.Credentials = client.NewAPIKeyStaticCredentials(secret.Reveal())
	}
	switch {
	case conf != nil || host == "":
	case key.ok():
		b.errorf(key.at, "Plain text", "Got an API key without TLS, want the block tls: the key would travel readable.")
	case !loopback(host):
		b.errorf(address.at, "Plain text", "Got %q without the block tls, want it: only a Temporal on this machine is reached in plain text.", address.text)
	default:
		b.warnf(address.at, "Temporal in plain text", "Every process on this machine can drive the workflows of %s.", address.text)
	}
	b.done()
}

// temporalTLS is an empty block too: the system's roots, and no certificate.
func temporalTLS(in *block) *tls.Config {
	if in == nil {
		return nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: in.text("server_name").text}
	if roots := in.pemCertificates(in.text("ca_file")); roots != nil {
		conf.RootCAs = pool(roots)
	}
	if files := in.keyPair(); files.Key != "" {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return files.load() }
	}
	in.done()
	return conf
}

func (c *serveConfig) readLedger(b *block) {
	if b == nil {
		return
	}
	plain, file := b.text("url"), b.text("url_file")
	at, text := plain.at, plain.text
	switch {
	case b.has("url") == b.has("url_file"):
		b.errorf(b.at, "Wrong ledger", "Want exactly one of url and url_file in the block ledger.")
		return
	case file.ok():
		at, text = file.at, b.secretFile(file).Reveal()
	case plain.ok() && hasPassword(text):
		b.errorf(at, "Secret in the configuration", "Got a url with a password, want it in url_file: this file may be shown.")
		return
	}
	if text != "" {
		if err := cmp.Or(ledgerURL(text), c.Parts.ledgerApart(text)); err != nil {
			b.errorf(at, "Wrong ledger", "%s.", sentence(err))
		}
	}
	c.Ledger = access.NewSecret(text)
	b.done()
}

// sentence is an error with a capital.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

func (c *serveConfig) readIssuers(b *block) {
	all := b.blocks("issuer", 1)
	if !slices.ContainsFunc(b.body.Blocks, func(in *hclsyntax.Block) bool { return in.Type == "issuer" }) {
		b.errorf(b.at, "Missing block", "Got no block issuer, want at least one: it says who people are.")
	}
	urls := map[string]string{}
	for _, in := range all {
		client := in.loginClient()
		issuer := in.issuer()
		if first, twice := urls[issuer.URL]; twice && issuer.URL != "" {
			in.errorf(in.at, "Duplicate issuer", "Got the URL of the issuer %q again, want each once.", first)
		}
		urls[issuer.URL] = issuer.Name
		c.Issuers = append(c.Issuers, issuer)
		c.logIn(issuer, client)
	}
}

func (b *block) issuer() identify.Issuer {
	if !namePattern.MatchString(b.label) {
		b.errorf(b.at, "Wrong name", "Got %q for an issuer, want small letters, digits, '.', '_' and '-'.", b.label)
	}
	url := b.need("url", "exactly as its tokens have it in iss")
	b.httpsURL(url)
	if url.ok() && identify.IsDevIssuer(url.text) {
		b.errorf(url.at, "Made by dev", "Got a development issuer, which makes anybody whoever they want to be; want a real identity provider.")
	}
	issuer := identify.Issuer{
		Name: b.label, URL: url.text, Audience: b.need("audience", "whom tokens must be meant for: our client id there").text,
		Algorithms: texts(b.texts("algorithms")), EmailClaim: b.text("email_claim").text,
		GroupsClaim: b.text("groups_claim").text, Claims: texts(b.texts("claims")), CA: b.pemCertificates(b.text("ca_file")),
	}
	b.done()
	if !b.failedIn() {
		if _, err := identify.New([]identify.Issuer{issuer}, identify.Options{}); err != nil {
			b.errorf(b.at, "Issuer refused", "Can't use it: %v.", err)
		}
	}
	return issuer
}

func texts(in []value) (out []string) {
	for _, v := range in {
		out = append(out, v.text)
	}
	return out
}

func (c *serveConfig) readSecrets(b *block) {
	seen := map[string]hcl.Range{}
	for _, in := range b.blocks("secret", 1) {
		if !namePattern.MatchString(in.label) {
			in.errorf(in.at, "Wrong name", "Got %q for a secret, want small letters, digits, '.', '_' and '-'.", in.label)
		}
		password := in.need("password_file", "the login's password")
		in.secretFile(password)
		list := in.texts("for")
		if len(list) == 0 {
			in.errorf(in.at, "Missing attribute", `Got no targets in %s, want for = ["postgres host:port/database"]: a policy can't send a secret elsewhere.`, in.name)
		}
		for _, t := range list {
			in.target(t, seen)
		}
		c.Secrets = append(c.Secrets, targetSecret{
			Name: in.label, User: in.need("user", "the login").text, PasswordFile: in.path(password.text),
			ServerCA: in.pemCertificates(in.text("server_ca_file")), ServerName: in.text("server_name").text, For: texts(list), Static: in.flag("static"),
		})
		in.done()
	}
	if len(c.Secrets) == 0 {
		b.warnf(b.at, "no secret", "Without a block secret no target can be minted.")
	}
}

func (b *block) target(t value, seen map[string]hcl.Range) {
	if !targetPattern.MatchString(t.text) {
		b.errorf(t.at, "Wrong target", `Got %q, want kind and address such as "postgres db.internal:5432/orders" or "ssh switch.internal:22".`, t.text)
		return
	}
	key := b.label + " " + t.text
	if _, twice := seen[key]; twice {
		b.errorf(t.at, "Duplicate target", "Got %q twice in %s, want it once.", t.text, b.name)
	}
	seen[key] = t.at
}

// readTidy defaults to a pull request: the App never bypasses protection, and
// commits to main only if somebody wrote so.
func (c *serveConfig) readTidy(b *block) {
	switch t := b.text("tidy"); t.text {
	case "", string(workflows.TidyPull):
		c.Rules.Tidy = workflows.TidyPull
	case "off":
		c.Rules.Tidy = workflows.TidyOff
	case string(workflows.TidyCommit):
		c.Rules.Tidy = workflows.TidyCommit
	default:
		b.errorf(t.at, "Wrong tidy", `Got %q, want "pull-request", "commit" or "off".`, t.text)
	}
}

func (c *serveConfig) readRules(b *block) {
	if b == nil {
		return
	}
	c.readTidy(b)
	c.Rules.AutoMerge, c.Rules.AdoptFirst = b.flag("auto_merge"), b.flag("adopt_first")
	c.Rules.PolicyOwners, c.Rules.Operators = b.principals("policy_owners"), b.principals("operators")
	if !b.has("policy_owners") {
		b.errorf(b.at, "Missing attribute", "Got no policy_owners in the block rules, want those who must agree to a change of policies.")
	}
	c.Rules.Reminder, c.Rules.Poll = b.duration("reminder", 24*time.Hour), b.duration("poll", time.Hour)
	c.Rules.AlertAfter, c.Rules.Grace = b.duration("alert_after", time.Hour), b.duration("grace", time.Hour)
	b.done()
}

func (b *block) principals(name string) (out []access.Principal) {
	before := len(b.diags)
	list := b.texts(name)
	if b.has(name) && len(list) == 0 && before == len(b.diags) {
		b.errorf(b.body.Attributes[name].NameRange, "Nobody", "Got an empty %s, want somebody.", name)
	}
	for _, v := range list {
		kind, who, _ := strings.Cut(v.text, ":")
		if !principalPattern.MatchString(v.text) {
			b.errorf(v.at, "Wrong principal", `Got %q in %s, want "user:login" or "team:organization/team".`, v.text, name)
		}
		out = append(out, access.Principal{Kind: access.PrincipalKind(kind), Name: who})
	}
	return out
}

func (c *serveConfig) readGateway(b *block) {
	if b == nil {
		return
	}
	listen := b.need("listen", "the address for people's tools")
	b.listenAddress(listen)
	if !b.has("certificate_file") && !b.has("key_file") {
		b.errorf(b.at, "Plain text", "Got no certificate_file and key_file in the block gateway, want both: tokens travel here.")
	}
	c.Gateway.Listen, c.Gateway.TLS = listen.text, b.keyPair()
	name := b.text("name")
	if name.ok() && !namePattern.MatchString(name.text) {
		b.errorf(name.at, "Wrong name", "Got %q, want small letters, digits, '.', '_' and '-'.", name.text)
	}
	c.Gateway.Base.Name = cmp.Or(name.text, ownGateway)
	c.Gateway.Base.MaxSessions = int(b.number("max_sessions", 100_000))
	c.Gateway.Base.MaxSessionsPerPerson = int(b.number("max_sessions_per_person", 10_000))
	c.Gateway.Base.HoldTimeout = b.duration("hold_timeout", 24*time.Hour)
	c.readLink(b, name)
	b.done()
}

func (c *serveConfig) readRecordings(b *block) {
	if b == nil {
		return
	}
	dir := b.need("dir", "recordings lie there")
	if dir.ok() && !filepath.IsAbs(dir.text) {
		b.errorf(dir.at, "Relative folder", "Got %q for dir, want an absolute path.", dir.text)
	} else if dir.ok() {
		b.keepFromDev(dir)
		b.onlyOurs(dir, []string{dir.text})
	}
	bucket := b.text("bucket")
	if bucket.ok() {
		if err := archive.Check(bucket.text); err != nil {
			b.errorf(bucket.at, "Wrong bucket", `Can't use it: %v. Want such as "s3://recordings?region=eu-central-1", "gs://recordings", "azblob://recordings?storage_account=acme" or "file:///srv/recordings".`, err)
		}
	}
	c.Recordings = recordingsConfig{Dir: dir.text, MinFree: uint64(b.number("min_free_mib", 1<<30)) << 20, Bucket: bucket.text}
	b.done()
}

func (c *serveConfig) readMetrics(b *block) {
	if b == nil {
		return
	}
	listen := b.need("listen", "the address for Prometheus")
	if host := b.listenAddress(listen); listen.ok() && !loopback(host) {
		b.warnf(listen.at, "metrics for the network", "Who reaches %s can read them in plain text: counts and times, no names.", listen.text)
	}
	c.Metrics = listen.text
	b.done()
}

func (c *serveConfig) readLog(b *block) {
	if b == nil {
		return
	}
	level, format := b.text("level"), b.text("format")
	if level.ok() && !slices.Contains([]string{"debug", "info", "warn", "error"}, level.text) {
		b.errorf(level.at, "Wrong level", "Got %q, want debug, info, warn or error.", level.text)
	} else if level.ok() {
		_ = (*slog.Level)(&c.Log.Level).UnmarshalText([]byte(level.text)) // one of the four
	}
	if format.ok() && format.text != "json" && format.text != "text" {
		b.errorf(format.at, "Wrong format", "Got %q, want json or text.", format.text)
	}
	c.Log.JSON = format.text == "json"
	b.done()
}
