package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestStrictestNeverOpensMore(t *testing.T) {
	deny, hold, allow := Decision{Rule: "d"}, Decision{Verdict: Hold, Rule: "h"}, Decision{Verdict: Allow, Rule: "a", Sync: true}
	for _, c := range []struct {
		name string
		in   []Decision
		want string
		v    Verdict
		sync bool
	}{
		{"nothing refuses", nil, "default", Deny, false},
		{"the zero decision refuses", []Decision{allow, {}}, "", Deny, true},
		{"deny before hold", []Decision{hold, deny}, "d", Deny, false},
		{"hold before allow, and its sync stays", []Decision{allow, hold}, "h", Hold, true},
		{"the earlier of two speaks", []Decision{{Verdict: Hold, Rule: "first"}, hold}, "first", Hold, false},
	} {
		if got := Strictest(c.in...); got.Rule != c.want || got.Verdict != c.v || got.Sync != c.sync {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
}

func TestIdentityMatches(t *testing.T) {
	id := Identity{Provider: "okta", Subject: "s1", Email: "Alice@acme.test", EmailVerified: true}
	unverified := id
	unverified.EmailVerified = false
	for _, c := range []struct {
		name string
		ref  IdentityRef
		id   Identity
		want bool
	}{
		{"by verified e-mail, in any case", IdentityRef{Provider: "okta", Email: "alice@acme.test"}, id, true},
		{"by an unverified e-mail", IdentityRef{Provider: "okta", Email: "alice@acme.test"}, unverified, false},
		{"of another provider", IdentityRef{Provider: "dex", Email: "alice@acme.test"}, id, false},
		{"by subject", IdentityRef{Provider: "okta", Subject: "s1"}, unverified, true},
		{"a subject outweighs the e-mail", IdentityRef{Provider: "okta", Subject: "s2", Email: "alice@acme.test"}, id, false},
		{"that names nothing", IdentityRef{}, Identity{}, false},
		{"without e-mail and subject", IdentityRef{Provider: "okta"}, Identity{Provider: "okta", EmailVerified: true}, false},
	} {
		if got := c.ref.Matches(c.id); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

// TestHolderIsOne: an identity that two persons of a grant claim is nobody.
func TestHolderIsOne(t *testing.T) {
	ref := []IdentityRef{{Provider: "okta", Email: "a@acme.test"}}
	id := Identity{Provider: "okta", Email: "a@acme.test", EmailVerified: true}
	g := Grant{Plan: Plan{People: []Person{{User: User{ID: 1}, Identities: ref}}}}
	if p, ok := g.Holder(id); !ok || p.ID != 1 {
		t.Errorf("one: got %v %v", p, ok)
	}
	g.Plan.People = append(g.Plan.People, Person{User: User{ID: 2}, Identities: ref})
	if p, ok := g.Holder(id); ok {
		t.Errorf("two: got %v, want nobody", p)
	}
}

func TestIncludesGoesByIDAlone(t *testing.T) {
	user := func(id int64) Party { return Party{Principal: Principal{Kind: KindUser, Name: "alice"}, ID: id} }
	team := Party{Principal: Principal{Kind: KindTeam, Name: "acme/dba"}, ID: 71, Members: []User{{ID: 2, Login: "bob"}, {}}}
	for name, c := range map[string]struct {
		parties []Party
		account int64
		want    bool
	}{
		"the user":                     {[]Party{user(1)}, 1, true},
		"another of the same name":     {[]Party{user(1)}, 9, false},
		"a member":                     {[]Party{user(1), team}, 2, true},
		"the team's own number":        {[]Party{team}, 71, false},
		"no account":                   {[]Party{user(0), team}, 0, false},
		"nobody is asked":              {nil, 1, false},
		"a kind that is not known yet": {[]Party{{Principal: Principal{Kind: "role"}, ID: 1, Members: []User{{ID: 1}}}}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Includes(c.parties, c.account); got != c.want {
				t.Errorf("Includes: got %t, want %t", got, c.want)
			}
		})
	}
}

func TestGrantOpen(t *testing.T) {
	from := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	g := Grant{State: StateActive, NotBefore: from, NotAfter: from.Add(time.Minute)}
	for at, want := range map[time.Duration]bool{-1: false, 0: true, time.Minute - 1: true, time.Minute: false} {
		if got := g.Open(from.Add(at)); got != want {
			t.Errorf("open %s after its start: %v, want %v", at, got, want)
		}
	}
	paused := g
	if paused.Paused = "bob: why"; paused.Open(from) {
		t.Error("a grant on hold is open")
	}
	for _, s := range []State{"", StateProposed, StatePlanned, StateApproved, StateLanded, StateExpired, StateRevoked, StateSuperseded, StateRefused} {
		if g.State = s; g.Open(from) {
			t.Errorf("a grant that is %q is open", s)
		}
	}
}

// TestSecretHides by every way that values usually get printed.
func TestSecretHides(t *testing.T) {
	s := Lease{Password: NewSecret("hunter2")}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s.Password, "lease", s)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s.Password, s.Password), log.String(), string(text)} {
		if strings.Contains(out, "hunter2") {
			t.Errorf("the secret shows: %s", out)
		}
	}
	if s.Password.Reveal() != "hunter2" {
		t.Error("Reveal does not")
	}
}

