package access

import (
	"slices"
	"strings"
	"time"
)

// Identity is who somebody is according to a verified token or certificate.
// Issuer and Subject together are its key; nothing that the client merely
// says (a user name, a login) is part of it.
type Identity struct {
	Provider      string            `json:"provider"` // the issuer's short name in the server's config: "okta"
	Issuer        string            `json:"issuer"`   // the token's iss, a URL
	Subject       string            `json:"subject"`  // the token's sub
	Email         string            `json:"email,omitempty"`
	EmailVerified bool              `json:"email_verified,omitempty"`
	Groups        []string          `json:"groups,omitempty"`
	Claims        map[string]string `json:"claims,omitempty"` // the discrete claims that a policy may match
	Expires       time.Time         `json:"expires"`          // the token's exp
}

// String names the identity for people and logs: the e-mail if there is one.
func (i Identity) String() string {
	if i.Email != "" {
		return i.Provider + ":" + i.Email
	}
	return i.Provider + ":" + i.Subject
}

// IdentityRef is how a policy names an identity before anybody has logged in:
// a provider and an e-mail address (which must then be verified) or a subject.
type IdentityRef struct {
	Provider string `json:"provider"`
	Email    string `json:"email,omitempty"`
	Subject  string `json:"subject,omitempty"`
}

// Matches reports whether the verified identity is the one that r names.
// An e-mail matches only when the provider says that it is verified.
func (r IdentityRef) Matches(id Identity) bool {
	if r.Provider == "" || r.Provider != id.Provider {
		return false
	}
	if r.Subject != "" {
		return r.Subject == id.Subject
	}
	return r.Email != "" && id.EmailVerified && strings.EqualFold(r.Email, id.Email)
}

// User is an account of the forge. ID is GitHub's numeric id and the only key;
// the login is what people read, and can be renamed.
type User struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Bot   bool   `json:"bot,omitempty"`
}

// Team is a team of the forge, with the members that it had when it was read.
type Team struct {
	ID      int64  `json:"id"`
	Name    string `json:"name"` // "acme/dba"
	Members []User `json:"members,omitempty"`
}

// Directory answers who a name was when it was looked up. Evaluation reads it
// instead of the forge, so a plan depends on nothing that it was not given.
type Directory struct {
	Users map[string]User `json:"users"` // by lower-case login
	Teams map[string]Team `json:"teams"` // by lower-case "org/slug"
}

// User looks a login up; ok is false for one that the forge does not know.
func (d Directory) User(login string) (User, bool) {
	u, ok := d.Users[strings.ToLower(login)]
	return u, ok
}

// Team looks a team up by "org/slug".
func (d Directory) Team(name string) (Team, bool) {
	t, ok := d.Teams[strings.ToLower(name)]
	return t, ok
}

// Person joins a forge account to the identities that it may log in with.
type Person struct {
	User
	Identities []IdentityRef `json:"identities"`
}

// PersonOf finds the person whom the identity is. Two matches refuse: a policy
// that says two things about one identity is not understood.
func PersonOf(people []Person, id Identity) (Person, bool) {
	var found []Person
	for _, p := range people {
		for _, ref := range p.Identities {
			if ref.Matches(id) {
				found = append(found, p)
				break
			}
		}
	}
	if len(found) != 1 {
		return Person{}, false
	}
	return found[0], true
}

// Principal is a name in a policy or a request: user("octocat") or
// team("acme/dba").
type Principal struct {
	Kind PrincipalKind `json:"kind"`
	Name string        `json:"name"`
}

// PrincipalKind says what a Principal names.
type PrincipalKind string

// The kinds of principal.
const (
	KindUser PrincipalKind = "user"
	KindTeam PrincipalKind = "team"
)

// String is the principal as policies write it: team("acme/dba").
func (p Principal) String() string { return string(p.Kind) + `("` + p.Name + `")` }

// Party is a principal resolved to the ids that it stood for when planned.
type Party struct {
	Principal
	ID      int64  `json:"id"`                // the user's or the team's id
	Members []User `json:"members,omitempty"` // a team's members when planned
}

// Includes reports whether the account is one of the parties or a member of
// one, by id alone: a name may be somebody else's by now. No account, 0, is in
// none.
func Includes(parties []Party, account int64) bool {
	is := func(u User) bool { return u.ID == account }
	return account != 0 && slices.ContainsFunc(parties, func(p Party) bool {
		switch p.Kind {
		case KindUser:
			return p.ID == account
		case KindTeam:
			return slices.ContainsFunc(p.Members, is)
		}
		return false
	})
}
