package tracing

import (
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/tidegate/tidegate/access"
)

// Name is a span's name. The list is closed: docs/reference/signals.md says
// what each one means, and a test holds the two together.
type Name string

// The spans, in the order of a life.
const (
	Webhook   Name = "webhook"           // a delivery, from its receipt until a workflow was woken
	Reading   Name = "request.reading"   // the pull request was read, and something was new
	Plan      Name = "request.plan"      // a plan was shown, or its approval changed
	Approval  Name = "request.approval"  // a review was counted
	Land      Name = "grant.land"        // what the merge put on main became a grant, or was refused
	Mint      Name = "grant.mint"        // the access was made at the target
	Activate  Name = "grant.activate"    // gateways may open it
	Extend    Name = "grant.extend"      // its end was moved
	End       Name = "grant.end"         // its end was written: gateways cut
	Close     Name = "grant.close"       // revoked and proved
	Revoke    Name = "grant.revoke"      // the access was taken away at the target
	Prove     Name = "grant.prove"       // the target said that nothing is left
	Session   Name = "gateway.session"   // one person's stay, from the knock to the seal
	Lease     Name = "gateway.lease"     // the credential was fetched
	Operation Name = "gateway.operation" // one statement
	Hold      Name = "gateway.hold"      // it waited for a person
)

// Names are all of them.
func Names() []Name {
	return []Name{Webhook, Reading, Plan, Approval, Land, Mint, Activate, Extend, End, Close, Revoke, Prove, Session, Lease, Operation, Hold}
}

// Key is an attribute's key. This list is closed as well: none of them takes a
// statement, a parameter, a token or a person's name.
type Key string

// The attributes.
const (
	KeyPull      Key = "tidegate.pull"      // <repository id>-<number>
	KeyGrant     Key = "tidegate.grant"     // <repository id>-<grant id>
	KeySession   Key = "tidegate.session"   // the session's id
	KeyTarget    Key = "tidegate.target"    // kind.name
	KeyRole      Key = "tidegate.role"      // the role's name in the policies
	KeyState     Key = "tidegate.state"     // of the grant, the review or the hold
	KeyCode      Key = "tidegate.code"      // why it failed: an access code
	KeyEvent     Key = "tidegate.event"     // what a delivery is about
	KeyReview    Key = "tidegate.review"    // the review's id
	KeyCounts    Key = "tidegate.counts"    // whether the review binds to what stands now
	KeyApproved  Key = "tidegate.approved"  // whether every approval is met
	KeyDigest    Key = "tidegate.digest"    // of the plan
	KeyBy        Key = "tidegate.by"        // which part acted: workflow, sweep, command
	KeyOperation Key = "tidegate.operation" // its number in the session
	KeyKind      Key = "tidegate.kind"      // what the operation is to the recording
	KeyStatement Key = "tidegate.statement" // what it does: select, delete
	KeyVerdict   Key = "tidegate.verdict"   // allow, hold, deny
	KeyRule      Key = "tidegate.rule"      // the rule that decided
	KeyHeld      Key = "tidegate.held"      // the hold's id
	KeyStatus    Key = "tidegate.status"    // how it ended
	KeyRows      Key = "tidegate.rows"      // rows returned or changed
	KeyBytes     Key = "tidegate.bytes"     // bytes sent to the client
	KeyTotal     Key = "tidegate.total"     // operations of the session
	KeyLeftOut   Key = "tidegate.left_out"  // operations of the session that have no span
)

// Keys are all of them.
func Keys() []Key {
	return []Key{KeyPull, KeyGrant, KeySession, KeyTarget, KeyRole, KeyState, KeyCode, KeyEvent, KeyReview, KeyCounts, KeyApproved,
		KeyDigest, KeyBy, KeyOperation, KeyKind, KeyStatement, KeyVerdict, KeyRule, KeyHeld, KeyStatus, KeyRows, KeyBytes, KeyTotal, KeyLeftOut}
}

// Attr is one attribute.
type Attr = attribute.KeyValue

// maxText bounds a value: what is longer is no name.
const maxText = 128

// Text is an attribute that holds a name.
func (k Key) Text(v string) Attr { return attribute.String(string(k), clip(v)) }

// Number is an attribute that counts.
func (k Key) Number(v int64) Attr { return attribute.Int64(string(k), v) }

// Is is an attribute that is so or not.
func (k Key) Is(v bool) Attr { return attribute.Bool(string(k), v) }

func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "") // one invalid byte would cost the whole batch
}

// Grant are the attributes by which a grant's spans are found.
func Grant(g access.Grant, more ...Attr) []Attr {
	return slices.Concat([]Attr{
		KeyGrant.Text(g.Key.String()), KeyTarget.Text(g.Plan.Target.TargetRef.String()), KeyRole.Text(g.Plan.Role.Name),
	}, more)
}
