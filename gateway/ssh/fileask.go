package ssh

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tidegate/tidegate/access"
)

// errPacket ends a session whose packets are not understood.
var errPacket = errors.New("an sftp packet is not understood")

// judged is what is to be done at a path.
type judged struct {
	verb   string
	writes bool
	read   bool     // an open for both
	follow bool     // the host would follow a link at the path's end
	meta   bool     // it only looks at the file's attributes
	shown  []string // more of it, for who approves it
	moves  bool     // a name is given or taken away: see guardMove
	from   string   // what is moved there
}

// byPath says how each request with one path is judged.
var byPath = map[byte]judged{
	fxLstat:    {verb: "stat", meta: true},
	fxStat:     {verb: "stat", meta: true, follow: true},
	fxSetstat:  {verb: "setstat", writes: true, follow: true},
	fxOpendir:  {verb: "list", follow: true},
	fxRemove:   {verb: "remove", writes: true},
	fxMkdir:    {verb: "mkdir", writes: true},
	fxRmdir:    {verb: "rmdir", writes: true},
	fxReadlink: {verb: "readlink"},
}

// request handles one packet of the client.
func (c *courier) request(p packet) error {
	if err := c.session.keeps(); err != nil {
		_ = say(c.client, words(err)) // the client may be gone
		return err
	}
	f := fields{rest: p.body}
	id := f.uint32()
	if f.bad {
		return errPacket
	}
	switch p.kind {
	case fxRead, fxWrite, fxClose, fxFstat, fxFsetstat, fxReaddir:
		return c.byHandle(id, p, f)
	case fxOpen:
		return c.openFile(id, f)
	case fxRename:
		return c.rename(id, f, newMessage(fxRename, 0))
	case fxRealpath:
		return c.realpath(id, f)
	case fxSymlink:
		return c.refuse(id, access.Errorf(access.CodeDenied, "Links are not made here."))
	case fxExtended:
		return c.extended(id, f)
	}
	j, ok := byPath[p.kind]
	name := f.text()
	switch {
	case !ok:
		return c.reply(status(id, fxUnsupported, "not known here"))
	case f.bad:
		return errPacket
	}
	kind := p.kind
	if kind == fxStat { // of a path without links it is the same, and follows none that came since
		kind = fxLstat
	}
	return c.onPath(id, name, j, newMessage(kind, 0), f.rest)
}

// onPath judges a request with one path, and sends it on with the path that it
// really leads to. rest is what stands behind the path.
func (c *courier) onPath(id uint32, name string, j judged, m message, rest []byte) error {
	if m[4] == fxSetstat {
		var err error
		if j.shown, err = shownAttributes(rest); err != nil {
			return c.refuse(id, err)
		}
	}
	if m[4] == fxMkdir {
		var err error
		if j.shown, err = shownAtCreation(rest); err != nil {
			return c.refuse(id, err)
		}
	}
	at, open, err := c.judge(name, j)
	if err != nil {
		return c.refuse(id, err)
	}
	switch m[4] {
	case fxOpendir:
		return c.opened(id, &file{open: open, name: at, folder: true}, 0)
	case fxSetstat:
		return c.setstat(id, at, open, rest)
	}
	return c.ask(question{id: id, open: open}, m.text(at).raw(rest))
}

// judge resolves a path and admits what is to be done there.
func (c *courier) judge(name string, j judged) (at string, open *standing, err error) {
	generation := c.s.b.session.Generation()
	at, err = c.resolve(name, j.follow)
	if out := (outside{}); errors.As(err, &out) {
		return "", nil, c.turnAway(out, j)
	}
	if err != nil {
		return "", nil, err
	}
	op := c.operation(j, at)
	if op.Guard = c.guardMove(j, at); !c.may(at, j) {
		op.Guard = notGiven(j, at)
	}
	asked := time.Now()
	admitted, err := c.s.admit(op)
	if err != nil {
		return at, nil, err
	}
	open = c.s.b.stands(admitted, generation, func() access.Operation { return op })
	if err := c.stillAt(name, j.follow, at, asked); err != nil {
		_ = open.Close(access.Outcome{Status: "refused"}) // a failed recorder ends the session by itself
		return "", nil, err
	}
	return at, open, nil
}

func (c *courier) operation(j judged, at string) access.Operation {
	op := c.s.describe(kindFile, j.verb+" "+at)
	op.Facts["name"], op.Facts["words"], op.Facts["simple"] = j.verb, []string{j.verb, at}, true
	op.Facts["path"], op.Facts["writes"], op.Opaque = at, j.writes, true
	op.Context = append(op.Context, j.shown...)
	return op
}

func notGiven(j judged, name string) *access.Decision {
	return deny("folders", fmt.Sprintf("Your grant does not %s %s.", j.verb, name))
}

