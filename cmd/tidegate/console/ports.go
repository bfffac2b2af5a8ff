package console

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/record"
	"github.com/tidegate/tidegate/workflows"
)

// Ledger is what the console reads of the ledger. It writes its audit log
// alone, and who first logged in with an e-mail.
type Ledger interface {
	Adopted(ctx context.Context) (access.Tree, error)
	Grant(ctx context.Context, key access.GrantKey) (access.Grant, error)
	Unclosed(ctx context.Context) ([]access.Grant, error)
	ListGrants(ctx context.Context) ([]access.Grant, error)
	ListSessions(ctx context.Context) ([]access.SessionInfo, error)
	Sessions(ctx context.Context, grant access.GrantKey) ([]access.SessionInfo, error)
	Session(ctx context.Context, id string) (access.SessionInfo, string, error)
	Heads(ctx context.Context, session string) ([]access.Head, error)
	ListHelds(ctx context.Context) ([]access.Held, error)
	Held(ctx context.Context, id string) (access.Held, error)
	AuditTail(ctx context.Context, n int) ([]ledger.Entry, error)
	AuditOf(ctx context.Context, subjects []string) (rows []ledger.Entry, more bool, err error)
	VerifyAudit(ctx context.Context) error
	Audit(ctx context.Context, actor, action, subject, detail string) error
	Pin(ctx context.Context, id access.Identity) error
}

// Desk is where the console asks who may what, and acts: *workflows.Desk.
type Desk interface {
	Account(ctx context.Context, login string) (access.User, error)
	Oversees(ctx context.Context, u access.User) (bool, error)
	Asked(ctx context.Context, ask []access.Party, u access.User) (bool, error)
	Holds(g access.Grant, u access.User) bool
	MayRevoke(ctx context.Context, g access.Grant, u access.User) error
	Revoke(ctx context.Context, in workflows.RevokeInput) error
	MayAnswer(ctx context.Context, h access.Held, u access.User) error
	Answer(ctx context.Context, in workflows.AnswerInput) error
	Why(ctx context.Context, g access.Grant) (access.Reason, error)
}

var _ Desk = (*workflows.Desk)(nil)

// Recordings are where recordings lie.
type Recordings interface {
	// Open opens a session's recording. One that is not here is CodeNotFound.
	Open(ctx context.Context, session string) (Recording, error)
}

// Recording is an open one.
type Recording interface {
	io.ReadSeekCloser
	Size() int64
}

// Folder is recordings in a folder of this machine.
type Folder string

// Open implements Recordings.
func (f Folder) Open(_ context.Context, session string) (Recording, error) {
	file, err := record.OpenSession(string(f), session)
	if err != nil {
		return nil, err
	}
	return Opened(file)
}

// Opened is a recording in a file that is open.
func Opened(file *os.File) (Recording, error) {
	info, err := file.Stat()
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("open recording: %w", err)
	}
	return recordingFile{file, info.Size()}, nil
}

type recordingFile struct {
	*os.File
	size int64
}

// Size is its length when it was opened: one that is being written grows on.
func (f recordingFile) Size() int64 { return f.size }
