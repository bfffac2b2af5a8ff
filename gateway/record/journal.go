package record

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"github.com/tidegate/tidegate/access"
)

// A journal brings what all sessions wrote to the disk with one fdatasync. Each
// recording is a file of its own, and a disk that is asked for hundreds of
// files in a second does little else: so what is written to a recording is also
// kept here, and of the two only the journal is synced in each round. Should
// the machine die, the next start writes what the journal has into the
// recordings that the kernel had not yet brought to the disk.
//
// The file is a row of batches, one for each round; when it is full it begins
// anew, once all recordings that it has a part of are on the disk themselves.
// Who writes much in a round is synced alone, and costs no second copy.
type journal struct {
	path string
	log  *slog.Logger
	max  int64 // bytes of the file

	mu      sync.Mutex
	pending []byte    // the batch of the round to come, with room for its head
	writers []*Writer // of that batch
	batch   uint64    // its number
	off     bool      // it failed: recordings are synced one by one

	// Of the store's keep alone.
	file  *os.File // nil: not made yet
	at    int64
	epoch uint64 // of the batches since it began anew: those behind them are old
	age   int    // rounds since then
	quiet int    // rounds without a batch
	spare []byte
	owed  map[*Writer]struct{} // the disk may have their last bytes here alone
}

const (
	journalName  = "journal"
	journalMagic = "tgjourn1"
	journalMax   = 16 << 20
	batchMax     = 4 << 20 // bytes of one batch
	batchHead    = 8 + 8 + 4 + 4
	pieceHead    = 8 + 4 + 1
	journalShare = 64 << 10 // of one recording in one round
	journalRests = 200      // quiet rounds, after which it begins anew: 10 s
	journalAges  = 12_000   // rounds, after which it does so in any case: 10 min
	settlers     = 8        // recordings that are synced at once then
	keptPending  = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newJournal(dir string, log *slog.Logger) *journal {
	return &journal{path: filepath.Join(dir, openDir, journalName), log: log, max: journalMax, batch: 1, owed: map[*Writer]struct{}{}}
}

// add keeps what was written to a recording at an offset. It is false when the
// recording must be synced itself. The caller has the writer's lock.
func (j *journal) add(w *Writer, offset int64, data []byte) bool {
	session := w.session
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.off || max(len(j.pending), batchHead)+pieceHead+len(session)+len(data) > batchMax {
		return false
	}
	if len(j.pending) == 0 {
		j.pending = append(j.pending, make([]byte, batchHead)...)
	}
	if w.batch != j.batch {
		w.batch = j.batch
		j.writers = append(j.writers, w)
	}
	j.pending = binary.BigEndian.AppendUint64(j.pending, uint64(offset))
	j.pending = binary.BigEndian.AppendUint32(j.pending, uint32(len(data)))
	j.pending = append(j.pending, byte(len(session)))
	j.pending = append(j.pending, session...)
	j.pending = append(j.pending, data...)
	return true
}

// commit brings to the disk what was added. If it did not, recordings must be
// synced themselves.
func (j *journal) commit() (done bool) {
	batch, writers, off := j.take()
	if off {
		return false
	}
	if j.at > 0 {
		j.age++
	}
	var err error
	if len(batch) > 0 {
		j.quiet = 0
		err = j.append(batch, writers)
	} else {
		err = j.rest()
	}
	if cap(batch) <= keptPending {
		j.spare = batch[:0]
	}
	if err != nil {
		j.giveUp(err)
	}
	return err == nil
}

func (j *journal) take() (batch []byte, writers []*Writer, off bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	batch, writers = j.pending, j.writers
	j.pending, j.spare = j.spare, nil
	j.writers, j.batch = nil, j.batch+1
	return batch, writers, j.off
}

func (j *journal) append(batch []byte, writers []*Writer) error {
	if j.file == nil {
		if err := j.create(); err != nil {
			return err
		}
	}
	if j.at > 0 && (j.age >= journalAges || j.at+int64(len(batch)) > j.max) {
		if err := j.restart(); err != nil {
			return err
		}
	}
	j.owe(writers)
	sealBatch(batch, j.epoch)
	if _, err := j.file.WriteAt(batch, j.at); err != nil {
		return err
	}
	j.at += int64(len(batch))
	return fdatasync(j.file)
}

// owe notes whose bytes a batch has. It goes by the batch itself: a recording
// may come into it after this round's visit, and be given up before the next.
func (j *journal) owe(writers []*Writer) {
	for _, w := range writers {
		j.owed[w] = struct{}{}
	}
	maps.DeleteFunc(j.owed, func(w *Writer, _ struct{}) bool { return w.sealed.Load() })
}

func sealBatch(batch []byte, epoch uint64) {
	copy(batch, journalMagic)
	binary.BigEndian.PutUint64(batch[8:], epoch)
	binary.BigEndian.PutUint32(batch[16:], uint32(len(batch)-batchHead))
	binary.BigEndian.PutUint32(batch[20:], batchSum(batch[:20], batch[batchHead:]))
}

func batchSum(head, pieces []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, pieces)
}

