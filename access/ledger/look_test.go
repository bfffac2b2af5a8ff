package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func testLooks(t *testing.T, r *rig) {
	g := r.active(t, "a")
	for i := range 30 {
		check(t, r.Audit(t.Context(), "alice", "command.help", fmt.Sprintf("s-%d", i%3), `text with "subject":"s-9" in it`))
	}
	tail, err := r.AuditTail(t.Context(), 5)
	check(t, err)
	if len(tail) != 5 || tail[0].Seq != 31 || tail[4].Seq != 27 || tail[0].Actor != "alice" || !tail[0].At.Equal(r.Now()) {
		t.Errorf("tail: got %+v", tail)
	}
	about, more, err := r.AuditOf(t.Context(), []string{"s-1", g.Key.String()})
	check(t, err)
	if len(about) != 11 || more || about[0].Action != "grant.active" || about[10].Subject != "s-1" {
		t.Errorf("about: got %d rows, more %t: %+v", len(about), more, about)
	}
	none, _, err := r.AuditOf(t.Context(), []string{"s-9"})
	check(t, err)
	equal(t, "what stands in a detail is no subject", len(none), 0)
	_, err = r.db.Exec("update audit set hash='x' where seq=29")
	check(t, err)
	tail, err = r.AuditTail(t.Context(), 5)
	wantCode(t, "a changed row", err, access.CodeInvalid)
	equal(t, "rows behind the break", len(tail), 2)

	check(t, r.OpenSession(t.Context(), access.SessionInfo{ID: "s1", Grant: g.Key, Started: r.Now(), NotAfter: g.NotAfter}))
	s, why, err := r.Session(t.Context(), "s1")
	check(t, err)
	equal(t, "open session", []string{s.ID, why}, []string{"s1", ""})
	check(t, r.CloseSession(t.Context(), "s1", "The client left."))
	s, why, err = r.Session(t.Context(), "s1")
	check(t, err)
	if s.Ended.IsZero() || why != "The client left." {
		t.Errorf("closed session: %+v %q", s, why)
	}
	_, _, err = r.Session(t.Context(), "s2")
	wantCode(t, "unknown session", err, access.CodeNotFound)

	r.hold(t, g, "h1")
	r.pass(time.Second)
	r.hold(t, g, "h2")
	check(t, r.CancelHeld(t.Context(), "h2", access.HeldCancelled))
	all, err := r.ListHelds(t.Context())
	check(t, err)
	if len(all) != 2 || all[0].ID != "h2" || all[1].ID != "h1" {
		t.Errorf("held: got %+v", all)
	}
}
