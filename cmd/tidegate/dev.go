package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
	"github.com/tidegate/tidegate/gateway/lease"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	"github.com/tidegate/tidegate/gateway/record"
	"github.com/tidegate/tidegate/policies/example"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
	"github.com/tidegate/tidegate/workflows/forge/hub"
)

// Names in the pocket GitHub.
const (
	devOwner = "acme"
	devRepo  = "access"
	devBot   = "tidegate-bot"
)

// devAudience is what dev's tokens are for.
const devAudience = "tidegate"

// devOptions are dev's command line.
type devOptions struct {
	Dir        string    // all state
	AccessRepo string    // a folder for the first commit; empty: the example
	Traces     io.Writer // spans, as JSON lines; nil: where OTEL_EXPORTER_OTLP_ENDPOINT says, or nowhere
	Log        io.Writer // our log and those of the children
}

// devReady is where everything is: what --json prints.
type devReady struct {
	Console   string            `json:"console"`
	Hub       string            `json:"hub"`
	Repo      string            `json:"repo"`
	CloneURL  string            `json:"clone_url"`
	Webhook   string            `json:"webhook"`
	Postgres  string            `json:"postgres"`
	CA        string            `json:"ca"`
	SSH       string            `json:"ssh,omitempty"` // the gateway's; empty where there is no sshd
	SSHHostCA string            `json:"ssh_host_ca,omitempty"`
	Temporal  string            `json:"temporal"`
	Metrics   string            `json:"metrics"`
	Tokens    map[string]string `json:"tokens"`
	HubTokens map[string]string `json:"hub_tokens"`

	admin string // DSN of the target's superuser, for the demo's own look
}

// devHouse is everything that dev started, to be closed in reverse.
type devHouse struct {
	house
	ready devReady

	opts   devOptions
	state  *devState
	keys   *keyring
	target *devTarget
	ssh    devSSH
	issuer *devissuer.Issuer
	ledger *ledger.Ledger
	ctl    *control
	flows  *temporalChild
}

