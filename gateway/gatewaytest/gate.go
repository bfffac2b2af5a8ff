// Package gatewaytest is a whole gateway in memory, for tests of rooms and of
// the gateway itself. The server, the identifier, the signatures and the
// issuer are the real ones; the ledger, the minter, the compiler and the
// recorder are in memory, and can be told to fail.
//
//	g := gatewaytest.New(t, gatewaytest.Options{Role: role, Lease: lease})
//	go room.Serve(ctx, conn, g.Server.Door())
//	... log in with g.Token("alice"), who has the active grant inc-1 ...
//	g.Revoke("inc-1", "The incident is over.")
//
// It works inside synctest bubbles: no part of it uses the network.
package gatewaytest

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
)

const (
	provider = "dev"
	audience = "tidegate"
	patience = 20 * time.Second // for what another goroutine must do
)

// Options are what a test wants to be different. The zero value is a gateway
// for postgres.orders-prod where alice has the grant inc-1 for an hour.
type Options struct {
	Target access.Target
	Role   access.Role
	Masks  []access.Mask
	Lasts  time.Duration // the first grant's length
	Empty  bool          // there is no first grant

	// Judge decides what no rule decides; nil allows everything.
	Judge func(access.Operation) access.Decision

	// Lease fills in the credential of a session: address, user, password and
	// backing. The grant, generation, session and end are filled in already.
	Lease func(access.Grant, *access.Lease) error

	// OnHeld answers a held operation at once, unless it returns nil.
	OnHeld func(access.Held) *Reply

	// OnConsume runs when an answer is being taken, just before the operation
	// may go on.
	OnConsume func(g *Gate, id string)

	Recorders gateway.Recorders     // instead of the one in memory
	Compiler  gateway.Compiler      // instead of Judge and the rules of Compile
	Tune      func(*gateway.Config) // a last word

	// Still leaves the background out: nothing is refreshed but by Put,
	// Change, Rules and Server.Refresh, and the first refresh is the test's.
	Still bool
}

// Gate is a gateway in memory.
type Gate struct {
	Server *gateway.Server
	Issuer *devissuer.Issuer
	Ledger *Ledger
	Tape   *Tape // what was recorded, unless Options.Recorders is another

	t      testing.TB
	opts   Options
	key    ed25519.PrivateKey // control's
	known  ed25519.PublicKey  // the gateway's own
	faults faults
}

// New makes a gateway that ends with the test.
func New(t testing.TB, o Options) *Gate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatalf("make control's key: %v", err)
	}
	known, own, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatalf("make the gateway's key: %v", err)
	}
	o.defaults()
	g := &Gate{t: t, opts: o, key: key, known: known}
	g.Ledger, g.Tape = newLedger(g), &Tape{gate: g, events: map[string][]access.Event{}, sealed: map[string]string{}}
	cfg := gateway.Config{
		Ledger: g.Ledger, Minter: minter{g}, Identifier: g.identifier(), Compiler: compiler{g}, Recorders: g.Tape, ControlKey: public, Key: own,
	}
	if o.Recorders != nil {
		cfg.Recorders = o.Recorders
	}
	if o.Compiler != nil {
		cfg.Compiler = o.Compiler
	}
	if o.Tune != nil {
		o.Tune(&cfg)
	}
	if g.Server, err = gateway.New(cfg); err != nil {
		t.Fatal(err)
	}
	if !o.Empty {
		g.Ledger.put(g.NewGrant("inc-1", o.Lasts))
	}
	g.run()
	return g
}

func (o *Options) defaults() {
	if o.Target.TargetRef == (access.TargetRef{}) {
		o.Target.TargetRef = access.TargetRef{Kind: "postgres", Name: "orders-prod"}
	}
	if o.Role.Name == "" {
		o.Role.Name = "read"
	}
	if o.Lasts == 0 {
		o.Lasts = time.Hour
	}
	if o.Judge == nil {
		o.Judge = func(access.Operation) access.Decision { return access.Decision{Verdict: access.Allow} }
	}
}

// identifier is the real one; it reaches the real issuer without a network.
func (g *Gate) identifier() gateway.Identifier {
	g.t.Helper()
	var err error
	if g.Issuer, err = devissuer.Open(g.t.TempDir()); err != nil {
		g.t.Fatal(err)
	}
	g.Issuer.SetURL("http://127.0.0.1")
	issuers := []identify.Issuer{{Name: provider, URL: g.Issuer.URL(), Audience: audience, AllowHTTPLoopback: true}}
	id, err := identify.New(issuers, identify.Options{Transport: inProcess{g}})
	if err != nil {
		g.t.Fatal(err)
	}
	return id
}

// inProcess hands requests to the issuer itself.
type inProcess struct{ gate *Gate }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := p.gate.faults.of(PortIssuer); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	p.gate.Issuer.ServeHTTP(w, r)
	return w.Result(), nil
}

// run starts the server's background, and ends it with the test.
func (g *Gate) run() {
	if g.opts.Still {
		return
	}
	g.refresh()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Server.Run(ctx) }()
	g.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Errorf("gateway ended: %v", err)
		}
	})
}

// refresh is silent about a snapshot that the test itself broke.
func (g *Gate) refresh() {
	g.t.Helper()
	if err := g.Server.Refresh(context.Background()); err != nil && g.faults.of(PortSnapshot) == nil {
		g.t.Errorf("refresh: %v", err)
	}
}

// Token is a good token of the person, for an hour.
func (g *Gate) Token(person string) string {
	g.t.Helper()
	return g.Mint(devissuer.Claims{Subject: person, Email: person + "@acme.test", EmailVerified: true, Audience: audience})
}

