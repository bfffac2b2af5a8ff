package ssh

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
	"github.com/tidegate/tidegate/gateway/ssh/mint"
	"github.com/tidegate/tidegate/gateway/ssh/sshtest"
)

// asked looks at a host with certificates of the CAs, the second of which is
// the next one.
func asked(t *testing.T, host *sshtest.Server, plan backing.Backing, sources string, cas ...gossh.Signer) Diagnosis {
	t.Helper()
	cfg := mint.Config{Installation: "test1", CA: func() (gossh.Signer, error) { return cas[0], nil }}
	if sources != "" {
		cfg.Sources = []netip.Prefix{netip.MustParsePrefix(sources)}
	}
	m, err := mint.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	plan.Accounts = []string{host.Account}
	return Diagnosis{
		Target: access.Target{TargetRef: access.TargetRef{Kind: "ssh", Name: "web-1"}, Address: host.Address}, Plan: plan, Accounts: plan.Accounts,
		Probes: func(_ context.Context, account string, local net.Addr) (out []Probe, err error) {
			for i, ca := range cas {
				p := Probe{As: fmt.Sprintf("CA %d", i), Later: i > 0, Do: "Do it."}
				if p.Secret, p.Bound, err = m.Probe(ca, account, local); err != nil {
					return nil, err
				}
				out = append(out, p)
			}
			return out, nil
		},
	}
}

// found are the findings as lines.
func found(t *testing.T, d Diagnosis) string {
	t.Helper()
	var out strings.Builder
	for _, f := range Diagnose(t.Context(), d) {
		fmt.Fprintf(&out, "%s %s → %s\n", f.Level, f.Say, f.Do)
	}
	return out.String()
}

// TestDiagnose asks a real sshd.
func TestDiagnose(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	host := sshtest.Start(t, sshtest.Options{UserCA: ca.PublicKey()})
	pinned := backing.Backing{HostKeys: []string{host.HostKey}}
	unpinned := backing.Backing{HostKeys: []string{string(gossh.MarshalAuthorizedKey(other.PublicKey()))}}
	down := *host
	down.Address = "127.0.0.1:1"
	elsewhere := asked(t, &down, pinned, "", ca)
	elsewhere.Elsewhere = true
	apart := asked(t, host, pinned, "", ca)
	apart.Probes, apart.Untried = nil, "asked elsewhere"
	crowded := asked(t, host, pinned, "", ca)
	for i := range maxProbed {
		crowded.Accounts = append(crowded.Accounts, fmt.Sprintf("nobody%d", i))
	}
	lets := "lets " + host.Account + " in by CA "
	for _, c := range []struct {
		name string
		d    Diagnosis
		want []string
		not  string
	}{
		{"as it should be", asked(t, host, pinned, "127.0.0.0/8", ca), []string{"ok " + host.Address + " proves itself by the pinned key SHA256:", "ok it " + lets + "0 →"}, "fail"},
		{"any source", asked(t, host, pinned, "", ca), []string{"ok it " + lets + "0 →"}, "this machine's"},
		{"another machine than the gateway", asked(t, host, pinned, "10.0.0.5/32", ca), []string{"ok it " + lets + "0; from this machine's address"}, "fail"},
		{"another CA", asked(t, host, pinned, "127.0.0.1/32", other), []string{"fail it does not let " + host.Account + " in by CA 0: the login was refused → Do it."}, "warn"},
		{"another CA, from elsewhere", asked(t, host, pinned, "10.0.0.5/32", other), []string{"warn it does not let"}, "fail"},
		{"a next CA that it does not know", asked(t, host, pinned, "", ca, other), []string{"ok it " + lets + "0 →", "warn it does not let " + host.Account + " in by CA 1 yet: the login was refused"}, "fail"},
		{"another host key", asked(t, host, unpinned, "", ca), []string{"fail " + host.Address + ": the host showed key SHA256:"}, "lets"},
		{"down", asked(t, &down, pinned, "", ca), []string{"fail 127.0.0.1:1: dial target:"}, "lets"},
		{"down from here", elsewhere, []string{"warn 127.0.0.1:1 can't be reached from here"}, "fail"},
		{"no key to log in with", apart, []string{"ok " + host.Address + " proves itself", "warn asked elsewhere"}, "lets"},
		{"many accounts", crowded, []string{"ok it " + lets + "0 →", "fail it does not let nobody6 in", "warn 1 more accounts were not tried"}, "nobody7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := found(t, c.d)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("want %q in\n%s", want, got)
				}
			}
			if strings.Contains(got, c.not) {
				t.Errorf("want no %q in\n%s", c.not, got)
			}
		})
	}
	if log := host.LogText(); !strings.Contains(log, "ID tidegate/test1/doctor") || strings.Contains(log, "Starting session") {
		t.Errorf("sshd's log names no doctor, or something was started:\n%s", log)
	}
}

// TestDiagnoseHostCertificate: one that ends soon is warned of.
func TestDiagnoseHostCertificate(t *testing.T) {
	ca, hostCA, dir := newSigner(t), newSigner(t), t.TempDir()
	key := newKey(t)
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	cert := &gossh.Certificate{
		Key: signer.PublicKey(), CertType: gossh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: uint64(time.Now().Add(72 * time.Hour).Unix()),
	}
	if err := cert.SignCert(rand.Reader, hostCA); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"host_key": pem.EncodeToMemory(block), "host_key-cert.pub": gossh.MarshalAuthorizedKey(cert)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host := sshtest.Start(t, sshtest.Options{UserCA: ca.PublicKey(), Dir: dir, Config: []string{"HostCertificate " + filepath.Join(dir, "host_key-cert.pub")}})
	got := found(t, asked(t, host, backing.Backing{HostCAs: []string{string(gossh.MarshalAuthorizedKey(hostCA.PublicKey()))}}, "", ca))
	for _, want := range []string{"proves itself by a certificate of the pinned CA SHA256:", "warn its host certificate ends on ", "ok it lets"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
}

// TestDiagnoseStatic logs in as every session would.
func TestDiagnoseStatic(t *testing.T) {
	key := newKey(t)
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "authorized_keys")
	if err := os.WriteFile(keys, gossh.MarshalAuthorizedKey(signer.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	host := sshtest.Start(t, sshtest.Options{UserCA: newSigner(t).PublicKey(), Config: []string{"AuthorizedKeysFile " + keys}})
	for name, c := range map[string]struct {
		key  any
		want string
	}{"the right one": {key, "ok it lets " + host.Account + " in by the static login →"}, "another": {newKey(t), "fail it does not let " + host.Account + " in by the static login: the login was refused"}} {
		block, err := gossh.MarshalPrivateKey(c.key, "")
		if err != nil {
			t.Fatal(err)
		}
		d := asked(t, host, backing.Backing{HostKeys: []string{host.HostKey}, Static: true}, "")
		d.Probes = func(context.Context, string, net.Addr) ([]Probe, error) {
			return []Probe{{As: "the static login", Secret: access.NewSecret(string(pem.EncodeToMemory(block)))}}, nil
		}
		if got := found(t, d); !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q in\n%s", name, c.want, got)
		}
	}
}