// startDev starts everything, or nothing.
func startDev(ctx context.Context, opts devOptions) (_ *devHouse, err error) {
	h := &devHouse{house: newHouse(slog.New(slog.NewTextHandler(opts.Log, nil))), opts: opts}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if err := h.lock(); err != nil {
		return nil, err
	}
	if h.state, err = openDevState(opts.Dir); err != nil {
		return nil, err
	}
	if h.keys, err = openKeyring(filepath.Join(opts.Dir, keysDir)); err != nil {
		return nil, err
	}
	for _, start := range []func(context.Context) error{
		h.startSignals, h.startTarget, h.startSSHTarget, h.startTemporal, h.startHub, h.openLedger, h.startControl, h.startGateway, h.startConsole,
	} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// lock lets one process use the folder.
func (h *devHouse) lock() error {
	lock, err := lockFile(filepath.Join(h.opts.Dir, "dev.lock"))
	if errors.Is(err, errLocked) {
		return fmt.Errorf("another `tidegate dev` runs in %s; stop it, or name another folder with --dir", h.opts.Dir)
	}
	if err == nil {
		h.onClose(lock.Close)
	}
	return err
}

func (h *devHouse) startTarget(ctx context.Context) error {
	var err error
	if h.target, err = startTarget(ctx, h.opts.Dir, h.state); err != nil {
		return err
	}
	h.onClose(h.target.Close)
	h.ready.admin = h.target.orders()
	return nil
}

func (h *devHouse) startTemporal(ctx context.Context) error {
	child, err := startTemporal(ctx, filepath.Join(h.opts.Dir, "temporal.db"), h.state.Ports["temporal"], h.opts.Log)
	if err != nil {
		return err
	}
	h.flows = child
	h.onClose(func() error { child.Close(); return nil })
	h.ready.Temporal = child.Address
	return nil
}

// serveHTTP serves a handler on a part's port until the house closes.
func (h *devHouse) serveHTTP(part string, handler http.Handler) error {
	return h.openDoor(httpDoor{Part: part, Listen: h.state.addr(part), Handler: handler})
}

// startHub starts the pocket GitHub and the development issuer.
func (h *devHouse) startHub(context.Context) error {
	seed, err := h.seed()
	if err != nil {
		return err
	}
	github, err := hub.Open(hub.Config{
		Dir: filepath.Join(h.opts.Dir, "hub"), Owner: devOwner, Repo: devRepo, Seed: seed, SelfReview: true,
		Users: h.hubUsers(), BaseURL: h.state.url("hub"),
		Teams: []hub.Team{
			{Slug: "data-owners", ID: 71, Org: devOwner, Members: []string{"bob", "carol"}},
			{Slug: "dba", ID: 72, Org: devOwner, Members: []string{"carol"}},
		},
		WebhookURL: h.state.url("webhook"), WebhookSecret: string(h.webhookSecret()), Log: h.log.With("part", "hub"),
	})
	if err != nil {
		return err
	}
	h.onClose(github.Close)
	if err := h.serveHTTP("hub", github); err != nil {
		return err
	}
	h.ready.Hub, h.ready.Repo, h.ready.CloneURL = h.state.url("hub"), devOwner+"/"+devRepo, github.CloneURL()
	h.ready.HubTokens = h.state.HubTokens
	return h.startIssuer()
}

func (h *devHouse) hubUsers() []hub.User {
	users := []hub.User{
		{Login: "admin", ID: 1, Token: h.state.HubTokens["admin"], Email: "admin@acme.test", Role: hub.RoleAdmin},
		{Login: devBot, ID: 2, Token: h.state.HubTokens[devBot], Kind: "Bot", Role: hub.RoleAdmin},
	}
	for i, who := range devPeople {
		users = append(users, hub.User{Login: who, ID: int64(11 + i), Token: h.state.HubTokens[who], Email: who + "@acme.test"})
	}
	return users
}

// webhookSecret is the shared secret as text.
func (h *devHouse) webhookSecret() []byte { return fmt.Appendf(nil, "%x", h.keys.webhook) }

// seed is the first commit of the access repository. The example's target
// address becomes that of our own cluster.
func (h *devHouse) seed() (fs.FS, error) {
	if h.opts.AccessRepo != "" {
		return os.DirFS(h.opts.AccessRepo), nil
	}
	root, err := fs.Sub(example.FS, example.Root)
	if err != nil {
		return nil, fmt.Errorf("read the example: %w", err)
	}
	dir := filepath.Join(h.opts.Dir, "seed")
	err = fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		to := filepath.Join(dir, filepath.FromSlash(path))
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(to, 0o700))
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		words := append([]string{example.Address, h.target.address}, h.ssh.words()...)
		return writeNew(to, []byte(strings.NewReplacer(words...).Replace(string(text))))
	})
	return os.DirFS(dir), err
}

func (h *devHouse) startIssuer() error {
	issuer, err := devissuer.Open(filepath.Join(h.opts.Dir, "issuer"))
	if err != nil {
		return err
	}
	issuer.SetURL(h.state.url("issuer"))
	h.issuer = issuer
	h.ready.Tokens = map[string]string{}
	for _, who := range devPeople {
		claims := devClaims(who)
		claims.Audience, claims.Lifetime = devAudience, 12*time.Hour
		h.ready.Tokens[who], err = issuer.Mint(claims)
		if err != nil {
			return err
		}
	}
	return h.serveHTTP("issuer", issuer)
}

// startSignals opens the port for numbers, and what the spans go to.
func (h *devHouse) startSignals(ctx context.Context) error {
	if err := h.openSignals(ctx, tracesConfig{File: h.opts.Traces, Environment: true}, h.state.Installation); err != nil {
		return err
	}
	h.ready.Metrics = h.state.url("metrics") + "/metrics"
	return h.serveMetrics(h.state.addr("metrics"))
}

