package access

import (
	"fmt"
	"regexp"
	"time"
)

var grantFile = regexp.MustCompile(`\Agrants/[A-Za-z0-9][A-Za-z0-9_-]{0,47}/([a-z0-9-]{1,48})\.hcl\z`)

// GrantFileID is the id of the grant whose file has the path
// grants/<who>/<id>.hcl; false if that is no grant's place.
func GrantFileID(path string) (id string, ok bool) {
	m := grantFile.FindStringSubmatch(path)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// Request is one grant block as somebody wrote it, before any policy was
// asked. Exactly one of Lasts or From and Until says how long.
type Request struct {
	ID     string      `json:"id"`
	File   string      `json:"file"` // grants/<who>/<id>.hcl
	To     []Principal `json:"to"`
	On     TargetRef   `json:"on"`
	Role   string      `json:"role"`
	Lasts  Seconds     `json:"lasts,omitempty"`
	From   time.Time   `json:"from,omitzero"`
	Until  time.Time   `json:"until,omitzero"`
	Reason string      `json:"reason"`
	Ticket string      `json:"ticket,omitempty"`
}

// Length is how long the request asks for.
func (r Request) Length() Seconds {
	if r.Lasts > 0 {
		return r.Lasts
	}
	return Seconds(r.Until.Sub(r.From) / time.Second)
}

// Window is the absolute time of the grant when it lands at the given moment.
func (r Request) Window(landed time.Time) (from, until time.Time) {
	if r.Lasts > 0 {
		return landed, landed.Add(r.Lasts.Duration())
	}
	return r.From, r.Until
}

// Change is what a pull request does to one grant file.
type Change struct {
	Kind    ChangeKind `json:"kind"`
	Request Request    `json:"request"`          // as it is in the head; in the base for a removal
	Before  *Request   `json:"before,omitempty"` // an edit: as it was in the base
	Blob    string     `json:"blob"`             // the git blob id of the file in the head; in the base for a removal
}

// ChangeKind says what happened to a grant between base and head.
type ChangeKind string

// The kinds of change.
const (
	ChangeAdded   ChangeKind = "added"
	ChangeRemoved ChangeKind = "removed"
	ChangeEdited  ChangeKind = "edited"
)

// File is one file of a git tree.
type File struct {
	Path    string `json:"path"`
	Blob    string `json:"blob"` // git's object id
	Content []byte `json:"content"`
}

// Tree is the part of a commit that Tidegate reads: grants/ and policies/.
type Tree struct {
	Commit string `json:"commit"`
	Files  []File `json:"files"` // sorted by path
}

// Diagnostic is one complaint about the text of a policy or a request. It
// never holds a value of a secret.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line"`   // 1 is the first
	Column   int      `json:"column"` // 1 is the first; in characters
	EndLine  int      `json:"end_line"`
	EndCol   int      `json:"end_column"`
	Summary  string   `json:"summary"` // what
	Detail   string   `json:"detail"`  // why, and what to do
}

// Severity of a diagnostic. The zero value is an error.
type Severity int

// The severities.
const (
	SeverityError Severity = iota
	SeverityWarning
)

// String is the diagnostic on one line: file:line:column: summary; detail.
func (d Diagnostic) String() string {
	return fmt.Sprintf("%s:%d:%d: %s; %s", d.File, d.Line, d.Column, d.Summary, d.Detail)
}

// Diagnostics are all the complaints at once.
type Diagnostics []Diagnostic

// HasErrors reports whether any of them is an error.
func (ds Diagnostics) HasErrors() bool {
	for _, d := range ds {
		if d.Severity == SeverityError {
			return true
		}
	}
	return false
}
