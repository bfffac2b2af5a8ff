package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Writer writes one session's recording. It is safe for concurrent use. Its
// first error is final: nothing is ever left out silently.
type Writer struct {
	store   *Store
	session string
	started time.Time
	anchor  func(access.Head)
	signer  Signer // for the whole session: certified at its start

	busy     atomic.Int64 // when the disk was asked for what it has not done yet; 0 is nothing
	hung     atomic.Bool  // it took too long: whatever it says now, the session is over
	sealed   atomic.Bool  // and with that on the disk
	failOnce sync.Once
	failed   atomic.Pointer[func(error)] // nil: nobody asked

	mu      sync.Mutex
	file    *os.File
	err     error        // the first failure, or errSealed
	dirty   bool         // written, and not yet on the disk
	alone   bool         // with more than the journal has of it
	lost    bool         // a sync failed: the disk may never get what was written
	at      int64        // where the file ends
	batch   uint64       // of the journal: the last that has a part of it
	shared  int          // bytes that the journal has of it since the last round
	buf     bytes.Buffer // lines not yet written
	hash    hash.Hash    // over the open segment's lines; nil: none is open
	number  uint64       // of the open or next segment
	version int          // of the open segment
	vouched bool         // the signer's certificate is in the file
	prev    string
	opened  time.Time
	events  int
	size    int
	head    *access.Head // closed and not yet anchored
}

var errSealed = errors.New("the recording is sealed")

