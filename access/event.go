package access

import "time"

// Event is one thing that happened in a session, in protocol-neutral words.
// It is what recordings hold, and it holds what the user saw: masked values,
// never raw ones, and no secrets.
type Event struct {
	Type EventType `json:"type"`
	Time time.Time `json:"time"`         // UTC
	Op   uint64    `json:"op,omitempty"` // the operation it belongs to; 0 is the session itself

	Session   *SessionInfo `json:"session,omitempty"`   // session.start
	Operation *Operation   `json:"operation,omitempty"` // op.open
	Decision  *Decision    `json:"decision,omitempty"`  // op.open, hold.answer
	Held      string       `json:"held,omitempty"`      // hold.open, hold.answer: the hold's id
	Outcome   *Outcome     `json:"outcome,omitempty"`   // op.close
	Direction Direction    `json:"direction,omitempty"` // data
	Data      []byte       `json:"data,omitempty"`      // data
	Columns   int          `json:"columns,omitempty"`   // resize
	Rows      int          `json:"rows,omitempty"`      // resize
	Text      string       `json:"text,omitempty"`      // notice, session.end: the sentence
}

// EventType says what happened.
type EventType string

// The types of event.
const (
	EventSessionStart EventType = "session.start"
	EventSessionEnd   EventType = "session.end"
	EventOpen         EventType = "op.open"   // an operation was judged
	EventClose        EventType = "op.close"  // it ended
	EventData         EventType = "data"      // bytes as the user saw or typed them
	EventResize       EventType = "resize"    // the terminal's size
	EventNotice       EventType = "notice"    // Tidegate told the user something
	EventHoldOpen     EventType = "hold.open" // an operation waits for a person
	EventHoldAnswer   EventType = "hold.answer"
)

// Direction is which way bytes go.
type Direction string

// The directions.
const (
	ToClient Direction = "out"
	ToTarget Direction = "in"
)

// SessionInfo is what a session is, written once at its start.
type SessionInfo struct {
	ID       string    `json:"id"`
	Grant    GrantKey  `json:"grant"`
	Digest   string    `json:"digest"` // the plan's
	PullURL  string    `json:"pull_url"`
	Person   User      `json:"person"`
	Identity Identity  `json:"identity"`
	Target   TargetRef `json:"target"`
	Role     string    `json:"role"`
	Remote   string    `json:"remote"`           // the client's address
	Client   string    `json:"client,omitempty"` // what the client says of itself: recorded, not believed
	Gateway  string    `json:"gateway"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	NotAfter time.Time `json:"not_after"`
}

// Head is where a recording's chain stands: what is anchored outside.
type Head struct {
	Session string    `json:"session"`
	Segment uint64    `json:"segment"` // the number of the last closed segment, from 0
	Hash    string    `json:"hash"`    // SHA-256, hex, of that segment
	Sealed  bool      `json:"sealed,omitempty"`
	Time    time.Time `json:"time"`
}
