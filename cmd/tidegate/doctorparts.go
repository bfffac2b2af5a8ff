package main

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/lease"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	sshmint "github.com/tidegate/tidegate/gateway/ssh/mint"
	"github.com/tidegate/tidegate/policies"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
)

// asksLedger also reads what others wait for.
func (p *patient) asksLedger(ctx context.Context) (found []access.Finding) {
	told := sync.OnceFunc(func() { close(p.read) })
	defer told()
	p.known.err = errNoLedger
	f := &access.Findings{Part: "ledger"}
	if p.Ledger.IsZero() {
		f.Fail(p.unlessBroken("Name it in the configuration."), "no ledger is known")
		return f.List
	}
	cfg := ledger.Config{ForGateway: !p.parts.Control}
	if p.parts.Control {
		var err error
		if cfg.Watermark, err = ledger.OpenWatermark(filepath.Join(p.Dir, seenFile)); err != nil {
			f.Fail("Until then control does not start.", "%v", err)
		}
	}
	err := p.openLedger(ctx, cfg, func(l *ledger.Ledger) error {
		p.known = readInForce(ctx, l)
		told()
		found = l.Diagnose(ctx, p.controlKey())
		return nil
	})
	if err != nil {
		f.Fail("Look at its address, whether its database runs, and whether this machine reaches it.", "%v", err)
	}
	return append(found, f.List...)
}

func readInForce(ctx context.Context, l *ledger.Ledger) (s inForce) {
	if s.tree, s.err = l.Adopted(ctx); s.err != nil {
		return s
	}
	s.open, s.err = l.Unclosed(ctx)
	return s
}

// controlKey is control's public half; nil where its key is not to be read.
func (p *patient) controlKey() ed25519.PublicKey {
	if p.enrolled != nil {
		return p.enrolled.Control
	}
	path := p.key("control.pem")
	if !isFile(path) {
		return nil
	}
	key, err := signingKey(path)
	if err != nil {
		return nil // the keys' own examination says so
	}
	return key.Public().(ed25519.PublicKey)
}

func (p *patient) asksTemporal(ctx context.Context) []access.Finding {
	if p.temporal.HostPort == "" {
		f := &access.Findings{Part: "temporal"}
		f.Fail(p.unlessBroken("Name it in the configuration."), "no Temporal is known")
		return f.List
	}
	opts := p.temporal
	opts.Logger = temporalLog{slog.New(slog.DiscardHandler)}
	return workflows.Diagnose(ctx, opts)
}

func (p *patient) asksGitHub(ctx context.Context) []access.Finding {
	gh, err := forge.New(p.forge)
	if err != nil {
		f := &access.Findings{Part: "github"}
		f.Fail(p.unlessBroken("Correct the block github."), "it can't be asked: %v", err)
		return f.List
	}
	return gh.Diagnose(ctx)
}

// unlessBroken is advice that a configuration with mistakes makes untrue:
// what a part seems to lack is what could not be read there.
func (p *patient) unlessBroken(advice string) string {
	if p.broken {
		return "See what configuration says above."
	}
	return advice
}

// policies compares those on main with those in force.
func (p *patient) policies(ctx context.Context) []access.Finding {
	f := &access.Findings{Part: "policies"}
	main, err := p.mainTree(ctx)
	if err != nil {
		f.Fail("See what github says above.", "those on main can't be read: %v", err)
	} else if diags := policies.Load(main); diags.HasErrors() {
		for _, d := range diags {
			f.Fail("Correct it by a pull request; those in force stay meanwhile.", "on main: %s", d)
		}
	} else {
		f.OK("those on main load")
	}
	state := p.inForce(ctx)
	switch {
	case state.err != nil && access.CodeOf(state.err) != access.CodeNotFound:
		f.Fail("See what the ledger says above.", "those in force can't be read: %v", state.err)
	case state.tree.Commit == "":
		f.Fail("Read them, then run `tidegate adopt`.", "none are in force yet")
	case err != nil:
	case policies.PoliciesDigest(main) != policies.PoliciesDigest(state.tree):
		f.Warn("Have a policy owner approve the pull request that changed them; the audit log says why they were not taken.",
			"those in force are of commit %.12s, and main says something else", state.tree.Commit)
	default:
		f.OK("those on main are in force")
	}
	return f.List
}

func (p *patient) mainTree(ctx context.Context) (access.Tree, error) {
	gh, err := forge.New(p.forge)
	if err != nil {
		return access.Tree{}, err
	}
	commit, err := gh.Main(ctx)
	if err != nil {
		return access.Tree{}, err
	}
	return gh.Tree(ctx, commit)
}

