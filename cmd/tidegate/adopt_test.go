package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge/hub"
)

const toAdopt = "opens until an operator runs"

// TestRestoredLedgerOpensNothing: a backup is put back under a dead control
// side. Neither what was revoked since nor what landed since opens, and nothing
// new lands, until a person adopts the ledger; then new grants open.
func TestRestoredLedgerOpensNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *controlConfig, _ *hub.Config) {
		c.Rules.Grace = time.Second // known-1's workflow completed once: the sweep closes it
	})
	d.until("the first policies", func() (bool, error) { return d.inForce(0) })
	d.grant("known-1")
	file := filepath.Join(d.dir, ledgerFile)
	backup := d.withoutControl(func() []byte { return readAll(t, file) })
	d.grant("lost-1")
	for _, id := range []string{"known-1", "lost-1"} {
		d.must(d.ctl.flows.Revoke(t.Context(), workflows.EndInput{Key: d.key(id), By: "bob", Why: "No more."}))
		d.until(id+" closed", func() (bool, error) {
			g, err := d.ledger.Grant(t.Context(), d.key(id))
			return !g.Closed.IsZero(), err
		})
	}
	d.withoutControl(func() []byte {
		for _, more := range []string{"-wal", "-shm"} {
			if err := os.Remove(file + more); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		d.must(os.WriteFile(file, backup, 0o600))
		return nil
	})

	early := d.approved("early-1")
	d.says(early, toAdopt)
	d.must(d.merge(t.Context(), "alice", early))
	d.says(early, toAdopt)
	d.until("a loud log", func() (bool, error) {
		text := d.log.String()
		return strings.Contains(text, "nothing opens") && strings.Contains(text, "reconcile failed"), nil
	})
	for _, id := range []string{"lost-1", "early-1"} {
		if g, err := d.ledger.Grant(t.Context(), d.key(id)); access.CodeOf(err) != access.CodeNotFound {
			t.Errorf("%s is %s, error %v, want that nothing landed", id, g.State, err)
		}
	}
	if _, err := d.ctl.leases(d.ledger).Lease(t.Context(), d.key("known-1"), "s1"); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("a credential of a grant that was revoked after the backup: %v", err)
	}

	done := d.adopt()
	if !done.Older || len(done.Revoked) != 1 || len(done.Refused) != 2 || done.Policies != "" {
		t.Errorf("adopted %+v, want one revoked and two refused", done)
	}
	for id, want := range map[string]access.State{"known-1": access.StateRevoked, "lost-1": access.StateRefused, "early-1": access.StateRefused} {
		d.until(id+" closed", func() (bool, error) {
			g, err := d.ledger.Grant(t.Context(), d.key(id))
			if err == nil && g.State != want {
				t.Fatalf("%s is %s, want %s", id, g.State, want)
			}
			return !g.Closed.IsZero(), err
		})
	}
	d.grant("new-1")
	if again := d.adopt(); again.Began || again.Older {
		t.Errorf("adopted once more: %+v", again)
	}
	d.is("new-1", access.StateActive)
}

// TestFirstAdoptionByAPerson: without the switch of dev a new ledger has no
// policies until somebody adopts it, and nothing that was merged before opens.
func TestFirstAdoptionByAPerson(t *testing.T) {
	d := newDesk(t, func(c *controlConfig, _ *hub.Config) { c.Rules.AdoptFirst = false })
	before := d.approved("before-1")
	d.says(before, "An operator must adopt the policies")
	d.must(d.merge(t.Context(), "alice", before))
	if done := d.adopt(); done.Older || !done.Began || done.Policies == "" || strings.Join(done.Refused, " ") != "before-1" {
		t.Errorf("adopted %+v", done)
	}
	d.is("before-1", access.StateRefused)
	d.grant("after-1")
}

// approved opens a pull request of alice that bob approves.
func (d *desk) approved(id string) int {
	d.t.Helper()
	number := d.ask("alice", asked{id: id, role: "readonly", lasts: "1h"})
	d.must(d.approve(d.t.Context(), "bob", number))
	return number
}

// grant is one that is active.
func (d *desk) grant(id string) int {
	d.t.Helper()
	number := d.approved(id)
	_, err := (&demo{people: d.people}).check(d.t.Context(), number, "tidegate/approved", "success")
	d.must(err)
	d.must(d.merge(d.t.Context(), "alice", number))
	d.is(id, access.StateActive)
	return number
}

func (d *desk) key(id string) access.GrantKey { return access.GrantKey{Repo: 1001, ID: id} }

// withoutControl stops the control side and closes the ledger meanwhile.
func (d *desk) withoutControl(do func() []byte) []byte {
	d.t.Helper()
	d.stopControl()
	d.must(d.ledger.Close())
	out := do()
	d.openLedger()
	d.startControl()
	return out
}

// adopt is `tidegate adopt` in a process of its own, beside control.
func (d *desk) adopt() workflows.Adoption {
	d.t.Helper()
	cfg := d.store
	var err error
	if cfg.Watermark, err = ledger.OpenWatermark(filepath.Join(d.dir, seenFile)); err != nil {
		d.t.Fatal(err)
	}
	l, err := ledger.Open(d.t.Context(), cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	defer l.Close()
	p := patient{forge: d.cfg.Forge}
	done, err := p.adopt(d.t.Context(), l, workflows.AdoptInput{By: "admin", Why: "a test"})
	d.must(err)
	if began := time.Now(); done.Began { // the forge's times are whole seconds, and a doubtful one counts as before
		d.until("the next second", func() (bool, error) { return time.Now().Truncate(time.Second).After(began), nil })
	}
	return done
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
