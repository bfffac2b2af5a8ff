package ledger

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// testFind holds which sessions a filter lets through.
func testFind(t *testing.T, r *rig) {
	start := r.Now()
	open := func(id, grant, person, target string) {
		t.Helper()
		g, err := r.Grant(t.Context(), access.GrantKey{Repo: 1, ID: grant})
		if access.CodeOf(err) == access.CodeNotFound {
			g = r.active(t, grant)
		}
		check(t, r.OpenSession(t.Context(), access.SessionInfo{ID: id, Grant: g.Key, Person: access.User{ID: 1, Login: person},
			Target: access.TargetRef{Kind: "postgres", Name: target}, Started: r.Now()}))
	}
	open("s1", "a", "alice", "orders") // from minute 0 to 2
	r.pass(time.Minute)
	open("s2", "b", "bob", "orders") // from minute 1 on
	r.pass(time.Minute)
	check(t, r.CloseSession(t.Context(), "s1", "done"))
	r.pass(time.Minute)
	open("s3", "a", "alice", "stock") // from minute 3 on
	at := func(minutes float64) time.Time { return start.Add(time.Duration(minutes * float64(time.Minute))) }
	for _, c := range []struct {
		name string
		f    SessionFilter
		want string
	}{
		{"all", SessionFilter{}, "s3 s2 s1"},
		{"person, in any case", SessionFilter{Person: "ALICE"}, "s3 s1"},
		{"grant", SessionFilter{Grant: "b"}, "s2"},
		{"target", SessionFilter{Target: "postgres.orders"}, "s2 s1"},
		{"target by name", SessionFilter{Target: "stock"}, "s3"},
		{"several", SessionFilter{Person: "alice", Target: "orders"}, "s1"},
		{"nobody", SessionFilter{Person: "carol"}, ""},
		{"open since", SessionFilter{Since: at(2.5)}, "s3 s2"},
		{"open until", SessionFilter{Until: at(2.5)}, "s2 s1"},
		{"open between", SessionFilter{Since: at(0.2), Until: at(0.5)}, "s1"},
		{"a time between the ends", SessionFilter{Since: at(2.2), Until: at(2.5)}, "s2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := r.FindSessions(t.Context(), c.f)
			check(t, err)
			var ids []string
			for _, s := range found {
				ids = append(ids, s.ID)
			}
			equal(t, "ids", strings.Join(ids, " "), c.want)
		})
	}
}

// testExisting: who only looks neither makes a ledger nor changes its schema.
func testExisting(t *testing.T, r *rig, fresh string) {
	r.config.Existing = true
	r.active(t, "a")
	grants, err := r.again(t).ListGrants(t.Context())
	check(t, err)
	equal(t, "grants seen", len(grants), 1)
	_, err = Open(t.Context(), Config{URL: fresh, Existing: true})
	if err == nil {
		t.Error("an empty database was taken for a ledger")
	}
	if path, ok := strings.CutPrefix(fresh, "sqlite:"); ok {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("want no file made at %s, got %v", path, err)
		}
	}
	for _, c := range []struct {
		change, want string
		code         access.Code
	}{
		{"insert into goose_db_version (version_id, is_applied) values (999, true)", "use a newer program", access.CodeInvalid},
		{"delete from goose_db_version where version_id > 0", "start the control side of this version first", access.CodeUnavailable},
	} {
		_, err := r.db.ExecContext(t.Context(), c.change)
		check(t, err)
		_, err = Open(t.Context(), r.config)
		wantCode(t, c.want, err, c.code)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// testDiagnose finds what an operator must know.
func testDiagnose(t *testing.T, r *rig) {
	r.config.Now, r.Ledger.config.Now = time.Now, time.Now // a server has its own clock
	find := func(want ...string) {
		t.Helper()
		var b strings.Builder
		for _, f := range r.Diagnose(t.Context(), r.pub) {
			b.WriteString(string(f.Level) + " " + f.Say + "\n")
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("want %q in\n%s", w, b.String())
			}
		}
	}
	g := r.active(t, "a") // of May: long over
	find("ok its audit log", "fail grant a is active since 2026-05-01 13:00:00 and not proved closed", "ok 0 grants are open")
	g.NotAfter = time.Now().Add(time.Hour)
	g, err := r.Update(t.Context(), g)
	check(t, err)
	find("ok 1 grants are open")
	g.State = access.StateRevoked
	_, err = r.Update(t.Context(), g)
	check(t, err)
	find("warn grant a is revoked and being closed")
	waits := fmt.Sprintf("warn on pull request %d-%d 1 commands", g.Pull.Repo, g.Pull.Number)
	for _, id := range []string{fmt.Sprintf("1-5-1 %d-%d", g.Pull.Repo, g.Pull.Number), "1-6-1 1-999"} { // of 999 nothing is open
		_, err = r.Once(t.Context(), "command.waits", id)
		check(t, err)
	}
	find(waits)
	_, err = r.Once(t.Context(), "command", "1-5-1")
	check(t, err)
	for _, f := range r.Diagnose(t.Context(), r.pub) {
		if strings.Contains(f.Say, "wait to be carried out") {
			t.Errorf("got %q, want nothing of what was answered", f.Say)
		}
	}
	_, err = r.db.ExecContext(t.Context(), "update grants set signature=$1", make([]byte, ed25519.SignatureSize))
	check(t, err)
	_, err = r.db.ExecContext(t.Context(), "update audit set hash='x' where seq=2")
	check(t, err)
	find("fail The audit log is broken at row 2.", "fail grant 1-a is not signed by this installation's control")
	if r.dialect.lock == "" {
		return
	}
	find("ok its clock agrees")
	r.Ledger.config.Now = func() time.Time { return time.Now().Add(time.Minute) }
	find("fail its clock and this machine's are 1m0s apart")
}

func TestExistingNeedsAFile(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(t.Context(), Config{URL: "sqlite:" + dir, Existing: true})
	wantCode(t, "a folder", err, access.CodeNotFound)
	_, err = Open(t.Context(), Config{URL: "sqlite:" + filepath.Join(dir, "none.db"), Existing: true})
	wantCode(t, "nothing", err, access.CodeNotFound)
}
