package workflows

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
)

// A command that narrows is never given up: while the forge or the ledger keeps
// it from being carried out it is tried again, and who gave it and an operator
// are told.

// errNotYet is of a command that is not tried in this reading.
var errNotYet = errors.New("it is tried later")

// waits are the commands that could not be carried out. A failure may be gone in
// a moment, or last for days: the longer one lasted, the longer it is left. It
// may be lost: then they are tried at once. Nil remembers none.
type waits struct {
	mu   sync.Mutex
	tell map[string]again
}

// again is when a command is tried again.
type again struct{ first, next time.Time }

// longestRest is the most between two trials of a command.
const longestRest = 2 * time.Minute

func newWaits() *waits { return &waits{tell: map[string]again{}} }

func (w *waits) due(id string, now time.Time) bool {
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return !now.Before(w.tell[id].next)
}

// failed leaves a command for half of the time for which it has failed.
func (w *waits) failed(id string, now time.Time) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tell) >= maxMarks {
		clear(w.tell)
	}
	a, known := w.tell[id]
	if !known {
		a.first = now
	}
	a.next = now.Add(min(now.Sub(a.first)/2, longestRest))
	w.tell[id] = a
}

func (w *waits) over(id string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tell, id)
}

// sayWaits tells of a command that narrows and could not be carried out: after
// a while it alerts, and once the person who gave it and the audit log are told.
// doctor reads what is kept here. The error is why.
func (a *Activities) sayWaits(ctx context.Context, ref Ref, c spoken, why error) (string, error) {
	a.Signals.waits(c.id(ref), c.At)
	late := a.now().Sub(c.At)
	if late < a.Rules.withDefaults().AlertAfter {
		return "", why
	}
	a.log().ErrorContext(ctx, "a command that ends access waits", "pr", ref.String(), "verb", c.Verb, "late", late, "error", why)
	a.Signals.alert()
	first, err := a.Ledger.Once(ctx, "command.waits", c.id(ref)+" "+ref.String())
	if err != nil || !first {
		return "", errors.Join(why, err)
	}
	if err := a.audit(ctx, entry{c.By.Login, "command.waits", ref.String(), clip(c.Verb + ": " + access.Message(why))}); err != nil {
		return "", errors.Join(why, err)
	}
	return fmt.Sprintf("`/tidegate %s` waits, and is tried again until it is done or refused. %s %s", c.Verb, access.Message(why), insteadOf(c)), why
}

// insteadOf is what works meanwhile.
func insteadOf(c spoken) string {
	if c.Verb == VerbDeny {
		return "What is held runs only if somebody approves it."
	}
	return "Who asked for the access or receives it can revoke it all the same; so do deleting its file on the main branch and, for an operator, `tidegate revoke`."
}
