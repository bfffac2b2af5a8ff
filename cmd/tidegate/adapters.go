package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	"github.com/tidegate/tidegate/gateway/record"
	sshmint "github.com/tidegate/tidegate/gateway/ssh/mint"
	"github.com/tidegate/tidegate/policies"
	"github.com/tidegate/tidegate/workflows"
)

// What workflows find in a minter only if it is there.
var (
	_ workflows.OrphanSweeper = postgresMinter{}
	_ workflows.Narrower      = postgresMinter{}
	_ workflows.Mender        = postgresMinter{}
	_ workflows.Narrower      = (*sshmint.Minter)(nil)
)

// The parts don't know one another; here each is given the words of those it
// meets. Nothing in this file decides anything.

// gatewayLedger is the ledger as a gateway reads it.
type gatewayLedger struct {
	*ledger.Ledger
	targets *targetBook
}

func (l gatewayLedger) Snapshot(ctx context.Context) (gateway.Snapshot, error) {
	sequence, err := l.Sequence(ctx) // before the rows, which are then at least as new
	if err != nil {
		return gateway.Snapshot{}, err
	}
	rows, rules, err := l.Ledger.Snapshot(ctx)
	if err != nil {
		return gateway.Snapshot{}, err
	}
	targets, err := l.targets.read(ctx, l.Ledger)
	if err != nil {
		return gateway.Snapshot{}, err
	}
	s := gateway.Snapshot{Rules: rules, Sequence: sequence, Targets: targets, Grants: make([]gateway.SignedGrant, len(rows))}
	for i, r := range rows {
		s.Grants[i] = gateway.SignedGrant{Payload: r.Payload, Signature: r.Signature}
	}
	return s, nil
}

// targetBook keeps the targets of the policies in force, which are read anew
// only when those change.
type targetBook struct {
	mu      sync.Mutex
	commit  string
	targets []access.Target
}

func (b *targetBook) read(ctx context.Context, l *ledger.Ledger) ([]access.Target, error) {
	tree, err := l.Adopted(ctx)
	if access.CodeOf(err) == access.CodeNotFound {
		return nil, nil // nothing is configured yet
	}
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.commit == tree.Commit && tree.Commit != "" {
		return b.targets, nil
	}
	all, err := policy{}.Targets(tree)
	if err != nil {
		return nil, err
	}
	b.commit, b.targets = tree.Commit, all
	return all, nil
}

// controlLedger is the ledger as workflows write it.
type controlLedger struct{ *ledger.Ledger }

func (l controlLedger) GrantsOf(ctx context.Context, ref workflows.Ref) ([]access.Grant, error) {
	return l.Ledger.GrantsOf(ctx, ref.Repo, ref.Number)
}

func (l controlLedger) SeeReview(ctx context.Context, ref workflows.Ref, r access.Review) (access.Review, error) {
	return l.Ledger.SeeReview(ctx, ref.Repo, ref.Number, r)
}

func (l controlLedger) HeldByNumber(ctx context.Context, ref workflows.Ref, number int) (access.Held, error) {
	return l.Ledger.HeldByNumber(ctx, ref.Repo, ref.Number, number)
}

// policy is package policies as workflows and gateways ask it.
type policy struct{}

func (policy) Names(adopted, base, head access.Tree) (users, teams []string) {
	return policies.Names(adopted, base, head)
}

func (policy) Evaluate(in workflows.Evaluate) workflows.Evaluation {
	return workflows.Evaluation(policies.Evaluate(policies.Input(in)))
}

func (policy) Count(plan access.Plan, ballot access.Ballot) access.Reason {
	return policies.Count(plan, ballot)
}

func (policy) Rules(adopted access.Tree, dir access.Directory) ([]access.Rule, access.Diagnostics) {
	return policies.Rules(adopted, dir)
}

func (policy) Replan(adopted access.Tree, dir access.Directory, r access.Request) (access.Plan, access.Diagnostics) {
	return policies.Replan(adopted, dir, r)
}

func (policy) AdoptionRequirements(old access.Tree, owners []access.Party, dir access.Directory) ([]access.Requirement, access.Diagnostics) {
	return policies.AdoptionRequirements(old, owners, dir)
}

