package ssh

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// Bounds of one sftp session.
const (
	maxHandles = 1024
	maxAsked   = 512 // requests that wait for the host; more wait at the client
	maxPath    = 4096
)

// courier stands between an sftp client and the host's sftp server. Each path
// that a client names is first resolved by the host, links and all; what is
// judged is where it really leads, and that is what the host then gets. So no
// link leads out of the role's folders. What the host then opened is looked at
// once more before the client gets it; see confirm.
type courier struct {
	s              *stay
	session        *standing // the sftp session as an operation
	client, target gossh.Channel
	fromTarget     *bufio.Reader
	home           string   // where relative paths begin
	read, write    []string // the role's folders, as they really are
	written        []string // all of them, by the policies' names as well
	host           []string // the extensions that the host has
	proves         bool     // the host's kernel says where an open file is
	lowest         int      // the number of the first one

	out   sync.Mutex // one packet at a time to the client
	slots chan struct{}

	mu      sync.Mutex
	next    uint32
	asked   map[uint32]*question
	handles map[string]*file
	gone    error         // the host ended the session
	over    chan struct{} // closed with gone
}

// question is a request that the host has not answered yet.
type question struct {
	id     uint32       // the client's
	own    chan packet  // for a question of ours
	open   gateway.Open // an operation that the answer ends
	file   *file        // a read
	handle string       // a close
	offset uint64       // a read
}

// file is an open file or folder.
type file struct {
	open    *standing
	name    string
	reads   bool // what its open was judged for
	writes  bool
	folder  bool
	appends bool   // the host minds no offset
	number  int    // at the host, if its kernel can be asked
	next    uint64 // where the next bytes are expected
	strays  bool   // bytes came in another order than they stand in the file
}

// runFiles carries one sftp session. An error means that nothing was begun.
func (s *stay) runFiles(req *gossh.Request, open *standing) error {
	target, answers, err := s.openTarget(req)
	if err != nil {
		_ = open.Close(access.Outcome{Status: "error"})
		return err
	}
	s.begin(target, open)
	_ = req.Reply(true, nil)
	s.host <- hostAsks{answers, func(req *gossh.Request) { _ = req.Reply(false, nil) }} // an exit status comes from here
	go func() { _, _ = io.Copy(io.Discard, target.Stderr()) }()                         // ends with the target's channel
	outcome := newCourier(s, target, open).run()
	_ = target.Close()
	<-s.answered
	code := uint32(0)
	if outcome.Status != "ok" {
		code = 1
	}
	if !s.ending() {
		_, _ = s.client.SendRequest("exit-status", false, exitStatus(code))
	}
	s.closeClient()
	return open.Close(outcome)
}

func newCourier(s *stay, target gossh.Channel, session *standing) *courier {
	return &courier{
		s: s, session: session, client: s.client, target: target, fromTarget: bufio.NewReaderSize(target, 64<<10),
		asked: map[uint32]*question{}, handles: map[string]*file{}, slots: make(chan struct{}, maxAsked), over: make(chan struct{}),
	}
}

// run greets both sides and carries packets until one of them leaves.
func (c *courier) run() access.Outcome {
	from := bufio.NewReaderSize(c.client, 64<<10)
	buf := new([]byte)
	if err := c.greet(from, buf); err != nil {
		return c.failed(err)
	}
	answers := make(chan error, 1)
	go func() { // ends with the target's channel, which runFiles closes
		err := c.serveAnswers()
		if !c.s.ending() {
			_ = c.client.CloseWrite()
		}
		answers <- err
	}()
	err := c.prepare()
	for err == nil {
		var p packet
		if p, err = readPacket(from, buf); err == nil {
			err = c.request(p)
		}
	}
	_ = c.target.CloseWrite()
	if errors.Is(err, io.EOF) {
		err = nil
	} else {
		_ = c.target.Close()
	}
	if answer := <-answers; err == nil && !errors.Is(answer, io.EOF) {
		err = answer
	}
	c.closeAll()
	return c.failed(err)
}

func (c *courier) failed(err error) access.Outcome {
	if err == nil {
		return access.Outcome{Status: "ok"}
	}
	if c.s.ctx.Err() != nil {
		return access.Outcome{Status: "cut"}
	}
	c.s.b.log.Info("sftp ended", "error", err)
	return access.Outcome{Status: "error"}
}

// closeAll ends the operations of files that were left open.
func (c *courier) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.handles {
		_ = f.close("cut") // a failed recorder ends the session by itself
	}
	for _, q := range c.asked {
		if q.open != nil {
			_ = q.open.Close(access.Outcome{Status: "cut"})
		}
	}
	c.handles, c.asked = map[string]*file{}, map[uint32]*question{}
}

func (f *file) close(status string) error {
	o := access.Outcome{Status: status}
	if f.strays {
		o.Code = "out of order" // then the hash is of the bytes as they went, and not of the file
	}
	return f.open.Close(o)
}

// extensions that the client is told of, when the host has them.
var extensions = []string{"posix-rename@openssh.com", "fsync@openssh.com", "lsetstat@openssh.com", "limits@openssh.com", "statvfs@openssh.com", "fstatvfs@openssh.com"}

