package ssh

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// stay is one session channel: a shell, a command or a subsystem, and what the
// client prepared for it.
type stay struct {
	b      *bridge
	client gossh.Channel
	ctx    context.Context // ends when the client closes the channel
	leave  context.CancelCauseFunc
	done   chan struct{} // closed when what was started is over; nil before
	denied atomic.Bool   // rules that came since deny what runs

	host     chan hostAsks // what the host asks of the program's channel, for serveSession
	answered chan struct{} // closed when it asks nothing more
	exited   chan struct{} // closed when it said how the program ended

	mu       sync.Mutex
	pty      *ptyPayload
	env      []envPayload
	envBytes int // of all of it
	agent    bool
	x11      []byte // the request's payload
	target   gossh.Channel
	open     gateway.Open
	screen   screen
	held     bool      // a person may be asked for it now
	input    io.Reader // what the client types, if not the channel itself; of the goroutine that runs the program
	closed   bool
	ended    bool // exited is closed; of the goroutine that serves the channel
}

func (b *bridge) serveSession(in gossh.NewChannel) {
	ch, requests, err := in.Accept()
	if err != nil {
		return
	}
	s := &stay{b: b, client: &clientChannel{Channel: ch}, host: make(chan hostAsks, 1), answered: make(chan struct{}), exited: make(chan struct{})}
	s.ctx, s.leave = context.WithCancelCause(b.ctx)
	defer s.leave(nil)
	b.addStay(s)
	defer b.removeStay(s)
	s.serve(requests)
	_ = ch.Close()
}

// hostAsks is what the host asks of a channel, and what answers to it.
type hostAsks struct {
	requests <-chan *gossh.Request
	answer   func(*gossh.Request)
}

// serve answers to what either side asks of the channel, until the client left
// it and what was started is over. One goroutine waits for both sides.
func (s *stay) serve(requests <-chan *gossh.Request) {
	var host hostAsks
	var runs <-chan struct{}
	for begun := false; requests != nil || runs != nil; {
		select {
		case req, ok := <-requests:
			if !ok {
				requests = nil
				s.leave(errLeft)
				break
			}
			s.request(req)
			if s.done != nil && !begun {
				begun, runs = true, s.done
			}
		case host = <-s.host:
		case req, ok := <-host.requests:
			if ok {
				host.answer(req)
				break
			}
			host.requests = nil
			close(s.answered)
		case <-runs:
			runs = nil
		}
	}
}

// request handles one channel request, in order.
func (s *stay) request(req *gossh.Request) {
	ok := false
	switch req.Type {
	case "pty-req":
		ok = s.preparePty(req.Payload)
	case "env":
		ok = s.prepareEnv(req.Payload)
	case "auth-agent-req@openssh.com":
		ok = s.prepareAgent()
	case "x11-req":
		ok = s.prepareX11(req.Payload)
	case "shell", "exec", "subsystem":
		s.start(req)
		return
	case "window-change":
		ok = s.resize(req.Payload)
	case "signal", "break":
		ok = s.pass(req)
	}
	_ = req.Reply(ok, nil) // the client may be gone
}

func (s *stay) preparePty(payload []byte) bool {
	var p ptyPayload
	if gossh.Unmarshal(payload, &p) != nil || !termName.MatchString(p.Term) || len(p.Modes) > 1024 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil || s.pty != nil {
		return false
	}
	s.pty = &p
	return true
}

// start judges what is to run and runs it, beside the loop of requests. It
// answers to the request itself.
func (s *stay) start(req *gossh.Request) {
	s.mu.Lock()
	again := s.done != nil
	if !again {
		s.done = make(chan struct{})
	}
	s.mu.Unlock()
	if again {
		_ = req.Reply(false, nil)
		return
	}
	go func() { // serveSession waits for done
		defer close(s.done)
		if err := s.run(req); err != nil {
			_ = req.Reply(true, nil) // then the client shows the words
			refuseChannel(s.client, err)
		}
	}()
}