// Mint is a token of whatever claims.
func (g *Gate) Mint(c devissuer.Claims) string {
	g.t.Helper()
	token, err := g.Issuer.Mint(c)
	if err != nil {
		g.t.Fatal(err)
	}
	return token
}

// Knock is what the person brings to the gate's target.
func (g *Gate) Knock(person string) gateway.Knock {
	g.t.Helper()
	return gateway.Knock{Token: access.NewSecret(g.Token(person)), Target: g.opts.Target.TargetRef}
}

// Open opens a session of the person, which must work.
func (g *Gate) Open(person string) gateway.Session {
	g.t.Helper()
	s, err := g.Server.Door().Open(context.Background(), g.Knock(person))
	if err != nil {
		g.t.Fatalf("open session of %s: %v", person, err)
	}
	g.t.Cleanup(func() { _ = s.Close("The test is over.") }) // not its first Close, mostly
	return s
}

// User is the account of a test's person: alice, bob, carol or mallory.
func User(name string) access.User {
	for i, n := range []string{"alice", "bob", "carol", "mallory"} {
		if n == name {
			return access.User{ID: int64(i + 1), Login: n}
		}
	}
	panic("gatewaytest: nobody is called " + name)
}

// Person is the account with the identity that Token makes.
func Person(name string) access.Person {
	return access.Person{User: User(name), Identities: []access.IdentityRef{{Provider: provider, Email: name + "@acme.test"}}}
}

// Team is the party of the people, for a rule's ask.
func Team(name string, people ...string) access.Party {
	p := access.Party{Principal: access.Principal{Kind: access.KindTeam, Name: name}, ID: 100}
	for _, n := range people {
		p.Members = append(p.Members, User(n))
	}
	return p
}

// NewGrant is an active grant of alice on the gate's target. Put makes it
// count.
func (g *Gate) NewGrant(id string, lasts time.Duration) access.Grant {
	now := time.Now().UTC()
	out := access.Grant{
		Key: access.GrantKey{Repo: 1, ID: id}, Generation: 1, State: access.StateActive,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(lasts),
		Pull: access.Pull{Repo: 1, Number: 1, URL: "https://forge.test/pull/1", Author: User("alice")},
		Plan: access.Plan{Target: g.opts.Target, Role: g.opts.Role, Masks: g.opts.Masks, People: []access.Person{Person("alice")}},
	}
	out.Digest = out.Plan.Digest()
	return out
}

// Put writes grants as control would: each with the next sequence, signed.
// The server has read them when it returns.
func (g *Gate) Put(grants ...access.Grant) {
	g.t.Helper()
	g.Ledger.put(grants...)
	g.refresh()
}

// Change writes a new row of the grant.
func (g *Gate) Change(id string, edit func(*access.Grant)) {
	g.t.Helper()
	was, ok := g.Ledger.Grant(id)
	if !ok {
		g.t.Fatalf("change grant: the gate has no %s", id)
	}
	edit(&was)
	g.Put(was)
}

// Revoke ends the grant.
func (g *Gate) Revoke(id, why string) {
	g.t.Helper()
	g.Change(id, func(x *access.Grant) { x.State, x.Why = access.StateRevoked, why })
}

// Rules makes these the rules of today. See compiler for what they may say.
func (g *Gate) Rules(rules ...access.Rule) {
	g.t.Helper()
	g.Ledger.setRules(rules)
	g.refresh()
}

// Sign signs any row, as control would.
func (g *Gate) Sign(payload []byte) gateway.SignedGrant {
	return gateway.SignedGrant{Payload: payload, Signature: ed25519.Sign(g.key, access.GrantSigningBytes(payload))}
}

// Reply is a person's answer to a held operation.
type Reply struct {
	By      access.User
	Approve bool
	Edit    func(*access.Answer) // changes the answer before it is signed
	Forge   func(*access.Answer) // changes it after
}

// Answer answers a held operation, signed by control.
func (g *Gate) Answer(h access.Held, r Reply) {
	g.t.Helper()
	if err := g.Ledger.answer(h, g.signed(h, r)); err != nil {
		g.t.Errorf("answer %s: %v", h.Name(), err)
	}
}

func (g *Gate) signed(h access.Held, r Reply) access.Answer {
	a := access.Answer{Held: h.ID, Digest: h.Digest, Approve: r.Approve, By: r.By, At: time.Now().UTC()}
	if r.Edit != nil {
		r.Edit(&a)
	}
	a.Signature = ed25519.Sign(g.key, a.SigningBytes())
	if r.Forge != nil {
		r.Forge(&a)
	}
	return a
}

// NextHeld waits for the next operation that is held.
func (g *Gate) NextHeld() access.Held {
	g.t.Helper()
	select {
	case h := <-g.Ledger.opened:
		return h
	case <-time.After(patience):
		g.t.Fatalf("no operation was held within %s", patience)
		return access.Held{}
	}
}

// Port is a part that can be told to fail.
type Port string

// The ports that fail. Each is one method or two of the gateway's ports.
const (
	PortIssuer       Port = "issuer"
	PortSnapshot     Port = "snapshot"
	PortPin          Port = "pin"
	PortOpenSession  Port = "open session"
	PortCloseSession Port = "close session"
	PortOpenHeld     Port = "open held"
	PortConsumeHeld  Port = "consume held"
	PortLease        Port = "lease"
	PortCompile      Port = "compile"
	PortRecord       Port = "record" // starting a recording
	PortAppend       Port = "append" // going on with one
	PortSeal         Port = "seal"
)

// Fail makes the port answer with err until it is nil.
func (g *Gate) Fail(p Port, err error) { g.faults.set(p, err) }

type faults struct {
	mu sync.Mutex
	m  map[Port]error
}

func (f *faults) set(p Port, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[Port]error{}
	}
	f.m[p] = err
}

func (f *faults) of(p Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[p]
}
