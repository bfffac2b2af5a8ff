package access

import (
	"fmt"
	"strconv"
	"time"
)

// GrantKey names a grant for all time: ids are one-shot in a repository.
type GrantKey struct {
	Repo int64  `json:"repo"` // GitHub's repository id
	ID   string `json:"id"`
}

// String is the key as workflow ids and logs write it: "1296269-inc-1".
func (k GrantKey) String() string { return strconv.FormatInt(k.Repo, 10) + "-" + k.ID }

// State is where a grant is in its life.
type State string

// The states of a grant. Only an active one opens anything.
const (
	StateProposed   State = "proposed"   // in an open pull request
	StatePlanned    State = "planned"    // evaluated and published
	StateApproved   State = "approved"   // every requirement met
	StateLanded     State = "landed"     // on main, as approved; being minted
	StateActive     State = "active"     // minted; sessions may open
	StateExpired    State = "expired"    // its time is up
	StateRevoked    State = "revoked"    // ended early
	StateSuperseded State = "superseded" // replaced
	StateRefused    State = "refused"    // landed without approval, or can't be given
)

// Ended reports whether nothing may open or go on in this state.
func (s State) Ended() bool {
	switch s {
	case StateExpired, StateRevoked, StateSuperseded, StateRefused:
		return true
	}
	return false
}

// Grant is the ledger's row of one grant, which control signs and gateways
// read. Sequence rises over the whole ledger with each write; a gateway that
// has seen n believes nothing below n for this grant.
type Grant struct {
	Key        GrantKey  `json:"key"`
	Sequence   int64     `json:"sequence"`
	Generation int       `json:"generation"` // rises with each new mint
	State      State     `json:"state"`
	Plan       Plan      `json:"plan"`
	Digest     string    `json:"digest"` // of Plan as approved
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	Pull       Pull      `json:"pull"`
	Paused     string    `json:"paused,omitempty"`  // who put it on hold, and why: nothing opens or goes on; empty: it is not
	Yields     time.Time `json:"yields,omitzero"`   // its target makes room for a migration: its access is not made before, unless this is taken away
	Why        string    `json:"why,omitempty"`     // the last transition's reason, one sentence
	Closed     time.Time `json:"closed,omitzero"`   // proved that nothing is left at the target
	Backing    []byte    `json:"backing,omitempty"` // the room's own plan from mint (views and names): no secret
}

// MaxWhy is how many bytes the reason may have that a person gives for an end: of
// a grant, or of sessions.
const MaxWhy = 500

// Open reports whether the grant lets a session open or go on at the moment.
func (g Grant) Open(now time.Time) bool {
	return g.State == StateActive && g.Paused == "" && !now.Before(g.NotBefore) && now.Before(g.NotAfter)
}

// Drained is when nothing of the grant may go on any more: its end, and what
// its role gives to what runs then.
func (g Grant) Drained() time.Time { return g.NotAfter.Add(g.Plan.Role.Drain()) }

// Holder finds the person among those the grant names whom the identity is.
func (g Grant) Holder(id Identity) (Person, bool) { return PersonOf(g.Plan.People, id) }

// Pull is where a grant was asked for.
type Pull struct {
	Repo   int64  `json:"repo"`
	Number int    `json:"number"`
	URL    string `json:"url"`
	Head   string `json:"head,omitempty"` // the commit that was approved
	Author User   `json:"author"`
	Merge  string `json:"merge,omitempty"` // the commit on main
}

// String is the grant for people and logs.
func (g Grant) String() string {
	return fmt.Sprintf("%s (%s, until %s)", g.Key.ID, g.State, g.NotAfter.UTC().Format(time.RFC3339))
}

// GrantSigningBytes are the bytes that control signs for a grant: its row's
// payload behind a label that no other signature has.
func GrantSigningBytes(payload []byte) []byte {
	return append([]byte("tidegate grant v1\n"), payload...)
}
