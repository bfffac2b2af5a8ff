package identify_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
)

var _ gateway.Identifier = (*identify.Identifier)(nil)

// idp is an issuer on a real listener, with keys that a test chooses.
type idp struct {
	url     string
	ca      []byte
	down    atomic.Bool // nothing is answered
	noKeys  atomic.Bool // the keys are not answered
	fetches atomic.Int64

	mu   sync.Mutex
	keys []jose.JSONWebKey
}

func newIDP(t *testing.T, keys ...jose.JSONWebKey) *idp {
	t.Helper()
	p := &idp{keys: keys}
	srv := httptest.NewTLSServer(p)
	t.Cleanup(srv.Close)
	p.url = srv.URL
	p.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return p
}

func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.fetches.Add(1)
	if p.down.Load() || p.noKeys.Load() && r.URL.Path == "/keys" {
		http.Error(w, strings.Repeat("Our hamster is asleep. ", 1000), http.StatusBadGateway)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var v any = jose.JSONWebKeySet{Keys: p.keys}
	if r.URL.Path == "/.well-known/openid-configuration" {
		v = map[string]any{"issuer": p.url, "jwks_uri": p.url + "/keys"}
	}
	_ = json.NewEncoder(w).Encode(v)
}

func (p *idp) publish(keys ...jose.JSONWebKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

func (p *idp) issuer() identify.Issuer {
	return identify.Issuer{Name: "okta", URL: p.url, Audience: "tidegate", CA: p.ca, Claims: []string{"event_name", "run_id", "fork"}}
}

// watch is a clock that tests turn.
type watch struct{ ns atomic.Int64 }

func newWatch() *watch {
	w := &watch{}
	w.ns.Store(time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC).UnixNano())
	return w
}
func (w *watch) now() time.Time          { return time.Unix(0, w.ns.Load()) }
func (w *watch) forward(d time.Duration) { w.ns.Add(int64(d)) }

func newIdentifier(t *testing.T, w *watch, issuers ...identify.Issuer) *identify.Identifier {
	t.Helper()
	id, err := identify.New(issuers, identify.Options{Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// until tries again, some seconds apart on the clock, until it works without
// asking the issuer: go-oidc answers a moment before it stores the keys that
// it fetched, and a caller of that moment gets the old answer.
func until(t *testing.T, w *watch, p *idp, works func() bool) {
	t.Helper()
	for range 1000 {
		w.forward(6 * time.Second)
		before := p.fetches.Load()
		if works() && p.fetches.Load() == before {
			return
		}
		runtime.Gosched()
	}
	t.Fatal("it does not work, or asks the issuer each time")
}

func public(kid string, key crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: kid, Use: "sig"}
}

func newRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEd(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type signing struct {
	alg    jose.SignatureAlgorithm
	key    any
	kid    string
	header map[jose.HeaderKey]any
}

func sign(t *testing.T, s signing, claims map[string]any) string {
	t.Helper()
	opts := (&jose.SignerOptions{ExtraHeaders: s.header}).WithHeader("kid", s.kid)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: s.key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signer.Sign(body)
	if err != nil {
		t.Fatal(err)
	}
	token, err := out.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// good are the claims of a token that is in order, changed by with.
func good(p *idp, w *watch, with map[string]any) map[string]any {
	c := map[string]any{
		"iss": p.url, "sub": "00u1", "aud": "tidegate", "iat": w.now().Unix(), "exp": w.now().Add(time.Hour).Unix(),
		"email": "alice@acme.test", "email_verified": true, "groups": []string{"dba", "oncall"},
		"event_name": "push", "run_id": 42, "fork": false,
	}
	maps.Copy(c, with)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func TestGoodTokens(t *testing.T) {
	ed, rs, w := newEd(t), newRSA(t), newWatch()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := newIDP(t, public("ed", ed), public("rs", rs), public("ec", ec))
	id := newIdentifier(t, w, p.issuer())
	whole := access.Identity{Provider: "okta", Issuer: p.url, Subject: "00u1", Email: "alice@acme.test", EmailVerified: true,
		Groups: []string{"dba", "oncall"}, Claims: map[string]string{"event_name": "push", "run_id": "42", "fork": "false"}, Expires: w.now().Add(time.Hour).UTC()}
	unverified, oneGroup := whole, whole
	unverified.EmailVerified = false
	oneGroup.Groups = []string{"dba"}
	kelvin := unverified
	kelvin.Email = "alice@ac\u212ae.test" // the sign for kelvin, which is k when case is ignored
	for name, c := range map[string]struct {
		signing
		with map[string]any
		want access.Identity
	}{
		"RS256":                    {signing{alg: jose.RS256, key: rs, kid: "rs"}, nil, whole},
		"PS256":                    {signing{alg: jose.PS256, key: rs, kid: "rs"}, nil, whole},
		"ES256":                    {signing{alg: jose.ES256, key: ec, kid: "ec"}, nil, whole},
		"EdDSA":                    {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, nil, whole},
		"no key id":                {signing{alg: jose.EdDSA, key: ed}, nil, whole},
		"two audiences and azp":    {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"aud": []string{"x", "tidegate"}, "azp": "tidegate"}, whole},
		"text true":                {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"email_verified": "true"}, whole},
		"unverified":               {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"email_verified": false}, unverified},
		"not said to be verified":  {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"email_verified": nil}, unverified},
		"one is not true":          {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"email_verified": 1}, unverified},
		"letters that fold":        {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"email": kelvin.Email}, kelvin},
		"one group":                {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"groups": "dba"}, oneGroup},
		"clock 59 s ahead of ours": {signing{alg: jose.EdDSA, key: ed, kid: "ed"}, map[string]any{"iat": w.now().Add(59 * time.Second).Unix(), "nbf": w.now().Add(59 * time.Second).Unix()}, whole},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := id.Identify(t.Context(), access.NewSecret(sign(t, c.signing, good(p, w, c.with))))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
		})
	}
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("the issuer was asked %d times, want twice: discovery and keys", n)
	}
}

