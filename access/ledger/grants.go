package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"time"

	"github.com/tidegate/tidegate/access"
)

// recent is how long a closed grant stays in the snapshot, so that a gateway
// that was away hears of its end.
const recent = 5 * time.Minute

// Row is a grant as control signed it.
type Row struct {
	Payload   []byte // the grant's JSON
	Signature []byte // Ed25519 over access.GrantSigningBytes(Payload)
}

// VerifyGrant reports whether control signed the payload.
func VerifyGrant(pub ed25519.PublicKey, payload, sig []byte) bool {
	return len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, access.GrantSigningBytes(payload), sig)
}

// Grant reads one grant.
func (l *Ledger) Grant(ctx context.Context, key access.GrantKey) (access.Grant, error) {
	g, _, err := readGrant(ctx, l.db, key)
	return g, err
}

func readGrant(ctx context.Context, q queryer, key access.GrantKey) (g access.Grant, r Row, err error) {
	err = q.QueryRowContext(ctx, "select payload, signature from grants where repo=$1 and id=$2", key.Repo, key.ID).Scan(&r.Payload, &r.Signature)
	if errors.Is(err, sql.ErrNoRows) {
		return g, r, access.Errorf(access.CodeNotFound, "No grant %s in the ledger.", key)
	}
	if err != nil {
		return g, r, unavailable("read grant", err)
	}
	return g, r, decode(r.Payload, &g)
}

// SignedGrant reads a grant on whose word access is made or handed out: a row
// that control did not sign is refused, and so is every row of an older ledger.
func (l *Ledger) SignedGrant(ctx context.Context, key access.GrantKey) (access.Grant, error) {
	if l.config.Signer == nil {
		return access.Grant{}, access.Errorf(access.CodeDenied, "This ledger has no signing key: only control makes access.")
	}
	if err := l.older(ctx, l.db); err != nil {
		return access.Grant{}, classify(err)
	}
	g, row, err := readGrant(ctx, l.db, key)
	if err != nil {
		return g, err
	}
	pub := l.config.Signer.Public().(ed25519.PublicKey)
	if !VerifyGrant(pub, row.Payload, row.Signature) || g.Key != key {
		return access.Grant{}, access.Errorf(access.CodeDenied, "Grant %s in the ledger is not signed by this control: it can only be ended.", key)
	}
	return g, nil
}

// readActive reads a grant under which something is about to open.
func readActive(ctx context.Context, q queryer, key access.GrantKey) (access.Grant, error) {
	g, _, err := readGrant(ctx, q, key)
	if err == nil && g.State != access.StateActive {
		return g, access.Errorf(access.CodeEnded, "Grant %s is %s, not active: nothing opens under it.", key, g.State)
	}
	if err == nil && g.Paused != "" {
		return g, access.Errorf(access.CodeEnded, "Grant %s is on hold: nothing opens under it.", key)
	}
	return g, err
}

// Unclosed lists grants that landed or were active and are not proved closed.
func (l *Ledger) Unclosed(ctx context.Context) ([]access.Grant, error) {
	return list[access.Grant](ctx, l.db, `select payload from grants where closed is null
		and state not in ('proposed', 'planned', 'approved') order by sequence`)
}

// Ending lists the grants that have ended and are not proved closed.
func (l *Ledger) Ending(ctx context.Context) ([]access.Grant, error) {
	return list[access.Grant](ctx, l.db, `select payload from grants where closed is null
		and state in ('expired', 'revoked', 'superseded', 'refused') order by sequence`)
}

// GrantsOf lists the grants of a pull request.
func (l *Ledger) GrantsOf(ctx context.Context, repo int64, number int) ([]access.Grant, error) {
	return list[access.Grant](ctx, l.db, "select payload from grants where repo=$1 and number=$2 order by id", repo, number)
}

// ListGrants lists the grants that were written last, newest first, at most 1000.
func (l *Ledger) ListGrants(ctx context.Context) ([]access.Grant, error) {
	return list[access.Grant](ctx, l.db, "select payload from grants order by sequence desc limit $1", maxList)
}

// Snapshot reads every grant that is not closed, or was closed within five
// minutes, and the rules in force, all of one moment.
func (l *Ledger) Snapshot(ctx context.Context) (grants []Row, rules []access.Rule, err error) {
	since := l.config.Now().Add(-recent).UnixMicro()
	err = l.read(ctx, func(ctx context.Context, q queryer) (err error) {
		rules, err = one[[]access.Rule](ctx, q, "select rules from adopted")
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		grants, err = signedGrants(ctx, q, since)
		return err
	})
	if err != nil {
		return nil, nil, err // never half of it
	}
	return grants, rules, nil
}

