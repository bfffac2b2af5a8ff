package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/archive"
	"github.com/tidegate/tidegate/gateway/lease"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	"github.com/tidegate/tidegate/gateway/record"
)

// startTimeout bounds the start: what is down by then is reported.
const startTimeout = time.Minute

// serveHouse is Tidegate for real use: control, gateway, or both in one
// process.
type serveHouse struct {
	house
	cfg    *serveConfig
	keys   *keyring      // without the control side's in a gateway alone
	known  *gateways     // of other processes; nil unless control runs alone
	asks   *lease.Client // control in another process; nil where it is in this one
	ledger *ledger.Ledger
	store  *record.Store
	ctl    *control
}

// runServe is the verb.
func runServe(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	path := flags.String("config", "", "the configuration `file`")
	check := flags.Bool("check", false, "only say whether the configuration is right")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	if *path == "" {
		return fmt.Errorf("%w: got no --config, want the configuration's file", errUsage)
	}
	cfg, diags, err := loadConfig(*path)
	if err != nil {
		return err
	}
	for _, d := range diags {
		fmt.Fprintln(io.err, d)
	}
	if n := mistakes(diags); n > 0 {
		return fmt.Errorf("%s: %s; nothing was started", *path, several(n, "mistake"))
	}
	if *check {
		fmt.Fprintln(io.out, *path+" is right")
		return nil
	}
	if err := noCores(); err != nil {
		return err
	}
	return serve(ctx, cfg, cfg.Log.logger(io.err))
}

// several counts for a sentence.
func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func mistakes(diags access.Diagnostics) (n int) {
	for _, d := range diags {
		if d.Severity == access.SeverityError {
			n++
		}
	}
	return n
}

// serve runs until ctx ends or a part stops by itself.
func serve(ctx context.Context, cfg *serveConfig, log *slog.Logger) error {
	h, err := startServe(ctx, cfg, log)
	if err != nil {
		return err
	}
	log.Info("ready", cfg.where()...)
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case err = <-h.failed:
		log.Error("stopping: a part ended by itself", "error", err)
	}
	err = errors.Join(err, h.Close())
	log.Info("stopped")
	return err
}

