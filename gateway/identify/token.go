package identify

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// maxToken bounds a token: the largest real ones (hundreds of groups) have
// some 8 KiB.
const maxToken = 16 << 10

// kinds are the typ headers of tokens that say who somebody is. Others, such
// as a logout token, have the same issuer, audience and signature.
var kinds = []string{"", "jwt", "at+jwt", "application/at+jwt"}

// glance is what is read of a token before anything of it is believed: enough
// to refuse it, or to pick whom to ask.
type glance struct {
	alg    string
	issuer string
}

// glanceAt reads the outside of a token. Its errors never quote the token: it
// may be anything that somebody pasted, such as another system's password.
func glanceAt(token string) (glance, error) {
	if len(token) > maxToken {
		return glance{}, refuse("it has %d bytes, want at most %d", len(token), maxToken)
	}
	parts := strings.SplitN(token, ".", 6) // 5 parts is an encrypted token, and more is nothing
	if len(parts) != 3 {
		return glance{}, refuse("got %d parts with dots between, want the 3 of a signed JSON Web Token", len(parts))
	}
	header, ok := decodePart(parts[0])
	if !ok {
		return glance{}, refuse("its header is not a JSON object in base64url")
	}
	g := glance{alg: header.text("alg")}
	if !slices.Contains(asymmetric, g.alg) {
		return glance{}, refuse("it is signed with algorithm %s, want a public-key one", quoted(g.alg))
	}
	if typ := header.text("typ"); !slices.Contains(kinds, strings.ToLower(typ)) {
		return glance{}, refuse("its type is %s, want JWT", quoted(typ))
	}
	if _, critical := header["crit"]; critical {
		return glance{}, refuse("it has critical header parameters, which are not understood here")
	}
	payload, ok := decodePart(parts[1])
	if !ok {
		return glance{}, refuse("its payload is not a JSON object in base64url")
	}
	if g.issuer = payload.text("iss"); g.issuer == "" {
		return glance{}, refuse("it names no issuer (iss)")
	}
	return g, nil
}

// claims is a JSON object by exact names: encoding/json into a struct would
// take "ISS" for iss.
type claims map[string]json.RawMessage

func decodePart(part string) (claims, bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, false
	}
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil || c == nil {
		return nil, false
	}
	return c, true
}

// text is a claim that must be a string, or "".
func (c claims) text(name string) string {
	var s string
	if json.Unmarshal(c[name], &s) != nil {
		return ""
	}
	return s
}

// refuse says why a token is not accepted. The words are for the person who
// brought it, who may be nobody we know.
func refuse(format string, args ...any) *access.Error {
	e := access.Errorf(access.CodeUnauthenticated, format, args...)
	e.Message = "Your token was not accepted: " + e.Message + ". Log in again for a new one."
	return e
}

// quoted shows a value that a stranger chose: bounded, and nothing in it can
// play with a terminal.
func quoted(s string) string {
	if s == "" {
		return "(none)"
	}
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return strconv.QuoteToASCII(s)
}