func (j *journal) create() error {
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // through no link
	if err != nil {
		return err
	}
	j.file, j.at, j.age, j.epoch = f, 0, 0, rand.Uint64()
	dir, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close()) // or the file has no name after a crash
}

// rest begins anew after a while in which nobody wrote, or wrote little: words
// of recordings stay no longer than they are needed.
func (j *journal) rest() error {
	if j.at == 0 {
		return nil
	}
	if j.quiet++; j.quiet < journalRests && j.age < journalAges {
		return nil
	}
	return j.restart()
}

// restart empties the journal, after all that it has is on the disk elsewhere.
func (j *journal) restart() error {
	if err := j.settle(); err != nil {
		return err
	}
	j.at, j.age, j.epoch = 0, 0, rand.Uint64()
	return j.file.Truncate(0)
}

// settle syncs the recordings themselves, some at once: no batch is written
// meanwhile.
func (j *journal) settle() error {
	var all sync.WaitGroup
	work, errs := make(chan *Writer), make([]error, settlers)
	for i := range errs {
		all.Go(func() {
			for w := range work {
				if err := w.sync(); err != nil {
					errs[i] = fmt.Errorf("sync recording of %s: %w", w.session, err)
				}
			}
		})
	}
	for w := range j.owed {
		if !w.sealed.Load() {
			work <- w
		}
	}
	close(work)
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	clear(j.owed)
	return nil
}

// giveUp leaves the journal as it is: what it has may be nowhere else, and the
// next start reads it. From here on each recording is synced itself.
func (j *journal) giveUp(err error) {
	j.mu.Lock()
	j.off, j.pending, j.writers = true, nil, nil
	j.mu.Unlock()
	j.log.Error("the journal of the recordings failed; each recording is synced by itself from now on, which is slower", "file", j.path, "error", err)
}

// close removes the journal of a store whose recordings are all sealed or
// failed, once what it has of them is on the disk elsewhere.
func (j *journal) close(sealed bool) error {
	if j.file == nil {
		return nil
	}
	if !sealed {
		return j.file.Close()
	}
	err := j.settle()
	keep := err != nil
	err = errors.Join(err, j.file.Close())
	if !keep {
		err = errors.Join(err, os.Remove(j.path))
	}
	return err
}

