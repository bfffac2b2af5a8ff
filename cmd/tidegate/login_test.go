package main

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/ssh"
)

var (
	formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	formInput  = regexp.MustCompile(`<input[^>]*>`)
	formValue  = regexp.MustCompile(`(name|value)="([^"]*)"`)
)

// browse walks the provider's pages as a person with a browser does, until a
// page has nothing more to fill in.
func (p *oidcProvider) browse(ctx context.Context, at, who string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := *p.http
	browser.Jar = jar
	var form url.Values
	for range oidcSteps {
		res, page, err := fetchPage(ctx, &browser, at, form)
		if err != nil {
			return err
		}
		form = nil
		if next, err := res.Location(); err == nil {
			at = next.String()
			continue
		}
		action := formAction.FindStringSubmatch(page)
		if action == nil {
			if res.StatusCode != http.StatusOK {
				return fmt.Errorf("browse %s: %s: %s", at, res.Status, page)
			}
			return nil
		}
		next, err := res.Request.URL.Parse(html.UnescapeString(action[1]))
		if err != nil {
			return err
		}
		at, form = next.String(), url.Values{}
		for _, input := range formInput.FindAllString(page, -1) {
			got := map[string]string{}
			for _, a := range formValue.FindAllStringSubmatch(input, -1) {
				got[a[1]] = html.UnescapeString(a[2])
			}
			if got["name"] != "" {
				form.Set(got["name"], got["value"])
			}
		}
		if form.Has("login") {
			form.Set("login", who)
			form.Set("password", "any will do here")
		}
		if form.Has("user_code") {
			form.Set("confirm", "yes")
		}
	}
	return fmt.Errorf("no end after %d steps", oidcSteps)
}

