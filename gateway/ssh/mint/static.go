package mint

import (
	"context"
	"fmt"
	"slices"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// A target with a static credential is a device that knows no certificates:
// every session logs in with the same password or key, which somebody else
// made. There is no first lock of ours: the gateway alone holds what the role
// does not give, and the end of a grant closes its sessions and takes nothing
// back.

// Login is a static credential.
type Login struct {
	User   string
	Secret access.Secret // a password, or a private key in PEM
}

// static answers with the login of a target's sessions.
func (m *Minter) static(ctx context.Context, t access.Target) (Login, error) {
	if m.cfg.Static == nil {
		return Login{}, access.Errorf(access.CodeInvalid, "Target %s has a static credential, and there are none here.", t.TargetRef)
	}
	l, err := m.cfg.Static(ctx, t)
	if err != nil {
		return Login{}, fmt.Errorf("find static credential: %w", err)
	}
	return l, nil
}

// expandStatic is the role's plan for the login that the target has.
func (m *Minter) expandStatic(ctx context.Context, plan access.Plan, b *backing.Backing) error {
	l, err := m.static(ctx, plan.Target)
	if err != nil {
		return err
	}
	if !slices.Equal(b.Accounts, []string{l.User}) {
		return access.Errorf(access.CodeInvalid, "Role %q of %s: its static credential logs in as %q; write accounts = [%q].", plan.Role.Name, plan.Target.TargetRef, l.User, l.User)
	}
	b.Static = true
	return nil
}

// leaseStatic hands the login out, for the account that was approved.
func (m *Minter) leaseStatic(ctx context.Context, t access.Target, b backing.Backing) (access.Secret, error) {
	l, err := m.static(ctx, t)
	if err != nil {
		return access.Secret{}, err
	}
	if !b.Static || !slices.Equal(b.Accounts, []string{l.User}) {
		return access.Secret{}, access.Errorf(access.CodeInvalid, "The account %q was approved, and the static credential of %s is now %q's: plan the request again.", b.Accounts[0], t.TargetRef, l.User)
	}
	return l.Secret, nil
}