func signedGrants(ctx context.Context, q queryer, since int64) ([]Row, error) {
	rows, err := q.QueryContext(ctx, "select payload, signature from grants where closed is null or closed > $1 order by sequence", since)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Row
	for rows.Next() {
		var r Row
		if err := rows.Scan(&r.Payload, &r.Signature); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// Sequence is the last one that a grant's row was given. It never falls, but
// in a ledger that was restored from an older backup.
func (l *Ledger) Sequence(ctx context.Context) (n int64, err error) {
	err = l.db.QueryRowContext(ctx, "select coalesce(max(sequence), 0) from grants").Scan(&n)
	if err != nil {
		return 0, unavailable("read sequence", err)
	}
	return n, nil
}

// Create stores a grant once: its id is consumed for ever.
func (l *Ledger) Create(ctx context.Context, g access.Grant) (access.Grant, error) {
	if err := named("a grant id", g.Key.ID); err != nil {
		return g, err
	}
	return l.put(ctx, g, func(context.Context, *tx) error { return nil },
		`insert into grants (repo,id,number,sequence,state,closed,payload,signature)
			values ($1,$2,$3,$4,$5,$6,$7,$8) on conflict (repo,id) do nothing`)
}

// Update stores g if the row's sequence is still g.Sequence. An ended grant
// keeps its state; only why it ended, and when that was proved, may follow.
func (l *Ledger) Update(ctx context.Context, g access.Grant) (access.Grant, error) {
	return l.put(ctx, g, func(ctx context.Context, t *tx) error {
		old, row, err := readGrant(ctx, t, g.Key)
		if err != nil {
			return err
		}
		if err := allowed(old, g); err != nil {
			return err
		}
		return l.trusted(row, g)
	}, `update grants set number=$3, sequence=$4, state=$5, closed=$6, payload=$7, signature=$8 where repo=$1 and id=$2`)
}

// allowed refuses a stale write, and one that would bring a grant back.
func allowed(old, g access.Grant) error {
	switch {
	case old.Sequence != g.Sequence:
		return access.Errorf(access.CodeConflict, "Grant %s is at sequence %d, not %d; read it again.", g.Key, old.Sequence, g.Sequence)
	case old.State.Ended() && g.State != old.State,
		old.State == access.StateActive && !g.State.Ended() && g.State != access.StateActive:
		return access.Errorf(access.CodeConflict, "Grant %s is %s and can't become %s.", g.Key, old.State, g.State)
	case g.Generation < old.Generation:
		return access.Errorf(access.CodeConflict, "Grant %s is at generation %d; %d is older.", g.Key, old.Generation, g.Generation)
	case !old.Closed.IsZero() && !g.Closed.Equal(old.Closed):
		return access.Errorf(access.CodeConflict, "Grant %s was proved closed at another time; that stays.", g.Key)
	}
	return nil
}

// trusted keeps control from signing what somebody else wrote into the
// database: a row that control did not sign can only be ended.
func (l *Ledger) trusted(row Row, next access.Grant) error {
	if l.config.Signer == nil {
		return nil // put refuses
	}
	pub := l.config.Signer.Public().(ed25519.PublicKey)
	if VerifyGrant(pub, row.Payload, row.Signature) || next.State.Ended() {
		return nil
	}
	return access.Errorf(access.CodeDenied, "Grant %s in the ledger is not signed by this control: it can only be ended.", next.Key)
}

// put numbers, signs and stores g after check, and writes its audit row.
func (l *Ledger) put(ctx context.Context, g access.Grant, check func(context.Context, *tx) error, statement string) (access.Grant, error) {
	if l.config.Signer == nil {
		return g, access.Errorf(access.CodeDenied, "This ledger has no signing key: only control writes grants.")
	}
	n := g
	n.NotBefore, n.NotAfter, n.Closed = n.NotBefore.UTC(), n.NotAfter.UTC(), n.Closed.UTC()
	err := l.write(ctx, func(ctx context.Context, t *tx) (err error) {
		if t.older != nil && !n.State.Ended() {
			return t.older
		}
		if err := check(ctx, t); err != nil {
			return err
		}
		if n.Sequence, err = l.nextSequence(ctx, t); err != nil {
			return err
		}
		if err := l.store(ctx, t, n, statement); err != nil {
			return err
		}
		t.tell = true
		return l.audit(ctx, t, entry{Actor: "control", Action: "grant." + string(n.State), Subject: n.Key.String(), Detail: n.Why})
	})
	if err != nil {
		return g, err
	}
	return n, nil
}

func (l *Ledger) store(ctx context.Context, t *tx, g access.Grant, statement string) error {
	payload, err := encode(g)
	if err != nil {
		return err
	}
	ok, err := changed(t.ExecContext(ctx, statement, g.Key.Repo, g.Key.ID, g.Pull.Number, g.Sequence, string(g.State),
		micros(g.Closed), payload, ed25519.Sign(l.config.Signer, access.GrantSigningBytes(payload))))
	if err == nil && !ok {
		return access.Errorf(access.CodeConflict, "Grant id %s was used before; choose another.", g.Key)
	}
	return err
}

// micros is a time as a column: null if there is none.
func micros(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}
