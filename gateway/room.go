package gateway

import (
	"context"
	"net"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Room speaks one protocol. Adding a protocol is a folder with a Room and one
// line in the list of rooms.
type Room interface {
	// Kind is the target kind that the room serves: "postgres".
	Kind() string

	// Serve talks to one client until either side is done, ctx is cancelled
	// or the session is cut. It owns conn and closes it. The error is for the
	// log; what the client must know has been said in its own protocol.
	Serve(ctx context.Context, conn net.Conn, door Door) error
}

// Door is what a room has before it knows who knocks.
type Door interface {
	// Open identifies the caller, finds the one grant that the session runs
	// under, fetches its lease and starts the recording. The error is an
	// *access.Error whose message may be shown. The session must be closed.
	Open(ctx context.Context, k Knock) (Session, error)

	// Targets are all configured targets of a kind. Nobody is let in by it: a
	// room must know them so as not to lead a connection to one past itself.
	Targets(kind string) []access.Target

	// Vouch identifies the caller and opens nothing: for a protocol in which
	// much can be asked before a target is named.
	Vouch(ctx context.Context, k Knock) error

	// Certify identifies the caller by a token and signs the public key, in
	// SSH's wire form or in DER: a short certificate of the same kind by which
	// the same person can knock next time. It opens nothing.
	Certify(ctx context.Context, k Knock, key []byte) (cert []byte, err error)

	// Named are the names by which the caller can knock at targets of a kind:
	// those that a grant of his opens now or later, and with "+" and the
	// grant's id where there are several. It opens nothing.
	Named(ctx context.Context, k Knock, kind string) ([]string, error)

	// Linger lets a connection that has opened no session yet stay for so
	// long from now: a person types a code elsewhere.
	Linger(d time.Duration)
}

// Knock is what a client brings: a token, or a certificate.
type Knock struct {
	Token access.Secret // a bearer token

	// Certificate is an SSH certificate in wire form, or an X.509 certificate
	// in DER, whose private key the client has proved to hold. Who issued it,
	// and for whom, is not the room's to judge.
	Certificate []byte

	Target access.TargetRef // what the client wants to reach
	Choice string           // a grant id or role name, if the client named one after "+"
	Remote net.Addr
	Client string // what the client says of itself: recorded, not believed
}

// Session is one person's stay at one target under exactly one grant. It is
// safe for concurrent use.
type Session interface {
	// Info is what the session is: its id, grant, person, target, end.
	Info() access.SessionInfo

	// Lease is the credential, the target's address and the room's plan.
	Lease() access.Lease

	// Context ends when the session must: the end of the grant, a revocation,
	// a failed recorder. Its cause is an *access.Error: the last words to the
	// client, in one sentence.
	Context() context.Context

	// Judge says what Admit would decide, without opening, holding or
	// recording anything. Rooms keep its answers by Generation.
	Judge(op access.Operation) access.Decision

	// Reads reports whether any rule reads the fact of this name: a room need
	// not find out what costs something and nobody asks for.
	Reads(fact string) bool

	// Generation changes whenever a kept decision may no longer hold.
	Generation() uint64

	// Admit asks whether the operation may run now, and records question and
	// answer. It waits while a person decides; the room goes on reading its
	// client meanwhile and cancels ctx when the client cancels or leaves. An
	// *access.Error with CodeDenied is a refusal: the session stays usable.
	// When Admit returns an Open, the record of it is handed to the kernel:
	// the room may forward. Every Open must be closed.
	Admit(ctx context.Context, op access.Operation) (Open, error)

	// Withhold is what is recorded and shown in the place of a value that must
	// not be: see Withholder.
	Withhold(value []byte) string

	// Masker hides the values that the grant's masks detect in text; nil if
	// they detect none. It is for what goes to the client past Tap, and shared.
	Masker() Masker

	// Draining is closed at the grant's end if its role lets what runs then go
	// on for a while: Admit refuses all but operations that only end
	// something. The room says by Drained when nothing runs any more. The
	// session of a room that never asks ends with the grant.
	Draining() <-chan struct{}

	// Drained ends a session that is draining.
	Drained()

	// Warnings delivers sentences for the user, such as five minutes before
	// the end. A room shows them in its protocol's own way.
	Warnings() <-chan string

	// Close ends the session and seals its recording. The reason is recorded.
	Close(reason string) error
}

// Open is an operation that runs. Many are open at once, and they may close
// in any order.
type Open interface {
	// ID is the operation's number in the session, from 1.
	ID() uint64

	// Decision is what was decided, and by whom if it was held.
	Decision() access.Decision

	// Tap shows the operation's bytes to the masker and the recorder and
	// returns those to send now. Values are looked for in b alone: what comes
	// in pieces goes through an Output.
	// The returned slice is valid until the next call. An error means that
	// nothing of b may be sent and the session is ending. What is recorded
	// of the bytes is not the room's to know: the target's up to a bound, the
	// client's where the role says so, and size and hash of both in any case.
	Tap(dir access.Direction, b []byte) ([]byte, error)

	// Output is one of the operation's streams of text to the client, such as
	// its standard output: Tap for text in pieces. Each call starts another.
	Output() Output

	// Resize records the size of the user's terminal.
	Resize(columns, rows int) error

	// Count adds to the outcome what the protocol counts, without its bytes
	// being shown: rows, and bytes that are not recorded one by one.
	Count(rows, bytes int64)

	// Close records the outcome, once. Later calls do nothing.
	Close(o access.Outcome) error
}

// Output is a stream of text to the client. It is for one goroutine at a time.
type Output interface {
	// Tap is Open's, and may withhold a tail as long as a value may have begun
	// there. The tail is bounded; Flush returns it.
	Tap(b []byte) ([]byte, error)

	// Flush returns what is withheld: at the end, and after Quiet of silence,
	// so that a prompt is not waited for.
	Flush() ([]byte, error)

	// Withholds reports whether there is anything to flush.
	Withholds() bool

	// SetWidth says how many columns the user's terminal has.
	SetWidth(columns int)
}

// Quiet is how long an Output's tail may be withheld while nothing more comes.
const Quiet = 50 * time.Millisecond

// Masker hides values in text, with asterisks in their place: lengths stay.
type Masker interface {
	// Mask masks in one whole text, in place, and reports whether there was
	// any value.
	Mask(text []byte) bool

	// Stream masks in text that comes in pieces.
	Stream() MaskStream
}

// MaskStream masks text in pieces. It is for one goroutine at a time.
type MaskStream interface {
	// Advance masks in place what can be released of p, and says how many
	// bytes that is; p begins with what was not released before. now releases
	// everything.
	Advance(p []byte, now bool) int
}

// Warn is how long before its end a session is warned.
var Warn = [...]time.Duration{5 * time.Minute, time.Minute}
