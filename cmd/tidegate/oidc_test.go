package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	oidcRedirect = "http://127.0.0.1/callback"
	oidcSteps    = 20 // redirects and forms of one login
)

// oidcProvider is npm's oidc-provider behind TLS.
type oidcProvider struct {
	url   string
	caPEM []byte
	http  *http.Client // without cookies
}

// startOIDC starts a provider that ends with the test.
func startOIDC(t *testing.T) *oidcProvider {
	t.Helper()
	module, err := filepath.Abs("../../.cache/parts/oidc-provider/node_modules/oidc-provider/lib/index.js")
	if err != nil {
		t.Fatal(err)
	}
	if !isFile(module) {
		missing := "missing oidc-provider: run .ci/parts/oidc-provider.sh"
		if os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	gatewayFiles(t, dir) // a certificate for 127.0.0.1, of a CA of the test's own
	address := freeAddress(t)
	p := &oidcProvider{url: "https://" + address, caPEM: contents(t, filepath.Join(dir, "ca.crt"))}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.caPEM)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	p.http = &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]string{
		"module": module, "port": port, "audience": devAudience, "redirect": oidcRedirect,
		"certificate": string(contents(t, filepath.Join(dir, "gateway.crt"))), "key": string(contents(t, filepath.Join(dir, "gateway.key"))),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.run(t, settings)
	return p
}

func (p *oidcProvider) run(t *testing.T, settings []byte) {
	t.Helper()
	log := &words{}
	cmd := exec.Command("node", "testdata/oidc/server.mjs")
	cmd.Stderr, cmd.SysProcAttr = log, childAttr()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill() // it may be gone with its standard input
		_ = cmd.Wait()         // it was killed
	})
	if _, err := in.Write(append(settings, '\n')); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("start oidc-provider: got %q, %v\n%s", line, err, log)
	}
}

// login walks the authorization code flow with PKCE, as a browser would, and
// answers with the ID token.
func (p *oidcProvider) login(ctx context.Context, who string) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	browser := *p.http
	browser.Jar = jar
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	state := rand.Text()
	at := p.url + "/auth?" + url.Values{
		"client_id": {devAudience}, "response_type": {"code"}, "scope": {"openid email"}, "redirect_uri": {oidcRedirect}, "state": {state},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}.Encode()
	back, err := p.walk(ctx, &browser, at, who)
	if err != nil {
		return "", fmt.Errorf("log %s in: %w", who, err)
	}
	if q := back.Query(); q.Get("state") != state || q.Get("code") == "" {
		return "", fmt.Errorf("log %s in: got %s, want a code and our state", who, back)
	}
	return p.exchange(ctx, back.Query().Get("code"), verifier)
}

// walk follows redirects and fills in the forms, until it is led back.
func (p *oidcProvider) walk(ctx context.Context, browser *http.Client, at, who string) (*url.URL, error) {
	var form url.Values
	for range oidcSteps {
		res, page, err := fetchPage(ctx, browser, at, form)
		if err != nil {
			return nil, err
		}
		form = nil
		if next, err := res.Location(); err == nil {
			if strings.HasPrefix(next.String(), oidcRedirect) {
				return next, nil
			}
			at = next.String()
			continue
		}
		switch {
		case strings.Contains(page, `value="login"`):
			form = url.Values{"prompt": {"login"}, "login": {who}, "password": {"any will do here"}}
		case strings.Contains(page, `value="consent"`):
			form = url.Values{"prompt": {"consent"}}
		default:
			return nil, fmt.Errorf("got %s and no form that is known:\n%s", res.Status, page)
		}
	}
	return nil, fmt.Errorf("no end after %d steps", oidcSteps)
}

// fetchPage gets a page, or posts a form.
func fetchPage(ctx context.Context, c *http.Client, at string, form url.Values) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if form != nil {
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
	}
	if err != nil {
		return nil, "", err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res, string(page), err
}

func (p *oidcProvider) exchange(ctx context.Context, code, verifier string) (string, error) {
	res, text, err := fetchPage(ctx, p.http, p.url+"/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {oidcRedirect}, "client_id": {devAudience},
	})
	if err != nil {
		return "", err
	}
	var tokens struct {
		ID string `json:"id_token"`
	}
	if err := json.Unmarshal([]byte(text), &tokens); err != nil || tokens.ID == "" {
		return "", fmt.Errorf("exchange code: got %s without an ID token: %s", res.Status, text)
	}
	return tokens.ID, nil
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// freeAddress is a loopback address that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := listenSomewhere()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestOIDCLogin: the provider's token is one that serve would take.
func TestOIDCLogin(t *testing.T) {
	p := startOIDC(t)
	token, err := p.login(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil || !strings.Contains(string(payload), `"alice@acme.test"`) {
		t.Errorf("want alice's e-mail in the token, got %s, %v", payload, err)
	}
}