func TestBadTokens(t *testing.T) {
	ed, rs, w := newEd(t), newRSA(t), newWatch()
	p := newIDP(t, public("ed", ed), public("rs", rs))
	id := newIdentifier(t, w, p.issuer())
	der, err := x509.MarshalPKIXPublicKey(rs.Public())
	if err != nil {
		t.Fatal(err)
	}
	spki := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	s := signing{alg: jose.EdDSA, key: ed, kid: "ed"}
	with := func(name string, v any) string { return sign(t, s, good(p, w, map[string]any{name: v})) }
	typed := func(name jose.HeaderKey, v any) string {
		return sign(t, signing{alg: jose.EdDSA, key: ed, kid: "ed", header: map[jose.HeaderKey]any{name: v}}, good(p, w, nil))
	}
	valid := sign(t, s, good(p, w, nil))
	parts := strings.Split(valid, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	at := func(d time.Duration) int64 { return w.now().Add(d).Unix() }
	for name, c := range map[string]struct{ token, want string }{
		"nothing":              {"", "Log in first"},
		"a password":           {"ghp_hunter2hunter2hunter2", "1 parts"},
		"encrypted":            {"a.b.c.d.e", "5 parts"},
		"garbage":              {"x.y.z", "header is not"},
		"padding":              {parts[0] + "=." + parts[1] + "." + parts[2], "header is not"},
		"payload not JSON":     {parts[0] + "." + b64([]byte("hunter2")) + "." + parts[2], "payload is not"},
		"payload null":         {parts[0] + "." + b64([]byte("null")) + "." + parts[2], "payload is not"},
		"oversized":            {with("pad", strings.Repeat("a", 16<<10)), "want at most 16384"},
		"alg none":             {b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", `algorithm "none"`},
		"alg nONE":             {b64([]byte(`{"alg":"nONE"}`)) + "." + parts[1] + ".", `algorithm "nONE"`},
		"no alg":               {b64([]byte(`{}`)) + "." + parts[1] + "." + parts[2], "algorithm (none)"},
		"HS256 by public key":  {sign(t, signing{alg: jose.HS256, key: spki, kid: "rs"}, good(p, w, nil)), `algorithm "HS256"`},
		"alg not on the list":  {sign(t, signing{alg: jose.RS512, key: rs, kid: "rs"}, good(p, w, nil)), "want RS256, ES256, EdDSA, PS256"},
		"terminal's own words": {b64([]byte(`{"alg":"\u001b[2J\u009b"}`)) + "." + parts[1] + ".", `\x1b[2J\u009b`},
		"logout type":          {typed("typ", "logout+jwt"), "want JWT"},
		"logout event":         {with("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}), "logout token"},
		"critical header":      {b64([]byte(`{"alg":"EdDSA","crit":["x"],"x":1}`)) + "." + parts[1] + "." + parts[2], "critical"},
		"no issuer":            {with("iss", nil), "names no issuer"},
		"wrong issuer":         {with("iss", "https://mallory.test"), "https://mallory.test"},
		"issuer and a slash":   {with("iss", p.url+"/"), "its issuer"},
		"ISS is not iss":       {sign(t, s, good(p, w, map[string]any{"iss": nil, "ISS": p.url})), "names no issuer"},
		"wrong key":            {sign(t, signing{alg: jose.EdDSA, key: newEd(t), kid: "ed"}, good(p, w, nil)), "not signed by a key"},
		"unknown key":          {sign(t, signing{alg: jose.EdDSA, key: newEd(t), kid: "new"}, good(p, w, nil)), "not signed by a key"},
		"edited payload":       {parts[0] + "." + strings.Split(with("sub", "root"), ".")[1] + "." + parts[2], "not signed by a key"},
		"signature cut":        {parts[0] + "." + parts[1] + ".", "not signed by a key"},
		"wrong audience":       {with("aud", "payroll"), `meant for "payroll" (aud), want "tidegate"`},
		"no audience":          {with("aud", nil), "(aud)"},
		"several, no azp":      {with("aud", []string{"tidegate", "payroll"}), "2 audiences"},
		"several, azp another": {sign(t, s, good(p, w, map[string]any{"aud": []string{"tidegate", "payroll"}, "azp": "payroll"})), `to "payroll" (azp)`},
		"expired":              {with("exp", at(-time.Minute)), "it ended at 2026-01-02T14:59:00Z"},
		"no end":               {with("exp", nil), "no end"},
		"end is text":          {with("exp", "tomorrow"), "not those of"},
		"end beyond reason":    {with("exp", 1e300), "no end"},
		"not yet valid":        {with("nbf", at(61*time.Second)), "it starts at"},
		"issued tomorrow":      {with("iat", at(24*time.Hour)), "it was issued at"},
		"not issued":           {with("iat", nil), "(iat)"},
		"no subject":           {with("sub", nil), "(sub)"},
		"empty subject":        {with("sub", ""), "(sub)"},
		"long subject":         {with("sub", strings.Repeat("a", 256)), "256 bytes"},
		"groups are an object": {with("groups", map[string]any{"a": 1}), "not a list"},
		"groups hold null":     {with("groups", []any{"dba", nil}), "not a list"},
		"claim is a list":      {with("event_name", []string{"push"}), "want one value"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := id.Identify(t.Context(), access.NewSecret(c.token))
			if access.CodeOf(err) != access.CodeUnauthenticated || !strings.Contains(access.Message(err), c.want) {
				t.Errorf("got %v, want %s with %q", err, access.CodeUnauthenticated, c.want)
			}
			if diff := cmp.Diff(access.Identity{}, got); diff != "" {
				t.Errorf("an identity came with the refusal:\n%s", diff)
			}
			for part := range strings.SplitSeq(c.token, ".") {
				if err != nil && len(part) > 8 && strings.Contains(err.Error(), part) {
					t.Errorf("the error quotes the token: %v", err)
				}
			}
		})
	}
}

func TestIssuerDownThenUp(t *testing.T) {
	ed, other, w := newEd(t), newEd(t), newWatch()
	p, q := newIDP(t, public("ed", ed)), newIDP(t, public("other", other))
	second := q.issuer()
	second.Name = "google"
	id := newIdentifier(t, w, p.issuer(), second)
	token := access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: ed, kid: "ed"}, good(p, w, nil)))
	theirs := access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: other, kid: "other"}, good(q, w, nil)))
	crossed := access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: other, kid: "other"}, good(p, w, nil)))
	want := func(step string, token access.Secret, code access.Code) {
		t.Helper()
		got, err := id.Identify(t.Context(), token)
		if code == "" && err != nil || code != "" && access.CodeOf(err) != code {
			t.Errorf("%s: got %v, want code %q", step, err, code)
		}
		if err != nil && len(err.Error()) > 600 {
			t.Errorf("%s: the error has %d bytes: the issuer's page is in it", step, len(err.Error()))
		}
		if err == nil && got.Subject != "00u1" {
			t.Errorf("%s: got subject %q", step, got.Subject)
		}
	}
	p.down.Store(true)
	want("down", token, access.CodeUnavailable)
	want("the other issuer", theirs, "")
	asked := p.fetches.Load()
	want("down, at once again", token, access.CodeUnavailable)
	if n := p.fetches.Load(); n != asked {
		t.Errorf("an issuer that is down was asked %d times more within a second", n-asked)
	}
	p.down.Store(false)
	p.noKeys.Store(true)
	w.forward(3 * time.Second)
	want("discovery up, keys down", token, access.CodeUnavailable)
	p.noKeys.Store(false)
	until(t, w, p, func() bool { _, err := id.Identify(t.Context(), token); return err == nil })
	want("up", token, "")
	want("key of another issuer", crossed, access.CodeUnauthenticated)
	p.down.Store(true)
	want("known keys serve", token, "")
}

