package ssh

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// TestStaticKey: a host that trusts one key and no CA. What the role does not
// give is refused by the gateway alone.
func TestStaticKey(t *testing.T) {
	signer, private := (&house{t: t}).newKey()
	keys := filepath.Join(t.TempDir(), "authorized_keys")
	if err := os.WriteFile(keys, gossh.MarshalAuthorizedKey(signer.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, houseOptions{
		role: map[string]string{"commands": "echo **"}, static: access.NewSecret(string(private)),
		sshd: []string{"AuthorizedKeysFile " + keys, "TrustedUserCAKeys none"},
	})
	if r := h.ssh("echo hello"); r.out != "hello\n" || r.code != 0 {
		t.Errorf("got %+v\n%s", r, h.host.LogText())
	}
	if r := h.ssh("id"); r.code != 1 || !strings.Contains(r.err, "runs only these") {
		t.Errorf("another command: got %+v", r)
	}
	if log := h.host.LogText(); strings.Contains(log, "ID tidegate/") || !strings.Contains(log, gossh.FingerprintSHA256(signer.PublicKey())) {
		t.Errorf("it did not log in by the key:\n%s", log)
	}
}

// TestStaticPassword: a device that asks for a password, and for nothing else.
func TestStaticPassword(t *testing.T) {
	hostKey := newSigner(t)
	cfg := &gossh.ServerConfig{KeyboardInteractiveCallback: func(_ gossh.ConnMetadata, ask gossh.KeyboardInteractiveChallenge) (*gossh.Permissions, error) {
		answers, err := ask("", "", []string{"Password: "}, []bool{false})
		if err != nil || len(answers) != 1 || answers[0] != "hunter2" {
			return nil, errors.New("wrong password")
		}
		return nil, nil
	}}
	cfg.AddHostKey(hostKey)
	address := serveSSH(t, cfg, func(in <-chan gossh.NewChannel, asks <-chan *gossh.Request) {
		go gossh.DiscardRequests(asks)
		for one := range in {
			_ = one.Reject(gossh.Prohibited, "nothing here")
		}
	})
	plan := backing.Backing{Accounts: []string{"admin"}, Static: true, HostKeys: []string{string(gossh.MarshalAuthorizedKey(hostKey.PublicKey()))}}
	for password, ok := range map[string]bool{"hunter2": true, "hunter3": false} {
		up, err := dialTarget(t.Context(), access.Lease{Address: address, Password: access.NewSecret(password)}, plan, "admin")
		if ok != (err == nil) {
			t.Errorf("%v: %v", ok, err)
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("the error tells the password: %v", err)
		}
		if up != nil {
			_ = up.Close()
		}
	}
	if _, err := plan.AuthMethods(access.NewSecret("-----BEGIN OPENSSH PRIVATE KEY-----\nbroken")); err == nil || strings.Contains(err.Error(), "broken") {
		t.Errorf("a broken key is taken for a password, or told: %v", err)
	}
}
