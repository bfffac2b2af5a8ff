package hub

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	_ "modernc.org/sqlite" // the database driver
)

// The records, as they are stored. Ids of users, never logins: logins change.

type pull struct {
	Number, ID               int64
	Title, Body, State       string
	Author                   int64
	Head, Base               string
	HeadSHA, BaseSHA         string
	Draft                    bool
	Created, Updated         time.Time
	Closed, Merged           *time.Time
	MergedBy                 int64
	MergeSHA                 string
	Rebased                  *time.Time // when its base became another branch, or was rewritten, last
	RebasedBy                string     // GraphQL's type of that event
	Reviewers, TeamReviewers []int64
}

type comment struct {
	ID, Number, Author int64
	Body               string
	Created, Updated   time.Time
	Edits              []commentEdit // the writing first, once it was edited
}

type commentEdit struct {
	ID, By int64
	At     time.Time
}

type review struct {
	ID, Number, Author int64
	Body, State        string
	CommitID           string
	Submitted          time.Time
}

type commitStatus struct {
	ID, Author             int64
	SHA, State, Context    string
	Description, TargetURL *string
	Created, Updated       time.Time
}

// activity is one move of a ref, as GitHub logs it.
type activity struct {
	ID, Actor                int64
	Ref, Before, After, Kind string
	When                     time.Time
}

type meta struct {
	NextNumber, NextID int64
	Created            time.Time
}

// store keeps every record in memory for reading and in SQLite for good. The
// changes of one request are one transaction.
type store struct {
	db         *sql.DB
	meta       meta
	pulls      map[int64]*pull
	comments   map[int64]*comment
	reviews    map[int64]*review
	checks     map[int64]*checkRun
	statuses   map[int64]*commitStatus
	deliveries map[int64]*delivery
	activities map[int64]*activity
	pending    []change
}

type change struct {
	kind string
	id   int64
	body []byte // nil: delete
}

const schema = `create table if not exists record (
	kind text not null, id integer not null, body text not null, primary key (kind, id)) without rowid`

func openStore(path string, now time.Time) (*store, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	db.SetMaxOpenConns(1)
	s := &store{db: db, meta: meta{NextNumber: 1, NextID: 5000, Created: now.UTC()}}
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open state: %w", err), db.Close())
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read state: %w", err), db.Close())
	}
	return s, nil
}

func (s *store) load() error {
	metas, err := loadKind[meta](s.db, "meta")
	if err != nil {
		return err
	}
	if m, ok := metas[0]; ok {
		s.meta = *m
	}
	var errs [7]error
	s.pulls, errs[0] = loadKind[pull](s.db, "pull")
	s.comments, errs[1] = loadKind[comment](s.db, "comment")
	s.reviews, errs[2] = loadKind[review](s.db, "review")
	s.checks, errs[3] = loadKind[checkRun](s.db, "check")
	s.statuses, errs[4] = loadKind[commitStatus](s.db, "status")
	s.deliveries, errs[5] = loadKind[delivery](s.db, "delivery")
	s.activities, errs[6] = loadKind[activity](s.db, "activity")
	return errors.Join(errs[:]...)
}

func loadKind[T any](db *sql.DB, kind string) (map[int64]*T, error) {
	rows, err := db.Query(`select id, body from record where kind = ?`, kind)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[int64]*T{}
	for rows.Next() {
		var id int64
		var body []byte
		if err := rows.Scan(&id, &body); err != nil {
			return nil, err
		}
		v := new(T)
		if err := json.Unmarshal(body, v); err != nil {
			return nil, fmt.Errorf("decode %s %d: %w", kind, id, err)
		}
		out[id] = v
	}
	return out, rows.Err()
}

// put notes that a record changed; flush writes it.
func (s *store) put(kind string, id int64, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("hub: record %s %d cannot be encoded: %v", kind, id, err)) // only our own plain structs come here
	}
	s.pending = append(s.pending, change{kind, id, body})
}

func (s *store) drop(kind string, id int64) {
	s.pending = append(s.pending, change{kind: kind, id: id})
}

func (s *store) flush() error {
	if len(s.pending) == 0 {
		return nil
	}
	tx, err := s.db.Begin()
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	defer tx.Rollback() // after a commit this does nothing
	for _, c := range s.pending {
		if c.body == nil {
			_, err = tx.Exec(`delete from record where kind = ? and id = ?`, c.kind, c.id)
		} else {
			_, err = tx.Exec(`insert or replace into record (kind, id, body) values (?, ?, ?)`, c.kind, c.id, c.body)
		}
		if err != nil {
			return fmt.Errorf("write state: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	s.pending = nil
	return nil
}

func (s *store) close() error { return s.db.Close() }

func (s *store) newID() int64 {
	s.meta.NextID++
	s.put("meta", 0, s.meta)
	return s.meta.NextID
}

func (s *store) newNumber() int64 {
	n := s.meta.NextNumber
	s.meta.NextNumber++
	s.put("meta", 0, s.meta)
	return n
}

func (s *store) openPulls() []*pull {
	return sorted(s.pulls, func(p *pull) (int64, bool) { return p.Number, p.State == "open" })
}

func (s *store) reviewsOf(number int64) []*review {
	return sorted(s.reviews, func(r *review) (int64, bool) { return r.ID, r.Number == number })
}

func (s *store) commentsOf(number int64) []*comment {
	return sorted(s.comments, func(c *comment) (int64, bool) { return c.ID, c.Number == number })
}

// sorted picks records of a map, in the order of their keys.
func sorted[T any](m map[int64]*T, pick func(*T) (key int64, ok bool)) []*T {
	var keys []int64
	for id, v := range m {
		if _, ok := pick(v); ok {
			keys = append(keys, id)
		}
	}
	slices.Sort(keys)
	out := make([]*T, len(keys))
	for i, k := range keys {
		out[i] = m[k]
	}
	return out
}