// run brings one program from its question to its end. An error means that
// nothing ran.
func (s *stay) run(req *gossh.Request) error {
	if err := s.b.ready(s.ctx); err != nil {
		return err
	}
	generation := s.b.session.Generation()
	op, err := s.operation(req)
	if err != nil {
		return err
	}
	admitted, err := s.admit(op)
	if err != nil {
		return err
	}
	open := s.b.stands(admitted, generation, func() access.Operation { return s.again(op) })
	if op.Kind == kindSession {
		return s.runFiles(req, open)
	}
	target, answers, err := s.openTarget(req)
	if err != nil {
		_ = open.Close(access.Outcome{Status: "error"})
		return err
	}
	s.begin(target, open)
	_ = req.Reply(true, nil)
	outcome := s.carry(target, answers, open)
	s.closeClient()
	_ = target.Close()
	return open.Close(outcome)
}

// begin makes the program known to what comes after: requests and last words.
// The window may have changed while it was asked for.
func (s *stay) begin(target gossh.Channel, open gateway.Open) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target, s.open = target, open
	if s.pty != nil {
		_ = open.Resize(int(s.pty.Columns), int(s.pty.Rows)) // a failed recorder shows at the first byte
		_, _ = target.SendRequest("window-change", false, gossh.Marshal(windowPayload{s.pty.Columns, s.pty.Rows, s.pty.Width, s.pty.Height}))
	}
}

// admit asks the session. While a person decides, the client is told so, and
// can cancel by leaving, or with Ctrl-C on a terminal.
func (s *stay) admit(op access.Operation) (gateway.Open, error) {
	s.setHeld(true)
	defer s.setHeld(false)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	if s.pty != nil && s.b.session.Judge(op).Verdict == access.Hold {
		typed := newTypeahead(s.ctx, s.client, cancel)
		defer typed.release()
		s.input = typed
	}
	return s.b.session.Admit(ctx, op)
}

func (s *stay) setHeld(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
}

// openTarget opens the channel at the host and starts the program there.
func (s *stay) openTarget(req *gossh.Request) (gossh.Channel, <-chan *gossh.Request, error) {
	defer s.b.hurry()()
	target, answers, err := s.b.target.OpenChannel("session", nil)
	if err != nil {
		return nil, nil, fmt.Errorf("open channel at target: %w", err)
	}
	if err := s.prepareTarget(target, req); err != nil {
		_ = target.Close()
		go gossh.DiscardRequests(answers) // ends with the channel
		return nil, nil, err
	}
	return target, answers, nil
}

func (s *stay) prepareTarget(target gossh.Channel, req *gossh.Request) error {
	s.mu.Lock()
	env, agent, x11 := s.env, s.agent, s.x11
	var pty []byte
	if s.pty != nil {
		pty = gossh.Marshal(s.pty)
	}
	s.mu.Unlock()
	if pty != nil {
		if ok, err := target.SendRequest("pty-req", true, pty); err != nil || !ok {
			return unavailable("The host gives no terminal.", err)
		}
	}
	for _, e := range env {
		_, _ = target.SendRequest("env", false, gossh.Marshal(e)) // sshd takes what its AcceptEnv says
	}
	if agent {
		s.b.lent.agent.Store(true) // not before it is known that this may run
		if ok, err := target.SendRequest("auth-agent-req@openssh.com", true, nil); err != nil || !ok {
			return unavailable("The host takes no agent.", err)
		}
	}
	if x11 != nil {
		s.b.lent.x11.Store(true)
		if ok, err := target.SendRequest("x11-req", true, x11); err != nil || !ok {
			return unavailable("The host takes no X11.", err)
		}
	}
	ok, err := target.SendRequest(req.Type, true, req.Payload)
	if err != nil || !ok {
		return unavailable("The host did not start it.", err)
	}
	return nil
}

func unavailable(message string, cause error) error {
	return &access.Error{Code: access.CodeUnavailable, Message: message, Cause: cause}
}

// resize follows the client's window.
func (s *stay) resize(payload []byte) bool {
	var w windowPayload
	if gossh.Unmarshal(payload, &w) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pty == nil {
		return false
	}
	s.pty.Columns, s.pty.Rows, s.pty.Width, s.pty.Height = w.Columns, w.Rows, w.Width, w.Height
	if s.target == nil {
		return true
	}
	if s.open.Resize(int(w.Columns), int(w.Rows)) != nil {
		return false
	}
	_, err := s.target.SendRequest("window-change", false, gossh.Marshal(w))
	return err == nil
}

// pass hands a signal or a break on to a program that runs. Nobody waits for
// the host's word on it: not every host has one, and the channel's requests are
// answered one after the other.
func (s *stay) pass(req *gossh.Request) bool {
	s.mu.Lock()
	target := s.target
	s.mu.Unlock()
	if target == nil {
		return false
	}
	_, err := target.SendRequest(req.Type, false, req.Payload)
	return err == nil
}

