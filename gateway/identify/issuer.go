package identify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// DevMark ends the path of every development issuer's URL, so that a token of
// one can never be taken where real ones are.
const DevMark = "/tidegate-dev"

const (
	maxURL    = 255
	maxClaims = 32
)

// asymmetric are the algorithms that an issuer may be configured with. The
// symmetric ones and none are not among them, whatever a configuration says.
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// usual is the allow-list of an issuer that has none.
var usual = []string{"RS256", "ES256", "EdDSA", "PS256"}

var issuerName = regexp.MustCompile(`\A(?:[a-z0-9][a-z0-9_-]{0,62})\z`)

// Issuer is one identity provider whose tokens are accepted.
type Issuer struct {
	Name        string   // its short name, which policies use: "okta"
	URL         string   // its issuer URL, exactly as tokens have it in iss
	Audience    string   // what aud must contain: our client id there
	Algorithms  []string // the signatures accepted; RS256, ES256, EdDSA and PS256 if there are none
	EmailClaim  string   // "email" if empty; email_verified vouches for "email" alone
	GroupsClaim string   // "groups" if empty
	Claims      []string // discrete claims that policies may match, kept as text
	CA          []byte   // PEM: the roots for the issuer's certificate; the system's if empty

	// AllowHTTPLoopback permits an http URL on this machine's loopback.
	AllowHTTPLoopback bool
}

// IsDevIssuer reports whether the issuer URL is one of a development issuer,
// which hands out an identity to whoever asks.
func IsDevIssuer(issuer string) bool {
	path := issuer
	if u, err := url.Parse(issuer); err == nil {
		path = u.Path
	}
	return strings.HasSuffix(strings.ToLower(strings.TrimRight(path, "/")), DevMark)
}

func (i *Issuer) defaults() {
	if len(i.Algorithms) == 0 {
		i.Algorithms = usual
	}
	if i.EmailClaim == "" {
		i.EmailClaim = "email"
	}
	if i.GroupsClaim == "" {
		i.GroupsClaim = "groups"
	}
}

// check reports every mistake in one issuer's configuration.
func (i Issuer) check() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("issuer %q: "+format, append([]any{i.Name}, args...)...))
	}
	if !issuerName.MatchString(i.Name) {
		wrong("the name must be 1 to 63 of a-z, 0-9, - and _, and start with a letter or digit")
	}
	for _, problem := range urlProblems(i.URL, i.AllowHTTPLoopback) {
		wrong("the URL %s", problem)
	}
	if i.Audience == "" {
		wrong("the audience is missing: without it, a token made for anybody else would be accepted")
	}
	for _, alg := range i.Algorithms {
		if !slices.Contains(asymmetric, alg) {
			wrong("got algorithm %q, want some of %s", alg, strings.Join(asymmetric, ", "))
		}
	}
	if len(i.Claims) > maxClaims || slices.Contains(i.Claims, "") {
		wrong("got %d claims, want at most %d, none of them empty", len(i.Claims), maxClaims)
	}
	if len(i.CA) > 0 && !x509.NewCertPool().AppendCertsFromPEM(i.CA) {
		wrong("the CA holds no certificate in PEM form")
	}
	return errors.Join(errs...)
}

// checkAll reports every mistake in the configuration, at once.
func checkAll(issuers []Issuer) error {
	var errs []error
	if len(issuers) == 0 {
		errs = append(errs, errors.New("no issuer is configured, so nobody could log in: add one"))
	}
	names, urls := map[string]bool{}, map[string]bool{}
	for _, i := range issuers {
		errs = append(errs, i.check())
		if names[i.Name] {
			errs = append(errs, fmt.Errorf("issuer %q: the name is used twice", i.Name))
		}
		if urls[i.URL] {
			errs = append(errs, fmt.Errorf("issuer %q: another issuer has the same URL, and a token could not tell them apart", i.Name))
		}
		names[i.Name], urls[i.URL] = true, true
	}
	return errors.Join(errs...)
}

// urlProblems says what an issuer URL has that it must not. It does not quote
// the URL, which may hold a password by mistake.
func urlProblems(raw string, loopbackHTTP bool) []string {
	u, err := url.Parse(raw)
	if err != nil || raw == "" {
		return []string{"is not one: want https://host/path"}
	}
	var out []string
	if err := reachable(u, loopbackHTTP); err != nil {
		out = append(out, err.Error())
	}
	if len(raw) > maxURL {
		out = append(out, fmt.Sprintf("has %d bytes, want at most %d", len(raw), maxURL))
	}
	if strings.Contains(u.Path, "//") || slices.Contains(strings.Split(u.Path, "/"), "..") {
		out = append(out, `has ".." or "//" in its path`)
	}
	if strings.Contains(raw, "?") {
		out = append(out, "has a query")
	}
	if strings.Contains(raw, "#") {
		out = append(out, "has a fragment")
	}
	return out
}

// reachable holds for every URL that is fetched, the issuer's jwks_uri too.
func reachable(u *url.URL, loopbackHTTP bool) error {
	var errs []string
	switch {
	case u.Hostname() == "":
		errs = append(errs, "names no host")
	case u.Scheme == "https":
	case u.Scheme == "http" && loopbackHTTP && isLoopback(u.Hostname()):
	default:
		errs = append(errs, fmt.Sprintf("has scheme %q, want https (http is for a loopback address in development)", u.Scheme))
	}
	if u.User != nil {
		errs = append(errs, "has a user name or password in it")
	}
	if len(errs) > 0 {
		return errors.New(strings.Join(errs, " and "))
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
