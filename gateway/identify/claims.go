package identify

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

const (
	skew       = time.Minute // how far two clocks may be apart
	maxSubject = 255
	logout     = "http://schemas.openid.net/event/backchannel-logout"
)

// identity holds a verified payload against the issuer's configuration.
func (p *provider) identity(c claims, now time.Time) (access.Identity, error) {
	if err := p.checkParties(c); err != nil {
		return access.Identity{}, err
	}
	expires, err := checkTimes(c, now)
	if err != nil {
		return access.Identity{}, err
	}
	id := access.Identity{Provider: p.Name, Issuer: p.URL, Subject: c.text("sub"), Expires: expires}
	if id.Subject == "" || len(id.Subject) > maxSubject {
		return access.Identity{}, refuse("its subject (sub) has %d bytes, want 1 to %d", len(id.Subject), maxSubject)
	}
	id.Email, id.EmailVerified = p.email(c)
	if id.Groups, err = c.list(p.GroupsClaim); err != nil {
		return access.Identity{}, err
	}
	if id.Claims, err = c.discrete(p.Claims); err != nil {
		return access.Identity{}, err
	}
	return id, nil
}

// checkParties says who made the token, and for whom.
func (p *provider) checkParties(c claims) error {
	if iss := c.text("iss"); iss != p.URL {
		return refuse("its issuer (iss) is %s, want %s", quoted(iss), quoted(p.URL))
	}
	audience, err := c.list("aud")
	if err != nil {
		return err
	}
	if !slices.Contains(audience, p.Audience) {
		return refuse("it is meant for %s (aud), want %s", quoted(strings.Join(audience, " ")), quoted(p.Audience))
	}
	if azp := c.text("azp"); len(audience) > 1 && azp != p.Audience {
		return refuse("it is meant for %d audiences, and was given to %s (azp), want %s", len(audience), quoted(azp), quoted(p.Audience))
	}
	var events claims
	if json.Unmarshal(c["events"], &events) == nil && events[logout] != nil {
		return refuse("it is a logout token, want one that logs in")
	}
	return nil
}

// checkTimes demands exp and iat, and nbf if the token has it.
func checkTimes(c claims, now time.Time) (expires time.Time, err error) {
	expires, ok := c.time("exp")
	if !ok {
		return expires, refuse("it has no end (exp) that can be read")
	}
	issued, ok := c.time("iat")
	if !ok {
		return expires, refuse("it does not say when it was issued (iat)")
	}
	var starts time.Time
	if _, has := c["nbf"]; has {
		if starts, ok = c.time("nbf"); !ok {
			return expires, refuse("its start (nbf) cannot be read")
		}
	}
	switch {
	case !now.Before(expires.Add(skew)):
		return expires, refuse("it ended at %s, and now it is %s", stamp(expires), stamp(now))
	case now.Before(starts.Add(-skew)):
		return expires, refuse("it starts at %s (nbf), and now it is %s", stamp(starts), stamp(now))
	case now.Before(issued.Add(-skew)):
		return expires, refuse("it was issued at %s (iat), and now it is %s: is a clock wrong?", stamp(issued), stamp(now))
	}
	return expires, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// email is the address, and whether the issuer says that it is the person's.
// email_verified speaks of the claim "email"; an address from another claim is
// a name for people, never a key.
func (p *provider) email(c claims) (address string, verified bool) {
	address = c.text(p.EmailClaim)
	var said any
	if json.Unmarshal(c["email_verified"], &said) != nil {
		return address, false
	}
	verified = said == true || said == "true" // some issuers send text
	return address, verified && p.EmailClaim == "email" && plain(address)
}

// plain keeps letters out that equal an ASCII one when case is ignored, as
// the Kelvin sign does: they would make two addresses one.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// time reads a NumericDate: seconds since 1970, perhaps with a fraction.
func (c claims) time(name string) (time.Time, bool) {
	var n *float64
	if json.Unmarshal(c[name], &n) != nil || n == nil || *n <= 0 || *n > 1e11 {
		return time.Time{}, false
	}
	whole, frac := math.Modf(*n)
	return time.Unix(int64(whole), int64(frac*1e9)).UTC(), true
}

// list reads a claim that is a list of strings, or one string.
func (c claims) list(name string) ([]string, error) {
	raw, has := c[name]
	if !has || string(raw) == "null" {
		return nil, nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []*string
	if json.Unmarshal(raw, &many) != nil || slices.Contains(many, nil) {
		return nil, refuse("its claim %s is not a list of strings", quoted(name))
	}
	out := make([]string, len(many))
	for i, s := range many {
		out[i] = *s
	}
	return out, nil
}

// discrete keeps the claims that a policy may match, as text. One that is not
// a single value is refused: a rule that reads it would otherwise see nothing.
func (c claims) discrete(names []string) (map[string]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(names))
	for _, name := range names {
		raw, has := c[name]
		switch {
		case !has || string(raw) == "null":
		case raw[0] == '"':
			out[name] = c.text(name)
		case raw[0] == '[' || raw[0] == '{':
			return nil, refuse("its claim %s is a list or an object, want one value", quoted(name))
		default:
			out[name] = string(raw) // a number or a bool, as the issuer wrote it
		}
	}
	return out, nil
}