// TestLoginFlows: browser, device code and renewal, on a real provider; the
// gateway takes each token.
func TestLoginFlows(t *testing.T) {
	p := startOIDC(t)
	client, err := oidcIssuer{URL: p.url, ClientID: devAudience, CA: p.caPEM}.discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gate, err := identify.New([]identify.Issuer{{Name: "okta", URL: p.url, Audience: devAudience, CA: p.caPEM}}, identify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	is := func(name string, raw access.Secret, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if id, err := gate.Identify(t.Context(), raw); err != nil || id.Email != "alice@acme.test" || !id.EmailVerified {
			t.Errorf("%s: got %v, %v", name, id, err)
		}
	}
	browsed := make(chan error, 2)
	token, err := client.byBrowser(t.Context(), func(at string) error {
		go func() { browsed <- p.browse(t.Context(), at, "alice") }()
		return nil
	})
	if err != nil {
		t.Fatalf("by browser: %v", err)
	}
	if err := <-browsed; err != nil {
		t.Fatal(err)
	}
	raw, err := idToken(token)
	is("by browser", raw, err)
	if token.RefreshToken == "" {
		t.Fatal("no refresh token")
	}
	again, err := client.refreshed(t.Context(), access.NewSecret(token.RefreshToken))
	if err != nil {
		t.Fatalf("renewed: %v", err)
	}
	raw, err = idToken(again)
	is("renewed", raw, err)

	link := regexp.MustCompile(`https://[^ ]+`)
	token, err = client.byDevice(t.Context(), func(prompt string) {
		go func() { browsed <- p.browse(t.Context(), link.FindString(prompt), "alice") }()
	})
	if err != nil {
		t.Fatalf("by device: %v", err)
	}
	if err := <-browsed; err != nil {
		t.Fatal(err)
	}
	raw, err = idToken(token)
	is("by device", raw, err)
}

func TestLoginNeedsToKnowWhere(t *testing.T) {
	dir := t.TempDir()
	if code, out := call(t, "", "login", "--login-dir", dir); code != exitUsage || !strings.Contains(out, "the first time") {
		t.Errorf("code %d: %s", code, out)
	}
	if code, out := call(t, "", "ssh-config", "web-1", "--login-dir", dir); code != exitFailed || !strings.Contains(out, "nobody has logged in") {
		t.Errorf("code %d: %s", code, out)
	}
	if err := os.WriteFile(filepath.Join(dir, loginFile), []byte(`{"gateway":"gate.test:2022"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := call(t, "", "ssh-config", "deploy%web-1", "web-2+inc-1", "--login-dir", dir)
	if code != exitOK || !strings.Contains(out, "Host deploy%web-1\n  HostName gate.test\n  Port 2022\n") || !strings.Contains(out, "  User web-2+inc-1\n") {
		t.Errorf("code %d: %s", code, out)
	}
	for _, bad := range []string{"a b", "x\nProxyCommand evil", "*", "-o"} {
		if code, out := call(t, "", "ssh-config", "--login-dir", dir, "--", bad); code != exitUsage {
			t.Errorf("%q: code %d: %s", bad, code, out)
		}
	}
}

// TestLoginKeepsNoConnection: a provider that closes idle ones at the moment of
// the next question ends no login.
func TestLoginKeepsNoConnection(t *testing.T) {
	kept := 0
	var server *httptest.Server
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !r.Close {
			kept++
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": server.URL, "authorization_endpoint": server.URL + "/a", "token_endpoint": server.URL + "/t", "jwks_uri": server.URL + "/k",
			"access_token": "x", "token_type": "Bearer",
		})
	}))
	defer server.Close()
	client, err := oidcIssuer{URL: server.URL, CA: []byte(pemText("CERTIFICATE", server.Certificate().Raw))}.discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.refreshed(t.Context(), access.NewSecret("y")); err != nil {
		t.Fatal(err)
	}
	if kept > 0 {
		t.Errorf("%d requests asked for the connection to be kept", kept)
	}
}

// TestLoginInTheOpen: a provider that leads to plain http somewhere else is
// asked no further.
func TestLoginInTheOpen(t *testing.T) {
	var lead func(w http.ResponseWriter, r *http.Request, self string)
	var server *httptest.Server
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { lead(w, r, server.URL) }))
	defer server.Close()
	issuer := oidcIssuer{URL: server.URL, CA: []byte(pemText("CERTIFICATE", server.Certificate().Raw))}
	const open = "http://acme.okta.test/k"
	for name, way := range map[string]func(http.ResponseWriter, *http.Request, string){
		"it leads there": func(w http.ResponseWriter, r *http.Request, _ string) { http.Redirect(w, r, open, http.StatusFound) },
		"its keys are there": func(w http.ResponseWriter, _ *http.Request, self string) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": self, "authorization_endpoint": self + "/a", "token_endpoint": self + "/t", "jwks_uri": open})
		},
	} {
		lead = way
		if _, err := issuer.discover(t.Context()); err == nil || !strings.Contains(err.Error(), "want https") {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
}

// TestLoginElsewhere: a refresh token is shown to no other provider, and not as
// another client, than the one that got it.
func TestLoginElsewhere(t *testing.T) {
	for _, c := range []struct {
		issuer, client string
		kept           bool
	}{
		{"", "", true},
		{"https://acme.okta.test", "tidegate", true},
		{"https://mallory.test", "", false},
		{"https://mallory.test", "tidegate", false},
		{"", "another", false},
	} {
		l := login{oidcIssuer: oidcIssuer{URL: "https://acme.okta.test", ClientID: "tidegate"}, Refresh: "refresh-token"}
		if l.goTo(c.issuer, c.client); (l.Refresh != "") != c.kept {
			t.Errorf("--issuer %q --client-id %q: kept %q, want it kept: %v", c.issuer, c.client, l.Refresh, c.kept)
		}
	}
}

// TestLoginSaysAsWhom: a login that somebody else slipped in shows.
func TestLoginSaysAsWhom(t *testing.T) {
	_, ca, err := newSSHKey()
	if err != nil {
		t.Fatal(err)
	}
	id := access.Identity{Provider: "okta", Issuer: "https://acme.okta.com", Subject: "7", Email: "mallory@acme.test", Expires: time.Now().Add(time.Hour)}
	wire, err := identify.Certificates{CA: ca}.Certify(id, ca.PublicKey().Marshal())
	if err != nil {
		t.Fatal(err)
	}
	key, err := gossh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	said := loginSays(ssh.Exchanged{Certificate: key.(*gossh.Certificate)}, "/home/alice/.config/tidegate")
	if !strings.Contains(said, " as okta:mallory@acme.test. Connect with: ssh -F /home/alice/.config/tidegate/config ") {
		t.Errorf("got %q", said)
	}
}
