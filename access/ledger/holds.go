package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/access"
)

// maxOpen is how many held operations of one pull request may wait at once.
const maxOpen = 100

// OpenHeld stores an operation that waits; it answers with its number, which
// rises for each pull request.
func (l *Ledger) OpenHeld(ctx context.Context, h access.Held) (access.Held, error) {
	if err := errors.Join(named("a held operation's id", h.ID), named("a held operation's digest", h.Digest)); err != nil {
		return h, err
	}
	if !l.config.Now().Before(h.Expires) {
		return h, access.Errorf(access.CodeInvalid, "The operation would be held until a time that is over.")
	}
	n := h
	n.State, n.Answer, n.Opened, n.Expires = access.HeldOpen, nil, n.Opened.UTC(), n.Expires.UTC()
	err := l.write(ctx, func(ctx context.Context, t *tx) error {
		g, err := readActive(ctx, t, n.Grant)
		if err != nil {
			return err
		}
		if n.Number, err = l.nextNumber(ctx, t, g); err != nil {
			return err
		}
		if err := insertHeld(ctx, t, g, n); err != nil {
			return err
		}
		t.tell = true
		return l.audit(ctx, t, entry{Actor: n.Who, Action: "hold.open", Subject: n.ID,
			Detail: fmt.Sprintf("%s of grant %s, session %s, rule %s, digest %s", n.Name(), n.Grant, n.Session, n.Rule, n.Digest)})
	})
	if err != nil {
		return h, err
	}
	return n, nil
}

func (l *Ledger) nextNumber(ctx context.Context, t *tx, g access.Grant) (int, error) {
	var last, open int
	err := t.QueryRowContext(ctx, `select coalesce(max(number), 0), coalesce(sum(case when state='open' and expires > $3 then 1 else 0 end), 0)
		from held where repo=$1 and pull=$2`, g.Key.Repo, g.Pull.Number, l.config.Now().UnixMicro()).Scan(&last, &open)
	if err == nil && open >= maxOpen {
		return 0, access.Errorf(access.CodeTooLarge, "%d operations of this pull request wait for an answer already; answer some first.", open)
	}
	return last + 1, err
}

func insertHeld(ctx context.Context, t *tx, g access.Grant, h access.Held) error {
	b, err := encode(h)
	if err != nil {
		return err
	}
	ok, err := changed(t.ExecContext(ctx, `insert into held (id, repo, pull, number, state, expires, payload)
		values ($1,$2,$3,$4,$5,$6,$7) on conflict (id) do nothing`,
		h.ID, g.Key.Repo, g.Pull.Number, h.Number, string(h.State), h.Expires.UnixMicro(), b))
	if err == nil && !ok {
		return access.Errorf(access.CodeConflict, "A held operation %s is in the ledger already.", h.ID)
	}
	return err
}

// Held reads one, with its answer if there is one. Control gets CodeDenied
// for one that no enrolled gateway signed.
func (l *Ledger) Held(ctx context.Context, id string) (access.Held, error) {
	h, err := readHeld(ctx, l.db, id)
	if err != nil {
		return h, err
	}
	return h, l.believeHeld(h, id)
}

func readHeld(ctx context.Context, q queryer, id string) (access.Held, error) {
	h, err := one[access.Held](ctx, q, "select payload from held where id=$1", id)
	if errors.Is(err, sql.ErrNoRows) {
		return h, access.Errorf(access.CodeNotFound, "No held operation %s in the ledger.", id)
	}
	return h, classify(err)
}

// HeldByNumber reads the one that people call H<number> on a pull request,
// as Held does.
func (l *Ledger) HeldByNumber(ctx context.Context, repo int64, pull, number int) (access.Held, error) {
	var id string
	err := l.db.QueryRowContext(ctx, "select id from held where repo=$1 and pull=$2 and number=$3", repo, pull, number).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return access.Held{}, access.Errorf(access.CodeNotFound, "Pull request %d has no held operation H%d.", pull, number)
	}
	if err != nil {
		return access.Held{}, unavailable("read held operation", err)
	}
	h, err := l.Held(ctx, id)
	if err != nil {
		return h, err
	}
	h.Number = number // of the row that was asked for: the gateway does not sign it
	return h, l.heldOf(ctx, h, access.Pull{Repo: repo, Number: pull})
}

