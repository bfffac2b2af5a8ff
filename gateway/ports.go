package gateway

import (
	"context"

	"github.com/tidegate/tidegate/access"
)

// What the gateway needs of the rest of the house. The ledger, the minter and
// the policies are joined to these in cmd.

// Ledger is what a gateway reads of who has what, and where it says what it
// did.
type Ledger interface {
	// Snapshot reads every grant that is not closed, with its signature.
	Snapshot(ctx context.Context) (Snapshot, error)

	// Changed delivers a value soon after anything in the snapshot or any
	// answer to a held operation changed. It may deliver one too many; a
	// reader polls as well. The channel closes with ctx.
	Changed(ctx context.Context) (<-chan struct{}, error)

	// Pin joins an identity named by e-mail to the first subject that logs in
	// with it, and refuses (CodeDenied) another subject after that.
	Pin(ctx context.Context, id access.Identity) error

	// OpenSession and CloseSession list sessions for people and for revoke.
	OpenSession(ctx context.Context, s access.SessionInfo) error
	CloseSession(ctx context.Context, id string, reason string) error

	// Anchor keeps a recording's head outside the recording.
	Anchor(ctx context.Context, h access.Head) error

	// OpenHeld stores an operation that waits; it answers with its number.
	OpenHeld(ctx context.Context, h access.Held) (access.Held, error)

	// Held reads one, with its answer if there is one.
	Held(ctx context.Context, id string) (access.Held, error)

	// ConsumeHeld turns answered into consumed, once: the second call, or a
	// call on anything not answered, is CodeConflict.
	ConsumeHeld(ctx context.Context, id string) (access.Held, error)

	// CancelHeld ends one that nobody waits for any more.
	CancelHeld(ctx context.Context, id string, state access.HeldState) error
}

// Snapshot is who has what, as control signed it.
type Snapshot struct {
	Grants []SignedGrant
	Rules  []access.Rule // of the policies in force today: they can only narrow

	Targets []access.Target // of the policies in force today

	// Sequence is the last that any row of the ledger was given: where it falls,
	// the ledger was restored from an older backup, and nothing opens.
	Sequence int64
}

// SignedGrant is a grant's row: the payload is its JSON, the signature is
// control's (Ed25519) over it.
type SignedGrant struct {
	Payload   []byte
	Signature []byte
}

// Minter hands out the credential of one active grant for one session. It
// runs apart from the gateway in production and checks the grant again.
type Minter interface {
	Lease(ctx context.Context, grant access.GrantKey, session string) (access.Lease, error)
}

// Identifier turns a token into a verified identity. The error is an
// *access.Error with CodeUnauthenticated.
type Identifier interface {
	Identify(ctx context.Context, token access.Secret) (access.Identity, error)
}

// Certificates turns verified identities into short certificates, and back:
// keys and certificates are in SSH's wire form, or in DER (PKIX, X.509). An
// error is an *access.Error.
type Certificates interface {
	Certify(id access.Identity, key []byte) (cert []byte, err error)
	IdentifyCertificate(cert []byte) (access.Identity, error)
}

// Compiler makes a judge of rules for one target and person. A rule that does
// not compile is an error: the caller refuses everything.
type Compiler interface {
	Compile(rules []access.Rule, g access.Grant, id access.Identity) (access.Judge, error)
}

// Recorder writes one session's recording. Append returns when the event is
// handed to the kernel (an operation's end may follow 50 ms later); with sync,
// when it is on disk. Any error is final.
// Seal appends the session's end and answers with the head to anchor.
type Recorder interface {
	Append(e access.Event, sync bool) error
	Seal(reason string) (access.Head, error)
}

// FailingRecorder is a Recorder that tells when it fails by itself, or hangs
// in the midst of an event: f is called once, and may be called at once.
type FailingRecorder interface {
	OnFailure(f func(error))
}

// Recorders starts recordings. A full or missing disk is an error here, and
// the session does not open.
type Recorders interface {
	Record(s access.SessionInfo, anchor func(access.Head)) (Recorder, error)
}
