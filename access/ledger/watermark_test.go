package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// watched is the rig's ledger as control opens it, with a watermark in file.
func (r *rig) watched(t *testing.T, file string) *Ledger {
	t.Helper()
	w, err := OpenWatermark(file)
	check(t, err)
	was := r.config
	r.config.Watermark = w
	l := r.again(t)
	r.config = was
	return l
}

// rewind makes the database what it was before the audit row, with one grant
// that was active then: a backup, as far as a watermark can tell.
func (r *rig) rewind(t *testing.T, row int64, g access.Grant) {
	t.Helper()
	check(t, r.write(t.Context(), func(ctx context.Context, t *tx) error {
		if _, err := t.ExecContext(ctx, "delete from audit where seq > $1", row); err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, "delete from grants where sequence > $1", g.Sequence); err != nil {
			return err
		}
		_, err := t.ExecContext(ctx, "update counters set value=$1 where name='sequence'", g.Sequence)
		return err
	}))
}

func wantOlder(t *testing.T, l *Ledger, want bool) {
	t.Helper()
	why, err := l.Older(t.Context())
	check(t, err)
	if (why != "") != want {
		t.Errorf("older: %q, want %t", why, want)
	}
}

// testOlder: a ledger that lost what control saw opens nothing and still ends
// things, with sequences above whatever was seen, until it is adopted.
func testOlder(t *testing.T, r *rig) {
	file := filepath.Join(t.TempDir(), "seen.json")
	l := r.watched(t, file)
	open, err := l.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "open"}, State: access.StateActive, NotBefore: r.Now(), NotAfter: r.Now().Add(time.Hour)})
	check(t, err)
	h := r.hold(t, open, "h1")
	backup, err := headOf(t.Context(), l.db)
	check(t, err)
	lost, err := l.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "lost"}, State: access.StateActive})
	check(t, err)
	lost.State = access.StateRevoked
	lost, err = l.Update(t.Context(), lost)
	check(t, err)
	wantOlder(t, l, false)

	r.rewind(t, backup.Row, open)
	for name, l := range map[string]*Ledger{"under a running control": l, "after its restart": r.watched(t, file)} {
		wantOlder(t, l, true)
		_, err = l.Create(t.Context(), access.Grant{Key: lost.Key, State: access.StateLanded})
		wantCode(t, "landing "+name, err, access.CodeUnavailable)
		later := open
		later.NotAfter = later.NotAfter.Add(time.Hour)
		_, err = l.Update(t.Context(), later)
		wantCode(t, "extending "+name, err, access.CodeUnavailable)
		_, err = l.SignedGrant(t.Context(), open.Key)
		wantCode(t, "credential "+name, err, access.CodeUnavailable)
		wantCode(t, "policies "+name, l.SetAdopted(t.Context(), access.Tree{Commit: "c1"}, nil, ""), access.CodeUnavailable)
		wantCode(t, "a yes "+name, l.AnswerHeld(t.Context(), access.Answer{Held: h.ID, Digest: h.Digest, Approve: true}), access.CodeUnavailable)
		if why, err := l.Watch(t.Context()); err != nil || why == "" {
			t.Errorf("watching %s: %q, %v", name, why, err)
		}
	}
	check(t, l.AnswerHeld(t.Context(), access.Answer{Held: h.ID, Digest: h.Digest}))
	open.State = access.StateRevoked
	open, err = l.Update(t.Context(), open)
	check(t, err)
	if open.Sequence <= lost.Sequence {
		t.Errorf("an end under an older ledger has sequence %d, want above %d, which gateways saw", open.Sequence, lost.Sequence)
	}
	for range 20 { // past the row that was seen: another history does not count
		check(t, l.Audit(t.Context(), "control", "test", "", ""))
	}
	wantOlder(t, l, true)

	other := r.watched(t, file) // as the command line opens it
	check(t, other.Rebase(t.Context(), "admin", "restored"))
	wantOlder(t, other, false)
	wantOlder(t, l, false) // control hears of it without a restart
	began, err := l.Began(t.Context())
	check(t, err)
	if !began.Equal(r.Now()) {
		t.Errorf("began at %s, want %s", began, r.Now())
	}
	g, err := l.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "new"}, State: access.StateActive})
	check(t, err)
	_, err = l.SignedGrant(t.Context(), g.Key)
	check(t, err)
	wantOlder(t, r.watched(t, file), false)
	check(t, l.VerifyAudit(t.Context()))
}

// testSeenByMany: many writers raise one watermark, each before it is answered.
func testSeenByMany(t *testing.T, r *rig) {
	file := filepath.Join(t.TempDir(), "seen.json")
	l := r.watched(t, file)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			g, err := l.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: fmt.Sprint("g", i)}, State: access.StateLanded})
			if err != nil {
				t.Error(err)
			} else if m := l.config.Watermark.mark(); m.Sequence < g.Sequence {
				t.Errorf("answered sequence %d with %d noted", g.Sequence, m.Sequence)
			}
		})
	}
	wg.Wait()
	head, err := headOf(t.Context(), l.db)
	check(t, err)
	now, err := OpenWatermark(file)
	check(t, err)
	equal(t, "the file", now.mark(), head)
	check(t, r.Audit(t.Context(), "command line", "test", "", "")) // by another process
	if why, err := l.Watch(t.Context()); err != nil || why != "" {
		t.Errorf("watch: %q, %v", why, err)
	}
	equal(t, "after a look", l.config.Watermark.mark().Row, head.Row+1)
	info, err := os.Stat(file)
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

// testEmptied: an empty ledger beside a watermark is older, too.
func testEmptied(t *testing.T, r *rig) {
	file := filepath.Join(t.TempDir(), "seen.json")
	check(t, os.WriteFile(file, []byte(`{"row":7,"hash":"abc","sequence":3}`), 0o600))
	l := r.watched(t, file)
	wantOlder(t, l, true)
	_, err := l.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "a"}, State: access.StateLanded})
	wantCode(t, "landing", err, access.CodeUnavailable)
	check(t, l.Rebase(t.Context(), "admin", "the disk is gone"))
	g, err := l.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "a"}, State: access.StateLanded})
	check(t, err)
	if g.Sequence <= 3+leap {
		t.Errorf("sequence %d, want above what was seen", g.Sequence)
	}
}

func TestWatermarkThatCannotBeRead(t *testing.T) {
	for _, text := range []string{"", "{", `{"row":0}`, `{"row":7}`, `{"row":7,"hash":"a","sequence":-1}`} {
		file := filepath.Join(t.TempDir(), "seen.json")
		check(t, os.WriteFile(file, []byte(text), 0o600))
		if _, err := OpenWatermark(file); err == nil {
			t.Errorf("%q was believed", text)
		}
	}
}