// heldOf refuses a row that was moved to another pull request, where others
// may answer.
func (l *Ledger) heldOf(ctx context.Context, h access.Held, pull access.Pull) error {
	if l.config.Signer == nil {
		return nil
	}
	g, err := l.SignedGrant(ctx, h.Grant)
	if err != nil {
		return err
	}
	if g.Key.Repo != pull.Repo || g.Pull.Number != pull.Number {
		return access.Errorf(access.CodeDenied, "%s belongs to another pull request.", h.Name())
	}
	return nil
}

// believeHeld refuses (CodeDenied) what no enrolled gateway signed just so:
// whoever writes to the database could show an approver another text than
// what runs. A gateway needs no proof of its own: it compares with what it asked.
func (l *Ledger) believeHeld(h access.Held, id string) error {
	if l.config.Signer == nil {
		return nil
	}
	forged := access.Errorf(access.CodeDenied, "What is held is not as an enrolled gateway wrote it, so it is neither shown nor answered.")
	if h.ID != id || l.config.Gateways == nil {
		return forged
	}
	key, err := l.config.Gateways(h.Gateway)
	if err != nil && access.CodeOf(err) != access.CodeDenied {
		return unavailable("read gateway's key", err)
	}
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, h.SigningBytes(), h.Signature) {
		return forged
	}
	return nil
}

// OpenHelds lists those that wait for an answer, oldest first, at most 1000. Control voids
// what it can't believe: nobody is shown it, and who waits for it hears no.
func (l *Ledger) OpenHelds(ctx context.Context) ([]access.Held, error) {
	rows, err := l.heldRows(ctx, "select id, payload from held where state='open' order by expires, id limit $1", maxList)
	if err != nil {
		return nil, err
	}
	var open []access.Held
	for _, r := range rows {
		h, err := l.heldOfRow(r)
		if err == nil {
			open = append(open, h)
			continue
		}
		if access.CodeOf(err) == access.CodeDenied {
			err = l.voidHeld(ctx, r.id)
		}
		if err != nil {
			return nil, err
		}
	}
	return open, nil
}

// heldRow is a row as it stands in the database.
type heldRow struct {
	id      string
	payload []byte
}

// heldRows reads the id and the payload of rows.
func (l *Ledger) heldRows(ctx context.Context, query string, args ...any) ([]heldRow, error) {
	found, err := l.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, unavailable("list held operations", err)
	}
	defer found.Close()
	var rows []heldRow
	for found.Next() {
		var r heldRow
		if err := found.Scan(&r.id, &r.payload); err != nil {
			return nil, unavailable("list held operations", err)
		}
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		return nil, unavailable("list held operations", err)
	}
	return rows, nil
}

// heldOfRow is the row's operation, if it can be believed.
func (l *Ledger) heldOfRow(r heldRow) (h access.Held, err error) {
	if err := decode(r.payload, &h); err != nil && l.config.Signer == nil {
		return h, err
	} else if err != nil {
		h = access.Held{} // nobody signed it
	}
	return h, l.believeHeld(h, r.id)
}

// voidHeld ends one that nobody may be shown, whatever its row says.
func (l *Ledger) voidHeld(ctx context.Context, id string) error {
	l.config.Log.ErrorContext(ctx, "held operation voided: no enrolled gateway signed it as it stands in the ledger", "held", id)
	return l.write(ctx, func(ctx context.Context, t *tx) error {
		void := access.Held{ID: id, State: access.HeldCancelled}
		if h, err := readHeld(ctx, t, id); err == nil {
			void = h
			void.State, void.Answer = access.HeldCancelled, nil
		}
		b, err := encode(void)
		if err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, "update held set state=$2, payload=$3 where id=$1", id, string(void.State), b); err != nil {
			return err
		}
		t.tell = true
		return l.audit(ctx, t, entry{Actor: "control", Action: "hold.void", Subject: id, Detail: "no enrolled gateway signed it as it stands here"})
	})
}

