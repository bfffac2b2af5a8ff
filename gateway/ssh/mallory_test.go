package ssh

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// TestApproverSeesTheSurroundings: what a command is started with can change
// what it does, so it is shown to the approver and recorded.
func TestApproverSeesTheSurroundings(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "terminal": "true", "env": "GIT_*", "agent": "true", "x11": "true"}, gate: gatewaytest.Options{
		Judge: func(access.Operation) access.Decision {
			return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
		},
	}})
	s, err := h.mustDial().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("GIT_PAGER", "sh -c 'id\n'"); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"GIT_A": strings.Repeat("x", maxEnvBytes), "GIT_B": "\xff", "GIT_C": "a\x00b", "GIT_D=\"x\"\nas root": "y", "GIT_E\u202e": "y"} {
		if err := s.Setenv(name, value); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := s.RequestPty("vt100", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil); err != nil || !ok {
		t.Fatalf("lend the agent: %v, %v", ok, err)
	}
	go func() { _ = s.Run("git log") }() // ends with the connection
	held := h.gate.NextHeld()
	for _, want := range []string{`with GIT_PAGER="sh -c 'id\n'"`, `on a terminal "vt100"`, "with the client's agent"} {
		if !slices.Contains(held.Operation.Context, want) {
			t.Errorf("the approver sees %q, want %q", held.Operation.Context, want)
		}
	}
}

// TestNothingIsAddedLater: what a command is started with stays as it was when
// somebody was asked for it.
func TestNothingIsAddedLater(t *testing.T) {
	opened := make(chan struct{})
	close(opened)
	b := &bridge{opened: opened, plan: backing.Backing{Env: []string{"LC_*"}, Agent: true, X11: true}}
	for _, begun := range []bool{false, true} {
		s := &stay{b: b, ctx: t.Context()}
		if begun {
			s.done = make(chan struct{})
		}
		for name, taken := range map[string]bool{
			"env": s.prepareEnv(gossh.Marshal(envPayload{"LC_A", "x"})), "agent": s.prepareAgent(),
			"x11": s.prepareX11(someDisplay), "pty": s.preparePty(gossh.Marshal(ptyPayload{Term: "vt100"})),
		} {
			if taken == begun {
				t.Errorf("%s: taken %v after the start %v", name, taken, begun)
			}
		}
	}
}

var someDisplay = gossh.Marshal(x11Payload{Protocol: "MIT-MAGIC-COOKIE-1", Cookie: "00ff"})

// pushyHost is a host that takes the client's agent and display although
// nobody lent them, and tells what came of it.
func pushyHost(t testing.TB, userCA gossh.PublicKey) (address, hostKey string) {
	t.Helper()
	key := newSigner(t)
	checker := &gossh.CertChecker{IsUserAuthority: func(k gossh.PublicKey) bool { return bytes.Equal(k.Marshal(), userCA.Marshal()) }}
	cfg := &gossh.ServerConfig{PublicKeyCallback: checker.Authenticate}
	cfg.AddHostKey(key)
	address = serveConn(t, cfg, func(c gossh.Conn, in <-chan gossh.NewChannel, asks <-chan *gossh.Request) {
		go gossh.DiscardRequests(asks)
		for one := range in {
			ch, requests, err := one.Accept()
			if err != nil {
				return
			}
			go func() {
				for req := range requests {
					_ = req.Reply(true, nil)
					if req.Type != "exec" {
						continue
					}
					for _, kind := range []string{"auth-agent@openssh.com", "x11"} {
						_, _, err := c.OpenChannel(kind, gossh.Marshal(struct {
							Origin string
							Port   uint32
						}{"127.0.0.1", 1}))
						_, _ = fmt.Fprintf(ch, "%s %v\n", kind, err == nil)
					}
					_, _ = ch.SendRequest("exit-status", false, exitStatus(0))
					_ = ch.Close()
				}
			}()
		}
	})
	return address, strings.TrimSpace(string(gossh.MarshalAuthorizedKey(key.PublicKey())))
}

// TestNothingIsLentUnasked: a role may give the agent and the display; a host
// gets at them only where the client has lent them as well.
func TestNothingIsLentUnasked(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "agent": "true", "x11": "true"}, host: pushyHost})
	for _, lends := range []bool{false, true} {
		c := h.mustDial()
		for _, kind := range []string{"auth-agent@openssh.com", "x11"} {
			opened := c.HandleChannelOpen(kind)
			go func() {
				for in := range opened {
					if ch, requests, err := in.Accept(); err == nil {
						go gossh.DiscardRequests(requests)
						_ = ch.Close()
					}
				}
			}()
		}
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if lends {
			for kind, payload := range map[string][]byte{"auth-agent-req@openssh.com": nil, "x11-req": someDisplay} {
				if ok, err := s.SendRequest(kind, true, payload); err != nil || !ok {
					t.Fatalf("%s: %v, %v", kind, ok, err)
				}
			}
		}
		out, err := s.Output("anything")
		if want := fmt.Sprintf("auth-agent@openssh.com %v\nx11 %v\n", lends, lends); err != nil || string(out) != want {
			t.Errorf("lent %v: got %q, %v", lends, out, err)
		}
	}
}

