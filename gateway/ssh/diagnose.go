package ssh

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// maxProbed bounds how many accounts of a host are tried: each is a login in
// the host's own log.
const maxProbed = 8

// probeTime bounds one login.
const probeTime = 10 * time.Second

// Probe is one way to log in at a host, to see whether it lets anybody in.
type Probe struct {
	As     string // what is tried: "the user CA", "the static login"
	Secret access.Secret
	Later  bool   // nothing depends on it yet
	Do     string // where the host does not let in
	Bound  bool   // to the gateway's addresses, of which this machine has one
}

// Diagnosis is how a host is looked at.
type Diagnosis struct {
	Target   access.Target
	Plan     backing.Backing // how the host proves itself, and of what kind its credential is
	Accounts []string

	// Probes are the logins to try for an account, from a local address; nil:
	// none can be tried here, and Untried says why.
	Probes  func(ctx context.Context, account string, local net.Addr) ([]Probe, error)
	Untried string

	// Elsewhere: it is another machine than this that dials the host.
	Elsewhere bool
}

// Diagnose says whether a host answers, proves itself as a gateway wants it,
// and lets in whom it must. It logs in, and asks for nothing there.
func Diagnose(ctx context.Context, d Diagnosis) []access.Finding {
	x := &examined{Diagnosis: d, Findings: &access.Findings{Part: "target " + d.Target.TargetRef.String()}}
	if !x.proves(ctx) {
		return x.List
	}
	if d.Probes == nil {
		x.Warn("Run doctor there as well.", "%s", d.Untried)
		return x.List
	}
	for _, account := range d.Accounts[:min(len(d.Accounts), maxProbed)] {
		x.letsIn(ctx, account)
	}
	if n := len(d.Accounts) - maxProbed; n > 0 {
		x.Warn("Try a grant there.", "%d more accounts were not tried", n)
	}
	return x.List
}

// examined is a host that is looked at.
type examined struct {
	Diagnosis
	*access.Findings
	local net.Addr // ours, once it was reached
}

// errSeen ends a connection whose host key is all that was wanted.
var errSeen = errors.New("seen")

// proves looks how the host proves itself.
func (x *examined) proves(ctx context.Context) bool {
	shown, err := x.shake(ctx, x.Plan.Accounts[0], nil)
	switch {
	case shown.wrong != nil:
		x.Fail("Ask whoever runs the host whether its key was changed: then pin the new one in the policies. If not, somebody stands between.", "%s: %v", x.Target.Address, shown.wrong)
	case shown.key == nil && x.local == nil && x.Elsewhere:
		x.Warn("Run doctor where the gateway runs: it dials the host, and this machine need not reach it.", "%s can't be reached from here: %v", x.Target.Address, err)
	case shown.key == nil:
		x.Fail("Look whether the host runs, whether this machine reaches it, and whether it speaks SSH with a key of the pinned kind.", "%s: %v", x.Target.Address, err)
	default:
		x.proved(shown.key)
		return true
	}
	return false
}

func (x *examined) proved(key gossh.PublicKey) {
	cert, ok := key.(*gossh.Certificate)
	if !ok {
		x.OK("%s proves itself by the pinned key %s", x.Target.Address, gossh.FingerprintSHA256(key))
		return
	}
	x.OK("%s proves itself by a certificate of the pinned CA %s", x.Target.Address, gossh.FingerprintSHA256(cert.SignatureKey))
	if cert.ValidBefore != gossh.CertTimeInfinity {
		x.Expiry("its host certificate", time.Unix(int64(cert.ValidBefore), 0), time.Now(), "Renew it at the host: a gateway refuses one that has ended.")
	}
}

// letsIn tries each way to log in for an account.
func (x *examined) letsIn(ctx context.Context, account string) {
	probes, err := x.Probes(ctx, account, x.local)
	if err != nil {
		x.Fail("See what is said of keys and the configuration above.", "there is nothing to log in with as %s: %v", account, err)
		return
	}
	for _, p := range probes {
		login, err := x.Plan.AuthMethods(p.Secret)
		if err == nil {
			_, err = x.shake(ctx, account, login)
		}
		x.tried(account, p, err)
	}
}

func (x *examined) tried(account string, p Probe, err error) {
	from := ""
	if !p.Bound && !x.Plan.Static {
		from = "; from this machine's address, which need not be the gateway's"
	}
	switch {
	case err == nil:
		x.OK("it lets %s in by %s%s", account, p.As, from)
	case p.Later:
		x.Warn(p.Do, "it does not let %s in by %s yet%s: %s", account, p.As, from, refusal(err))
	case from != "":
		x.Warn(p.Do, "it does not let %s in by %s%s: %s", account, p.As, from, refusal(err))
	default:
		x.Fail(p.Do, "it does not let %s in by %s: %s", account, p.As, refusal(err))
	}
}

// refusal is what the host said, without the library's words around it.
func refusal(err error) string {
	if strings.Contains(err.Error(), "unable to authenticate") {
		return "the login was refused"
	}
	return err.Error()
}

// seenHost is what a host showed.
type seenHost struct {
	key   gossh.PublicKey // verified; nil: none was
	wrong error           // why the one that it showed was not
}

// shake connects, verifies, and logs in; with nothing to log in with, the key
// is all that is looked at.
func (x *examined) shake(ctx context.Context, account string, login []gossh.AuthMethod) (shown seenHost, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	verify, algorithms, err := hostVerifier(x.Plan)
	if err != nil {
		return shown, err
	}
	look := func(host string, remote net.Addr, key gossh.PublicKey) error {
		if shown.wrong = verify(host, remote, key); shown.wrong != nil {
			return shown.wrong
		}
		if shown.key = key; login == nil {
			return errSeen
		}
		return nil
	}
	up, err := dialHost(ctx, x.Target.Address, func(local net.Addr) (*gossh.ClientConfig, error) {
		x.local = local
		return &gossh.ClientConfig{User: account, Auth: login, HostKeyCallback: look, HostKeyAlgorithms: algorithms}, nil
	})
	if err != nil {
		return shown, err
	}
	return shown, up.Close()
}
