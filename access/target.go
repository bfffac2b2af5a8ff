package access

import (
	"cmp"
	"encoding/json"
	"time"
)

// TargetRef names a target as policies do: postgres.orders-prod.
type TargetRef struct {
	Kind string `json:"kind"` // the room that speaks its protocol: "postgres"
	Name string `json:"name"`
}

// String is the reference as it is written: "postgres.orders-prod".
func (r TargetRef) String() string { return r.Kind + "." + r.Name }

// Target is one thing to which access is given.
type Target struct {
	TargetRef
	Address   string            `json:"address"`          // host:port, with /database for databases
	Admin     string            `json:"admin,omitempty"`  // the name of the secret by which the minter logs in; never the secret
	Static    string            `json:"static,omitempty"` // the name of the secret by which each session logs in, where nothing is minted
	Labels    map[string]string `json:"labels,omitempty"`
	Zone      string            `json:"zone,omitempty"`
	WhenStale string            `json:"when_stale,omitempty"` // what becomes of open sessions when the gateway's snapshot is stale; empty: they stay
	Settings  map[string]string `json:"settings,omitempty"`   // whatever else that kind's target block says; a list is one text, a line each
}

// What a target's when_stale may say.
const (
	WhenStaleEnd  = "end"  // open sessions end
	WhenStaleKeep = "keep" // they go on
)

// Secret names the secret by which control reaches the target: the minter's,
// or that of every session.
func (t Target) Secret() string { return cmp.Or(t.Static, t.Admin) }

// RowScope gives some rows of tables only.
type RowScope struct {
	Tables string `json:"tables,omitempty"` // a pattern; empty: each table of the role
	Where  string `json:"where"`            // "region = 'eu'"
}

// Role is one way of access that a target offers. Read, Write and Rows are
// patterns and conditions in the target kind's own words; Settings is
// whatever else that kind's role block says: a flag as "true", a list as one
// text with a line for each of its entries.
type Role struct {
	Name     string            `json:"name"`
	Longest  Seconds           `json:"longest"`
	Read     []string          `json:"read,omitempty"`   // "public.*", "public.orders"
	Write    []string          `json:"write,omitempty"`  // the same; writing does not imply reading
	Rows     []RowScope        `json:"rows,omitempty"`   // which rows of them; all that are for a table hold together
	Record   string            `json:"record,omitempty"` // what more is recorded: RecordInput, RecordAll, RecordResults
	Settings map[string]string `json:"settings,omitempty"`
}

// What a role's record may say. Without a word, what the target sends is kept
// up to a bound, and of what the client sends only size and hash.
const (
	RecordInput   = "input"   // the client's bytes, too
	RecordAll     = "all"     // both, without a bound
	RecordResults = "results" // of a database: the rows, too; a rule may say it as well
)

// Drain is how long after the grant's end what runs may go on: a statement to
// its end, its transaction to its COMMIT. It is part of the grant's time. One
// that is not understood is none.
func (r Role) Drain() time.Duration {
	d, err := time.ParseDuration(r.Settings["drain"])
	if err != nil || d < 0 {
		return 0
	}
	return d.Truncate(time.Second)
}

// Seconds is a length of time in whole seconds: the unit of grants. It is
// written as a number in JSON, so a digest does not depend on formatting.
type Seconds int64

// Duration converts to Go's unit.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// String is Go's notation: "2h0m0s".
func (s Seconds) String() string { return s.Duration().String() }

// Mask says which columns (or fields) of which targets are hidden, and how,
// or what is hidden wherever it is found in text, or both.
type Mask struct {
	Name    string      `json:"name"`
	On      []TargetRef `json:"on"`
	Columns []string    `json:"columns"` // "*.email", "users.ssn", "public.users.ssn"
	With    MaskWith    `json:"with"`
	Detect  []string    `json:"detect,omitempty"` // names of Detectors or their groups
}

// MaskWith is how a masked value is shown.
type MaskWith struct {
	Kind MaskKind `json:"kind"`
	Keep int      `json:"keep,omitempty"` // partial: how many trailing characters stay; values shorter than twice that show nothing
	Text string   `json:"text,omitempty"` // constant: what is shown instead
}

// MaskKind names a way of masking.
type MaskKind string

// The ways of masking. Null is the zero value's meaning too: show nothing.
const (
	MaskNull     MaskKind = "null"     // NULL for each value
	MaskConstant MaskKind = "constant" // the same text for each value
	MaskPartial  MaskKind = "partial"  // the last Keep characters
)

// Rule is a policy rule as data. The conditions are HCL expressions in source
// form; policies compiles them, gateways only carry them. A rule applies if
// its condition is true, unknown or null: nothing fails open.
type Rule struct {
	Name string      `json:"name"`
	On   []TargetRef `json:"on"`
	Deny string      `json:"deny,omitempty"`
	Hold string      `json:"hold,omitempty"`
	Ask  []Party     `json:"ask,omitempty"` // who may answer a hold, resolved to ids
	Say  string      `json:"say"`
	Sync bool        `json:"sync,omitempty"` // record to disk before forwarding

	When      string  `json:"when,omitempty"` // what the limits are for; empty: everything
	LimitRows int64   `json:"limit_rows,omitempty"`
	LimitTime Seconds `json:"limit_time,omitempty"`
	Record    string  `json:"record,omitempty"` // RecordResults: the rows, too, as the user saw them
}

// Limits reports whether the rule does anything to what it lets run.
func (r Rule) Limits() bool { return r.LimitRows > 0 || r.LimitTime > 0 || r.Record != "" }

// Expansion is what a role means on the target today: the tables, columns and
// masks that a minter found there. Body is the minter's own canonical JSON
// (stable order), so that equal access has equal bytes; Summary is for people.
type Expansion struct {
	Body    json.RawMessage `json:"body"`
	Summary []string        `json:"summary,omitempty"`
}
