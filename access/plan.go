package access

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Plan is a request under the policies in force: everything that a mint will
// give and a gateway will enforce. Two plans with one digest give the same.
type Plan struct {
	Request      Request       `json:"request"`
	People       []Person      `json:"people"` // to, expanded to persons with ids
	Target       Target        `json:"target"`
	Role         Role          `json:"role"`
	Masks        []Mask        `json:"masks,omitempty"`
	Rules        []Rule        `json:"rules,omitempty"`
	Requirements []Requirement `json:"requirements"`
	Expansion    Expansion     `json:"expansion,omitzero"` // filled in by the minter
	PolicyDigest string        `json:"policy_digest"`      // of the policy blocks that this plan read
}

// Digest is the identity of what an approver agrees to: the SHA-256, in hex,
// of the plan's canonical JSON.
func (p Plan) Digest() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("encode plan: %v", err)) // a Plan is plain data: only a programming error gets here
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Receives reports whether the access is for this account.
func (p Plan) Receives(account int64) bool {
	return slices.ContainsFunc(p.People, func(who Person) bool { return who.ID == account })
}

// Detect are the detectors that the plan's masks name, without groups. One
// that is not known stays in it, for whoever must refuse it.
func (p Plan) Detect() []string {
	var names []string
	for _, m := range p.Masks {
		names = append(names, m.Detect...)
	}
	known, unknown := ExpandDetectors(names)
	return append(known, unknown...)
}

// Requirement is one approval block that applies to a plan: Need different
// people out of From must agree. Need 0 is a standing pre-approval.
type Requirement struct {
	Name string  `json:"name"`
	Need int     `json:"need"`
	From []Party `json:"from"`
	Say  string  `json:"say"`
}

// Review is one review of a pull request, bound to the bytes it saw.
type Review struct {
	ID           int64       `json:"id"`
	User         User        `json:"user"`
	State        ReviewState `json:"state"`
	Commit       string      `json:"commit"`          // the head that the reviewer saw
	Digest       string      `json:"digest"`          // of the plan at Commit
	PolicyDigest string      `json:"policy_digest"`   // in force when the review was first seen
	Gives        string      `json:"gives,omitempty"` // digest of what the roles meant at their targets then; none: seen before that was kept
	Submitted    time.Time   `json:"submitted"`
}

// ReviewState is a review's state.
type ReviewState string

// The review states, in GitHub's words (lower case).
const (
	ReviewApproved         ReviewState = "approved"
	ReviewChangesRequested ReviewState = "changes_requested"
	ReviewCommented        ReviewState = "commented"
	ReviewDismissed        ReviewState = "dismissed"
)

// Ballot is everything that the counting of approvals may know.
type Ballot struct {
	Reviews  []Review         `json:"reviews"`            // in order of submission
	Excluded map[int64]string `json:"excluded,omitempty"` // user id -> why that person never counts: "opened the request"
}

// Reason is a node of a judgement that explains itself. It is rendered once
// for each audience: the comment, the check run, `tidegate why`, the console.
type Reason struct {
	Name     string   `json:"name"`
	Met      bool     `json:"met"`
	Text     string   `json:"text"` // one sentence
	Children []Reason `json:"children,omitempty"`
}