// startServe starts everything, or nothing.
func startServe(ctx context.Context, cfg *serveConfig, log *slog.Logger) (_ *serveHouse, err error) {
	h := &serveHouse{house: newHouse(log), cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel() // the parts live on: they keep the values of ctx, not its end
	for _, start := range h.steps() {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// steps are what starts, in order.
func (h *serveHouse) steps() []func(context.Context) error {
	p := h.cfg.Parts
	steps := []func(context.Context) error{h.openState, h.startSignals, h.openLedger}
	if p.Gateway {
		steps = append(steps, h.openStore)
	}
	if p.Control {
		steps = append(steps, h.startControl)
	}
	if p.Gateway {
		steps = append(steps, h.startGateway)
	}
	steps = append(steps, h.startMetrics)
	if p.Control {
		steps = append(steps, h.startWebhook, h.startConsole)
	}
	if p.Control && p.apart() {
		steps = append(steps, h.startDoor)
	}
	return steps
}

// where says for the log what runs, and at which addresses.
func (c *serveConfig) where() []any {
	said := []any{"parts", c.Parts.String()}
	if c.Parts.Control {
		said = append(said, "webhook", c.Webhook.Listen, "repository", c.Forge.Owner+"/"+c.Forge.Repo, "installation", c.Installation)
	}
	if c.Parts.Gateway {
		said = append(said, "gateway", c.Gateway.Listen)
	}
	if c.Console.Listen != "" {
		said = append(said, "console", c.Console.Listen)
	}
	if c.Door != "" {
		said = append(said, "door", c.Door)
	}
	return said
}

// openState takes the state folder for this process and reads its keys.
func (h *serveHouse) openState(context.Context) (err error) {
	if err := os.MkdirAll(h.cfg.StateDir, 0o700); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("make state_dir: %w; as root, run: install -d -o USER -m 700 %s", err, h.cfg.StateDir)
	} else if err != nil {
		return fmt.Errorf("make state_dir: %w", err)
	}
	lock, err := lockFolder(h.cfg.StateDir)
	if err != nil {
		return err
	}
	h.onClose(lock.Close)
	return h.openKeys(filepath.Join(h.cfg.StateDir, keysDir))
}

// openKeys gives each part its own keys and no others.
func (h *serveHouse) openKeys(dir string) (err error) {
	switch {
	case !h.cfg.Parts.apart():
		h.keys, err = openOwnKeys(dir)
	case h.cfg.Parts.Control:
		if h.keys, err = openControlKeys(dir); err == nil {
			h.known, err = openGateways(h.cfg.StateDir, time.Now)
		}
	default:
		if err = h.cfg.Parts.keysApart(h.cfg.StateDir); err == nil {
			h.keys = &keyring{recorder: h.cfg.Gateway.Enrolment.Key}
			err = os.MkdirAll(dir, 0o700)
		}
	}
	return err
}

func (h *serveHouse) keysDir() string { return filepath.Join(h.cfg.StateDir, keysDir) }

// gatewayKeys are the keys by which control believes what gateways hold.
func (h *serveHouse) gatewayKeys() func(string) (ed25519.PublicKey, error) {
	if h.known != nil {
		return h.known.key
	}
	return onlyGateway(h.cfg.Gateway.Base.Name, h.keys.recorder)
}

// controlKey verifies what control signs.
func (h *serveHouse) controlKey() ed25519.PublicKey {
	if h.keys.control == nil {
		return h.cfg.Gateway.Enrolment.Control
	}
	return h.keys.control.Public().(ed25519.PublicKey)
}

func (h *serveHouse) openLedger(ctx context.Context) (err error) {
	cfg := ledger.Config{
		URL: h.cfg.Ledger.Reveal(), Signer: h.keys.control, Gateways: h.gatewayKeys(), ForGateway: !h.cfg.Parts.Control,
		Installation: h.cfg.Installation, Log: h.log.With("part", "ledger"), Failed: h.signals.ledger.Inc,
	}
	if h.cfg.Parts.Control {
		h.ledger, err = h.watchLedger(ctx, h.cfg.StateDir, cfg)
		return err
	}
	if h.ledger, err = ledger.Open(ctx, cfg); err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	h.onClose(h.ledger.Close)
	return nil
}

func (h *serveHouse) openStore(ctx context.Context) (err error) {
	keys := &recorderKeys{dir: h.keysDir(), before: h.keys.recorder, now: time.Now, log: h.log.With("part", "recorder")}
	if keys.certify, err = h.recorderCertifier(); err != nil {
		return err
	}
	if err := keys.prepare(); err != nil {
		return err
	}
	h.store, err = record.Open(record.Config{
		Dir: h.cfg.Recordings.Dir, MinFree: h.cfg.Recordings.MinFree, Signers: keys.signers, Log: h.log.With("part", "recorder"),
		Anchor: h.anchors(ctx, h.ledger),
	})
	if err != nil {
		return err
	}
	h.onClose(h.store.Close)
	return h.startArchive()
}

// startArchive copies sealed recordings to the bucket, if there is one.
func (h *serveHouse) startArchive() error {
	if h.cfg.Recordings.Bucket == "" {
		return nil
	}
	a, err := archive.Open(context.Background(), archive.Config{
		Dir: h.cfg.Recordings.Dir, URL: h.cfg.Recordings.Bucket, Log: h.log.With("part", "archive"),
	})
	if err != nil {
		return err
	}
	a.Start()
	h.onClose(a.Close)
	return nil
}

func (h *serveHouse) startControl(ctx context.Context) (err error) {
	temporal, github := h.cfg.Temporal, h.cfg.Forge
	temporal.Logger, github.Log = temporalLog{h.log.With("part", "temporal")}, h.log.With("part", "forge")
	minters, err := h.sshMinters()
	if err != nil {
		return err
	}
	h.ctl, err = h.openControl(ctx, mint.Config{
		Installation: h.cfg.Installation, Key: h.keys.mint, Admin: logins(h.cfg.Secrets).find, Log: h.log.With("part", "minter"),
	}, controlConfig{
		Minters: minters, Ledger: h.ledger, Webhook: h.cfg.Webhook.Secret, Proxies: h.cfg.Webhook.Proxies, Forge: github, Temporal: temporal,
		Rules: h.cfg.Rules, Log: h.log.With("part", "control"),
	})
	return err
}

func (h *serveHouse) startGateway(ctx context.Context) error {
	base := h.cfg.Gateway.Base
	base.ControlKey, base.Key = h.controlKey(), h.keys.recorder
	base.Minter = h.minter()
	door, err := h.sshDoor()
	if err != nil {
		return err
	}
	return h.openGate(ctx, gatePart{
		SSH:   door,
		State: h.cfg.StateDir, Listen: h.cfg.Gateway.Listen, TLS: h.cfg.Gateway.TLS.server(), Base: base,
		Ledger: h.ledger, Store: h.store, Issuers: h.cfg.Issuers,
	})
}

// minter is where the gateway gets credentials: from the control side beside
// it, or in another process.
func (h *serveHouse) minter() gateway.Minter {
	if h.ctl != nil {
		return h.ctl.leases(h.ledger)
	}
	return h.asks
}

// recorderCertifier is who vouches for the gateway's recorder: the control side
// in this process, or in another.
func (h *serveHouse) recorderCertifier() (func(context.Context, ed25519.PublicKey) (lease.Certified, error), error) {
	if h.cfg.Parts.Control {
		ca := h.recordingCA()
		return func(ctx context.Context, key ed25519.PublicKey) (lease.Certified, error) {
			return ca.certify(ctx, h.cfg.Gateway.Base.Name, key)
		}, nil
	}
	client, err := lease.NewClient(h.cfg.Gateway.Control, h.cfg.Gateway.Enrolment.tls())
	if err != nil {
		return nil, err
	}
	h.asks = client
	h.onClose(client.Close)
	return client.Certify, nil
}

func (h *serveHouse) recordingCA() recordingCA {
	return newRecordingCA(h.keysDir(), h.cfg.Installation, h.ledger)
}

// startDoor lets enrolled gateways ask for credentials.
func (h *serveHouse) startDoor(context.Context) error {
	log := h.log.With("part", "door")
	handler, err := lease.Handler(lease.Config{
		Minter: h.ctl.leases(h.ledger), Gateway: h.known.identify, Certify: h.recordingCA().certify, Log: log,
		Given: func(ctx context.Context, g lease.Given) error {
			return h.ledger.Audit(ctx, "gateway "+g.Gateway, "lease.given", g.Session, fmt.Sprintf("grant %s, generation %d", g.Grant, g.Generation))
		},
	})
	if err != nil {
		return err
	}
	return h.openDoor(httpDoor{Part: "door", Listen: h.cfg.Door, TLS: h.known.tls(), Handler: handler, Exchange: 30 * time.Second})
}

// server is a TLS configuration that reads the files for each handshake, so
// that a renewed certificate needs no restart.
func (f tlsFiles) server() *tls.Config {
	if f.Certificate == "" {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.load() },
	}
}

func (h *serveHouse) startSignals(ctx context.Context) error {
	return h.openSignals(ctx, h.cfg.Traces, h.cfg.Installation)
}

func (h *serveHouse) startMetrics(context.Context) error {
	if h.cfg.Metrics == "" {
		return nil
	}
	return h.serveMetrics(h.cfg.Metrics)
}

func (h *serveHouse) startWebhook(context.Context) error {
	return h.openDoor(httpDoor{Part: "webhook", Listen: h.cfg.Webhook.Listen, TLS: h.cfg.Webhook.TLS.server(), Handler: h.ctl.Webhook, Exchange: 30 * time.Second})
}

// logins are the secrets of the configuration. A policy names one; where it
// may be sent, and whether sessions may log in with it, the configuration
// alone says: the minter's own must never become a session's.
type logins []targetSecret

func (l logins) find(_ context.Context, t access.Target) (mint.AdminLogin, error) {
	for _, s := range l {
		if s.Name != t.Secret() || !slices.Contains(s.For, t.Kind+" "+t.Address) {
			continue
		}
		if s.Static != (t.Static != "") {
			return mint.AdminLogin{}, access.Errorf(access.CodeDenied, "The secret %q is %s: the server's configuration says so by `static`.",
				s.Name, map[bool]string{true: "for sessions, and not for the minter", false: "the minter's, and not for sessions"}[s.Static])
		}
		password, err := readSecret(s.PasswordFile)
		if err != nil {
			return mint.AdminLogin{}, fmt.Errorf("read password of secret %q: %w", s.Name, err)
		}
		return mint.AdminLogin{User: s.User, Password: password, ServerCA: s.ServerCA, ServerName: s.ServerName}, nil
	}
	return mint.AdminLogin{}, access.Errorf(access.CodeDenied,
		"The secret %q is not for %s %s: the server's configuration does not say so.", t.Secret(), t.Kind, t.Address)
}
