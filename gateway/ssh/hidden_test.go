package ssh

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// TestHandleHidesNoMode: mallory opens a file as anybody would, and makes it
// another account's, or one that runs as its owner, by its handle.
func TestHandleHidesNoMode(t *testing.T) {
	f := newFolders(t)
	path := f.put(t, "write/file", "x")
	refused := false
	h := newHouse(t, houseOptions{write: []string{f.write}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if refused && strings.HasPrefix(op.Text, "setstat ") {
				return access.Decision{Verdict: access.Deny, Rule: "modes", Say: "No."}
			}
			return access.Decision{Verdict: access.Allow}
		},
	}})
	r := h.rawSFTP(t)
	handle := r.open(path, openChange)
	mode := func(m uint32) message { return r.message(fxFsetstat).text(handle).uint32(attrMode).uint32(m) }
	owner := func() message {
		return r.message(fxFsetstat).text(handle).uint32(attrOwner).uint32(uint32(os.Getuid())).uint32(uint32(os.Getgid()))
	}
	for _, one := range []struct {
		ask  func() message
		want string
	}{
		{func() message { return mode(0o100755) }, ""}, // clients send one with each file
		{func() message { return mode(0o4755) }, "mode 4755"},
		{owner, fmt.Sprintf("owner %d, group %d", os.Getuid(), os.Getgid())},
	} {
		if code := statusCode(r.ask(one.ask())); code != fxOK {
			t.Errorf("%q: code %d", one.want, code)
		}
		if shown := h.context("setstat " + path); one.want != "" && !slices.Contains(shown, one.want) || one.want == "" && shown != nil {
			t.Errorf("the recording has %q, want %q", shown, one.want)
		}
	}
	refused = true
	for name, m := range map[string]message{
		"a mode": mode(0o2755), "an owner": owner(),
		"more than is known": r.message(fxFsetstat).text(handle).uint32(1 << 31).uint32(1).text("acl").text("x"),
		"something behind":   mode(0o600).uint32(0),
	} {
		if code := statusCode(r.ask(m)); code != fxDenied {
			t.Errorf("%s: code %d, want it refused", name, code)
		}
	}
	if code := statusCode(r.ask(mode(0o600))); code != fxOK {
		t.Errorf("a plain mode: code %d", code)
	}
}

// TestRenameRevealsNothing: a folder that may be written and not read is not
// read by moving what lies in it, and no folder of the role is put in
// another's place.
func TestRenameRevealsNothing(t *testing.T) {
	f := newFolders(t)
	for _, dir := range []string{"/drop", "/drop/inner", "/drop/inner/read", "/spare"} {
		if err := os.Mkdir(f.root+dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f.put(t, "drop/key", "of somebody else\n")
	if err := os.Symlink(f.secret, f.root+"/drop/link"); err != nil {
		t.Fatal(err)
	}
	drop, spare := f.root+"/drop", f.root+"/spare"
	h := newHouse(t, houseOptions{read: []string{f.write, drop + "/inner/read"}, write: []string{f.write, drop, spare}})
	r := h.rawSFTP(t)
	rename := func(from, to string) uint32 { return statusCode(r.ask(r.message(fxRename).text(from).text(to))) }
	posix := func(from, to string) uint32 {
		return statusCode(r.ask(r.message(fxExtended).text("posix-rename@openssh.com").text(from).text(to)))
	}
	for _, c := range []struct{ from, to string }{
		{drop + "/key", f.write + "/mine"},
		{drop + "/key", drop + "/inner/read/mine"},
		{drop + "/inner", drop + "/outer"},
		{drop + "/inner/read", drop + "/unread"},
		{spare, drop + "/spare"},
		{drop + "/link", spare},
		{drop + "/key", spare},
	} {
		for name, by := range map[string]func(string, string) uint32{"rename": rename, "posix-rename": posix} {
			if code := by(c.from, c.to); code != fxDenied {
				t.Errorf("%s %s %s: code %d, want it refused", name, c.from, c.to, code)
			}
		}
	}
	f.put(t, "write/own", "mine\n")
	f.put(t, "spare/other", "mine\n")
	for _, c := range []struct{ from, to string }{
		{f.write + "/own", f.write + "/moved"}, {f.write + "/moved", drop + "/moved"}, {spare + "/other", drop + "/other"}, {drop + "/other", drop + "/inner/other"},
	} {
		if code := rename(c.from, c.to); code != fxOK {
			t.Errorf("rename %s %s: code %d", c.from, c.to, code)
		}
	}
}

// TestServerThatFollowsNoLinks: where an sftp server says of a path with a link
// that it leads nowhere else, and nothing proves what was opened, the link is
// seen all the same.
func TestServerThatFollowsNoLinks(t *testing.T) {
	through := map[string]func(string) message{
		"open":    func(p string) message { return newMessage(fxOpen, 1).text(p).uint32(openChange).uint32(0) },
		"list":    func(p string) message { return newMessage(fxOpendir, 1).text(p) },
		"stat":    func(p string) message { return newMessage(fxStat, 1).text(p) },
		"lstat":   func(p string) message { return newMessage(fxLstat, 1).text(p + "/x") },
		"remove":  func(p string) message { return newMessage(fxRemove, 1).text(p + "/x") },
		"mkdir":   func(p string) message { return newMessage(fxMkdir, 1).text(p + "/x").uint32(0) },
		"setstat": func(p string) message { return newMessage(fxSetstat, 1).text(p).uint32(attrMode).uint32(0o600) },
		"rename":  func(p string) message { return newMessage(fxRename, 1).text("/srv/app/a").text(p + "/x") },
	}
	for name, ask := range through {
		for _, c := range []struct {
			link   string
			denied bool
		}{{"/srv/app/out", true}, {"/srv/app/else", false}, {"/srv", false}, {"/srv/app", false}} {
			h := newHost()
			h.link = c.link
			sent := append(newMessage(fxInit, fileVersion).sealed(), ask("/srv/app/out").sealed()...)
			client := &paper{Reader: bytes.NewReader(sent)}
			ctx, cancel := context.WithCancelCause(t.Context())
			b := &bridge{log: discard, ctx: ctx, session: sessionAll{}, plan: backing.Backing{Read: []string{"/srv/app"}, Write: []string{"/srv/app"}}}
			newCourier(&stay{b: b, client: client, ctx: ctx, leave: cancel}, h, b.stands(openAll{}, 1, nil)).run()
			cancel(nil)
			_ = h.Close()
			buf := new([]byte)
			_, _ = readPacket(&client.Buffer, buf) // the version
			p, err := readPacket(&client.Buffer, buf)
			denied := err == nil && p.kind == fxStatus && statusCode(p) == fxDenied
			if denied != c.denied {
				t.Errorf("%s with a link at %s: denied %v, want %v; the host is asked %q", name, c.link, denied, c.denied, h.got)
			}
		}
	}
}
