package main

import (
	"context"
	"fmt"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/record"
	"github.com/tidegate/tidegate/policies"
	"github.com/tidegate/tidegate/workflows"
)

// The parts don't know one another; here each is given the words of those it
// meets. Nothing in this file decides anything.

// gatewayLedger is the ledger as a gateway reads it.
type gatewayLedger struct{ *ledger.Ledger }

func (l gatewayLedger) Snapshot(ctx context.Context) (gateway.Snapshot, error) {
	rows, rules, err := l.Ledger.Snapshot(ctx)
	if err != nil {
		return gateway.Snapshot{}, err
	}
	s := gateway.Snapshot{Rules: rules, Grants: make([]gateway.SignedGrant, len(rows))}
	for i, r := range rows {
		s.Grants[i] = gateway.SignedGrant{Payload: r.Payload, Signature: r.Signature}
	}
	return s, nil
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

// leaser is a minter that also hands out credentials.
type leaser interface {
	workflows.Minter
	Lease(ctx context.Context, g access.Grant, session string) (access.Lease, error)
}

// leases answers a gateway that asks for a session's credential. It reads the
// grant again: what a gateway says of a grant is not believed.
type leases struct {
	ledger  *ledger.Ledger
	minters map[string]leaser
	now     clock
}

func (l leases) Lease(ctx context.Context, key access.GrantKey, session string) (access.Lease, error) {
	g, err := l.ledger.Grant(ctx, key)
	if err != nil {
		return access.Lease{}, err
	}
	if !g.Open(l.now()) {
		return access.Lease{}, access.Errorf(access.CodeEnded, "Grant %s is not active: it is %s.", key.ID, g.State)
	}
	kind := g.Plan.Target.Kind
	m, ok := l.minters[kind]
	if !ok {
		return access.Lease{}, fmt.Errorf("lease %s: no minter for %q", key, kind)
	}
	return m.Lease(ctx, g, session)
}
