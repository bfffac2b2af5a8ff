package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	"github.com/tidegate/tidegate/gateway/record"
)

// startTimeout bounds the start: what is down by then is reported.
const startTimeout = time.Minute

// serveHouse is Tidegate for real use: control and gateway in one process.
type serveHouse struct {
	house
	cfg     *serveConfig
	keys    *keyring
	ledger  *ledger.Ledger
	store   *record.Store
	ctl     *control
	metrics *prometheus.Registry
}

// runServe is the verb.
func runServe(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	path := flags.String("config", "", "the configuration `file`")
	check := flags.Bool("check", false, "only say whether the configuration is right")
	if err := parse(flags, args, io, 0); err != nil {
		return err
	}
	if *path == "" {
		return fmt.Errorf("%w: want --config FILE", errUsage)
	}
	cfg, diags, err := loadConfig(*path)
	if err != nil {
		return err
	}
	for _, d := range diags {
		fmt.Fprintln(io.err, d)
	}
	if n := mistakes(diags); n > 0 {
		return fmt.Errorf("%s: %d mistakes; nothing was started", *path, n)
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
	log.Info("ready", "gateway", cfg.Gateway.Listen, "webhook", cfg.Webhook.Listen,
		"repository", cfg.Forge.Owner+"/"+cfg.Forge.Repo, "installation", cfg.Installation)
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
	h := &serveHouse{house: newHouse(log), cfg: cfg, metrics: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel() // the parts live on: they keep the values of ctx, not its end
	for _, start := range []func(context.Context) error{
		h.openState, h.openLedger, h.openStore, h.startControl, h.startGateway, h.startMetrics, h.startWebhook,
	} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// openState takes the state folder for this process and reads its keys.
func (h *serveHouse) openState(context.Context) error {
	if err := os.MkdirAll(h.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state_dir: %w", err)
	}
	lock, err := lockFolder(filepath.Join(h.cfg.StateDir, "serve.lock"))
	if err != nil {
		return err
	}
	h.onClose(lock.Close)
	dir := filepath.Join(h.cfg.StateDir, keysDir)
	if h.keys, err = openOwnKeys(dir); err != nil {
		return err
	}
	return writePublicKey(dir, h.keys.recorder)
}

func (h *serveHouse) openLedger(ctx context.Context) (err error) {
	h.ledger, err = ledger.Open(ctx, ledger.Config{
		URL: h.cfg.Ledger.Reveal(), Signer: h.keys.control, Installation: h.cfg.Installation, Log: h.log.With("part", "ledger"),
	})
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	h.onClose(h.ledger.Close)
	return nil
}

func (h *serveHouse) openStore(context.Context) (err error) {
	h.store, err = record.Open(record.Config{
		Dir: h.cfg.Recordings.Dir, MinFree: h.cfg.Recordings.MinFree, Key: h.keys.recorder, Log: h.log.With("part", "recorder"),
	})
	if err != nil {
		return fmt.Errorf("open recordings: %w", err)
	}
	h.onClose(h.store.Close)
	return nil
}

func (h *serveHouse) startControl(ctx context.Context) (err error) {
	temporal, github := h.cfg.Temporal, h.cfg.Forge
	temporal.Logger, github.Log = temporalLog{h.log.With("part", "temporal")}, h.log.With("part", "forge")
	h.ctl, err = h.openControl(ctx, mint.Config{
		Installation: h.cfg.Installation, Key: h.keys.mint, Admin: logins(h.cfg.Secrets).find, Log: h.log.With("part", "minter"),
	}, controlConfig{
		Ledger: h.ledger, Webhook: h.cfg.Webhook.Secret, Forge: github, Temporal: temporal,
		Rules: h.cfg.Rules, Log: h.log.With("part", "control"),
	})
	return err
}

func (h *serveHouse) startGateway(ctx context.Context) error {
	base := h.cfg.Gateway.Base
	base.Metrics = h.metrics
	return h.openGate(ctx, gatePart{
		Listen: h.cfg.Gateway.Listen, TLS: h.cfg.Gateway.TLS.server(), Base: base,
		Ledger: h.ledger, Minters: h.ctl.minters, Store: h.store, Issuers: h.cfg.Issuers,
		Control: h.keys.control.Public().(ed25519.PublicKey),
	})
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

func (h *serveHouse) startMetrics(context.Context) error {
	if h.cfg.Metrics == "" {
		return nil
	}
	h.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return h.openDoor(httpDoor{Part: "metrics", Listen: h.cfg.Metrics, Handler: mux})
}

func (h *serveHouse) startWebhook(context.Context) error {
	return h.openDoor(httpDoor{Part: "webhook", Listen: h.cfg.Webhook.Listen, TLS: h.cfg.Webhook.TLS.server(), Handler: h.ctl.Webhook})
}

// logins are the secrets of the configuration. A policy names one; where it
// may be sent, the configuration alone says.
type logins []targetSecret

func (l logins) find(_ context.Context, t access.Target) (mint.AdminLogin, error) {
	for _, s := range l {
		if s.Name != t.Admin || !slices.Contains(s.For, t.Kind+" "+t.Address) {
			continue
		}
		password, err := readSecret(s.PasswordFile)
		if err != nil {
			return mint.AdminLogin{}, fmt.Errorf("read password of secret %q: %w", s.Name, err)
		}
		return mint.AdminLogin{User: s.User, Password: password, ServerCA: s.ServerCA, ServerName: s.ServerName}, nil
	}
	return mint.AdminLogin{}, access.Errorf(access.CodeDenied,
		"The secret %q is not for %s %s: the server's configuration does not say so.", t.Admin, t.Kind, t.Address)
}
