package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Watermark is how far control has seen the ledger, kept in a file outside of
// it. A ledger that lacks what stands there was restored from an older backup
// or is another one: what was revoked since looks open in it, so it opens
// nothing until a person adopts it ([Ledger.Rebase]).
//
// The file names the last row of the audit log by its hash, which covers every
// row before. It is written after the ledger has stored the row and before the
// write is answered, so a crash leaves it behind the ledger, never ahead.
type Watermark struct {
	path string

	mu   sync.Mutex // of both marks
	kept mark       // what the file says
	next mark       // the highest that waits to be kept

	writing sync.Mutex // one writes for all that wait
}

// mark is a place in the ledger's history. The zero mark is before all of it.
type mark struct {
	Row      int64  `json:"row"`      // of the audit log
	Hash     string `json:"hash"`     // of that row
	Sequence int64  `json:"sequence"` // the last that a grant's row was given
}

// OpenWatermark reads the file; there need not be one yet.
func OpenWatermark(path string) (*Watermark, error) {
	w := &Watermark{path: path}
	return w, w.reload()
}

// reload reads what another process may have written.
func (w *Watermark) reload() error {
	text, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var m mark
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err == nil && (m.Row < 1 || m.Hash == "" || m.Sequence < 0) {
		err = errors.New("it names no row of the audit log")
	}
	if err != nil {
		return fmt.Errorf("read how far the ledger was seen: %w; bring the file back from your copy, or remove %s and run `tidegate adopt --restored`", err, w.path)
	}
	w.mu.Lock()
	w.kept, w.next = m, m
	w.mu.Unlock()
	return nil
}

func (w *Watermark) mark() mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept
}

// raise keeps m or a later one that another writer brought meanwhile.
func (w *Watermark) raise(m mark) error {
	w.mu.Lock()
	if m.Row > w.next.Row {
		w.next = m
	}
	w.mu.Unlock()
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	next, done := w.next, w.kept.Row >= m.Row
	w.mu.Unlock()
	if done {
		return nil
	}
	return w.set(next)
}

// set keeps m. Who calls it holds writing.
func (w *Watermark) set(m mark) error {
	text, err := json.Marshal(m)
	if err == nil {
		err = replaceFile(w.path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep how far the ledger was seen: %w", err)
	}
	w.mu.Lock()
	w.kept = m
	w.mu.Unlock()
	return nil
}

// restart keeps m, also where that is lower.
func (w *Watermark) restart(m mark) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := w.set(m); err != nil {
		return err
	}
	w.mu.Lock()
	w.next = m
	w.mu.Unlock()
	return nil
}

// replaceFile leaves the old text or the new one, whenever the machine stops.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// errOlder is the cause of what an older ledger refuses.
var errOlder = errors.New("the ledger lacks what was seen of it")

// older is nil, or says that the ledger lacks what control has seen. q must
// not have begun to look at the ledger before.
func (l *Ledger) older(ctx context.Context, q queryer) error {
	w := l.config.Watermark
	if w == nil {
		return nil
	}
	m := w.mark()
	if has, err := holds(ctx, q, m); err != nil || has {
		return err
	}
	unread := w.reload() // perhaps a person adopted it from another process
	if now := w.mark(); unread == nil && now != m {
		if has, err := holds(ctx, q, now); err != nil || has {
			return err
		}
	}
	return &access.Error{Code: access.CodeUnavailable, Cause: errors.Join(errOlder, unread), Message: "The ledger is empty or older than what was seen of it, as after a restore: nothing opens until an operator runs `tidegate adopt`."}
}

// holds reports whether the marked row is in the ledger's history.
func holds(ctx context.Context, q queryer, m mark) (bool, error) {
	if m == (mark{}) {
		return true, nil
	}
	var hash string
	err := q.QueryRowContext(ctx, "select hash from audit where seq=$1", m.Row).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return hash == m.Hash, err
}

// Older says why this ledger opens nothing, or "". It changes nothing.
func (l *Ledger) Older(ctx context.Context) (why string, err error) {
	err = l.older(ctx, l.db)
	if errors.Is(err, errOlder) {
		return access.Message(err), nil
	}
	return "", classify(err)
}

// Watch is Older, and takes note of what others wrote since.
func (l *Ledger) Watch(ctx context.Context) (why string, err error) {
	if l.config.Watermark == nil {
		return "", nil
	}
	if why, err = l.Older(ctx); err != nil || why != "" {
		return why, err
	}
	head, err := headOf(ctx, l.db)
	if err != nil || head.Row == 0 {
		return "", classify(err)
	}
	return "", l.config.Watermark.raise(head)
}

// headOf is where the ledger's history ends.
func headOf(ctx context.Context, q queryer) (m mark, err error) {
	err = q.QueryRowContext(ctx, "select seq, hash from audit order by seq desc limit 1").Scan(&m.Row, &m.Hash)
	if errors.Is(err, sql.ErrNoRows) {
		return mark{}, nil
	}
	if err == nil {
		err = q.QueryRowContext(ctx, "select value from counters where name='sequence'").Scan(&m.Sequence)
	}
	return m, err
}

// note raises the watermark to what a transaction wrote. The transaction stays
// when that fails: the next write and the next Watch try again.
func (l *Ledger) note(ctx context.Context, w *tx) {
	if w.head.Row == 0 || w.older != nil || l.config.Watermark == nil {
		return
	}
	if err := l.config.Watermark.raise(w.head); err != nil {
		l.config.Log.ErrorContext(ctx, "what was written is not noted outside of the ledger: a restore could hide it", "error", err)
	}
}

// leap is how far sequences jump when the ledger is found to be older: what
// control wrote last may have been seen by gateways and not been noted.
const leap = 1000

// nextSequence is above whatever was seen, so that gateways take an end that
// is written under an older ledger for the newest.
func (l *Ledger) nextSequence(ctx context.Context, t *tx) (n int64, err error) {
	var seen int64
	if t.older != nil {
		seen = l.config.Watermark.mark().Sequence + leap
	}
	err = t.QueryRowContext(ctx, "update counters set value = case when value < $1 then $1 else value end + 1 where name='sequence' returning value", seen).Scan(&n)
	return n, err
}

// Rebase takes the ledger as it is for the truth from now on. Nothing that was
// merged before may land under it ([Ledger.Began]).
func (l *Ledger) Rebase(ctx context.Context, by, why string) error {
	if l.config.Signer == nil || l.config.Watermark == nil {
		return access.Errorf(access.CodeDenied, "Only control takes a ledger for the truth.")
	}
	var head mark
	err := l.write(ctx, func(ctx context.Context, t *tx) error {
		if _, err := l.nextSequence(ctx, t); err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, "insert into counters (name, value) values ('began', $1) on conflict (name) do update set value=excluded.value", l.config.Now().UnixMicro()); err != nil {
			return err
		}
		if err := l.audit(ctx, t, entry{Actor: by, Action: "ledger.adopted", Detail: why}); err != nil {
			return err
		}
		var err error
		head, err = headOf(ctx, t)
		return err
	})
	if err != nil {
		return err
	}
	return l.config.Watermark.restart(head)
}

// Began is when a person last took the ledger for the truth; zero if never.
func (l *Ledger) Began(ctx context.Context) (time.Time, error) {
	var micros int64
	err := l.db.QueryRowContext(ctx, "select value from counters where name='began'").Scan(&micros)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, unavailable("read when the ledger began", err)
	}
	return time.UnixMicro(micros).UTC(), nil
}