// AnswerHeld stores a person's answer to an open one, once, and signs it if
// it is not signed. Who may answer is for the caller to know; gateways check
// it again.
func (l *Ledger) AnswerHeld(ctx context.Context, a access.Answer) error {
	if l.config.Signer == nil {
		return access.Errorf(access.CodeDenied, "This ledger has no signing key: only control answers.")
	}
	now := l.config.Now()
	if a.At.IsZero() {
		a.At = now
	}
	a.At = a.At.UTC()
	if err := l.sign(&a); err != nil {
		return err
	}
	_, err := l.turn(ctx, a.Held, func(h *access.Held) (entry, error) {
		if err := l.believeHeld(*h, a.Held); err != nil {
			return entry{}, err
		}
		switch {
		case h.State != access.HeldOpen:
			return entry{}, notOpen(*h)
		case a.Digest != h.Digest:
			return entry{}, access.Errorf(access.CodeInvalid, "The answer is for another digest than that of %s, which is %s; look at what waits and answer again.", h.Name(), h.Short())
		case !now.Before(h.Expires) || a.At.After(h.Expires):
			return entry{}, access.Errorf(access.CodeConflict, "The time to answer %s is over.", h.Name())
		}
		h.State, h.Answer = access.HeldAnswered, &a
		said := "no"
		if a.Approve {
			said = "yes"
		}
		return entry{Actor: a.By.Login, Action: "hold.answer", Detail: fmt.Sprintf("%s to %s, digest %s, by user %d", said, h.Name(), a.Digest, a.By.ID)}, nil
	})
	return err
}

func (l *Ledger) sign(a *access.Answer) error {
	if len(a.Signature) == 0 {
		a.Signature = ed25519.Sign(l.config.Signer, a.SigningBytes())
		return nil
	}
	if !ed25519.Verify(l.config.Signer.Public().(ed25519.PublicKey), a.SigningBytes(), a.Signature) {
		return access.Errorf(access.CodeDenied, "The answer is not signed by this control.")
	}
	return nil
}

func notOpen(h access.Held) error {
	return access.Errorf(access.CodeConflict, "%s is %s already.", h.Name(), h.State)
}

// ConsumeHeld turns a yes into consumed, once.
func (l *Ledger) ConsumeHeld(ctx context.Context, id string) (access.Held, error) {
	return l.turn(ctx, id, func(h *access.Held) (entry, error) {
		if h.State != access.HeldAnswered || h.Answer == nil || !h.Answer.Approve {
			return entry{}, access.Errorf(access.CodeConflict, "%s is %s and has no yes to use.", h.Name(), h.State)
		}
		h.State = access.HeldConsumed
		return entry{Actor: h.Who, Action: "hold.consumed", Detail: h.Name()}, nil
	})
}

// CancelHeld ends one that nobody waits for any more, as cancelled or timed out.
func (l *Ledger) CancelHeld(ctx context.Context, id string, state access.HeldState) error {
	if state != access.HeldCancelled && state != access.HeldTimedOut {
		return access.Errorf(access.CodeInvalid, "Got state %q, want %s or %s.", state, access.HeldCancelled, access.HeldTimedOut)
	}
	_, err := l.turn(ctx, id, func(h *access.Held) (entry, error) {
		if h.State != access.HeldOpen && h.State != access.HeldAnswered {
			return entry{}, notOpen(*h)
		}
		h.State = state
		return entry{Actor: "system", Action: "hold." + string(state), Detail: h.Name()}, nil
	})
	return err
}

// turn changes one held operation by f, which also says what to audit.
func (l *Ledger) turn(ctx context.Context, id string, f func(*access.Held) (entry, error)) (out access.Held, err error) {
	err = l.write(ctx, func(ctx context.Context, t *tx) error {
		h, err := readHeld(ctx, t, id)
		if err != nil {
			return err
		}
		e, err := f(&h)
		if err != nil {
			return err
		}
		if yes := h.State != access.HeldCancelled && h.Answer != nil && h.Answer.Approve; yes && t.older != nil {
			return t.older
		}
		b, err := encode(h)
		if err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, "update held set state=$2, payload=$3 where id=$1", id, string(h.State), b); err != nil {
			return err
		}
		t.tell, out = true, h
		e.Subject = id
		return l.audit(ctx, t, e)
	})
	if err != nil {
		return access.Held{}, err
	}
	return out, nil
}
