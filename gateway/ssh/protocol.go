package ssh

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

var (
	errLeft       = errors.New("the client left")
	errTargetLeft = errors.New("the target ended the connection")
)

// bridge joins one client's connection and one host's.
type bridge struct {
	room   *Room
	log    *slog.Logger
	door   gateway.Door
	client *gossh.ServerConn
	ins    <-chan gossh.NewChannel // the client's; see serve
	asks   <-chan *gossh.Request

	fixed string // the target's name, if the way here named it already

	ctx context.Context // ends when the bridge must; its cause is why
	end context.CancelCauseFunc

	// Set by open before opened is closed.
	opened  chan struct{}
	err     error // why there is no session
	session gateway.Session
	plan    backing.Backing
	account string
	target  *upstream

	work  sync.WaitGroup
	inner atomic.Int32                     // connections through this one
	nest  *tally                           // those through the outermost one, all together
	lent  struct{ agent, x11 atomic.Bool } // the client asked for it

	mu       sync.Mutex
	stays    []*stay // the session channels that are open
	channels int
	listens  []*listening
}

func newBridge(r *Room, door gateway.Door, client *gossh.ServerConn, ins <-chan gossh.NewChannel, asks <-chan *gossh.Request) *bridge {
	return &bridge{room: r, log: r.log, door: door, client: client, ins: ins, asks: asks, opened: make(chan struct{}), nest: newTally(0, maxNested)}
}

// run carries both connections until something ends them.
func (b *bridge) run(parent context.Context) error {
	b.ctx, b.end = context.WithCancelCause(parent)
	defer b.end(nil)
	shut := make(chan struct{})
	context.AfterFunc(b.ctx, func() {
		defer close(shut)
		<-b.opened
		b.shut(context.Cause(b.ctx))
	})
	b.work.Go(b.open)
	b.serve()
	<-shut
	b.work.Wait()
	b.leavePorts()
	cause := context.Cause(b.ctx)
	if b.session == nil {
		return worthLogging(cause)
	}
	return errors.Join(worthLogging(cause), b.session.Close(reason(cause)))
}

// open opens the session and logs in at the host. Why it could not be done is
// told on each channel that the client opens.
func (b *bridge) open() {
	defer close(b.opened)
	ctx, cancel := context.WithTimeout(b.ctx, startupTime)
	defer cancel()
	if b.err = b.enter(ctx); b.err != nil {
		if b.session != nil {
			b.log.Warn("session did not start", "session", b.session.Info().ID, "error", b.err)
		}
		// Most clients ask for something, are told, and leave. One that asks
		// for nothing would stay for ever.
		b.work.Go(func() { b.endLater(b.err, startupTime) })
	}
}

func (b *bridge) endLater(cause error, after time.Duration) {
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-time.After(after):
			if b.inner.Load() == 0 {
				b.end(cause)
			}
		}
	}
}

func (b *bridge) enter(ctx context.Context) error {
	if b.client.User() == loginUser {
		return access.Errorf(access.CodeDenied, "This connection is for logging in alone.")
	}
	a, err := parseAddress(b.client.User())
	if b.fixed != "" {
		a, err = parseInner(b.client.User(), b.fixed)
	}
	if err != nil {
		return err
	}
	knock := b.knock()
	knock.Target, knock.Choice = access.TargetRef{Kind: "ssh", Name: a.target}, a.choice
	session, err := b.door.Open(ctx, knock)
	if err != nil {
		return err
	}
	b.session, b.log = session, b.log.With("session", session.Info().ID)
	context.AfterFunc(session.Context(), func() { b.end(context.Cause(session.Context())) })
	lease := session.Lease()
	if b.plan, err = backing.Parse(lease.Backing); err != nil {
		return &access.Error{Code: access.CodeUnavailable, Message: "The plan for this grant was not understood; the operator's log has the reason.", Cause: err}
	}
	if b.account = a.account; b.account == "" {
		b.account = lease.User
	}
	if !slices.Contains(b.plan.Accounts, b.account) {
		return access.Errorf(access.CodeDenied, "Your grant does not give the account %q there; it gives %s.", b.account, strings.Join(b.plan.Accounts, ", "))
	}
	if b.target, err = dialTarget(ctx, lease, b.plan, b.account); err != nil {
		return &access.Error{Code: access.CodeUnavailable, Message: "The host could not be reached or did not take the grant's credential. Try again in a moment; the operator's log has the reason.", Cause: err}
	}
	return nil
}

// knock is what the client has shown of itself.
func (b *bridge) knock() gateway.Knock {
	s, _ := b.client.Permissions.ExtraData[shownKey{}].(shown)
	return gateway.Knock{
		Token: s.token, Certificate: s.certificate,
		Remote: b.client.RemoteAddr(), Client: string(b.client.ClientVersion()),
	}
}

// ready waits until there is a session, or says why there is none.
func (b *bridge) ready(ctx context.Context) error {
	select {
	case <-b.opened:
		return b.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hurry ends the bridge if the host has not answered in time: it is as good as
// gone, and a request can't be given up otherwise, since answers are told apart
// by their order alone. The caller says when there is an answer.
func (b *bridge) hurry() (answered func()) {
	late := time.AfterFunc(b.room.cfg.HostTime, func() { b.end(unavailable("The host does not answer.", nil)) })
	return func() { late.Stop() }
}

// shut says the last words and closes both connections.
func (b *bridge) shut(cause error) {
	if !errors.Is(cause, errLeft) {
		b.farewell(cause)
	}
	if b.target != nil {
		_ = b.target.Close()
	}
	_ = b.client.Close()
}

// farewell tells each open channel why it ends.
func (b *bridge) farewell(cause error) {
	var all sync.WaitGroup
	for _, s := range b.openStays() {
		all.Go(func() { s.cut(cause) })
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }() // ends with the connection at the latest
	select {
	case <-done:
		// What was written is in the kernel's hands, but closing at once
		// could overtake it where the client still sends.
		b.linger(time.Second)
	case <-time.After(2 * time.Second):
	}
}

// linger waits for the client to leave by itself.
func (b *bridge) linger(most time.Duration) {
	gone := make(chan struct{})
	go func() { _ = b.client.Wait(); close(gone) }() // ends with the connection
	select {
	case <-gone:
	case <-time.After(most):
	}
}

func (b *bridge) openStays() []*stay {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.stays)
}

func (b *bridge) addStay(s *stay) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stays = append(b.stays, s)
}

func (b *bridge) removeStay(s *stay) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stays = slices.DeleteFunc(b.stays, func(o *stay) bool { return o == s })
}

// tell shows a sentence on every channel where a person is.
func (b *bridge) tell(text string) {
	for _, s := range b.openStays() {
		s.notice(text)
	}
}

// refused reports whether it is known that there will be no session.
func (b *bridge) refused() bool {
	select {
	case <-b.opened:
		return b.err != nil
	default:
		return false
	}
}

// crowded holds up a client that opens much before it is known what it may:
// what it opens is read no further until then.
func (b *bridge) crowded() bool {
	select {
	case <-b.opened:
		return false
	default:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.channels >= maxEarly
}

// takeChannel counts an open channel, if there is room for one more.
func (b *bridge) takeChannel() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.channels >= maxChannels || b.refused() && b.channels >= maxEarly {
		return false
	}
	b.channels++
	return true
}

func (b *bridge) leaveChannel() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.channels--
}
