package ledger

import (
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func testHolds(t *testing.T, r *rig) {
	a, b := r.active(t, "a"), r.active(t, "b")
	for i, g := range []access.Grant{a, b, a} {
		if h := r.hold(t, g, fmt.Sprint("h", i+1)); h.Number != i+1 || h.State != access.HeldOpen {
			t.Errorf("got %s %s, want H%d open: numbers rise over the pull request", h.Name(), h.State, i+1)
		}
	}
	byID, err := r.Held(t.Context(), "h2")
	check(t, err)
	byNumber, err := r.HeldByNumber(t.Context(), 1, 7, 2)
	check(t, err)
	equal(t, "by number", byNumber, byID)
	_, err = r.OpenHeld(t.Context(), byID)
	wantCode(t, "the same id again", err, access.CodeConflict)
	_, err = r.Held(t.Context(), "h9")
	wantCode(t, "unknown id", err, access.CodeNotFound)
	_, err = r.HeldByNumber(t.Context(), 1, 8, 2)
	wantCode(t, "unknown number", err, access.CodeNotFound)

	wantCode(t, "cancel as open", r.CancelHeld(t.Context(), "h1", access.HeldOpen), access.CodeInvalid)
	check(t, r.CancelHeld(t.Context(), "h1", access.HeldTimedOut))
	wantCode(t, "cancel twice", r.CancelHeld(t.Context(), "h1", access.HeldCancelled), access.CodeConflict)
	wantCode(t, "answer after the end", r.AnswerHeld(t.Context(), access.Answer{Held: "h1", Digest: "d-h1", Approve: true}), access.CodeConflict)
	open, err := r.OpenHelds(t.Context())
	check(t, err)
	if len(open) != 2 || open[0].ID != "h2" || open[1].ID != "h3" {
		t.Errorf("got open %v, want h2 and h3", open)
	}

	a.State = access.StateRevoked
	_, err = r.Update(t.Context(), a)
	check(t, err)
	_, err = r.OpenHeld(t.Context(), access.Held{ID: "h4", Grant: a.Key, Digest: "d", Expires: r.Now().Add(time.Minute)})
	wantCode(t, "hold under an ended grant", err, access.CodeEnded)
	check(t, r.VerifyAudit(t.Context()))
}

func testAnswers(t *testing.T, r *rig) {
	g := r.active(t, "a")
	h := r.hold(t, g, "h1")
	yes := access.Answer{Held: h.ID, Digest: h.Digest, Approve: true, By: access.User{ID: 5, Login: "bob"}, At: r.Now()}
	wrong := yes
	wrong.Digest = "d-h2"
	wantCode(t, "wrong digest", r.AnswerHeld(t.Context(), wrong), access.CodeInvalid)
	forged := yes
	forged.Signature = make([]byte, ed25519.SignatureSize)
	wantCode(t, "forged signature", r.AnswerHeld(t.Context(), forged), access.CodeDenied)
	unknown := yes
	unknown.Held = "h9"
	wantCode(t, "unknown", r.AnswerHeld(t.Context(), unknown), access.CodeNotFound)
	check(t, r.AnswerHeld(t.Context(), yes))
	wantCode(t, "second answer", r.AnswerHeld(t.Context(), yes), access.CodeConflict)
	got, err := r.Held(t.Context(), h.ID)
	check(t, err)
	if got.State != access.HeldAnswered || !ed25519.Verify(r.pub, got.Answer.SigningBytes(), got.Answer.Signature) {
		t.Errorf("got %s with %+v, want a signed answer", got.State, got.Answer)
	}

	no := access.Answer{Held: r.hold(t, g, "h2").ID, Digest: "d-h2", By: yes.By}
	no.At = r.Now()
	no.Signature = ed25519.Sign(r.config.Signer, no.SigningBytes())
	check(t, r.AnswerHeld(t.Context(), no))
	_, err = r.ConsumeHeld(t.Context(), "h2")
	wantCode(t, "consume a no", err, access.CodeConflict)

	r.hold(t, g, "h3")
	late := access.Answer{Held: "h3", Digest: "d-h3", Approve: true, At: r.Now()}
	r.pass(time.Minute)
	wantCode(t, "too late", r.AnswerHeld(t.Context(), late), access.CodeConflict)
	_, err = r.OpenHeld(t.Context(), access.Held{ID: "h4", Grant: g.Key, Digest: "d", Expires: r.Now()})
	wantCode(t, "held until now", err, access.CodeInvalid)
}

func testConsume(t *testing.T, r *rig) {
	h := r.hold(t, r.active(t, "a"), "h1")
	_, err := r.ConsumeHeld(t.Context(), h.ID)
	wantCode(t, "consume before the answer", err, access.CodeConflict)
	answers := race(t, func() error {
		return r.AnswerHeld(t.Context(), access.Answer{Held: h.ID, Digest: h.Digest, Approve: true})
	})
	other := r.again(t)
	uses := race(t, func() error {
		_, err := other.ConsumeHeld(t.Context(), h.ID)
		return err
	})
	if answers != 1 || uses != 1 {
		t.Errorf("answered %d times and consumed %d times, want once each", answers, uses)
	}
	wantCode(t, "cancel after use", r.CancelHeld(t.Context(), h.ID, access.HeldCancelled), access.CodeConflict)
}

func testHoldBound(t *testing.T, r *rig) {
	g := r.active(t, "a")
	for i := range maxOpen {
		r.hold(t, g, fmt.Sprint("h", i))
	}
	late := access.Held{ID: "one more", Grant: g.Key, Digest: "d", Expires: r.Now().Add(time.Hour)}
	_, err := r.OpenHeld(t.Context(), late)
	wantCode(t, "one too many", err, access.CodeTooLarge)
	r.pass(time.Minute) // what is over no longer counts, also if nobody cancelled it
	_, err = r.OpenHeld(t.Context(), late)
	check(t, err)
}

// testForgedHolds: whoever writes to the database, a gateway's login or
// another, can't have an approver see another text than what runs.
func testForgedHolds(t *testing.T, r *rig) {
	g, other := r.active(t, "a"), r.active(t, "b")
	forge := func(id string, edit func(*access.Held)) {
		t.Helper()
		h, err := readHeld(t.Context(), r.db, id)
		check(t, err)
		edit(&h)
		b, err := encode(h)
		check(t, err)
		_, err = r.db.ExecContext(t.Context(), "update held set payload=$2 where id=$1", id, b)
		check(t, err)
	}
	forgeries := map[string]func(*access.Held){
		"another text":      func(h *access.Held) { h.Operation.Text = "select 1" },
		"another parameter": func(h *access.Held) { h.Operation.Params = []string{"1"} },
		"another person":    func(h *access.Held) { h.Who = "bob" },
		"others are asked":  func(h *access.Held) { h.Ask = []access.Party{{ID: 9}} },
		"a longer wait":     func(h *access.Held) { h.Expires = h.Expires.Add(time.Hour) },
		"another grant":     func(h *access.Held) { h.Grant = other.Key },
		"another id":        func(h *access.Held) { h.ID = "h-other" },
		"another gateway":   func(h *access.Held) { h.Gateway = "gateway-2" },
		"no signature":      func(h *access.Held) { h.Signature = nil },
		"its own digest":    func(h *access.Held) { h.Operation.Text, h.Digest = "select 1", "d-1" },
	}
	n := 0
	for name, edit := range forgeries {
		n++
		id := fmt.Sprint("h", n)
		h := r.hold(t, g, id)
		forge(id, edit)
		_, err := r.Held(t.Context(), id)
		wantCode(t, name+": read", err, access.CodeDenied)
		_, err = r.HeldByNumber(t.Context(), 1, 7, h.Number)
		wantCode(t, name+": by number", err, access.CodeDenied)
		for _, digest := range []string{h.Digest, "d-1"} {
			err = r.AnswerHeld(t.Context(), access.Answer{Held: id, Digest: digest, Approve: true})
			wantCode(t, name+": answer", err, access.CodeDenied)
		}
	}
	_, err := r.db.ExecContext(t.Context(), "update held set payload=$1 where id='h1'", []byte("no JSON"))
	check(t, err)
	good := r.hold(t, g, "good")
	open, err := r.OpenHelds(t.Context())
	check(t, err)
	if len(open) != 1 || open[0].ID != good.ID {
		t.Errorf("got open %v, want the one that nobody changed", open)
	}
	for id := 1; id <= n; id++ {
		if h, err := readHeld(t.Context(), r.db, fmt.Sprint("h", id)); err != nil || h.State != access.HeldCancelled {
			t.Errorf("h%d: got %s, %v, want it void: who waits must hear no", id, h.State, err)
		}
	}
	check(t, r.VerifyAudit(t.Context()))

	_, err = r.db.ExecContext(t.Context(), "update held set pull=8 where id='good'")
	check(t, err)
	_, err = r.HeldByNumber(t.Context(), 1, 8, good.Number)
	wantCode(t, "moved to another pull request", err, access.CodeDenied)
}