func TestKeysRotate(t *testing.T) {
	old, fresh, w := newEd(t), newEd(t), newWatch()
	p := newIDP(t, public("old", old))
	id := newIdentifier(t, w, p.issuer())
	try := func(key ed25519.PrivateKey, kid string) access.Code {
		_, err := id.Identify(t.Context(), access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: key, kid: kid}, good(p, w, nil))))
		if err == nil {
			return ""
		}
		return access.CodeOf(err)
	}
	if code := try(old, "old"); code != "" {
		t.Fatalf("old key: %s", code)
	}
	asked := p.fetches.Load()
	for range 50 {
		if code := try(fresh, rand.Text()); code != access.CodeUnauthenticated {
			t.Fatalf("made-up key: %q", code)
		}
	}
	if n := p.fetches.Load() - asked; n != 0 {
		t.Errorf("50 made-up keys fetched %d times within 5 s of the last fetch, want never", n)
	}
	p.publish(public("fresh", fresh))
	until(t, w, p, func() bool { return try(fresh, "fresh") == "" })
	p.down.Store(true)
	w.forward(2 * time.Hour)
	if code := try(fresh, "fresh"); code != "" {
		t.Errorf("known key while the issuer is down: %s", code)
	}
	w.forward(24 * time.Hour)
	if code := try(fresh, "fresh"); code != access.CodeUnavailable {
		t.Errorf("issuer down for a day: got %q, want unavailable", code)
	}
	p.down.Store(false)
	p.publish(public("old", old))
	w.forward(time.Minute)
	if code := try(old, "old"); code != "" {
		t.Errorf("issuer back: %s", code)
	}
	p.publish() // withdrawn, and no unknown key makes go-oidc look
	w.forward(61 * time.Minute)
	if code := try(old, "old"); code != access.CodeUnauthenticated {
		t.Errorf("withdrawn key after an hour: got %q, want unauthenticated", code)
	}
}