// turnAway records that somebody tried to leave the role's folders. What rules
// and the client see is the path as it was written; where it leads is for who
// reads the recording.
func (c *courier) turnAway(out outside, j judged) error {
	op := c.operation(j, out.named)
	op.Guard = notGiven(j, out.named)
	if out.at != "" {
		op.Context = append(op.Context, "it leads to "+out.at)
	}
	open, err := c.s.admit(op)
	if err != nil {
		return err
	}
	return errors.Join(errors.New("what leads out of the folders was admitted"), open.Close(access.Outcome{Status: "refused"}))
}

// stillAt looks once more where a path leads, if a person decided on something
// since and that took a while.
func (c *courier) stillAt(name string, follow bool, at string, since time.Time) error {
	if time.Since(since) < aWhile {
		return nil
	}
	now, err := c.resolve(name, follow)
	switch {
	case err != nil && !errors.As(err, new(hostSays)) && !errors.As(err, new(outside)):
		return err
	case err != nil || now != at:
		return moved(at)
	}
	return nil
}

// aWhile is how long what the host said of a path is taken for true.
const aWhile = time.Second

// may reports whether the role gives that at a path without links.
func (c *courier) may(at string, j judged) bool {
	switch {
	case j.meta:
		return within(c.read, at) || within(c.write, at) || onTheWay(c.read, at) || onTheWay(c.write, at)
	case j.writes && j.read:
		return within(c.write, at) && within(c.read, at)
	case j.writes:
		return within(c.write, at)
	}
	return within(c.read, at)
}

// openFile handles the open of a file: for reading, writing or both.
func (c *courier) openFile(id uint32, f fields) error {
	name, flags := f.text(), f.uint32()
	if f.bad {
		return errPacket
	}
	if c.tooLong(f.rest) {
		return c.refuse(id, c.errTooLarge())
	}
	j := judged{verb: "read", follow: true}
	if flags&openWrite != 0 {
		j.verb, j.writes, j.read = "write", true, flags&openRead != 0
		var err error
		if j.shown, err = shownAtCreation(f.rest); err != nil {
			return c.refuse(id, err)
		}
	}
	at, open, err := c.judge(name, j)
	if err != nil {
		return c.refuse(id, err)
	}
	return c.opened(id, &file{open: open, name: at, writes: j.writes, reads: j.read || !j.writes, appends: flags&openAppend != 0}, flags, f.rest...)
}

// rename is judged at both of its ends, and who approves one of them is shown
// the other.
func (c *courier) rename(id uint32, f fields, m message) error {
	from, to := f.text(), f.text()
	if f.bad {
		return errPacket
	}
	at, open, err := c.judge(from, judged{verb: "rename", writes: true, moves: true, shown: []string{fmt.Sprintf("to %q", to)}})
	if err != nil {
		return c.refuse(id, err)
	}
	asked := time.Now()
	target, second, err := c.judge(to, judged{verb: "rename to", writes: true, moves: true, from: at, shown: []string{fmt.Sprintf("from %q", at)}})
	if err == nil {
		if err = c.stillAt(from, false, at, asked); err != nil {
			_ = second.Close(access.Outcome{Status: "refused"})
		}
	}
	if err != nil {
		_ = open.Close(access.Outcome{Status: "refused"})
		return c.refuse(id, err)
	}
	_ = second.Close(access.Outcome{Status: "ok"}) // the first one has the host's answer
	return c.ask(question{id: id, open: open}, m.text(at).text(target))
}

// guardMove keeps a move from giving more than the role does. Its folders are
// looked up by their names in each session, so nothing else may come to stand
// there; and what may be written alone is not read by moving it.
func (c *courier) guardMove(j judged, at string) *access.Decision {
	switch {
	case !j.moves:
	case slices.Contains(c.written, at) || onTheWay(c.written, at):
		return deny("folders", fmt.Sprintf("%s is a folder that your grant names, or leads to one: it is not renamed, and nothing else is put there.", at))
	case j.from != "" && within(slices.Concat(c.read, c.s.b.plan.Read), at) && !within(c.read, j.from):
		return deny("folders", fmt.Sprintf("Your grant does not read %s, so it is not moved to where it would.", j.from))
	}
	return nil
}

// realpath answers where a path leads, if that is no secret.
func (c *courier) realpath(id uint32, f fields) error {
	name := f.text()
	if f.bad {
		return errPacket
	}
	at, err := c.resolve(name, true)
	if errors.As(err, new(outside)) {
		err = access.Errorf(access.CodeDenied, "Your grant does not reach that path.")
	}
	if err != nil {
		return c.refuse(id, err)
	}
	return c.reply(newMessage(fxName, id).uint32(1).text(at).text(at).uint32(0).sealed())
}

