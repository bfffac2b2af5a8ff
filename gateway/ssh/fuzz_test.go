package ssh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"mvdan.cc/sh/v3/syntax"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// FuzzWords: what is called simple says the same words again when they are
// quoted, and holds no character that a shell could read in another way.
func FuzzWords(f *testing.F) {
	for _, s := range []string{
		"uptime", "ls -l '/a b'", `echo "x y" z`, "a;b", "$(id)", "a\nb", "x=1 y", "=ls", "~", "{a,b}", "'a'\"b\"c", "((((", "a#b", "a #b", "\xff", "a\u00a0b", "'$x'", "a\\\r\nb",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, command string) {
		words, ok := literalWords(command)
		if !ok {
			return
		}
		var again []string
		for _, w := range words {
			if strings.ContainsAny(w, "$`\\!\n\r\x00") {
				t.Fatalf("%q has the word %q", command, w)
			}
			q, err := syntax.Quote(w, syntax.LangPOSIX)
			if err != nil {
				t.Fatalf("%q: quote %q: %v", command, w, err)
			}
			again = append(again, q)
		}
		if got, ok := literalWords(strings.Join(again, " ")); ok && !slices.Equal(got, words) {
			t.Fatalf("%q reads as %q, and quoted as %q", command, words, got)
		}
	})
}

// paper is a session channel's client side and a host's side in memory.
type paper struct {
	io.Reader
	bytes.Buffer
}

func (p *paper) Read(b []byte) (int, error)                     { return p.Reader.Read(b) }
func (p *paper) Close() error                                   { return nil }
func (p *paper) CloseWrite() error                              { return nil }
func (p *paper) SendRequest(string, bool, []byte) (bool, error) { return true, nil }
func (p *paper) Stderr() io.ReadWriter                          { return &bytes.Buffer{} }

// host answers to each sftp request as an empty host would.
type host struct {
	paper
	in      *io.PipeReader
	out     *io.PipeWriter
	got     [][]byte
	learned bool
	link    string // a path at which one stands; where it leads is not said
}

func newHost() *host {
	r, w := io.Pipe()
	h := &host{in: r, out: w}
	h.Reader = r
	return h
}

func (h *host) Close() error      { return h.out.Close() }
func (h *host) CloseWrite() error { return h.out.Close() }

func (h *host) Write(b []byte) (int, error) {
	p := bytes.Clone(b)
	if p[4] == fxOpendir && !h.learned { // the courier's own, of a host whose kernel can't be asked
		h.learned = true
		go func() { _, _ = h.out.Write(status(binary.BigEndian.Uint32(p[5:]), fxFailure, "")) }()
		return len(b), nil
	}
	h.got = append(h.got, p)
	f := fields{rest: p[5:]}
	id := f.uint32()
	answer := status(id, fxOK, "")
	switch p[4] {
	case fxInit:
		answer = newMessage(fxVersion, fileVersion).text("posix-rename@openssh.com").text("1").text("evil@example.com").text("1").sealed()
	case fxRealpath:
		name := f.text()
		if !strings.HasPrefix(name, "/") {
			name = "/home"
		}
		answer = newMessage(fxName, id).uint32(1).text(cleaned(name)).text("").uint32(0).sealed()
	case fxOpen, fxOpendir:
		answer = newMessage(fxHandle, id).text("h").sealed()
	case fxLstat, fxFstat:
		mode := uint32(modeFolder)
		if f.text() == h.link {
			mode = modeLink
		}
		answer = newMessage(fxAttrs, id).uint32(attrMode).uint32(mode).sealed()
	case fxRead:
		answer = newMessage(fxData, id).text("data").sealed()
	}
	go func() { _, _ = h.out.Write(answer) }()
	return len(b), nil
}

func cleaned(name string) string {
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch p {
		case "", ".":
		case "..":
			parts = parts[:max(0, len(parts)-1)]
		default:
			parts = append(parts, p)
		}
	}
	return "/" + strings.Join(parts, "/")
}

var discard = slog.New(slog.DiscardHandler)

// openAll and sessionAll let everything through that the guard does not refuse.
type openAll struct{ gateway.Open }

func (openAll) Tap(_ access.Direction, b []byte) ([]byte, error) { return b, nil }
func (openAll) Close(access.Outcome) error                       { return nil }
func (openAll) Resize(int, int) error                            { return nil }

type sessionAll struct{ gateway.Session }

func (sessionAll) Context() context.Context { return context.Background() }
func (sessionAll) Generation() uint64       { return 1 }

