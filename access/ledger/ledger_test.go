package ledger

import (
	"crypto/ed25519"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidegate/tidegate/access"
)

func TestGrantLife(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(nil)
	l, err := Open(t.Context(), Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "l.db"), Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g, err := l.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "inc-1"}, State: access.StateLanded})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Create(t.Context(), g); access.CodeOf(err) != access.CodeConflict {
		t.Errorf("second create: got %v, want conflict", err)
	}
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			n := g
			n.State = access.StateRevoked
			if _, err := l.Update(t.Context(), n); err == nil {
				wins.Add(1)
			} else if access.CodeOf(err) != access.CodeConflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("got %d winners, want 1", wins.Load())
	}
	g, err = l.Grant(t.Context(), g.Key)
	if err != nil {
		t.Fatal(err)
	}
	g.State = access.StateActive
	if _, err := l.Update(t.Context(), g); access.CodeOf(err) != access.CodeConflict {
		t.Errorf("revert after end: got %v, want conflict", err)
	}
	var payload, sig []byte
	if err := l.db.QueryRow("select payload, signature from grants").Scan(&payload, &sig); err != nil {
		t.Fatal(err)
	}
	if !VerifyGrant(pub, payload, sig) || VerifyGrant(pub, append(payload, ' '), sig) {
		t.Error("the signature does not tell the payload from another")
	}
	if err := l.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := l.db.Exec("update audit set entry=x'7b7d' where seq=2"); err != nil {
		t.Fatal(err)
	}
	if err := l.VerifyAudit(t.Context()); err == nil || !strings.Contains(err.Error(), "row 2") {
		t.Errorf("tampered row 2: got %v", err)
	}
}