// targets asks every target that the policies in force name, and looks at the
// grants that are open there.
func (p *patient) targets(ctx context.Context) []access.Finding {
	f := &access.Findings{Part: "targets"}
	offers, open, ok := p.offered(ctx, f, "See what policies say above.")
	if !ok {
		return f.List
	}
	key := make([]byte, 32) // nothing is minted: no password is derived from it
	m, err := mint.New(mint.Config{Installation: p.Name, Key: key, Admin: p.admin})
	if err != nil {
		f.Fail("Correct the configuration.", "%v", err)
		return f.List
	}
	defer m.Close()
	all := p.hostExams(offers, open)
	for _, t := range targetsOf(offers) {
		if t.Kind == sshmint.Kind {
			continue
		}
		if t.Kind != m.Kind() {
			f.Warn("Try a grant there.", "%s is not looked at: doctor knows no targets of its kind", t.TargetRef)
			continue
		}
		all = append(all, examination{"target " + t.TargetRef.String(), func(ctx context.Context) []access.Finding {
			return m.Diagnose(ctx, t, plansOn(t, offers, open))
		}})
	}
	f.List = slices.AppendSeq(f.List, examine(ctx, all))
	if len(offers) == 0 {
		f.Warn("Add one to the policies.", "the policies in force name none")
	}
	return f.List
}

// offered are the roles of all targets in the policies in force, and the grants
// that are open. Where it is not ok, f says why; remedy is what to do where the
// policies do not load.
func (p *patient) offered(ctx context.Context, f *access.Findings, remedy string) (offers []access.Plan, open []access.Grant, ok bool) {
	state := p.inForce(ctx)
	if state.err != nil {
		f.Fail("See what the ledger says above.", "none are known without the policies in force: %v", state.err)
		return nil, nil, false
	}
	offers, diags := policies.Offers(state.tree)
	if diags.HasErrors() {
		f.Fail(remedy, "none are known: the policies in force do not load")
		return nil, nil, false
	}
	return offers, state.open, true
}

func targetsOf(offers []access.Plan) (out []access.Target) {
	for _, o := range offers {
		if !slices.ContainsFunc(out, func(t access.Target) bool { return t.TargetRef == o.Target.TargetRef }) {
			out = append(out, o.Target)
		}
	}
	return out
}

// plansOn are the roles of a target, and the grants that are active there.
func plansOn(t access.Target, offers []access.Plan, open []access.Grant) (out []access.Plan) {
	for _, o := range offers {
		if o.Target.TargetRef == t.TargetRef {
			out = append(out, o)
		}
	}
	for _, g := range open {
		if g.State == access.StateActive && g.Plan.Target.TargetRef == t.TargetRef {
			out = append(out, g.Plan)
		}
	}
	return out
}

// gateway asks the running one over its socket.
func (p *patient) gateway(ctx context.Context) []access.Finding {
	f := &access.Findings{Part: "gateway"}
	var s gateStatus
	switch err := askGateway(ctx, p.Dir, "GET", "/status", nil, &s); {
	case err != nil:
		f.Fail("Start `tidegate serve`, or run this where it runs, as its user.", "%v", err)
	case s.Ready != "":
		f.Fail("See its log.", "it opens nothing: %s", s.Ready)
	default:
		f.OK("it opens sessions; %d are open", s.Sessions)
	}
	return f.List
}

// control asks the control side in another process as a gateway does, for a
// grant that there is not: not to find it, one must be known there.
func (p *patient) control(ctx context.Context) []access.Finding {
	f := &access.Findings{Part: "control"}
	if p.enrolled == nil {
		f.Fail("See what the configuration says above.", "there is no enrolment to ask with")
		return f.List
	}
	client, err := lease.NewClient(p.door, p.enrolled.tls())
	if err != nil {
		f.Fail("Correct the block control.", "%v", err)
		return f.List
	}
	defer client.Close()
	switch _, err := client.Lease(ctx, access.GrantKey{Repo: 1, ID: "asked-by-doctor"}, "doctor"); access.CodeOf(err) {
	case access.CodeNotFound:
		f.OK("it answers at %s and knows us as %s", p.door, p.enrolled.Name)
	case access.CodeDenied, access.CodeUnauthenticated:
		f.Fail("Enrol the gateway again: `tidegate setup gateway`.", "it answers at %s and does not know us: %v", p.door, err)
	default:
		f.Fail("Look at address in the block control, and whether the control side runs: nothing new opens meanwhile.", "%s: %v", p.door, err)
	}
	return f.List
}
