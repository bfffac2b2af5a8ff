package access

import "sync/atomic"

// Operation is one thing that somebody wants to do through a gateway, in
// words that rules can read.
type Operation struct {
	Kind    string    `json:"kind"`              // what it is to the recording: "query", "copy", "exec"
	Subject string    `json:"subject"`           // the name that rules read: "statement", "command"
	Facts   Facts     `json:"facts,omitempty"`   // what rules read: statement.kind is Facts["kind"]
	Text    string    `json:"text"`              // exactly what will run; shown to the approver and recorded
	Params  []string  `json:"params,omitempty"`  // shown and recorded likewise; withheld values already replaced
	Context []string  `json:"context,omitempty"` // more that an approver must see: the transaction so far
	Binding []byte    `json:"-"`                 // goes into the shown digest: what makes this run differ from another of the same text
	Guard   *Decision `json:"guard,omitempty"`   // what the room itself says of it: can only narrow
	Ends    bool      `json:"-"`                 // it only ends what runs, as COMMIT does: it may come after the grant's end, while the session drains
	Opaque  bool      `json:"opaque,omitempty"`  // its bytes say nothing to a reader (a tunnel, a file): size and hash are kept

	// Class, if there is one, says that every operation with the same pointer
	// has the same Kind, Subject, Guard and Facts but "text".
	Class *Class `json:"-"`
}

// Class is what a room shares among operations that differ in their text and
// parameters alone, so that a judge who reads neither decides only once, and a
// recorder writes the rest only once.
type Class struct {
	Written atomic.Pointer[[]byte] // what the recorder keeps of it
}

// Facts are what a room found out about an operation. A value is a bool, an
// int64, a string or a []string, nothing else.
type Facts map[string]any

// Verdict is what may happen with an operation. The zero value refuses, and
// the stricter verdict is the smaller: combining verdicts is the minimum.
type Verdict int

// The verdicts, strictest first.
const (
	Deny Verdict = iota
	Hold
	Allow
)

// String is the verdict in lower case.
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Hold:
		return "hold"
	default:
		return "deny"
	}
}

// Decision is a verdict that can say why.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	Rule    string  `json:"rule,omitempty"` // the rule's name, or the guardrail's
	Say     string  `json:"say,omitempty"`  // the sentence a person reads
	Ask     []Party `json:"ask,omitempty"`  // a hold: who may answer
	Sync    bool    `json:"sync,omitempty"` // the record must be on disk before anything is forwarded
	Limits  Limits  `json:"limits,omitzero"`
}

// Limits are what an operation that may run is kept to. Zero is no limit.
type Limits struct {
	Rows    int64   `json:"rows,omitempty"`    // how many the user may see of it
	Time    Seconds `json:"time,omitempty"`    // how long it may run
	Results bool    `json:"results,omitempty"` // what it returns is recorded, as the user saw it
	Rule    string  `json:"rule,omitempty"`    // whose limit of rows or time it is
	Say     string  `json:"say,omitempty"`
}

// Narrower is the stricter of both, limit by limit.
func (l Limits) Narrower(o Limits) Limits {
	if o.Rows > 0 && (l.Rows == 0 || o.Rows < l.Rows) {
		l.Rows, l.Rule, l.Say = o.Rows, o.Rule, o.Say
	}
	if o.Time > 0 && (l.Time == 0 || o.Time < l.Time) {
		if l.Time = o.Time; l.Rule == "" {
			l.Rule, l.Say = o.Rule, o.Say
		}
	}
	l.Results = l.Results || o.Results
	return l
}

// Strictest combines decisions: the smallest verdict wins, the earlier of two
// equal ones speaks, and Sync and each limit hold if any asks for them. None
// refuses.
func Strictest(ds ...Decision) Decision {
	if len(ds) == 0 {
		return Decision{Verdict: Deny, Rule: "default", Say: "Nothing allows this."}
	}
	best := ds[0]
	sync, limits := best.Sync, best.Limits
	for _, d := range ds[1:] {
		sync, limits = sync || d.Sync, limits.Narrower(d.Limits)
		if d.Verdict < best.Verdict {
			best = d
		}
	}
	best.Sync, best.Limits = sync, limits
	return best
}

// Judge decides operations. It is pure: the same operation gets the same
// decision, so a room may keep decisions as long as its judge is the same.
type Judge interface {
	Judge(Operation) Decision
}

// ClassJudge is a Judge that can say that it reads nothing of an operation
// but what its class has: then one decision holds for the whole class.
type ClassJudge interface {
	Judge
	JudgesClasses() bool
}

// FactJudge is a Judge that can say whether it reads a fact: a room need not
// find out what costs something and nobody asks for.
type FactJudge interface {
	Judge
	Reads(fact string) bool
}

// JudgeFunc lets a function judge.
type JudgeFunc func(Operation) Decision

// Judge calls f.
func (f JudgeFunc) Judge(op Operation) Decision { return f(op) }

// Outcome is how an operation ended.
type Outcome struct {
	Status string `json:"status"`          // "ok", "error", "refused", "cancelled", "cut"
	Code   string `json:"code,omitempty"`  // the protocol's own: a SQLSTATE, an exit status
	Rows   int64  `json:"rows,omitempty"`  // rows returned or changed, where the protocol counts
	Bytes  int64  `json:"bytes,omitempty"` // bytes sent to the client for it
	Hash   string `json:"hash,omitempty"`  // SHA-256, hex, of those bytes

	Received     int64  `json:"received,omitempty"`      // bytes that the client sent for it
	ReceivedHash string `json:"received_hash,omitempty"` // SHA-256, hex, of those bytes
}