func (policy) Targets(adopted access.Tree) (all []access.Target, err error) {
	overview, diags := policies.Describe(adopted)
	if diags.HasErrors() {
		return nil, fmt.Errorf("read the targets of the policies in force: %s", diags[0])
	}
	for _, t := range overview.Targets {
		all = append(all, t.Target)
	}
	return all, nil
}

func (policy) Compile(rules []access.Rule, g access.Grant, id access.Identity) (access.Judge, error) {
	return policies.Compile(rules, g, id)
}

// recorders is the folder of recordings as a gateway fills it.
type recorders struct{ *record.Store }

func (r recorders) Record(s access.SessionInfo, anchor func(access.Head)) (gateway.Recorder, error) {
	w, err := r.Store.Record(s, anchor)
	if err != nil {
		return nil, err // not w: a nil *Writer would not be a nil Recorder
	}
	return w, nil
}

// ownGateway is the name of a gateway beside its control side that has no other.
const ownGateway = "gateway"

// onlyGateway knows one gateway: that of this process.
func onlyGateway(name string, key ed25519.PrivateKey) func(string) (ed25519.PublicKey, error) {
	return func(asked string) (ed25519.PublicKey, error) {
		if asked != name {
			return nil, access.Errorf(access.CodeDenied, "There is no gateway %q beside this control side.", asked)
		}
		return key.Public().(ed25519.PublicKey), nil
	}
}

// leaser is a minter that also hands out credentials.
type leaser interface {
	workflows.Minter
	Lease(ctx context.Context, g access.Grant, session string) (access.Lease, error)
}

// postgresMinter is the minter of PostgreSQL targets, with the sweeping of
// roles that no grant knows.
type postgresMinter struct {
	*mint.Minter
	ledger *ledger.Ledger
}

// SweepOrphans takes away roles of ours that belong to no grant. A role that
// is minted meanwhile has its row in the ledger first: so the grants are read
// again after the roles were listed, and only a role that was an orphan both
// times is one.
func (m postgresMinter) SweepOrphans(ctx context.Context, targets []access.Target, open []access.Grant) error {
	var sweeps errgroup.Group
	sweeps.SetLimit(sweepsAtOnce)
	errs := make([]error, len(targets))
	for i, t := range targets {
		sweeps.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, sweepBound)
			defer cancel()
			errs[i] = m.sweep(ctx, t, open)
			return nil
		})
	}
	_ = sweeps.Wait()
	return errors.Join(errs...)
}

// A target that is down delays the sweep of no other.
const (
	sweepsAtOnce = 32
	sweepBound   = 30 * time.Second
)

func (m postgresMinter) sweep(ctx context.Context, t access.Target, open []access.Grant) error {
	if t.Kind != m.Kind() {
		return nil
	}
	first, err := m.Orphans(ctx, t, keysOf(open))
	if err != nil || len(first) == 0 {
		return err
	}
	now, err := m.ledger.Unclosed(ctx)
	if err != nil {
		return err
	}
	still, err := m.Orphans(ctx, t, keysOf(now))
	if err != nil {
		return err
	}
	var errs []error
	for _, role := range first {
		if slices.Contains(still, role) {
			errs = append(errs, m.RevokeOrphan(ctx, t, role))
		}
	}
	return errors.Join(errs...)
}

func keysOf(grants []access.Grant) []access.GrantKey {
	keys := make([]access.GrantKey, len(grants))
	for i, g := range grants {
		keys[i] = g.Key
	}
	return keys
}

// leases answers a gateway that asks for a session's credential. It reads the
// grant again: what a gateway says of a grant is not believed.
type leases struct {
	ledger  *ledger.Ledger
	minters map[string]leaser
	now     clock
}

// leases are those of this control side's minters.
func (c *control) leases(l *ledger.Ledger) leases {
	return leases{ledger: l, minters: c.minters, now: time.Now}
}

func (l leases) Lease(ctx context.Context, key access.GrantKey, session string) (access.Lease, error) {
	g, err := l.ledger.SignedGrant(ctx, key)
	if err != nil {
		return access.Lease{}, err
	}
	if !g.Open(l.now()) {
		return access.Lease{}, access.Errorf(access.CodeEnded, "Grant %s is not open: it is %s. %s", key.ID, g.State, g.Why)
	}
	kind := g.Plan.Target.Kind
	m, ok := l.minters[kind]
	if !ok {
		return access.Lease{}, fmt.Errorf("lease %s: no minter for %q", key, kind)
	}
	return m.Lease(ctx, g, session)
}