func TestHostileIssuerPages(t *testing.T) {
	for name, page := range map[string]string{
		"another issuer": `{"issuer":"https://mallory.test","jwks_uri":"https://mallory.test/keys"}`,
		"no keys":        `{"issuer":"%s"}`,
		"too long":       `{"issuer":"%s","jwks_uri":"%s/keys"}` + strings.Repeat(" ", 1<<20), // whole JSON, also when cut
		"not JSON":       `<html>`,
	} {
		t.Run(name, func(t *testing.T) {
			var url string
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = rw.Write([]byte(strings.ReplaceAll(page, "%s", url)))
			}))
			defer srv.Close()
			url = srv.URL
			w := newWatch()
			id := newIdentifier(t, w, identify.Issuer{Name: "okta", URL: url, Audience: "tidegate", AllowHTTPLoopback: true})
			ed := newEd(t)
			_, err := id.Identify(t.Context(), access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: ed}, good(&idp{url: url}, w, nil))))
			if access.CodeOf(err) != access.CodeUnavailable {
				t.Errorf("got %v, want unavailable", err)
			}
		})
	}
}

// anyHost answers for every host in the world with the same issuer.
type anyHost struct {
	page  string
	asked []string
}

func (a *anyHost) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.URL.String())
	rec := httptest.NewRecorder()
	_, _ = rec.WriteString(a.page)
	return rec.Result(), nil
}

