package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/tidegate/tidegate/access"
)

// VerifyGrant reports whether control signed the payload.
func VerifyGrant(pub ed25519.PublicKey, payload, sig []byte) bool {
	return len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, access.GrantSigningBytes(payload), sig)
}

// Grant reads one grant.
func (l *Ledger) Grant(ctx context.Context, key access.GrantKey) (access.Grant, error) {
	return readGrant(ctx, l.db, key)
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readGrant(ctx context.Context, q queryer, key access.GrantKey) (g access.Grant, err error) {
	var payload []byte
	err = q.QueryRowContext(ctx, "select payload from grants where repo=$1 and id=$2", key.Repo, key.ID).Scan(&payload)
	if errors.Is(err, sql.ErrNoRows) {
		return g, access.Errorf(access.CodeNotFound, "No grant %s in the ledger.", key)
	}
	if err != nil {
		return g, unavailable("read grant", err)
	}
	return g, json.Unmarshal(payload, &g)
}

// Create stores a grant once: its id is consumed for ever.
func (l *Ledger) Create(ctx context.Context, g access.Grant) (access.Grant, error) {
	err := l.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return l.put(ctx, tx, &g, `insert into grants (repo,id,number,sequence,state,closed,payload,signature)
			values ($1,$2,$3,$4,$5,$6,$7,$8) on conflict (repo,id) do nothing`)
	})
	return g, err
}

// Update stores g if the row's sequence is still g.Sequence.
func (l *Ledger) Update(ctx context.Context, g access.Grant) (access.Grant, error) {
	err := l.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		old, err := readGrant(ctx, tx, g.Key)
		if err != nil {
			return err
		}
		if err := allowed(old, g); err != nil {
			return err
		}
		return l.put(ctx, tx, &g, `update grants set number=$3, sequence=$4, state=$5, closed=$6, payload=$7, signature=$8
			where repo=$1 and id=$2`)
	})
	return g, err
}

// allowed refuses a stale write, and one that would bring a grant back.
func allowed(old, g access.Grant) error {
	switch {
	case old.Sequence != g.Sequence:
		return access.Errorf(access.CodeConflict, "Grant %s is at sequence %d, not %d; read it again.", g.Key, old.Sequence, g.Sequence)
	case old.State.Ended() && !g.State.Ended():
		return access.Errorf(access.CodeConflict, "Grant %s is %s and can't become %s.", g.Key, old.State, g.State)
	case g.Generation < old.Generation:
		return access.Errorf(access.CodeConflict, "Grant %s is at generation %d; %d is older.", g.Key, old.Generation, g.Generation)
	case !old.Closed.IsZero() && g.Closed.IsZero():
		return access.Errorf(access.CodeConflict, "Grant %s was proved closed and can't be reopened.", g.Key)
	}
	return nil
}

// put numbers, signs and stores g, and writes its audit row.
func (l *Ledger) put(ctx context.Context, tx *sql.Tx, g *access.Grant, statement string) error {
	if l.config.Signer == nil {
		return access.Errorf(access.CodeDenied, "This ledger has no signing key: only control writes grants.")
	}
	n := *g
	n.NotBefore, n.NotAfter, n.Closed = n.NotBefore.UTC(), n.NotAfter.UTC(), n.Closed.UTC()
	err := tx.QueryRowContext(ctx, "update counters set value=value+1 where name='sequence' returning value").Scan(&n.Sequence)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(n)
	if err != nil {
		return err
	}
	var closed any
	if !n.Closed.IsZero() {
		closed = n.Closed.UnixMicro()
	}
	ok, err := changed(tx.ExecContext(ctx, statement, n.Key.Repo, n.Key.ID, n.Pull.Number, n.Sequence, string(n.State),
		closed, payload, ed25519.Sign(l.config.Signer, access.GrantSigningBytes(payload))))
	if err != nil {
		return err
	}
	if !ok {
		return access.Errorf(access.CodeConflict, "Grant id %s was used before; choose another.", n.Key)
	}
	*g = n
	return l.audit(ctx, tx, entry{Actor: "control", Action: "grant." + string(n.State), Subject: n.Key.String(), Detail: n.Why})
}