// TestShownDigestCovers everything that makes a run another one.
func TestShownDigestCovers(t *testing.T) {
	base := Held{ID: "h", Session: "s", Rule: "r", Generation: 1, Operation: Operation{Kind: "query", Text: "DELETE FROM a", Params: []string{"1"}, Context: []string{"BEGIN"}, Binding: []byte{1}}}
	seen := map[string]string{base.ShownDigest(): "base"}
	for name, change := range map[string]func(*Held){
		"id": func(h *Held) { h.ID = "i" }, "session": func(h *Held) { h.Session = "z" }, "generation": func(h *Held) { h.Generation = 2 },
		"rule": func(h *Held) { h.Rule = "q" }, "text": func(h *Held) { h.Operation.Text += " " }, "params": func(h *Held) { h.Operation.Params = []string{"2"} },
		"context": func(h *Held) { h.Operation.Context = nil }, "binding": func(h *Held) { h.Operation.Binding = []byte{2} },
		"text moved to params": func(h *Held) { h.Operation.Text, h.Operation.Params = "", []string{"DELETE FROM a", "1"} },
	} {
		h := base
		change(&h)
		if other, dup := seen[h.ShownDigest()]; dup {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[h.ShownDigest()] = name
	}
}

func TestMessageHidesCauses(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.1: secret detail")
	shown := &Error{Code: CodeUnavailable, Message: "The target does not answer.", Cause: cause}
	if got := Message(fmt.Errorf("open: %w", shown)); got != "The target does not answer." {
		t.Errorf("got %q", got)
	}
	if got := Message(cause); strings.Contains(got, "secret") {
		t.Errorf("an unclassified error shows: %q", got)
	}
	if CodeOf(cause) != CodeInternal || CodeOf(shown) != CodeUnavailable {
		t.Error("codes are wrong")
	}
}

// TestHeldSigningBytes: what a gateway signed verifies after it was stored,
// numbered and answered, and nothing else does.
func TestHeldSigningBytes(t *testing.T) {
	h := Held{
		ID: "h1", Gateway: "gateway-1", Digest: "d", Opened: time.Now(), Expires: time.Now().Add(time.Minute),
		Operation: Operation{Text: "select '\xff<&>'", Params: []string{}, Facts: Facts{"n": int64(1)<<62 + 1, "tables": []string{"a"}}},
	}
	signed := string(h.SigningBytes())
	stored := h
	stored.Number, stored.State, stored.Answer, stored.Signature = 7, HeldAnswered, &Answer{Held: "h1"}, []byte("s")
	text, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	var read Held
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if got := string(read.SigningBytes()); got != signed {
		t.Errorf("after storing, got\n%s\nwant\n%s", got, signed)
	}
	read.Operation.Text = "select 1"
	if string(read.SigningBytes()) == signed {
		t.Error("another text has the same signing bytes")
	}
}