// extended handles OpenSSH's extensions that are known here.
func (c *courier) extended(id uint32, f fields) error {
	name := f.text()
	m := newMessage(fxExtended, 0).text(name)
	switch name {
	case "posix-rename@openssh.com":
		return c.rename(id, f, m)
	case "lsetstat@openssh.com":
		at := f.text()
		switch {
		case f.bad:
			return errPacket
		case !c.hostHas(name): // it would follow links
			return c.reply(status(id, fxUnsupported, "not known at the host"))
		}
		return c.onPath(id, at, judged{verb: "setstat", writes: true}, newMessage(fxSetstat, 0), f.rest)
	case "statvfs@openssh.com":
		at := f.text()
		if f.bad {
			return errPacket
		}
		return c.onPath(id, at, judged{verb: "stat", follow: true, meta: true}, m, nil)
	case "limits@openssh.com":
		return c.ask(question{id: id}, m)
	case "fsync@openssh.com", "fstatvfs@openssh.com":
		handle := f.text()
		if _, known := c.file(handle); !known || f.bad {
			return c.reply(status(id, fxFailure, "no such handle"))
		}
		return c.ask(question{id: id}, m.text(handle))
	}
	return c.reply(status(id, fxUnsupported, "not known here"))
}

func (c *courier) file(handle string) (*file, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.handles[handle]
	return f, ok
}

// byHandle handles what is done with an open file: that was judged when it was
// opened, and nothing else is done with it. The host would change the mode of a
// file that is open for reading, and read one that is open for neither. The
// packet goes on as it is, under our id.
func (c *courier) byHandle(id uint32, p packet, f fields) error {
	handle := f.text()
	open, known := c.file(handle)
	if f.bad {
		return errPacket
	}
	if !known {
		return c.reply(status(id, fxFailure, "no such handle"))
	}
	if verb := open.lacks(p.kind); verb != "" {
		return c.refuse(id, access.Errorf(access.CodeDenied, "%s was not opened to %s it.", open.name, verb))
	}
	if p.kind != fxClose {
		if err := open.open.keeps(); err != nil {
			return c.refuse(id, err)
		}
	}
	q := question{id: id}
	switch p.kind {
	case fxClose:
		q.handle = handle
	case fxRead:
		q.file, q.offset = open, f.uint64()
		if c.tooLarge(q.offset, uint64(f.uint32()), false) {
			return c.reply(status(id, fxFailure, "the grant reads no more than so much of one file"))
		}
	case fxFsetstat:
		var err error
		if q.open, err = c.setByHandle(open, f.rest); err != nil {
			return c.refuse(id, err)
		}
	case fxWrite:
		offset := f.uint64()
		data := f.bytes()
		if f.bad {
			return errPacket
		}
		end, err := c.endOf(open, handle, offset)
		if err != nil {
			return err
		}
		if c.tooLarge(end, uint64(len(data)), true) {
			return c.refuse(id, c.errTooLarge())
		}
		if _, err := open.tap(access.ToTarget, offset, data); err != nil {
			return err
		}
	}
	return c.ask(q, newMessage(p.kind, 0).raw(p.body[4:]))
}

// lacks says what a file was not opened for that the request would do, or "".
func (f *file) lacks(kind byte) string {
	switch {
	case kind == fxRead && !f.reads:
		return "read"
	case (kind == fxWrite || kind == fxFsetstat) && !f.writes:
		return "change"
	}
	return ""
}

// tooLarge bounds a file. A client may ask for more than is there, so a read
// counts from its beginning only.
func (c *courier) tooLarge(offset, n uint64, writes bool) bool {
	most := uint64(c.s.b.plan.MaxFile)
	if most == 0 {
		return false
	}
	if !writes {
		return offset > most
	}
	return offset > most || n > most-offset
}

// endOf is where the next bytes go: where the client says, but behind all that
// is there in a file that was opened to append, whatever the client says.
func (c *courier) endOf(f *file, handle string, offset uint64) (uint64, error) {
	if !f.appends || c.s.b.plan.MaxFile == 0 {
		return offset, nil
	}
	p, err := c.call(newMessage(fxFstat, 0).text(handle))
	if err != nil {
		return 0, err
	}
	is, ok := attributesOf(p)
	if !ok || is.flag&attrSize == 0 {
		return math.MaxUint64, nil
	}
	return is.size, nil
}

// tooLong reports whether attributes would make a file longer than it may be.
func (c *courier) tooLong(attrs []byte) bool {
	f := fields{rest: attrs}
	return f.uint32()&attrSize != 0 && c.tooLarge(f.uint64(), 0, true)
}

func (c *courier) errTooLarge() error {
	return access.Errorf(access.CodeTooLarge, "A file may have at most %d bytes under this grant.", c.s.b.plan.MaxFile)
}

// tap shows a piece of a file to the session, and watches its order.
func (f *file) tap(dir access.Direction, offset uint64, data []byte) ([]byte, error) {
	if offset != f.next {
		f.strays = true
	}
	f.next = offset + uint64(len(data))
	return f.open.Tap(dir, data)
}

// refuse answers with a status, and says why on stderr, which sftp and scp
// show; most clients show no more of a status than its number.
func (c *courier) refuse(id uint32, err error) error {
	if host := (hostSays{}); errors.As(err, &host) {
		return c.reply(newMessage(fxStatus, id).raw(host.answer).sealed())
	}
	code := access.CodeOf(err)
	if code == access.CodeInternal || code == access.CodeEnded || c.s.ctx.Err() != nil {
		return err
	}
	_ = say(c.client, words(err)) // the client may be gone
	return c.reply(status(id, fxDenied, access.Message(err)))
}