func TestKeysAreFetchedSafelyAlone(t *testing.T) {
	for _, keys := range []string{"http://idp.test/keys", "http://127.0.0.1/keys", "https://bob:hunter2@idp.test/keys", "file:///etc/passwd", "//idp.test/keys", ""} {
		t.Run(keys, func(t *testing.T) {
			host := &anyHost{page: `{"issuer":"https://idp.test","jwks_uri":"` + keys + `","keys":[]}`}
			w, ed := newWatch(), newEd(t)
			id, err := identify.New([]identify.Issuer{{Name: "okta", URL: "https://idp.test", Audience: "tidegate"}}, identify.Options{Now: w.now, Transport: host})
			if err != nil {
				t.Fatal(err)
			}
			_, err = id.Identify(t.Context(), access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: ed}, good(&idp{url: "https://idp.test"}, w, nil))))
			if access.CodeOf(err) != access.CodeUnavailable || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want unavailable", err)
			}
			if len(host.asked) != 1 {
				t.Errorf("asked for %q, want the discovery document alone", host.asked)
			}
		})
	}
}

func TestEndlessPageIsLeft(t *testing.T) {
	var sent atomic.Int64
	left := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		defer close(left)
		for chunk := make([]byte, 64<<10); sent.Load() < 1<<30; {
			n, err := rw.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	ed, w := newEd(t), newWatch()
	id := newIdentifier(t, w, identify.Issuer{Name: "okta", URL: srv.URL, Audience: "tidegate", AllowHTTPLoopback: true})
	_, err := id.Identify(t.Context(), access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: ed}, good(&idp{url: srv.URL}, w, nil))))
	if access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	<-left
	if n := sent.Load(); n > 64<<20 { // what the two sockets hold, and some
		t.Errorf("%d bytes of an endless page were taken", n)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	ed, w := newEd(t), newWatch()
	p := newIDP(t, public("ed", ed))
	srv := httptest.NewServer(http.RedirectHandler(p.url+"/.well-known/openid-configuration", http.StatusFound))
	defer srv.Close()
	id := newIdentifier(t, w, identify.Issuer{Name: "okta", URL: srv.URL, Audience: "tidegate", CA: p.ca, AllowHTTPLoopback: true})
	before := p.fetches.Load()
	_, err := id.Identify(t.Context(), access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: ed}, good(&idp{url: srv.URL}, w, nil))))
	if access.CodeOf(err) != access.CodeUnavailable || p.fetches.Load() != before {
		t.Errorf("got %v, and %d fetches behind the redirect", err, p.fetches.Load()-before)
	}
}

func TestCertificateIsChecked(t *testing.T) {
	ed, w := newEd(t), newWatch()
	p := newIDP(t, public("ed", ed))
	issuer := p.issuer()
	issuer.CA = nil
	id := newIdentifier(t, w, issuer)
	_, err := id.Identify(t.Context(), access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: ed}, good(p, w, nil))))
	if access.CodeOf(err) != access.CodeUnavailable || p.fetches.Load() != 0 {
		t.Errorf("got %v after %d fetches, want unavailable: the certificate is nobody's", err, p.fetches.Load())
	}
}

