package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	"github.com/tidegate/tidegate/gateway/record"
	sshmint "github.com/tidegate/tidegate/gateway/ssh/mint"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
)

// patient is an installation with everything that its parts are asked by.
type patient struct {
	installation
	parts    parts
	ssh      bool           // it has SSH
	sources  []netip.Prefix // of the gateway, as hosts see it
	session  func(context.Context, access.Target) (sshmint.Login, error)
	forge    forge.Config
	rules    workflows.Rules
	temporal client.Options
	issuers  []identify.Issuer
	admin    func(context.Context, access.Target) (mint.AdminLogin, error)
	record   record.Config
	files    []certFile        // of the configuration
	gates    map[string]string // the enrolments of gateways: what, to the path of a PEM file
	config   []access.Finding  // what the configuration is like
	broken   bool              // the configuration has mistakes
	door     string            // of control in another process
	enrolled *enrolment        // with which we ask there

	known inForce
	read  chan struct{} // closed when known was read, or could not be
}

// inForce is what the ledger knows that other parts are asked about.
type inForce struct {
	tree access.Tree // the policies
	open []access.Grant
	err  error
}

var errNoLedger = errors.New("the ledger does not answer")

// inForce waits for the ledger.
func (p *patient) inForce(ctx context.Context) inForce {
	select {
	case <-p.read:
		return p.known
	case <-ctx.Done():
		return inForce{err: errNoLedger}
	}
}

func newPatient(w which) (*patient, error) {
	config, dir, err := w.choose()
	switch {
	case err != nil:
		return nil, err
	case config != "":
		return ofServe(config)
	}
	return ofDevFolder(ofDev(dir))
}

// ofServe reads the whole configuration. What is wrong in it is a finding;
// the parts that it does describe are asked all the same.
func ofServe(path string) (*patient, error) {
	cfg, diags, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	f := &access.Findings{Part: "configuration"}
	for _, d := range diags {
		if d.Severity == access.SeverityError {
			f.Fail("Correct it; serve does not start with it.", "%s", d)
		} else {
			f.Warn("Read it again before others do.", "%s", d)
		}
	}
	broken := mistakes(diags) > 0
	if !broken {
		f.OK("%s is right; it is of %s", path, cfg.Parts)
	}
	p := &patient{
		installation: installation{Config: path, Name: cfg.Installation, Dir: cfg.StateDir, Ledger: cfg.Ledger, Recordings: cfg.Recordings.Dir},
		broken:       broken,
		parts:        cfg.Parts, ssh: cfg.SSH != nil, forge: cfg.Forge, rules: cfg.Rules, temporal: cfg.Temporal, issuers: cfg.Issuers, admin: logins(cfg.Secrets).find,
		record: record.Config{Dir: cfg.Recordings.Dir, MinFree: cfg.Recordings.MinFree},
		files:  cfg.certs, config: f.List, read: make(chan struct{}),
		door: cfg.Gateway.Control, enrolled: cfg.Gateway.Enrolment, gates: map[string]string{},
	}
	if cfg.SSH != nil {
		p.sources, p.session = cfg.SSH.Sources, logins(cfg.Secrets).session
	}
	known, err := filepath.Glob(filepath.Join(cfg.StateDir, gatewaysDir, "*.pem"))
	if err != nil {
		return nil, fmt.Errorf("list enrolled gateways: %w", err)
	}
	for _, file := range known {
		p.gates["the enrolment of gateway "+strings.TrimSuffix(filepath.Base(file), ".pem")] = file
	}
	return p, nil
}

// ofDevFolder asks the parts that `tidegate dev` starts.
func ofDevFolder(i installation) (*patient, error) {
	if !isFile(filepath.Join(i.Dir, devFile)) {
		return nil, fmt.Errorf("find the installation: no dev.json in %s; --dir names the folder of a `tidegate dev`, --config the configuration of a `tidegate serve`", i.Dir)
	}
	h := &devHouse{house: newHouse(slog.New(slog.DiscardHandler)), opts: devOptions{Dir: i.Dir}}
	state, err := openDevState(i.Dir)
	if err != nil {
		return nil, err
	}
	h.state = state
	ca, err := os.ReadFile(filepath.Join(i.Dir, "postgres", "ca.pem"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the target's CA: %w", err)
	}
	f := &access.Findings{Part: "configuration"}
	f.OK("%s is a folder of tidegate dev", i.Dir)
	return &patient{
		installation: i, parts: parts{Control: true, Gateway: true}, forge: h.forgeConfig(), temporal: h.temporalOptions(), issuers: h.issuers(), config: f.List,
		admin:  func(_ context.Context, t access.Target) (mint.AdminLogin, error) { return h.adminOf(t, ca) },
		record: record.Config{Dir: i.Recordings}, read: make(chan struct{}),
		ssh: isFile(i.key(keyKindOf(hostCAKey).file)), sources: devSources,
	}, nil
}

// examinations in the order in which they are told. What runs elsewhere is
// asked there.
func (p *patient) examinations() []examination {
	all := []examination{
		{"configuration", func(context.Context) []access.Finding { return p.config }},
		{"keys", p.keys},
		{"ledger", p.asksLedger},
	}
	if p.parts.Control {
		all = append(all, examination{"temporal", p.asksTemporal}, examination{"github", p.asksGitHub},
			examination{"policies", p.policies}, examination{"targets", p.targets})
	}
	if p.parts.Gateway {
		for _, i := range p.issuers {
			all = append(all, examination{"issuer " + i.Name, func(ctx context.Context) []access.Finding {
				return identify.Diagnose(ctx, i, identify.Options{})
			}})
		}
		if p.ssh && p.parts.apart() {
			all = append(all, examination{"targets", p.hosts})
		}
		all = append(all, examination{"gateway", p.gateway},
			examination{"recordings", func(context.Context) []access.Finding { return record.Diagnose(p.record) }})
	}
	if p.parts.Gateway && p.parts.apart() {
		all = append(all, examination{"control", p.control})
	}
	return append(all, examination{"certificates", p.certificates})
}