// replay writes what a journal has into the recordings that are open, which is
// what they have already unless the machine died. It answers how many had less.
func (j *journal) replay() (mended int, err error) {
	f, err := openPlain(j.path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	mended, err = replayInto(filepath.Dir(j.path), f)
	if err == nil { // a name that a crash brings back must bring nothing: recordings are sealed from here on
		err = errors.Join(f.Truncate(0), fdatasync(f))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return mended, err
	}
	return mended, os.Remove(j.path)
}

func replayInto(dir string, journal io.Reader) (mended int, err error) {
	open := map[string]*tail{}
	defer func() {
		for _, t := range open {
			err = errors.Join(err, t.close())
			if t.grew {
				mended++
			}
		}
	}()
	for p, err := range pieces(bufio.NewReaderSize(journal, readAhead)) {
		if err != nil {
			return mended, fmt.Errorf("read the journal: %w", err)
		}
		t := open[p.session]
		if t == nil {
			if t, err = openTail(dir, p); err != nil {
				return mended, err
			}
			open[p.session] = t
		}
		if err := t.put(p); err != nil {
			return mended, err
		}
	}
	return mended, nil
}

// openPlain opens a file that is here itself, and no link to one elsewhere.
func openPlain(path string, flags int) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file; move it away", path)
	}
	return os.OpenFile(path, flags, 0)
}

// tail is a recording whose end is written again.
type tail struct {
	file *os.File // nil: it is sealed and lies elsewhere, or its beginning is gone
	size int64
	grew bool
}

// openTail makes a file that is gone, where its first piece is at hand: the
// disk may have the journal, and not yet the name of a recording that began.
func openTail(dir string, first piece) (*tail, error) {
	path, flags := filepath.Join(dir, first.session+ext), os.O_RDWR
	f, err := openPlain(path, flags)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := Find(filepath.Dir(dir), first.session); access.CodeOf(err) != access.CodeNotFound || first.offset > 0 {
			return &tail{}, nil
		}
		f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &tail{file: f, size: info.Size()}, nil
}

// put writes a piece, unless that would leave a hole.
func (t *tail) put(p piece) error {
	if t.file == nil || p.offset > t.size {
		return nil
	}
	if _, err := t.file.WriteAt(p.data, p.offset); err != nil {
		return fmt.Errorf("recover recording of %s from the journal: %w", p.session, err)
	}
	if end := p.offset + int64(len(p.data)); end > t.size {
		t.size, t.grew = end, true
	}
	return nil
}

func (t *tail) close() error {
	if t.file == nil {
		return nil
	}
	return errors.Join(fdatasync(t.file), t.file.Close())
}

// piece is what one recording got at once.
type piece struct {
	session string
	offset  int64
	data    []byte
}

// pieces reads a journal up to the first batch that is not whole, or of an
// earlier epoch. An error is of the disk, and what it has is not known.
func pieces(r io.Reader) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		var epoch uint64
		for first := true; ; first = false {
			of, batch, err := readBatch(r)
			if err != nil {
				yield(piece{}, err)
				return
			}
			if batch == nil || !first && of != epoch {
				return
			}
			epoch = of
			for len(batch) > 0 {
				p, rest, ok := takePiece(batch)
				if !ok {
					return
				}
				batch = rest
				if sessionID.MatchString(p.session) && !yield(p, nil) {
					return
				}
			}
		}
	}
}

// readBatch answers nil for what is no whole batch.
func readBatch(r io.Reader) (epoch uint64, pieces []byte, err error) {
	head := make([]byte, batchHead)
	if whole, err := readFull(r, head); !whole || string(head[:8]) != journalMagic {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[16:])
	if size == 0 || size > batchMax {
		return 0, nil, nil
	}
	pieces = make([]byte, size)
	if whole, err := readFull(r, pieces); !whole || batchSum(head[:20], pieces) != binary.BigEndian.Uint32(head[20:]) {
		return 0, nil, err
	}
	return binary.BigEndian.Uint64(head[8:]), pieces, nil
}

func readFull(r io.Reader, b []byte) (whole bool, err error) {
	_, err = io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return err == nil, err
}

func takePiece(b []byte) (p piece, rest []byte, ok bool) {
	if len(b) < pieceHead {
		return p, nil, false
	}
	offset, size, name := binary.BigEndian.Uint64(b), int(binary.BigEndian.Uint32(b[8:])), int(b[12])
	b = b[pieceHead:]
	if offset > 1<<62 || size > batchMax || len(b) < name+size {
		return p, nil, false
	}
	p = piece{session: string(b[:name]), offset: int64(offset), data: b[name : name+size]}
	return p, b[name+size:], true
}
