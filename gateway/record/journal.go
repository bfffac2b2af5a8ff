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
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
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

	mu      sync.Mutex
	pending []byte // the batch of the round to come, with room for its head
	off     bool   // it failed: recordings are synced one by one

	// Of the store's keep alone.
	file  *os.File // nil: not made yet
	at    int64
	epoch uint64 // of the batches since it began anew: those behind them are old
	quiet int    // rounds without a batch
	spare []byte
	owed  map[*Writer]struct{} // the disk may have their last bytes here alone
}

const (
	journalName  = "journal"
	journalMagic = "tgjourn1"
	journalMax   = 16 << 20 // bytes of the file
	batchMax     = 4 << 20  // bytes of one batch
	batchHead    = 8 + 8 + 4 + 4
	pieceHead    = 8 + 4 + 1
	journalShare = 64 << 10 // of one recording in one round
	journalRests = 200      // quiet rounds, after which it begins anew: 10 s
	keptPending  = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newJournal(dir string, log *slog.Logger) *journal {
	return &journal{path: filepath.Join(dir, openDir, journalName), log: log, owed: map[*Writer]struct{}{}}
}

// add keeps what was written to a recording at an offset. It is false when the
// recording must be synced itself.
func (j *journal) add(session string, offset int64, data []byte) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.off || max(len(j.pending), batchHead)+pieceHead+len(session)+len(data) > batchMax {
		return false
	}
	if len(j.pending) == 0 {
		j.pending = append(j.pending, make([]byte, batchHead)...)
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
	batch, off := j.take()
	if off {
		return false
	}
	var err error
	if len(batch) > 0 {
		j.quiet = 0
		err = j.append(batch)
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

func (j *journal) take() (batch []byte, off bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	batch = j.pending
	j.pending, j.spare = j.spare, nil
	return batch, j.off
}

func (j *journal) append(batch []byte) error {
	if j.file == nil {
		if err := j.create(); err != nil {
			return err
		}
	}
	if j.at > 0 && j.at+int64(len(batch)) > journalMax {
		if err := j.restart(); err != nil {
			return err
		}
	}
	sealBatch(batch, j.epoch)
	if _, err := j.file.WriteAt(batch, j.at); err != nil {
		return err
	}
	j.at += int64(len(batch))
	return fdatasync(j.file)
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
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	j.file, j.at, j.epoch = f, 0, rand.Uint64()
	dir, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close()) // or the file has no name after a crash
}

// rest begins anew after a while in which nobody wrote: words of recordings
// stay no longer than they are needed.
func (j *journal) rest() error {
	if j.at == 0 {
		return nil
	}
	if j.quiet++; j.quiet < journalRests {
		return nil
	}
	return j.restart()
}

// restart empties the journal, after all that it has is on the disk elsewhere.
func (j *journal) restart() error {
	if err := j.settle(); err != nil {
		return err
	}
	j.at, j.epoch = 0, rand.Uint64()
	return j.file.Truncate(0)
}

// settle syncs the recordings themselves.
func (j *journal) settle() error {
	for w := range j.owed {
		if err := w.sync(); err != nil {
			return fmt.Errorf("sync recording of %s: %w", w.session, err)
		}
		delete(j.owed, w)
	}
	return nil
}

// giveUp leaves the journal as it is: what it has may be nowhere else, and the
// next start reads it. From here on each recording is synced itself.
func (j *journal) giveUp(err error) {
	j.mu.Lock()
	j.off, j.pending = true, nil
	j.mu.Unlock()
	j.log.Error("the journal of the recordings failed; each recording is synced by itself from now on, which is slower", "file", j.path, "error", err)
}

// close removes the journal of a store whose recordings are all sealed, and
// with that on the disk.
func (j *journal) close(sealed bool) error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	if sealed {
		err = errors.Join(err, os.Remove(j.path))
	}
	return err
}

// replay writes what a journal has into the recordings that are open, which is
// what they have already unless the machine died. It answers how many had less.
func (j *journal) replay() (mended int, err error) {
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	open := map[string]*tail{}
	defer func() {
		for _, t := range open {
			err = errors.Join(err, t.close())
			if t.grew {
				mended++
			}
		}
		if err == nil {
			err = os.Remove(j.path)
		}
	}()
	for p := range pieces(bufio.NewReaderSize(f, readAhead)) {
		t := open[p.session]
		if t == nil {
			t = openTail(filepath.Join(filepath.Dir(j.path), p.session+ext))
			open[p.session] = t
		}
		if err := t.put(p); err != nil {
			return mended, err
		}
	}
	return mended, nil
}

// tail is a recording whose end is written again.
type tail struct {
	file *os.File // nil: it is sealed, and lies elsewhere
	size int64
	grew bool
}

func openTail(path string) *tail {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return &tail{}
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return &tail{}
	}
	return &tail{file: f, size: info.Size()}
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
// earlier epoch.
func pieces(r io.Reader) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		var epoch uint64
		for first := true; ; first = false {
			of, batch := readBatch(r)
			if batch == nil || !first && of != epoch {
				return
			}
			epoch = of
			for len(batch) > 0 {
				p, rest, ok := takePiece(batch)
				if !ok || !yield(p) {
					return
				}
				batch = rest
			}
		}
	}
}

// readBatch answers nil for what is no whole batch.
func readBatch(r io.Reader) (epoch uint64, pieces []byte) {
	head := make([]byte, batchHead)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:8]) != journalMagic {
		return 0, nil
	}
	size := binary.BigEndian.Uint32(head[16:])
	if size == 0 || size > batchMax {
		return 0, nil
	}
	pieces = make([]byte, size)
	if _, err := io.ReadFull(r, pieces); err != nil || batchSum(head[:20], pieces) != binary.BigEndian.Uint32(head[20:]) {
		return 0, nil
	}
	return binary.BigEndian.Uint64(head[8:]), pieces
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
	return p, b[name+size:], sessionID.MatchString(p.session)
}
