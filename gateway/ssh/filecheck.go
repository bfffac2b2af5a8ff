package ssh

import (
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// Between the look-up of a path and its use, somebody with another way onto the
// host could exchange a folder for a link. So what was opened is looked at once
// more before its first byte goes to the client, and nothing is cut off at the
// opening. What works by the path alone (remove, rename, mkdir, rmdir, stat, and
// the name that an open makes) can't be looked at: there the account's own
// rights are the lock.

// moved says that a path leads elsewhere than it did.
func moved(at string) error {
	return access.Errorf(access.CodeDenied, "What stands at %s changed while it was opened. Try again.", at)
}

// opened opens a file or folder at the host and gives it to the client once it
// is known to be the one that was judged. flags and attributes are of a file.
func (c *courier) opened(id uint32, f *file, flags uint32, attributes ...byte) error {
	m := newMessage(fxOpen, 0).text(f.name).uint32(flags &^ openTruncate).raw(attributes)
	if f.folder {
		m = newMessage(fxOpendir, 0).text(f.name)
	}
	p, err := c.call(m)
	if err != nil {
		return err
	}
	handle, ok := handleOf(p)
	if !ok {
		return c.failedOpen(id, f.open, p)
	}
	if err = c.confirm(handle, f); err == nil && flags&openTruncate != 0 {
		err = c.change(newMessage(fxFsetstat, 0).text(handle).uint32(attrSize).uint32(0).uint32(0))
	}
	if err != nil {
		return c.giveUp(id, handle, f, err)
	}
	if err := c.addHandle(handle, f); err != nil {
		return err
	}
	return c.reply(newMessage(fxHandle, id).text(handle).sealed())
}

// handleOf is the handle in an answer to an open.
func handleOf(p packet) (string, bool) {
	f := fields{rest: p.body}
	f.uint32() // the id
	handle := f.text()
	return handle, p.kind == fxHandle && !f.bad && len(handle) <= maxHandle
}

// failedOpen hands on why the host did not open it.
func (c *courier) failedOpen(id uint32, open gateway.Open, p packet) error {
	if p.kind != fxStatus {
		return errPacket
	}
	if err := open.Close(outcomeOf(fxStatus, fields{rest: p.body[4:]})); err != nil {
		return err
	}
	return c.reply(newMessage(fxStatus, id).raw(p.body[4:]).sealed())
}

// giveUp closes what was opened and is not given.
func (c *courier) giveUp(id uint32, handle string, f *file, why error) error {
	if _, err := c.call(newMessage(fxClose, 0).text(handle)); err != nil {
		return err
	}
	if err := f.open.Close(access.Outcome{Status: "refused"}); err != nil {
		return err
	}
	return c.refuse(id, why)
}

// confirmTries is how often a file may change while it is looked at.
const confirmTries = 3

// confirm makes sure that an open file is the one at its path: by the host's
// kernel, or else because the path still leads there over no link, and what is
// open looks like what stands there.
func (c *courier) confirm(handle string, f *file) error {
	if c.proves {
		return c.prove(f)
	}
	for range confirmTries {
		same, err := c.same(handle, f)
		if err != nil || same {
			return err
		}
	}
	return moved(f.name)
}

// looks is how often a path is looked at: who exchanges a folder for a link all
// the time would have to hit the moment between two looks so many times.
const looks = 8

func (c *courier) same(handle string, f *file) (bool, error) {
	var asks []message
	for range looks {
		asks = append(asks, newMessage(fxLstat, 0).text(f.name), newMessage(fxRealpath, 0).text(f.name))
	}
	if !f.folder { // a folder's handle has no attributes at OpenSSH's server
		asks = append(asks, newMessage(fxFstat, 0).text(handle))
	}
	answers, err := c.callAll(asks)
	if err != nil {
		return false, err
	}
	stands, ok := attributesOf(answers[0])
	if !ok {
		return false, moved(f.name)
	}
	for i := range looks {
		again, ok := attributesOf(answers[2*i])
		at, err := realOf(answers[2*i+1])
		switch {
		case err != nil && !errors.As(err, new(hostSays)):
			return false, err
		case !ok || err != nil || at != f.name:
			return false, moved(f.name)
		case again != stands:
			return false, nil
		}
	}
	if f.folder {
		return stands.mode&modeType == modeFolder, nil
	}
	open, ok := attributesOf(answers[2*looks])
	return ok && open == stands, nil
}

// callAll asks several things at once.
func (c *courier) callAll(asks []message) ([]packet, error) {
	var wait []func() (packet, error)
	for _, m := range asks {
		answer, err := c.send(m)
		if err != nil {
			return nil, err
		}
		wait = append(wait, answer)
	}
	var out []packet
	for _, answer := range wait {
		p, err := answer()
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// attributes are what tells one file from another; the time of the last access
// is not among it.
type attributes struct {
	size                 uint64
	user, group          uint32
	mode, modified, flag uint32
}

// attributesOf reads the answer to a stat. Without a mode it proves nothing.
func attributesOf(p packet) (a attributes, ok bool) {
	f := fields{rest: p.body}
	f.uint32() // the id
	a = f.attributes()
	return a, p.kind == fxAttrs && !f.bad && a.flag&attrMode != 0
}

func (f *fields) attributes() (a attributes) {
	a.flag = f.uint32()
	if a.flag&attrSize != 0 {
		a.size = f.uint64()
	}
	if a.flag&attrOwner != 0 {
		a.user, a.group = f.uint32(), f.uint32()
	}
	if a.flag&attrMode != 0 {
		a.mode = f.uint32()
	}
	if a.flag&attrTimes != 0 {
		f.uint32() // accessed
		a.modified = f.uint32()
	}
	return a
}

// errAttributes refuses what nobody could be shown.
var errAttributes = access.Errorf(access.CodeInvalid, "Length, owner, mode and times are what can be set of a file here.")

// shownAttributes says what a request would set, for who approves it.
func shownAttributes(attrs []byte) (out []string, err error) {
	f := fields{rest: attrs}
	a := f.attributes()
	if f.bad || len(f.rest) > 0 || a.flag&^(attrSize|attrOwner|attrMode|attrTimes) != 0 {
		return nil, errAttributes
	}
	for _, one := range []struct {
		flag uint32
		text string
	}{
		{attrSize, fmt.Sprintf("length %d", a.size)},
		{attrOwner, fmt.Sprintf("owner %d, group %d", a.user, a.group)},
		{attrMode, fmt.Sprintf("mode %04o", a.mode&^modeType)},
		{attrTimes, "modified " + time.Unix(int64(a.modified), 0).UTC().Format(time.RFC3339)},
	} {
		if a.flag&one.flag != 0 {
			out = append(out, one.text)
		}
	}
	return out, nil
}

// shownAtCreation says what something new would get that clients do not send
// with each: more than a plain mode and times.
func shownAtCreation(attrs []byte) ([]string, error) {
	shown, err := shownAttributes(attrs)
	f := fields{rest: attrs}
	if f.attributes().flag&attrSize == 0 && !isUnusual(attrs) {
		return nil, err
	}
	return shown, err
}

// isUnusual reports whether attributes are an owner, or a mode by which a
// program runs as another account.
func isUnusual(attrs []byte) bool {
	f := fields{rest: attrs}
	a := f.attributes()
	return a.flag&attrOwner != 0 || a.mode&^(modeType|0o777) != 0
}

// setByHandle judges what is set of an open file: more than clients set of each
// that they write is an operation of its own. For the rest there is none.
func (c *courier) setByHandle(f *file, attrs []byte) (gateway.Open, error) {
	if c.tooLong(attrs) {
		return nil, c.errTooLarge()
	}
	shown, err := shownAttributes(attrs)
	if err != nil || !isUnusual(attrs) {
		return nil, err
	}
	return c.s.admit(c.operation(judged{verb: "setstat", writes: true, shown: shown}, f.name))
}

// change asks the host to change an open file.
func (c *courier) change(m message) error {
	p, err := c.call(m)
	if err != nil {
		return err
	}
	if p.kind != fxStatus {
		return errPacket
	}
	if o := outcomeOf(p.kind, fields{rest: p.body[4:]}); o.Status != "ok" {
		return hostSays{p.body[4:]}
	}
	return nil
}

// setstat changes what stands at a path. A file or a folder is opened for it,
// so that it is the one that was judged; what can't be opened is changed by its
// path, and no link at its end is followed.
func (c *courier) setstat(id uint32, at string, open *standing, attrs []byte) error {
	f := fields{rest: attrs}
	flags := f.attributes().flag // understood, or shownAttributes had refused
	if flags&attrSize != 0 {
		if c.tooLong(attrs) {
			_ = open.Close(access.Outcome{Status: "refused"})
			return c.refuse(id, c.errTooLarge())
		}
		return c.setOpen(id, &file{open: open, name: at, writes: true}, openChange, attrs)
	}
	p, err := c.call(newMessage(fxLstat, 0).text(at))
	if err != nil {
		return err
	}
	if is, ok := attributesOf(p); ok && (is.mode&modeType == modeFile || is.mode&modeType == modeFolder) {
		return c.setOpen(id, &file{open: open, name: at, writes: true, folder: is.mode&modeType == modeFolder}, openRead, attrs)
	}
	return c.setPath(id, at, open, attrs)
}

func (c *courier) setPath(id uint32, at string, open gateway.Open, attrs []byte) error {
	m := newMessage(fxSetstat, 0).text(at).raw(attrs)
	if c.hostHas("lsetstat@openssh.com") {
		m = newMessage(fxExtended, 0).text("lsetstat@openssh.com").text(at).raw(attrs)
	}
	return c.ask(question{id: id, open: open}, m)
}

// setOpen opens what stands at a path, for reading its attributes or changing
// its length, and sets what was asked for.
func (c *courier) setOpen(id uint32, f *file, flags uint32, attrs []byte) error {
	p, err := c.call(newMessage(fxOpen, 0).text(f.name).uint32(flags).uint32(0))
	if err != nil {
		return err
	}
	handle, ok := handleOf(p)
	switch {
	case !ok && flags == openRead:
		return c.setPath(id, f.name, f.open, attrs)
	case !ok:
		return c.failedOpen(id, f.open, p)
	}
	if err = c.confirm(handle, f); err == nil {
		err = c.change(newMessage(fxFsetstat, 0).text(handle).raw(attrs))
	}
	if err != nil {
		return c.giveUp(id, handle, f, err)
	}
	if _, err := c.call(newMessage(fxClose, 0).text(handle)); err != nil {
		return err
	}
	if err := f.open.Close(access.Outcome{Status: "ok"}); err != nil {
		return err
	}
	return c.reply(status(id, fxOK, ""))
}