func (h *devHouse) openLedger(ctx context.Context) (err error) {
	h.ledger, err = h.watchLedger(ctx, h.opts.Dir, ledger.Config{
		URL: "sqlite:" + filepath.Join(h.opts.Dir, ledgerFile), Signer: h.keys.control,
		Gateways: onlyGateway(ownGateway, h.keys.recorder), Installation: h.state.Installation, Log: h.log,
		Failed: h.signals.ledger.Inc,
	})
	return err
}

func (h *devHouse) startControl(ctx context.Context) (err error) {
	h.ctl, err = h.openControl(ctx, mint.Config{
		Installation: h.state.Installation, Key: h.keys.mint, Admin: h.admin, Log: h.log.With("part", "minter"),
	}, controlConfig{
		Minters: h.ssh.minters(), Ledger: h.ledger, Webhook: access.NewSecret(string(h.webhookSecret())),
		Forge: h.forgeConfig(), Temporal: h.temporalOptions(),
		Rules: workflows.Rules{
			AdoptFirst: true, PolicyOwners: []access.Principal{{Kind: access.KindTeam, Name: devOwner + "/dba"}},
			Operators: []access.Principal{{Kind: access.KindUser, Name: "admin"}},
		},
		Log: h.log.With("part", "control"),
	})
	if err != nil {
		return err
	}
	h.ready.Webhook = h.state.url("webhook")
	return h.serveHTTP("webhook", h.ctl.Webhook)
}

func (h *devHouse) forgeConfig() forge.Config {
	return forge.Config{
		BaseURL: h.state.url("hub"), Owner: devOwner, Repo: devRepo,
		Token: access.NewSecret(h.state.HubTokens[devBot]), Log: h.log.With("part", "forge"),
	}
}

func (h *devHouse) temporalOptions() client.Options {
	return client.Options{HostPort: h.state.addr("temporal"), Namespace: "tidegate", Logger: temporalLog{h.log.With("part", "temporal")}}
}

func (h *devHouse) issuers() []identify.Issuer {
	return []identify.Issuer{{
		Name: "dev", URL: h.state.url("issuer") + identify.DevMark, Audience: devAudience, AllowHTTPLoopback: true,
	}}
}

func (h *devHouse) admin(_ context.Context, t access.Target) (mint.AdminLogin, error) {
	return h.adminOf(t, h.target.CAPEM)
}

// adminOf is the one secret that dev's policies may name, for our own cluster
// alone: a policy can't send it anywhere else.
func (h *devHouse) adminOf(t access.Target, ca []byte) (mint.AdminLogin, error) {
	if ours := h.state.target(); t.Admin != "orders-admin" || t.Static != "" || t.Address != ours {
		return mint.AdminLogin{}, access.Errorf(access.CodeDenied,
			"The secret %q is not for %s: dev knows orders-admin, for %s alone.", t.Secret(), t.Address, ours)
	}
	return mint.AdminLogin{User: devAdmin, Password: access.NewSecret(h.state.AdminSecret), ServerCA: ca}, nil
}

func (h *devHouse) startGateway(ctx context.Context) error {
	ca := newRecordingCA(filepath.Join(h.opts.Dir, keysDir), h.state.Installation, h.ledger)
	keys := &recorderKeys{dir: ca.dir, before: h.keys.recorder, now: time.Now, log: h.log, certify: func(ctx context.Context, key ed25519.PublicKey) (lease.Certified, error) {
		return ca.certify(ctx, ownGateway, key)
	}}
	if err := keys.prepare(); err != nil {
		return err
	}
	store, err := record.Open(record.Config{Dir: filepath.Join(h.opts.Dir, recordingsDir), Signers: keys.signers, Log: h.log, Anchor: h.anchors(ctx, h.ledger)})
	if err != nil {
		return err
	}
	h.onClose(store.Close)
	live, err := openLiveKeys(ca.dir, time.Now, h.log, tlsCAKey)
	if err != nil {
		return err
	}
	h.keepLive(live)
	h.ready.CA = filepath.Join(ca.dir, keyKindOf(tlsCAKey).public)
	h.ready.Postgres = h.state.addr("gateway")
	return h.openGate(ctx, gatePart{
		State: h.opts.Dir, Listen: h.ready.Postgres, TLS: (&ownTLS{keys: live}).config(),
		SSH:    h.ssh.door(h.ready.SSH),
		Ledger: h.ledger, Store: store,
		Base: gateway.Config{
			Name: ownGateway, Minter: h.ctl.leases(h.ledger), ControlKey: h.keys.control.Public().(ed25519.PublicKey), Key: h.keys.recorder,
		},
		Issuers: h.issuers(),
	})
}