// greet agrees on the version. No extension is let through that is not known.
func (c *courier) greet(from io.Reader, buf *[]byte) error {
	p, err := readPacket(from, buf)
	if err != nil {
		return err
	}
	if f := (fields{rest: p.body}); p.kind != fxInit || f.uint32() < fileVersion {
		return fmt.Errorf("the client begins with packet %d, want sftp version %d", p.kind, fileVersion)
	}
	if _, err := c.target.Write(newMessage(fxInit, fileVersion).sealed()); err != nil {
		return fmt.Errorf("greet the host's sftp: %w", err)
	}
	if p, err = readPacket(c.fromTarget, buf); err != nil {
		return fmt.Errorf("greet the host's sftp: %w", err)
	}
	f := fields{rest: p.body}
	if p.kind != fxVersion || f.uint32() != fileVersion {
		return fmt.Errorf("the host answers with packet %d, want sftp version %d", p.kind, fileVersion)
	}
	m := newMessage(fxVersion, fileVersion)
	for len(f.rest) > 0 && !f.bad {
		if name, value := f.text(), f.text(); slices.Contains(extensions, name) {
			c.host = append(c.host, name)
			m = m.text(name).text(value)
		}
	}
	return c.reply(m.sealed())
}

// prepare finds out where the role's folders really are, and where relative
// paths begin: at home if that is in one of them, else in the first.
func (c *courier) prepare() error {
	var err error
	if c.read, err = c.realAll(c.s.b.plan.Read); err != nil {
		return err
	}
	if c.write, err = c.realAll(c.s.b.plan.Write); err != nil {
		return err
	}
	if err = c.learn(); err != nil {
		return err
	}
	home, err := c.real(".")
	if err != nil {
		return err
	}
	roots := append(slices.Clone(c.read), c.write...)
	if len(roots) == 0 {
		return errors.New("none of the role's folders is at the host")
	}
	c.written = slices.Concat(roots, c.s.b.plan.Read, c.s.b.plan.Write)
	if c.home = home; !within(roots, home) {
		c.home = roots[0]
	}
	return nil
}

func (c *courier) hostHas(extension string) bool { return slices.Contains(c.host, extension) }

func (c *courier) realAll(folders []string) (out []string, err error) {
	for _, f := range folders {
		switch at, err := c.real(f); {
		case err == nil:
			out = append(out, at)
		case !errors.As(err, new(hostSays)):
			return nil, err
		}
	}
	return out, nil
}

// hostSays is the host's own answer that something is not so, for the client.
type hostSays struct{ answer []byte }

func (hostSays) Error() string { return "the host says no" }

// real asks the host where a path leads.
func (c *courier) real(name string) (string, error) {
	p, err := c.call(newMessage(fxRealpath, 0).text(name))
	if err != nil {
		return "", err
	}
	return realOf(p)
}

// realOf reads the answer to where a path leads.
func realOf(p packet) (string, error) {
	if p.kind == fxStatus {
		return "", hostSays{p.body[4:]}
	}
	f := fields{rest: p.body}
	f.uint32() // the id
	if n := f.uint32(); p.kind != fxName || n != 1 {
		return "", errors.New("the host does not say where a path leads")
	}
	at := f.text()
	if !f.bad && !readable(at) {
		return "", errPath
	}
	if f.bad || !path.IsAbs(at) || path.Clean(at) != at {
		return "", errors.New("the host says something else than where a path leads")
	}
	return at, nil
}

// within reports whether a path, which leads over no link, is in a folder.
func within(folders []string, name string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return name == f || f == "/" || strings.HasPrefix(name, f+"/")
	})
}

// onTheWay reports whether a path is a folder above one of the role's.
func onTheWay(folders []string, name string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return name == "/" || strings.HasPrefix(f, name+"/")
	})
}

// reply sends one packet to the client.
func (c *courier) reply(p []byte) error {
	c.out.Lock()
	defer c.out.Unlock()
	if _, err := c.client.Write(p); err != nil {
		return fmt.Errorf("answer sftp client: %w", err)
	}
	return nil
}

// ask sends a request to the host, under an id of ours.
func (c *courier) ask(q question, m message) error {
	select {
	case c.slots <- struct{}{}:
	case <-c.over:
	case <-c.s.ctx.Done():
		return io.EOF
	}
	c.mu.Lock()
	if c.gone != nil {
		c.mu.Unlock()
		return c.gone
	}
	c.next++
	id := c.next
	c.asked[id] = &q
	c.mu.Unlock()
	if _, err := c.target.Write(m.as(id)); err != nil {
		return fmt.Errorf("ask the host's sftp: %w", err)
	}
	return nil
}

// send asks the host something of ours; the answer is to be waited for.
func (c *courier) send(m message) (answer func() (packet, error), err error) {
	own := make(chan packet, 1)
	if err := c.ask(question{own: own}, m); err != nil {
		return nil, err
	}
	return func() (packet, error) {
		p, ok := <-own
		if !ok {
			return packet{}, io.ErrUnexpectedEOF
		}
		return p, nil
	}, nil
}

// call asks the host something of ours and waits for the answer.
func (c *courier) call(m message) (packet, error) {
	answer, err := c.send(m)
	if err != nil {
		return packet{}, err
	}
	return answer()
}