// Append writes an event. It returns when the kernel has it, or with sync when
// the disk has it. The end of an operation, for which nothing waits, may be
// written with the event after it, and is after SyncEvery at the latest.
func (w *Writer) Append(e access.Event, sync bool) error {
	if w.hung.Load() {
		return errHung()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if err := w.append(&e); err != nil {
		return w.fail(err)
	}
	if sync {
		if err := w.write(); err != nil {
			return w.fail(err)
		}
		if err := w.ask(w.toDisk); err != nil {
			return w.fail(err)
		}
		w.dirty, w.alone = false, false
	}
	if w.hung.Load() { // it came back, and too late
		return w.fail(errHung())
	}
	return nil
}

func (w *Writer) toDisk() error {
	err := fdatasync(w.file)
	w.lost = w.lost || err != nil // a second one says nothing of what the first lost
	return err
}

// ask has the disk do something, under the eyes of Store.watch.
func (w *Writer) ask(do func() error) error {
	w.busy.Store(w.store.clock())
	defer w.busy.Store(0)
	return do()
}

// OnFailure has f called once when the recording fails by itself, or when the
// disk hangs: then an Append may never return.
func (w *Writer) OnFailure(f func(error)) {
	w.failed.Store(&f)
	if w.hung.Load() { // before anybody asked, and its lock may never come free
		w.tell(errHung())
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil && !errors.Is(w.err, errSealed) {
		w.tell(w.err)
	}
}

func (w *Writer) tell(err error) {
	if f := w.failed.Load(); f != nil {
		w.failOnce.Do(func() { (*f)(err) })
	}
}

// hang gives the session up. It takes no lock: who has it waits for the disk.
func (w *Writer) hang() {
	if w.hung.Swap(true) {
		return
	}
	w.store.forget(w)
	w.store.cfg.Log.Error("the disk of the recording hangs", "session", w.session)
	w.tell(errHung())
}

func errHung() error {
	return &access.Error{
		Code:    access.CodeUnavailable,
		Message: "The disk for recordings does not answer, and nothing goes on unrecorded.",
	}
}

// Seal writes the last event, closes the last segment and the file, and
// answers with the final head, which is for the caller to anchor.
func (w *Writer) Seal(reason string) (access.Head, error) {
	if w.hung.Load() {
		return access.Head{}, errHung()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return access.Head{}, w.err
	}
	if err := w.finish(reason); err != nil {
		return access.Head{}, w.fail(err)
	}
	head := *w.head
	w.err = errSealed
	w.sealed.Store(true)
	w.store.forget(w)
	if err := w.file.Close(); err != nil {
		return head, fmt.Errorf("close recording: %w", err)
	}
	return head, nil
}

// finish writes the end and the seal, and moves the file to its day.
func (w *Writer) finish(reason string) error {
	end := access.Event{Type: access.EventSessionEnd, Time: w.store.cfg.Now().UTC(), Text: reason}
	if err := w.append(&end); err != nil {
		return err
	}
	if w.hash == nil { // the end itself filled a segment
		if err := w.begin(); err != nil {
			return err
		}
	}
	if err := w.close(true); err != nil {
		return err
	}
	return w.ask(func() error {
		if err := w.toDisk(); err != nil {
			return err
		}
		return w.move()
	})
}

func (w *Writer) move() error {
	to := w.store.sealedPath(w.session, w.started)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Rename(w.file.Name(), to)
}

// fail makes err final. The file stays as it is: what was recorded is valid.
func (w *Writer) fail(err error) error {
	w.err = &access.Error{
		Code:    access.CodeUnavailable,
		Message: "The recording of this session failed, and nothing goes on unrecorded.",
		Cause:   err,
	}
	w.store.forget(w)
	w.store.cfg.Log.Error("recording failed", "session", w.session, "error", err)
	w.tell(w.err)
	_ = w.ask(w.toDisk) // the first error is the one that matters
	_ = w.file.Close()
	return w.err
}

func (w *Writer) append(e *access.Event) error {
	if w.hash == nil {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if err := w.line('E', e, nil); err != nil {
		return err
	}
	w.events++
	if w.size >= w.store.cfg.SegmentBytes {
		return w.close(false)
	}
	if e.Type == access.EventClose {
		return nil
	}
	return w.write()
}

func (w *Writer) begin() error {
	w.hash, w.events, w.size, w.opened = sha256.New(), 0, 0, w.store.cfg.Now().UTC()
	head := header{
		Version: Version, Session: w.session, Segment: w.number,
		Prev: w.prev, Key: w.signer.id(), Opened: w.opened,
	}
	if !w.vouched {
		head.Certificate = w.signer.Certificate
	}
	w.version, w.vouched = Version, true
	return w.line('H', nil, head)
}

// close ends the open segment: the closing line, its hash, its signature.
func (w *Writer) close(last bool) error {
	now := w.store.cfg.Now().UTC()
	if err := w.line('C', nil, closing{Segment: w.number, Events: w.events, Closed: now, Last: last}); err != nil {
		return err
	}
	sum := w.hash.Sum(nil)
	sig := ed25519.Sign(w.signer.Key, signed(w.version, sum))
	w.buf.WriteString("S " + hex.EncodeToString(sum) + " " + base64.StdEncoding.EncodeToString(sig) + "\n")
	if err := w.write(); err != nil {
		return err
	}
	w.hash, w.prev = nil, hex.EncodeToString(sum)
	w.head = &access.Head{Session: w.session, Segment: w.number, Hash: w.prev, Sealed: last, Time: now}
	w.number++
	return nil
}

// line adds one line, of an event or of anything else, to those not yet
// written, and hashes it.
func (w *Writer) line(tag byte, e *access.Event, other any) error {
	from := w.buf.Len()
	w.buf.WriteByte(tag)
	w.buf.WriteByte(' ')
	var err error
	if e != nil {
		err = encode(&w.buf, e)
	} else {
		err = encodeSlowly(&w.buf, other)
	}
	if err != nil {
		return err
	}
	line := w.buf.Bytes()[from:]
	if len(line) > maxLine {
		return fmt.Errorf("an event of %d bytes, at most %d are allowed", len(line), maxLine)
	}
	w.hash.Write(line)
	w.size += len(line)
	return nil
}

// maxKeptBuffer is how much memory an idle writer keeps.
const maxKeptBuffer = 8 << 10

// write hands the lines to the kernel, in one write.
func (w *Writer) write() error {
	if w.buf.Len() == 0 {
		return nil
	}
	w.busy.Store(w.store.clock()) // as ask does, without a closure for each event
	_, err := w.file.Write(w.buf.Bytes())
	w.busy.Store(0)
	if err != nil {
		return err
	}
	w.store.written.Add(uint64(w.buf.Len()))
	w.journal(w.buf.Bytes())
	w.buf.Reset()
	if w.buf.Cap() > maxKeptBuffer {
		w.buf = bytes.Buffer{}
	}
	return nil
}

// journal leaves the bytes that were written to the journal to bring to the
// disk, unless they are too many.
func (w *Writer) journal(b []byte) {
	w.dirty = true
	if w.shared += len(b); !w.alone {
		w.alone = w.shared > journalShare || !w.store.journal.add(w, w.at, b)
	}
	w.at += int64(len(b))
}

// due is what a writer wants of the disk and of the ledger in this round.
type due struct {
	w     *Writer
	dirty bool
	alone bool
	head  *access.Head
}

// settle is the store's regular visit: it closes a segment that is old enough
// and hands all lines to the kernel.
func (w *Writer) settle() due {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.hash != nil && w.events > 0 && w.store.cfg.Now().Sub(w.opened) >= w.store.cfg.SegmentAge {
		if err := w.close(false); err != nil {
			_ = w.fail(err)
		}
	}
	if w.err == nil {
		if err := w.write(); err != nil {
			_ = w.fail(err)
		}
	}
	if w.err != nil {
		return due{w: w}
	}
	if !w.dirty && w.buf.Len() == 0 {
		w.buf = bytes.Buffer{} // an idle session keeps none
	}
	d := due{w: w, dirty: w.dirty, alone: w.alone, head: w.head}
	w.dirty, w.alone, w.shared, w.head = false, false, 0, nil
	return d
}

// sync brings the file to the disk. One that was closed meanwhile is there,
// unless a sync of it failed: see finish and fail.
func (w *Writer) sync() error {
	err := w.ask(func() error { return fdatasync(w.file) })
	if err == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.lost = true
		return w.fail(err)
	}
	if w.lost {
		return w.err
	}
	return nil
}
