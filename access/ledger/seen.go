package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// perQuery is how many commits one query names; the databases bound it.
const perQuery = 500

// Adopted is the policy tree in force. Nothing adopted yet is CodeNotFound.
func (l *Ledger) Adopted(ctx context.Context) (access.Tree, error) {
	tree, err := one[access.Tree](ctx, l.db, "select tree from adopted")
	if errors.Is(err, sql.ErrNoRows) {
		return tree, access.Errorf(access.CodeNotFound, "No policies are adopted yet; an operator must adopt those on the main branch first, by `tidegate adopt`.")
	}
	return tree, classify(err)
}

// SetAdopted replaces the policy tree in force, with the rules for gateways.
// once, unless empty, names what it is adopted for: a second time is refused
// (CodeConflict), so that a change that was agreed to can't be played again.
func (l *Ledger) SetAdopted(ctx context.Context, tree access.Tree, rules []access.Rule, once string) error {
	t, err := encode(tree)
	if err != nil {
		return err
	}
	r, err := encode(rules)
	if err != nil {
		return err
	}
	return l.write(ctx, func(ctx context.Context, w *tx) error {
		if w.older != nil {
			return w.older
		}
		if once != "" {
			first, err := changed(w.ExecContext(ctx, "insert into done (kind, id) values ('policies',$1) on conflict do nothing", once))
			if err != nil || !first {
				return errors.Join(err, access.Errorf(access.CodeConflict, "%s brought policies into force before, and counts once.", once))
			}
		}
		if _, err := w.ExecContext(ctx, `insert into adopted (one, tree, rules) values (1,$1,$2)
			on conflict (one) do update set tree=excluded.tree, rules=excluded.rules`, t, r); err != nil {
			return err
		}
		w.tell = true
		return l.audit(ctx, w, entry{Actor: "control", Action: "policies.adopted", Subject: tree.Commit,
			Detail: fmt.Sprintf("%d files, sha256 %s; %d rules, sha256 %s", len(tree.Files), digest(t), len(rules), digest(r))})
	})
}

// SeeReview keeps a review as it was when first seen, with the policy digest
// then in force, and answers with that.
func (l *Ledger) SeeReview(ctx context.Context, repo int64, pull int, r access.Review) (first access.Review, err error) {
	r.Submitted = r.Submitted.UTC()
	b, err := encode(r)
	if err != nil {
		return r, err
	}
	err = l.write(ctx, func(ctx context.Context, t *tx) error {
		_, err := t.ExecContext(ctx, "insert into reviews (repo, pull, id, payload) values ($1,$2,$3,$4) on conflict do nothing", repo, pull, r.ID, b)
		if err != nil {
			return err
		}
		first, err = one[access.Review](ctx, t, "select payload from reviews where repo=$1 and pull=$2 and id=$3", repo, pull, r.ID)
		return err
	})
	return first, err
}

// Pushed remembers who pushed commits.
func (l *Ledger) Pushed(ctx context.Context, repo int64, commits []string, by access.User) error {
	for _, c := range commits {
		if err := named("a commit", c); err != nil {
			return err
		}
	}
	b, err := encode(by)
	if err != nil || len(commits) == 0 {
		return err
	}
	return l.write(ctx, func(ctx context.Context, t *tx) error {
		for _, c := range commits {
			if _, err := t.ExecContext(ctx, `insert into pushers (repo, head, person, payload) values ($1,$2,$3,$4)
				on conflict (repo, head, person) do update set payload=excluded.payload`, repo, c, by.ID, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pushers says who pushed each of the commits, in the order of their ids. A
// commit that nobody is known to have pushed is absent.
func (l *Ledger) Pushers(ctx context.Context, repo int64, commits []string) (map[string][]access.User, error) {
	all := map[string][]access.User{}
	for some := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(commits))), perQuery) {
		args, marks := []any{repo}, make([]string, len(some))
		for i, c := range some {
			args, marks[i] = append(args, c), fmt.Sprintf("$%d", i+2)
		}
		query := "select head, payload from pushers where repo=$1 and head in (" + strings.Join(marks, ",") + ") order by head, person"
		if err := l.pushers(ctx, all, query, args); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (l *Ledger) pushers(ctx context.Context, all map[string][]access.User, query string, args []any) error {
	rows, err := l.db.QueryContext(ctx, query, args...)
	if err != nil {
		return unavailable("read pushers", err)
	}
	defer rows.Close()
	for rows.Next() {
		var commit string
		var b []byte
		if err := rows.Scan(&commit, &b); err != nil {
			return unavailable("read pushers", err)
		}
		var u access.User
		if err := decode(b, &u); err != nil {
			return err
		}
		all[commit] = append(all[commit], u)
	}
	if err := rows.Err(); err != nil {
		return unavailable("read pushers", err)
	}
	return nil
}

// Done reports whether Once has stored a thing.
func (l *Ledger) Done(ctx context.Context, kind, id string) (done bool, err error) {
	err = l.read(ctx, func(ctx context.Context, q queryer) error {
		return q.QueryRowContext(ctx, "select count(*) > 0 from done where kind=$1 and id=$2", kind, id).Scan(&done)
	})
	return done, err
}

// maxDone bounds a list of what was done.
const maxDone = 10_000

// doneOf lists what Once stored of a kind.
func (l *Ledger) doneOf(ctx context.Context, kind string) (ids []string, err error) {
	err = l.read(ctx, func(ctx context.Context, q queryer) error {
		rows, err := q.QueryContext(ctx, "select id from done where kind=$1 limit $2", kind, maxDone)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return rows.Err()
	})
	return ids, err
}

// Once stores that a thing was done; false if it had been before.
func (l *Ledger) Once(ctx context.Context, kind, id string) (first bool, err error) {
	if err := errors.Join(named("a kind", kind), named("an id", id)); err != nil {
		return false, err
	}
	err = l.write(ctx, func(ctx context.Context, t *tx) error {
		first, err = changed(t.ExecContext(ctx, "insert into done (kind, id) values ($1,$2) on conflict do nothing", kind, id))
		return err
	})
	return first && err == nil, err
}

// Pin joins a verified e-mail to the first subject that logs in with it. Any
// other e-mail names nobody, and is not kept.
func (l *Ledger) Pin(ctx context.Context, id access.Identity) error {
	if id.Email == "" || !id.EmailVerified {
		return nil
	}
	email := strings.ToLower(id.Email)
	return l.write(ctx, func(ctx context.Context, t *tx) error {
		if _, err := t.ExecContext(ctx, "insert into pins (provider, email, issuer, subject) values ($1,$2,$3,$4) on conflict do nothing",
			id.Provider, email, id.Issuer, id.Subject); err != nil {
			return err
		}
		var issuer, subject string
		err := t.QueryRowContext(ctx, "select issuer, subject from pins where provider=$1 and email=$2", id.Provider, email).Scan(&issuer, &subject)
		if err == nil && (issuer != id.Issuer || subject != id.Subject) {
			return access.Errorf(access.CodeDenied, "%s belongs to another subject since its first login; a policy pull request must name the new one.", id)
		}
		return err
	})
}
