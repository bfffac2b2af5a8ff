package devissuer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
)

const (
	back     = "http://127.0.0.1:1/login/callback"
	verifier = "v-0123456789-0123456789-0123456789-0123456789"
)

// world is an issuer with a login page, and what a right request says.
func world(t *testing.T) (*Issuer, *httptest.Server, url.Values) {
	t.Helper()
	i, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(i)
	t.Cleanup(srv.Close)
	i.SetURL(srv.URL)
	if err := i.AllowLogin(Client{ID: "c", Secret: access.NewSecret("s3cret"), RedirectURL: back, Accounts: []Account{
		{"alice", Claims{Subject: "dev-alice", Email: "alice@acme.test", EmailVerified: true}},
	}}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(verifier))
	return i, srv, url.Values{
		"client_id": {"c"}, "redirect_uri": {back}, "response_type": {"code"}, "scope": {"openid email"}, "state": {"st"}, "nonce": {"no"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
}

// code chooses an account and answers with the redirect that follows.
func code(t *testing.T, i *Issuer, q url.Values, who string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequest("POST", i.URL()+"/authorize?"+q.Encode(), strings.NewReader(url.Values{"who": {who}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res
}

func redeem(t *testing.T, i *Issuer, change map[string]string, code string) (int, map[string]any) {
	t.Helper()
	f := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {back}, "code_verifier": {verifier},
		"client_id": {"c"}, "client_secret": {"s3cret"}}
	for k, v := range change {
		f.Set(k, v)
	}
	res, err := http.PostForm(i.URL()+"/token", f)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	_ = json.NewDecoder(res.Body).Decode(&out) // a refusal may be no JSON
	return res.StatusCode, out
}

func TestLogin(t *testing.T) {
	i, _, q := world(t)
	res, err := http.Get(i.URL() + "/authorize?" + q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 200 || !strings.Contains(string(page), `value="alice"`) || !strings.Contains(res.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("the page is %d %v: %s", res.StatusCode, res.Header, page)
	}
	to, err := code(t, i, q, "alice", nil).Location()
	if err != nil || !strings.HasPrefix(to.String(), back+"?") || to.Query().Get("state") != "st" {
		t.Fatalf("redirected to %v, %v", to, err)
	}
	status, out := redeem(t, i, nil, to.Query().Get("code"))
	token, _ := out["id_token"].(string)
	ids, err := identify.New([]identify.Issuer{{Name: "dev", URL: i.URL(), Audience: "c", AllowHTTPLoopback: true}}, identify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := ids.Identify(t.Context(), access.NewSecret(token))
	if status != 200 || err != nil || id.Subject != "dev-alice" || !id.EmailVerified {
		t.Errorf("got %d %+v, %v", status, id, err)
	}
	if status, _ := redeem(t, i, nil, to.Query().Get("code")); status != http.StatusBadRequest {
		t.Errorf("a code twice: %d", status)
	}
}

func TestLoginRefuses(t *testing.T) {
	i, srv, q := world(t)
	for name, value := range map[string]string{
		"redirect_uri": "https://evil.test/", "client_id": "other", "response_type": "token", "code_challenge": "", "code_challenge_method": "plain", "state": "", "nonce": "",
	} {
		changed := url.Values{}
		for k, v := range q {
			changed[k] = v
		}
		changed.Set(name, value)
		if res := code(t, i, changed, "alice", nil); res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" {
			t.Errorf("%s=%q: %d to %s", name, value, res.StatusCode, res.Header.Get("Location"))
		}
	}
	if res := code(t, i, q, "root", nil); res.StatusCode != http.StatusBadRequest {
		t.Errorf("an unknown account: %d", res.StatusCode)
	}
	if res := code(t, i, q, "alice", http.Header{"Sec-Fetch-Site": {"cross-site"}}); res.StatusCode != http.StatusBadRequest {
		t.Errorf("from another site: %d", res.StatusCode)
	}
	req, _ := http.NewRequest("GET", i.URL()+"/authorize?"+q.Encode(), nil)
	req.Host = "evil.test"
	if res, err := srv.Client().Do(req); err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("by another name: %v, %v", res, err)
	}
	for name, change := range map[string]map[string]string{
		"another secret": {"client_secret": "x"}, "another verifier": {"code_verifier": "x"}, "another redirect": {"redirect_uri": "http://127.0.0.1:2/"},
		"another code": {"code": "x"}, "no grant type": {"grant_type": ""},
	} {
		to, err := code(t, i, q, "alice", nil).Location()
		if err != nil {
			t.Fatal(err)
		}
		if status, out := redeem(t, i, change, to.Query().Get("code")); status < 400 || out["id_token"] != nil {
			t.Errorf("%s: %d %v", name, status, out)
		}
	}
}
