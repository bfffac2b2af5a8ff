package lease_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/lease"
)

const password = "5f0c-hunter2"

var grant = access.GrantKey{Repo: 7, ID: "inc-1"}

// world is a control side's door, and a gateway before it.
type world struct {
	client *lease.Client
	server *httptest.Server
	conf   *tls.Config // the gateway's
	log    *bytes.Buffer

	mu    sync.Mutex
	name  string // of who asks
	who   error
	mint  error
	keep  error
	given []lease.Given
	now   time.Time
}

// Lease implements gateway.Minter.
func (w *world) Lease(_ context.Context, key access.GrantKey, session string) (access.Lease, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return made(key, session), w.mint
}

func made(key access.GrantKey, session string) access.Lease {
	return access.Lease{
		Grant: key, Generation: 3, Session: session, Address: "db:5432/orders", User: "tg_role", Password: access.NewSecret(password),
		ServerCA: []byte("ca"), ServerName: "db", Backing: []byte(`{"role":"tg_role"}`), NotAfter: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{log: &bytes.Buffer{}, name: "gateway-1", now: time.Now()}
	handler, err := lease.Handler(lease.Config{
		Minter:  w,
		Gateway: func(*http.Request) (string, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.name, w.who },
		Given: func(_ context.Context, g lease.Given) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.given = append(w.given, g)
			return w.keep
		},
		Certify: func(_ context.Context, gateway string, key ed25519.PublicKey) (lease.Certified, error) {
			return lease.Certified{Certificate: gateway + " has a key", CA: key}, w.mint
		},
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(handler)
	w.server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(w.server.Certificate())
	w.conf = &tls.Config{RootCAs: roots, ServerName: "example.com", Certificates: []tls.Certificate{selfSigned(t)}}
	w.client = w.dial(t)
	return w
}

func (w *world) dial(t *testing.T) *lease.Client {
	t.Helper()
	c, err := lease.NewClient(w.server.Listener.Addr().String(), w.conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway-1"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestLeaseCrosses(t *testing.T) {
	w := newWorld(t)
	got, err := w.client.Lease(t.Context(), grant, "s-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made(grant, "s-1"), got, cmp.Comparer(func(a, b access.Secret) bool { return a.Reveal() == b.Reveal() })); diff != "" {
		t.Errorf("the credential changed on its way (-want +got):\n%s", diff)
	}
	want := []lease.Given{{Gateway: "gateway-1", Grant: grant, Generation: 3, Session: "s-1"}}
	if diff := cmp.Diff(want, w.given); diff != "" {
		t.Errorf("what was kept of it (-want +got):\n%s", diff)
	}
	if text := w.log.String(); strings.Contains(text, password) || !strings.Contains(text, "session=s-1") {
		t.Errorf("want the session and no password in the log:\n%s", text)
	}
}

// TestCertifyCrosses: the CA is told which gateway asks by its certificate, and
// nobody else's is vouched for.
func TestCertifyCrosses(t *testing.T) {
	w := newWorld(t)
	key := ed25519.PublicKey(bytes.Repeat([]byte{7}, ed25519.PublicKeySize))
	got, err := w.client.Certify(t.Context(), key)
	if err != nil || got.Certificate != "gateway-1 has a key" || !bytes.Equal(got.CA, key) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := w.client.Certify(t.Context(), key[1:]); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("a key of 31 bytes: %v", err)
	}
	w.who = access.Errorf(access.CodeDenied, "The gateway is not enrolled at this control side.")
	if _, err := w.client.Certify(t.Context(), key); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("a stranger: %v", err)
	}
}

// TestWholeLeaseCrosses: a field that is new in a lease must cross as well.
func TestWholeLeaseCrosses(t *testing.T) {
	l := reflect.ValueOf(made(grant, "s-1"))
	for i := range l.NumField() {
		if l.Field(i).IsZero() {
			t.Errorf("the field %s is empty in this test: fill it in, and see whether it crosses", l.Type().Field(i).Name)
		}
	}
}

func TestRefusals(t *testing.T) {
	cases := map[string]struct {
		spoil   func(*world)
		code    access.Code
		message string
	}{
		"not enrolled":  {func(w *world) { w.who = access.Errorf(access.CodeDenied, "The gateway is not enrolled.") }, access.CodeDenied, "The gateway is not enrolled."},
		"grant is over": {func(w *world) { w.mint = access.Errorf(access.CodeEnded, "Grant inc-1 is over.") }, access.CodeEnded, "Grant inc-1 is over."},
		"no such grant": {func(w *world) { w.mint = access.Errorf(access.CodeNotFound, "No grant.") }, access.CodeNotFound, "No grant."},
		"ledger down": {func(w *world) {
			w.mint = &access.Error{Code: access.CodeUnavailable, Message: "The ledger does not answer.", Cause: errors.New("secret cause")}
		}, access.CodeUnavailable, "The ledger does not answer."},
		"not kept":   {func(w *world) { w.keep = access.Errorf(access.CodeUnavailable, "Not audited.") }, access.CodeUnavailable, "Not audited."},
		"our fault":  {func(w *world) { w.mint = errors.New("secret cause") }, access.CodeInternal, ""},
		"long words": {func(w *world) { w.mint = access.Errorf(access.CodeDenied, "%s", strings.Repeat("é", 1000)) }, access.CodeDenied, strings.Repeat("é", 512)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.spoil(w)
			got, err := w.client.Lease(t.Context(), grant, "s-1")
			if access.CodeOf(err) != c.code || c.message != "" && access.Message(err) != c.message {
				t.Errorf("got %v (%s), want %s %q", err, access.CodeOf(err), c.code, c.message)
			}
			if err != nil && strings.Contains(err.Error(), "secret cause") || !got.Password.IsZero() {
				t.Errorf("more crossed than a code and a sentence: %v, %v", err, got)
			}
		})
	}
}