func TestCallerWhoLeavesSpoilsNothing(t *testing.T) {
	ed, w := newEd(t), newWatch()
	p := newIDP(t, public("ed", ed))
	id := newIdentifier(t, w, p.issuer())
	token := access.NewSecret(sign(t, signing{alg: jose.EdDSA, key: ed, kid: "ed"}, good(p, w, nil)))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := id.Identify(gone, token); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("cancelled: got %v, want unavailable", err)
	}
	if _, err := id.Identify(t.Context(), token); err != nil {
		t.Errorf("the next caller: %v", err)
	}
}

func TestMistakesAreReportedAtOnce(t *testing.T) {
	long := "https://idp.test/" + strings.Repeat("a", 255)
	_, err := identify.New([]identify.Issuer{
		{Name: "Okta!", URL: "http://idp.test", Algorithms: []string{"HS256", "none"}, CA: []byte("x")},
		{Name: "a", URL: "https://bob:hunter2@idp.test/a//b/../c?x=1#y", Audience: "x", Claims: []string{""}},
		{Name: "a", URL: "http://127.0.0.1:1", Audience: "x"},
		{Name: "b", URL: long, Audience: "x"},
		{Name: "c", URL: "ftp://127.0.0.1", Audience: "x", AllowHTTPLoopback: true},
		{Name: "d", URL: "http://10.0.0.1", Audience: "x", AllowHTTPLoopback: true},
		{Name: "e", URL: "https:idp.test", Audience: "x"},
		{Name: "f", URL: "https://idp.test/%2e%2e/x", Audience: "x"},
		{Name: "g", URL: "", Audience: "x"},
		{Name: "h", URL: "https://same.test", Audience: "x"},
		{Name: "i", URL: "https://same.test", Audience: "y"},
	}, identify.Options{})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		`"Okta!": the name must`, `"Okta!": the URL has scheme "http"`, `"Okta!": the audience is missing`, `got algorithm "HS256"`, `got algorithm "none"`, "no certificate",
		`"a": the URL has a user name`, `"a": the URL has ".." or "//"`, `"a": the URL has a query`, `"a": the URL has a fragment`, `"a": got 1 claims`,
		`"a": the URL has scheme "http"`, `"a": the name is used twice`, `"b": the URL has 272 bytes`, `"c": the URL has scheme "ftp"`, `"d": the URL has scheme "http"`,
		`"e": the URL names no host`, `"f": the URL has ".."`, `"g": the URL is not one`, `"i": another issuer has the same URL`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q", want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the error shows the password in the URL")
	}
	if _, err := identify.New(nil, identify.Options{}); err == nil {
		t.Error("no issuers: got no error")
	}
}

func TestIsDevIssuer(t *testing.T) {
	for url, want := range map[string]bool{
		"http://127.0.0.1:4000/tidegate-dev":     true,
		"https://idp.test/x/tidegate-dev/":       true,
		"https://idp.test/Tidegate%2Ddev":        true,
		"https://idp.test/tidegate-dev?x#y":      true,
		"https://accounts.google.com":            false,
		"https://tidegate-dev.test/":             false,
		"https://idp.test/tidegate-dev/realms/x": false,
	} {
		if got := identify.IsDevIssuer(url); got != want {
			t.Errorf("IsDevIssuer(%q) is %t, want %t", url, got, want)
		}
	}
}

func TestDevIssuerIsAccepted(t *testing.T) {
	dev, err := devissuer.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(dev)
	defer srv.Close()
	dev.SetURL(srv.URL)
	if !identify.IsDevIssuer(dev.URL()) {
		t.Errorf("%s is not marked as a dev issuer", dev.URL())
	}
	id, err := identify.New([]identify.Issuer{{Name: "dev", URL: dev.URL(), Audience: "tidegate", AllowHTTPLoopback: true}}, identify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := dev.Mint(devissuer.Claims{Subject: "alice", Email: "alice@acme.test", EmailVerified: true, Audience: "tidegate", Groups: []string{"dba"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := id.Identify(t.Context(), access.NewSecret(token))
	if err != nil || got.Subject != "alice" || !got.EmailVerified || len(got.Groups) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}