// cut says the last words and ends the channel.
func (s *stay) cut(cause error) {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	screen := s.screen.leave()
	s.mu.Unlock()
	if was {
		return
	}
	_, _ = s.client.Write(screen)
	refuseChannel(s.client, &access.Error{Code: access.CodeEnded, Message: reason(cause)})
}

// notice shows a sentence to a person at a terminal, or to whoever waits for a
// person. Scripts that run get none: their stderr may be somebody's data.
func (s *stay) notice(text string) {
	s.mu.Lock()
	show := (s.pty != nil || s.held) && !s.closed && s.done != nil
	if show && s.screen.full {
		s.screen.later = text // a full-screen program is not drawn over
		show = false
	}
	s.mu.Unlock()
	if show {
		_ = say(s.client, "\r\ntidegate: "+text) // the client may be gone
	}
}

// carry moves bytes and answers until the program is over.
func (s *stay) carry(target gossh.Channel, answers <-chan *gossh.Request, open gateway.Open) access.Outcome {
	outcome := access.Outcome{Status: "cut"}
	s.host <- hostAsks{answers, func(req *gossh.Request) { s.answer(req, &outcome) }}
	var errOut sync.WaitGroup
	errOut.Go(func() { s.failed(s.carryText(s.client.Stderr(), target.Stderr(), open, func([]byte) {})) })
	input := s.input
	if input == nil {
		input = s.client
	}
	go func() { // ends with the client's channel, which run closes
		if err := move(target, input, tap(open, access.ToTarget)); err == nil {
			_ = target.CloseWrite()
		} else {
			s.failed(err)
		}
	}()
	gone := context.AfterFunc(s.ctx, func() { _ = target.Close() })
	defer gone()
	s.failed(s.carryText(s.client, target, open, s.watch))
	errOut.Wait()
	s.awaitExit()
	if !s.ending() {
		_ = s.client.CloseWrite()
	}
	<-s.answered
	return outcome
}

// ending reports whether the session is being ended, or what runs here: then
// cut has the last words, and closes the client's channel.
func (s *stay) ending() bool {
	return s.b.ctx.Err() != nil || s.b.session.Context().Err() != nil || s.denied.Load()
}

// closeClient closes the client's channel when the program is over.
func (s *stay) closeClient() {
	if !s.ending() {
		_ = s.client.Close()
	}
}

// exitTime is how long the end of a program's output waits for the program's
// own end.
const exitTime = time.Second

// awaitExit lets the exit status go first: a client that has seen the end of
// both directions closes the channel, and then nobody can tell it any more.
// A program that closes its output and runs on holds that up for a moment.
func (s *stay) awaitExit() {
	wait := time.NewTimer(exitTime)
	defer wait.Stop()
	select {
	case <-s.exited:
	case <-s.answered:
	case <-wait.C:
	}
}

// signalName is how RFC 4254 names signals: its own, or NAME@domain.
var signalName = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9@.-]{0,63}\z`)

// answer handles what the host says of a program.
func (s *stay) answer(req *gossh.Request, outcome *access.Outcome) {
	switch req.Type {
	case "exit-status":
		var p statusPayload
		if gossh.Unmarshal(req.Payload, &p) == nil {
			*outcome = access.Outcome{Status: "ok", Code: fmt.Sprint(p.Status)}
			if p.Status != 0 {
				outcome.Status = "error"
			}
		}
	case "exit-signal":
		var p signalPayload
		if gossh.Unmarshal(req.Payload, &p) != nil || !signalName.MatchString(p.Signal) {
			_ = req.Reply(false, nil)
			return
		}
		*outcome = access.Outcome{Status: "error", Code: "signal " + p.Signal}
		req.Payload = gossh.Marshal(signalPayload{Signal: p.Signal, Core: p.Core}) // its message is text that nobody masked or recorded
	case "eow@openssh.com", "xon-xoff":
	default:
		_ = req.Reply(false, nil)
		return
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if !closed {
		_, _ = s.client.SendRequest(req.Type, false, req.Payload) // the client may be gone
	}
	if strings.HasPrefix(req.Type, "exit-") && !s.ended {
		s.ended = true
		close(s.exited)
	}
	_ = req.Reply(true, nil)
}