func (sessionAll) Judge(op access.Operation) access.Decision {
	if op.Guard != nil {
		return *op.Guard
	}
	return access.Decision{Verdict: access.Allow}
}

func (s sessionAll) Admit(_ context.Context, op access.Operation) (gateway.Open, error) {
	if d := s.Judge(op); d.Verdict != access.Allow {
		return nil, access.Errorf(access.CodeDenied, "%s", d.Say)
	}
	return openAll{}, nil
}

// FuzzFiles: whatever a client sends, no request leaves for a path outside the
// role's folders, and the courier ends.
func FuzzFiles(f *testing.F) {
	hello := newMessage(fxInit, fileVersion).sealed()
	for _, m := range []message{
		newMessage(fxOpen, 1).text("/srv/app/x").uint32(openRead).uint32(0),
		newMessage(fxOpen, 1).text("/srv/app/../../etc/passwd").uint32(openWrite).uint32(0),
		newMessage(fxRemove, 2).text("../etc/x"), newMessage(fxRename, 3).text("/srv/app/a").text("/etc/b"),
		newMessage(fxRead, 4).text("h").uint32(0).uint32(0).uint32(10), newMessage(fxWrite, 5).text("h").uint32(0).uint32(0).text("data"),
		newMessage(fxExtended, 6).text("posix-rename@openssh.com").text("/srv/app/a").text("/etc/b"), newMessage(fxSymlink, 7).text("a").text("b"),
		newMessage(fxExtended, 8).text("copy-data").text("h"), newMessage(fxClose, 9).text("h"),
	} {
		f.Add(append(bytes.Clone(hello), m.sealed()...))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		h := newHost()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		b := &bridge{log: discard, ctx: ctx, session: sessionAll{}, plan: backing.Backing{Read: []string{"/srv/app"}, Write: []string{"/srv/app"}}}
		s := &stay{b: b, client: &paper{Reader: bytes.NewReader(sent)}, ctx: ctx, leave: cancel}
		c := newCourier(s, h, b.stands(openAll{}, 1, nil))
		done := make(chan struct{})
		go func() { defer close(done); c.run(); _ = h.Close() }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("the courier does not end")
		}
		for _, p := range h.got {
			checkSent(t, p)
		}
	})
}

// checkSent looks for a path outside the folder in what went to the host.
func checkSent(t *testing.T, p []byte) {
	t.Helper()
	f := fields{rest: p[5:]}
	f.uint32()
	count := 0
	switch p[4] {
	case fxOpen, fxSetstat, fxOpendir, fxRemove, fxMkdir, fxRmdir, fxReadlink, fxSymlink:
		count = 1
	case fxRename:
		count = 2
	case fxExtended:
		if f.text() == "posix-rename@openssh.com" {
			count = 2
		}
	}
	for range count {
		if name := f.text(); !within([]string{"/srv/app"}, name) || name != cleaned(name) {
			t.Fatalf("packet %d went to the host with the path %q", p[4], name)
		}
	}
}

// FuzzRequests: no payload of a channel's or a connection's request panics.
func FuzzRequests(f *testing.F) {
	f.Add("pty-req", gossh.Marshal(ptyPayload{Term: "xterm", Columns: 80, Rows: 24}))
	f.Add("exec", gossh.Marshal(commandPayload{"id"}))
	f.Add("env", gossh.Marshal(envPayload{"LANG", "C"}))
	f.Add("window-change", gossh.Marshal(windowPayload{80, 24, 0, 0}))
	f.Add("subsystem", gossh.Marshal(commandPayload{"sftp"}))
	f.Fuzz(func(t *testing.T, kind string, payload []byte) {
		opened := make(chan struct{})
		close(opened)
		b := &bridge{log: discard, session: sessionAll{}, opened: opened, plan: backing.Backing{Env: []string{"*"}, Exec: true, Shell: true}}
		s := &stay{b: b, client: &paper{Reader: bytes.NewReader(nil)}}
		s.ctx, s.leave = context.WithCancelCause(t.Context())
		defer s.leave(errors.New("over"))
		req := &gossh.Request{Type: kind, Payload: payload}
		switch kind {
		case "shell", "exec", "subsystem":
			if op, err := s.operation(req); err == nil && op.Text == "" && kind != "exec" && kind != "subsystem" {
				t.Fatalf("an operation without a text: %+v", op)
			}
		default:
			s.request(req)
		}
		for _, b := range []byte(payload) {
			s.screen.see([]byte{b})
		}
	})
}
