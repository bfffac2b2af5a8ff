package identify

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// FuzzGlance holds the one place that reads what nobody has vouched for.
func FuzzGlance(f *testing.F) {
	b64 := base64.RawURLEncoding.EncodeToString
	head, body := b64([]byte(`{"alg":"RS256","typ":"JWT","kid":"1"}`)), b64([]byte(`{"iss":"https://idp.test","aud":"x"}`))
	for _, seed := range []string{
		"", ".", "..", "a.b.c", head + "." + body + ".c2ln", head + "." + body + ".", head + "=." + body + ".x",
		b64([]byte(`{"alg":"none"}`)) + "." + body + ".", b64([]byte(`{"alg":"RS256","crit":[]}`)) + "." + body + ".x",
		head + "." + b64([]byte(strings.Repeat("[", 5000))) + ".x", head + "." + b64([]byte(`{"iss":1}`)) + ".x", "\x00.\xff.\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		g, err := glanceAt(token)
		if err != nil {
			if access.CodeOf(err) != access.CodeUnauthenticated || g != (glance{}) {
				t.Errorf("got %+v with %v, want nothing with unauthenticated", g, err)
			}
			return
		}
		if len(token) > maxToken || strings.Count(token, ".") != 2 || g.issuer == "" || !slices.Contains(asymmetric, g.alg) {
			t.Errorf("accepted %q as %+v", token, g)
		}
	})
}
