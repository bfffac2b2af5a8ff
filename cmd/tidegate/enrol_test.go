package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/lease"
)

// minted answers with an empty credential.
type minted struct{}

func (minted) Lease(_ context.Context, key access.GrantKey, session string) (access.Lease, error) {
	return access.Lease{Grant: key, Session: session, Password: access.NewSecret("hunter2")}, nil
}

// doorWorld is a control side's door with its gateways.
type doorWorld struct {
	known   *gateways
	control ed25519.PublicKey
	address string
	now     time.Time
	dir     string
}

func newDoorWorld(t *testing.T) *doorWorld {
	t.Helper()
	w := &doorWorld{dir: t.TempDir(), now: time.Now()}
	state := filepath.Join(w.dir, "state")
	keys, err := openControlKeys(filepath.Join(state, keysDir))
	if err != nil {
		t.Fatal(err)
	}
	w.control = keys.control.Public().(ed25519.PublicKey)
	if w.known, err = openGateways(state, func() time.Time { return w.now }); err != nil {
		t.Fatal(err)
	}
	handler, err := lease.Handler(lease.Config{
		Minter: minted{}, Gateway: w.known.identify, Given: func(context.Context, lease.Given) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(handler)
	srv.TLS = w.known.tls()
	srv.StartTLS()
	t.Cleanup(srv.Close)
	w.address = srv.Listener.Addr().String()
	return w
}

// enrol enrols a gateway and opens what it was given.
func (w *doorWorld) enrol(t *testing.T, name, out string) *enrolment {
	t.Helper()
	out = filepath.Join(w.dir, out)
	if err := w.known.enrol(name, out, w.control); err != nil {
		t.Fatal(err)
	}
	e, err := openEnrolment(out, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (w *doorWorld) ask(t *testing.T, conf *tls.Config) error {
	t.Helper()
	c, err := lease.NewClient(w.address, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Lease(t.Context(), access.GrantKey{Repo: 1, ID: "inc-1"}, "s-1")
	return err
}

func TestEnrolment(t *testing.T) {
	w := newDoorWorld(t)
	e := w.enrol(t, "gateway-1", "one")
	if e.Name != "gateway-1" || !e.Control.Equal(w.control) {
		t.Errorf("got the name %q, and control's key %v, want that of control", e.Name, e.Control)
	}
	if err := w.ask(t, e.tls()); err != nil {
		t.Errorf("an enrolled gateway: %v", err)
	}
	if key, err := w.known.key("gateway-1"); err != nil || !key.Equal(e.Key.Public()) {
		t.Errorf("got another key than the gateway's, %v", err)
	}
	if err := w.known.enrol("gateway-1", filepath.Join(w.dir, "again"), w.control); err == nil || !strings.Contains(err.Error(), "--remove") {
		t.Errorf("enrolled twice: got %v, want what to do", err)
	}
	if err := w.known.enrol("gateway-2", filepath.Join(w.dir, "one"), w.control); err == nil || !strings.Contains(err.Error(), "new folder") {
		t.Errorf("into a folder that is there: got %v, want what to do", err)
	}
	for _, name := range []string{"", "../keys/control", "Gateway", "gateway-9"} {
		if _, err := w.known.key(name); access.CodeOf(err) != access.CodeDenied {
			t.Errorf("key of %q: got %v, want it denied", name, err)
		}
	}
}

// TestRemovedGateway: what control forgot gets nothing from the next question
// on, also over a connection that is open.
func TestRemovedGateway(t *testing.T) {
	w := newDoorWorld(t)
	old := w.enrol(t, "gateway-1", "one")
	c, err := lease.NewClient(w.address, old.tls())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() error {
		_, err := c.Lease(t.Context(), access.GrantKey{Repo: 1, ID: "inc-1"}, "s-1")
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if err := w.known.remove("gateway-1"); err != nil {
		t.Fatal(err)
	}
	if err := ask(); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("removed: got %v, want it denied", err)
	}
	if err := w.known.remove("gateway-1"); err == nil {
		t.Error("removed twice: want an error")
	}
	again := w.enrol(t, "gateway-1", "two")
	if err := ask(); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("with the enrolment of before: got %v, want it denied", err)
	}
	if err := w.ask(t, again.tls()); err != nil {
		t.Errorf("with the new one: %v", err)
	}
}

// TestStrangersAtTheDoor: nobody gets in without a certificate of ours for
// this very use, and no gateway takes another for control.
func TestStrangersAtTheDoor(t *testing.T) {
	w, elsewhere := newDoorWorld(t), newDoorWorld(t)
	mine, theirs := w.enrol(t, "gateway-1", "one"), elsewhere.enrol(t, "gateway-1", "one")
	door, err := w.known.doorCertificate()
	if err != nil {
		t.Fatal(err)
	}
	with := func(edit func(*tls.Config)) *tls.Config {
		c := mine.tls()
		edit(c)
		return c
	}
	for name, conf := range map[string]*tls.Config{
		"another control side's gateway": with(func(c *tls.Config) { c.Certificates = theirs.tls().Certificates }),
		"the door's own certificate":     with(func(c *tls.Config) { c.Certificates = []tls.Certificate{*door} }),
		"another control side":           with(func(c *tls.Config) { c.RootCAs = theirs.CA }),
		"another name":                   with(func(c *tls.Config) { c.ServerName = "localhost" }),
	} {
		if err := w.ask(t, conf); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("%s: got %v, want no connection", name, err)
		}
	}
	old := with(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	old.MinVersion = tls.VersionTLS12
	if conn, err := tls.Dial("tcp", w.address, old); err == nil {
		conn.Close()
		t.Error("TLS 1.2 at the door: want it refused")
	}
}

// TestForeignName: a certificate of our CA with a name that was enrolled with
// another is nobody's.
func TestForeignName(t *testing.T) {
	w := newDoorWorld(t)
	first := w.enrol(t, "gateway-1", "one")
	if err := os.Rename(w.known.file("gateway-1"), w.known.file("gateway-1")+".kept"); err != nil {
		t.Fatal(err)
	}
	w.enrol(t, "gateway-1", "two")
	if err := w.ask(t, first.tls()); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("got %v, want it denied", err)
	}
}

func TestEnrolmentEnds(t *testing.T) {
	w := newDoorWorld(t)
	w.enrol(t, "gateway-1", "one")
	dir := filepath.Join(w.dir, "one")
	if _, err := openEnrolment(dir, w.now.Add(enrolmentLasts+time.Hour)); err == nil || !strings.Contains(err.Error(), "enrol the gateway again") {
		t.Errorf("got %v, want what to do when it is over", err)
	}
	first, err := w.known.doorCertificate()
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(doorCertLasts/2 + time.Hour)
	second, err := w.known.doorCertificate()
	if err != nil || second.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 {
		t.Errorf("want a new certificate long before the old one ends, got the same: %v", err)
	}
}

func TestEnrolmentFilesRefused(t *testing.T) {
	w := newDoorWorld(t)
	for name, spoil := range map[string]func(dir string) error{
		"key.pem: others may use it":    func(dir string) error { return os.Chmod(filepath.Join(dir, enrolKey), 0o640) },
		"ca.pem: no such file":          func(dir string) error { return os.Remove(filepath.Join(dir, enrolCA)) },
		"control.pub.pem: it is empty":  func(dir string) error { return os.WriteFile(filepath.Join(dir, enrolControl), nil, 0o600) },
		"read certificate.pem with key": func(dir string) error { return os.WriteFile(filepath.Join(dir, enrolKey), []byte("x"), 0o600) },
		"verify certificate.pem":        func(dir string) error { return os.WriteFile(filepath.Join(dir, enrolCA), []byte("x"), 0o600) },
		"read control.pub.pem: parse":   func(dir string) error { return os.WriteFile(filepath.Join(dir, enrolControl), []byte("x"), 0o600) },
	} {
		out := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ":", "")
		w.enrol(t, "g-"+strings.ToLower(strings.ReplaceAll(out, ".", "-")), out)
		dir := filepath.Join(w.dir, out)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := openEnrolment(dir, w.now); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want an error with %q", err, name)
		}
	}
}
