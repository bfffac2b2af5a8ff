package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
	sshmint "github.com/tidegate/tidegate/gateway/ssh/mint"
)

// hostExam looks at one SSH target.
type hostExam struct {
	*patient
	*access.Findings
	target access.Target
	minter *sshmint.Minter
}

// asksHost looks at an SSH target as the gateway would: whether it answers,
// proves itself, and lets in by what sessions log in with.
func (p *patient) asksHost(ctx context.Context, t access.Target, plans []access.Plan) []access.Finding {
	x := &hostExam{patient: p, target: t, Findings: &access.Findings{Part: "target " + t.TargetRef.String()}}
	if !p.ssh && p.Config == "" {
		x.Warn("Install openssh-server, and start it again.", "no session opens there: tidegate dev found no sshd")
		return x.List
	}
	if !p.ssh {
		x.Fail("Add the block ssh to the configuration.", "no session opens there: the configuration has no SSH")
		return x.List
	}
	var err error
	x.minter, err = sshmint.New(sshmint.Config{Installation: p.Name, Sources: p.sources, Static: p.session, CA: func() (gossh.Signer, error) {
		return nil, errors.New("doctor gives no session a certificate")
	}})
	if err != nil {
		x.Fail("Correct the configuration.", "%v", err)
		return x.List
	}
	d := ssh.Diagnosis{Target: t, Probes: x.probes, Elsewhere: !p.parts.Gateway}
	if !p.parts.Control {
		d.Probes, d.Untried = nil, "whether it lets sessions in is asked where the control side runs, which holds what they log in with"
	}
	for _, plan := range plans {
		b, ok := x.gives(ctx, plan)
		if !ok {
			continue
		}
		d.Plan = b
		for _, account := range b.Accounts {
			if !slices.Contains(d.Accounts, account) {
				d.Accounts = append(d.Accounts, account)
			}
		}
	}
	if len(d.Accounts) == 0 {
		return x.List
	}
	return append(x.List, ssh.Diagnose(ctx, d)...)
}

// gives is what a role, or an active grant, gives today.
func (x *hostExam) gives(ctx context.Context, plan access.Plan) (b backing.Backing, ok bool) {
	what := "role " + plan.Role.Name
	if plan.Request.ID != "" {
		what = "grant " + plan.Request.ID
	}
	if !x.parts.Control { // the secrets that an expansion may read are control's
		b, err := backing.FromRole(plan.Target, plan.Role)
		b.Static = plan.Target.Static != ""
		if err != nil {
			x.Fail("Change the role in the policies.", "%s can't be given: %v", what, err)
		}
		return b, err == nil
	}
	today, err := x.minter.Expand(ctx, plan)
	if err == nil && plan.Request.ID != "" && string(today.Body) != string(plan.Expansion.Body) {
		err = errors.New("what its role gives is not what was approved")
	}
	if err == nil {
		b, err = backing.Parse(today.Body)
	}
	if err != nil {
		x.Fail("Change the role in the policies, or the block secret that the target names; a grant is to be asked for again.", "%s can't be given: %v", what, err)
		return b, false
	}
	x.OK("%s can be given", what)
	return b, true
}

const (
	trustDo = "Put what `tidegate keys print user-ca` prints into TrustedUserCAKeys there; AllowUsers must let the account in from the gateway, and the host's clock may be 2 minutes late at most. sshd's own log says which it is."
	laterDo = "Bring `tidegate keys print user-ca` to its TrustedUserCAKeys before then: "
)

// probes are what sessions of an account log in with.
func (x *hostExam) probes(ctx context.Context, account string, local net.Addr) ([]ssh.Probe, error) {
	if x.target.Static != "" {
		login, err := x.session(ctx, x.target)
		if err != nil {
			return nil, err
		}
		return []ssh.Probe{{As: "the static login", Secret: login.Secret, Do: "Look at user and password_file of the secret " + x.target.Static + ", and at the device."}}, nil
	}
	set, err := readKeySet(x.key(""), keyKindOf(userCAKey))
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("there is no user CA yet: the first start of the control side makes it")
	}
	if err != nil {
		return nil, err
	}
	v := set.at(time.Now())
	out, err := x.probe(nil, v.Signs, account, local, ssh.Probe{As: "a certificate of the user CA", Do: trustDo})
	if err == nil && v.Next != nil {
		out, err = x.probe(out, *v.Next, account, local, ssh.Probe{As: "one of the next user CA", Later: true, Do: laterDo + "it signs from " + stamp(v.Next.From) + "."})
	}
	return out, err
}

func (x *hostExam) probe(to []ssh.Probe, ca keyHalf, account string, local net.Addr, p ssh.Probe) ([]ssh.Probe, error) {
	signer, err := ca.sshSigner()
	if err != nil {
		return nil, err
	}
	p.Secret, p.Bound, err = x.minter.Probe(signer, account, local)
	return append(to, p), err
}

// hosts are the SSH targets, asked by a gateway apart: it dials them.
func (p *patient) hosts(ctx context.Context) []access.Finding {
	f := &access.Findings{Part: "targets"}
	offers, open, ok := p.offered(ctx, f, "Ask doctor where the control side runs.")
	if !ok {
		return f.List
	}
	return slices.AppendSeq(f.List, examine(ctx, p.hostExams(offers, open)))
}

func (p *patient) hostExams(offers []access.Plan, open []access.Grant) (all []examination) {
	for _, t := range targetsOf(offers) {
		if t.Kind == sshmint.Kind {
			all = append(all, examination{"target " + t.TargetRef.String(), func(ctx context.Context) []access.Finding {
				return p.asksHost(ctx, t, plansOn(t, offers, open))
			}})
		}
	}
	return all
}