// runDev is the verb; `dev pr` acts on one that runs.
func runDev(ctx context.Context, args []string, io stdio) error {
	if len(args) > 0 && args[0] == "pr" {
		return runDevPR(ctx, args[1:], io)
	}
	flags := flag.NewFlagSet("dev", flag.ContinueOnError)
	dir, asJSON := dirFlag(flags), flags.Bool("json", false, "print one line of JSON when ready")
	traces := flags.String("traces", "", "write spans to this `file`, one JSON object a line")
	repo := flags.String("access-repo", "", "`folder` for the access repository's first commit (default: the example)")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	if at, err := os.Stat(*repo); *repo != "" && (err != nil || !at.IsDir()) {
		return fmt.Errorf("%w: got --access-repo %s, want a folder that holds grants/ and policies/", errUsage, *repo)
	}
	if !*asJSON {
		fmt.Fprintln(io.err, "starting PostgreSQL, Temporal, a pocket GitHub and Tidegate on loopback")
	}
	log, closeLog, err := devLog(*dir)
	if err != nil {
		return err
	}
	defer closeLog()
	opts := devOptions{Dir: *dir, AccessRepo: *repo, Log: log}
	if *traces != "" {
		f, err := os.OpenFile(*traces, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("open traces: %w", err)
		}
		defer f.Close()
		opts.Traces = f
	}
	house, err := startDev(ctx, opts)
	if err != nil {
		return fmt.Errorf("%w\nthe log is %s", err, filepath.Join(*dir, "log"))
	}
	if *asJSON {
		err = json.NewEncoder(io.out).Encode(house.ready)
	} else {
		house.ready.tell(io.out, *dir)
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-house.failed:
		}
	}
	return errors.Join(err, house.Close())
}

// devLog is the log file of a state folder.
func devLog(dir string) (io.Writer, func(), error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, nil, fmt.Errorf("make dev folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	return f, func() { f.Close() }, nil
}

// tell prints what a person wants to copy and paste next.
func (r devReady) tell(w io.Writer, dir string) {
	pass := filepath.Join(dir, "alice.pgpass")
	if err := os.WriteFile(pass, []byte("*:*:*:*:"+r.Tokens["alice"]+"\n"), 0o600); err != nil {
		fmt.Fprintln(w, "no password file for alice:", err)
	}
	host, port, _ := net.SplitHostPort(r.Postgres)
	fmt.Fprintf(w, `ready. State lies in %s; stop with Ctrl-C.

The access repository, as alice (token as password: %s):
  git clone %s
Pull requests: %s/%s; numbers for Prometheus: %s
The console, as anybody: %s
Or play every part from here:
  tidegate dev pr open inc-1.hcl --as alice --dir %s
  tidegate dev pr approve 1 --as bob --dir %s
  tidegate dev pr merge 1 --as bob --dir %s
A grant for alice that bob has approved and merged opens:
  psql "host=%s port=%s dbname=orders-prod user=alice sslmode=verify-full sslrootcert=%s passfile=%s"
What happened:
  tidegate ls --dir %s
  tidegate sessions --dir %s
`, dir, r.HubTokens["alice"], r.CloneURL, r.Hub, r.Repo, r.Metrics, r.Console, dir, dir, dir, host, port, r.CA, pass, dir, dir)
	if r.SSH == "" {
		fmt.Fprintln(w, "There is no SSH target, for there is no sshd here: install openssh-server, and start this again.")
		return
	}
	fmt.Fprintf(w, "A grant on ssh.web-1 (roles shell, files, logs) opens:\n  tidegate connect ssh.web-1 --as alice --dir %s\n", dir)
}