// TestNothingIsLentForWhatIsRefused: a host has the connection before anybody
// decided on the command that asks for the agent.
func TestNothingIsLentForWhatIsRefused(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "agent": "true", "x11": "true"}, host: pushyHost, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if op.Text == "refused" {
				return access.Decision{Verdict: access.Deny, Rule: "no", Say: "No."}
			}
			return access.Decision{Verdict: access.Allow}
		},
	}})
	c := h.mustDial()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	for kind, payload := range map[string][]byte{"auth-agent-req@openssh.com": nil, "x11-req": someDisplay} {
		if ok, err := s.SendRequest(kind, true, payload); err != nil || !ok {
			t.Fatalf("%s: %v, %v", kind, ok, err)
		}
	}
	if err := s.Run("refused"); err == nil {
		t.Fatal("it ran")
	}
	if s, err = c.NewSession(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("anything"); err != nil || string(out) != "auth-agent@openssh.com false\nx11 false\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestNothingIsSmuggled: what goes on to programs at the host that read it as
// more than a name.
func TestNothingIsSmuggled(t *testing.T) {
	opened := make(chan struct{})
	close(opened)
	b := &bridge{opened: opened, plan: backing.Backing{Env: []string{"LC_*"}, X11: true}}
	fresh := func() *stay { return &stay{b: b, ctx: t.Context()} }
	for _, p := range []x11Payload{
		{Protocol: "MIT-MAGIC-COOKIE-1\nsource /etc/passwd\n", Cookie: "00"}, {Protocol: "MIT-MAGIC-COOKIE-1", Cookie: "00\nextract /tmp/x :0"},
		{Protocol: "a b", Cookie: "00"}, {Cookie: "00"}, {Protocol: "MIT-MAGIC-COOKIE-1"},
	} {
		if fresh().prepareX11(gossh.Marshal(p)) {
			t.Errorf("the display %+v was taken", p)
		}
	}
	if fresh().prepareX11(nil) || !fresh().prepareX11(someDisplay) {
		t.Error("no display was taken for one, or one for none")
	}
	for name, good := range map[string]bool{
		"": true, "xterm-256color": true, "screen.xterm-256color": true, "xterm+256color": true, "Apple_Terminal": true,
		"() { :;}; id": false, "../../tmp/x": false, "/tmp/x": false, "-x": false, "x\ny": false, "a b": false, "\x1b[2J": false, strings.Repeat("x", 65): false,
	} {
		if fresh().preparePty(gossh.Marshal(ptyPayload{Term: name})) != good {
			t.Errorf("the terminal %q: want it taken %v", name, good)
		}
	}
	for value, good := range map[string]bool{"de_DE.UTF-8": true, "(": true, "": true, "() { :;}; id": false, " (){ :;}; id": false} {
		if fresh().prepareEnv(gossh.Marshal(envPayload{"LC_A", value})) != good {
			t.Errorf("the value %q: want it taken %v", value, good)
		}
	}
}

// TestConnectionsInsideOfOne: somebody known opens SSH connections inside of
// one, and more inside of those. They are bounded all together.
func TestConnectionsInsideOfOne(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	outer := h.mustDial()
	inside := func(c *gossh.Client) (gossh.Channel, error) {
		ch, requests, err := c.OpenChannel("direct-tcpip", gossh.Marshal(directPayload{Host: "web-1", Port: 22, Origin: "127.0.0.1", OriginPort: 1}))
		if err == nil {
			go gossh.DiscardRequests(requests)
		}
		return ch, err
	}
	ch, err := inside(outer)
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := gossh.NewClientConn(channelConn{ch, outer.LocalAddr(), outer.RemoteAddr()}, "web-1:22", &gossh.ClientConfig{
		User: "web-1", Auth: []gossh.AuthMethod{gossh.Password(h.gate.Token("alice"))}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	inner := gossh.NewClient(conn, channels, requests)
	for i := 1; i < maxNested; i++ {
		if _, err := inside([]*gossh.Client{outer, inner}[i%2]); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	for name, c := range map[string]*gossh.Client{"outer": outer, "inner": inner} {
		if _, err := inside(c); err == nil || !strings.Contains(err.Error(), "the most") {
			t.Errorf("one more inside of the %s one: %v", name, err)
		}
	}
	_ = inner.Close()
	eventually(t, "there is room again", func() bool { _, err := inside(outer); return err == nil })
}

// TestPathsThatNobodyCanRead: what a person could not be shown as it is, is
// refused.
func TestPathsThatNobodyCanRead(t *testing.T) {
	f := newFolders(t)
	f.put(t, "write/latin-\xe9", "x")
	if err := os.Symlink(f.write+"/latin-\xe9", f.write+"/good"); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, houseOptions{read: []string{f.write}, write: []string{f.write}})
	r := h.rawSFTP(t)
	for _, name := range []string{f.write + "/latin-\xe9", f.write + "/good", f.write + "/a\x00b"} {
		if p := r.ask(r.message(fxOpen).text(name).uint32(openRead).uint32(0)); p.kind != fxStatus || statusCode(p) != fxDenied {
			t.Errorf("%q: packet %d", name, p.kind)
		}
	}
}

// TestLengthIsBounded: a file gets no longer than it may by its attributes.
func TestLengthIsBounded(t *testing.T) {
	f := newFolders(t)
	path := f.put(t, "write/file", "x")
	h := newHouse(t, houseOptions{read: []string{f.write}, write: []string{f.write}, role: map[string]string{"max_file": "64KiB"}})
	r := h.rawSFTP(t)
	long := func(m message) message { return m.uint32(attrSize).uint32(0).uint32(64<<10 + 1) }
	handle := r.open(path, openChange)
	for name, m := range map[string]message{"setstat": long(r.message(fxSetstat).text(path)), "fsetstat": long(r.message(fxFsetstat).text(handle))} {
		if code := statusCode(r.ask(m)); code != fxDenied {
			t.Errorf("%s: code %d", name, code)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// TestRenameWhileAPersonDecides: what is renamed is looked at again when its
// new name was held for a while.
func TestRenameWhileAPersonDecides(t *testing.T) {
	f := newFolders(t)
	if err := os.Mkdir(f.write+"/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	f.put(t, "write/sub/key", "harmless\n")
	h := newHouse(t, houseOptions{read: []string{f.write}, write: []string{f.write}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if strings.HasPrefix(op.Text, "rename to ") {
				return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
			}
			return access.Decision{Verdict: access.Allow}
		},
		OnHeld: func(access.Held) *gatewaytest.Reply {
			f.exchange(t)
			time.Sleep(aWhile) // bob thinks
			return &gatewaytest.Reply{By: gatewaytest.User("bob"), Approve: true}
		},
	}})
	r := h.rawSFTP(t)
	p := r.ask(r.message(fxRename).text(f.write + "/sub/key").text(f.write + "/mine"))
	f.back(t)
	if code := statusCode(p); code != fxDenied {
		t.Errorf("got code %d", code)
	}
	f.unharmed(t)
}

// TestApproverSeesWhatIsSet: who approves a change of a file's attributes, or
// one end of a rename, is shown the rest of it.
func TestApproverSeesWhatIsSet(t *testing.T) {
	f := newFolders(t)
	file := f.put(t, "write/file", "x")
	h := newHouse(t, houseOptions{write: []string{f.write}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if op.Kind == kindFile {
				return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
			}
			return access.Decision{Verdict: access.Allow}
		},
		OnHeld: func(access.Held) *gatewaytest.Reply {
			return &gatewaytest.Reply{By: gatewaytest.User("bob"), Approve: true}
		},
	}})
	r := h.rawSFTP(t)
	set := r.message(fxSetstat).text(file).uint32(attrMode | attrOwner | attrTimes).uint32(uint32(os.Getuid())).uint32(uint32(os.Getgid())).uint32(0o4755).uint32(0).uint32(0)
	for name, m := range map[string]message{
		"set": set, "rename": r.message(fxRename).text(file).text(f.write + "/other"),
	} {
		if code := statusCode(r.ask(m)); code != fxOK {
			t.Errorf("%s: code %d", name, code)
		}
		file = f.write + "/file"
		_ = os.Rename(f.write+"/other", file)
	}
	for text, want := range map[string][]string{
		"setstat " + file:                 {"mode 4755", fmt.Sprintf("owner %d, group %d", os.Getuid(), os.Getgid()), "modified 1970-01-01T00:00:00Z"},
		"rename " + file:                  {fmt.Sprintf("to %q", f.write+"/other")},
		"rename to " + f.write + "/other": {fmt.Sprintf("from %q", file)},
	} {
		shown := h.context(text)
		for _, w := range want {
			if !slices.Contains(shown, w) {
				t.Errorf("of %s the approver sees %q, want %q", text, shown, w)
			}
		}
	}
	for name, m := range map[string]message{
		"more than is known": r.message(fxSetstat).text(file).uint32(1 << 31).uint32(1).text("acl").text("x"),
		"something behind":   r.message(fxSetstat).text(file).uint32(attrMode).uint32(0o600).uint32(0),
		"less than it says":  r.message(fxSetstat).text(file).uint32(attrMode),
	} {
		if code := statusCode(r.ask(m)); code != fxDenied {
			t.Errorf("%s: code %d, want it refused", name, code)
		}
	}
}

// context is what else an approver saw of the last operation of that text.
func (h *house) context(text string) (shown []string) {
	for _, e := range h.gate.Tape.Events("") {
		if e.Operation != nil && e.Operation.Text == text {
			shown = e.Operation.Context
		}
	}
	return shown
}