// TestControlAway: nobody there, somebody else there, or nonsense.
func TestControlAway(t *testing.T) {
	away := func(t *testing.T, c *lease.Client) {
		t.Helper()
		_, err := c.Lease(t.Context(), grant, "s-1")
		if access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.Message(err), "no new session opens") {
			t.Errorf("got %v (%s), want a sentence that control does not answer", err, access.CodeOf(err))
		}
	}
	t.Run("stopped", func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.client.Lease(t.Context(), grant, "s-1"); err != nil {
			t.Fatal(err)
		}
		w.server.Close()
		away(t, w.client)
	})
	t.Run("another server", func(t *testing.T) {
		w := newWorld(t)
		w.conf.ServerName = "control.tidegate.internal"
		away(t, w.dial(t))
	})
	t.Run("nonsense", func(t *testing.T) {
		w := newWorld(t)
		w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "<html>") })
		away(t, w.client)
	})
	t.Run("a redirect is not followed", func(t *testing.T) {
		w := newWorld(t)
		w.server.Config.Handler = http.RedirectHandler("https://127.0.0.1:1/", http.StatusTemporaryRedirect)
		if _, err := w.client.Lease(t.Context(), grant, "s-1"); err == nil {
			t.Error("want an error")
		}
	})
}

func TestQuestionsAreBounded(t *testing.T) {
	w := newWorld(t)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: w.conf}}
	t.Cleanup(c.CloseIdleConnections)
	for name, body := range map[string]string{
		"empty":         "",
		"no grant":      `{"session":"s-1"}`,
		"no session":    `{"grant":{"repo":7,"id":"inc-1"}}`,
		"odd session":   `{"grant":{"repo":7,"id":"inc-1"},"session":"../s"}`,
		"unknown field": `{"grant":{"repo":7,"id":"inc-1"},"session":"s-1","user":"postgres"}`,
		"twice":         `{"grant":{"repo":7,"id":"inc-1"},"session":"s-1"}{}`,
		"large":         `{"grant":{"repo":7,"id":"` + strings.Repeat("x", 8<<10) + `"},"session":"s-1"}`,
	} {
		res, err := c.Post(w.server.URL+lease.Path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), `"invalid"`) {
			t.Errorf("%s: %s %s, %v, want 400 invalid", name, res.Status, text, err)
		}
	}
	if res, err := c.Get(w.server.URL + lease.Path); err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v, want 405", res, err)
	}
	if len(w.given) != 0 {
		t.Errorf("%d credentials were given", len(w.given))
	}
}

// TestRate: one gateway can't ask without end, and does not stand in the way
// of another.
func TestRate(t *testing.T) {
	w := newWorld(t)
	ask := func() access.Code {
		if _, err := w.client.Lease(t.Context(), grant, "s-1"); err != nil {
			return access.CodeOf(err)
		}
		return ""
	}
	n := 0
	for ; n < 1000 && ask() == ""; n++ {
	}
	if n != 200 {
		t.Errorf("%d credentials at once, want a bound of 200", n)
	}
	w.name = "gateway-2"
	if code := ask(); code != "" {
		t.Errorf("another gateway: %s, want none", code)
	}
	w.name = "gateway-1"
	if code := ask(); code != access.CodeUnavailable {
		t.Errorf("got %q, want %s", code, access.CodeUnavailable)
	}
	w.now = w.now.Add(time.Second)
	if code := ask(); code != "" {
		t.Errorf("a second later: %s, want none", code)
	}
}

func TestClientWantsProof(t *testing.T) {
	w := newWorld(t)
	for name, spoil := range map[string]func(*tls.Config){
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"no CA":          func(c *tls.Config) { c.RootCAs = nil },
		"no checks":      func(c *tls.Config) { c.InsecureSkipVerify = true },
	} {
		c := w.conf.Clone()
		spoil(c)
		if _, err := lease.NewClient("127.0.0.1:1", c); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	if _, err := lease.Handler(lease.Config{}); err == nil {
		t.Error("a handler of nothing: want an error")
	}
}
