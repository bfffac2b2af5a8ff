package workflows

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	enums "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows/temporaltest"
)

// update records the histories in testdata/history again. A history is
// recorded once for each released shape of the code and then stays: replaying
// an old one is what proves that running grants survive an upgrade.
var update = flag.Bool("update", false, "record testdata/history from a real server")

func control(t *testing.T, c client.Client, w *world) *Control {
	t.Helper()
	a := *w.activities()
	a.Rules = Rules{Poll: time.Second, Grace: time.Second}
	ctl, err := Start(context.Background(), Config{Client: c, Activities: a, Sweep: 200 * time.Millisecond, Reconcile: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	t.Cleanup(func() { once.Do(ctl.Stop) })
	return ctl
}

// approved opens and merges an approved pull request for so many seconds.
func approved(t *testing.T, lasts access.Seconds) *world {
	t.Helper()
	w := newWorld(t)
	w.open(lasts)
	w.review(bob, access.ReviewApproved)
	w.merge()
	w.pulls[7].MergedAt = time.Now().UTC() // to the nanosecond: short grants are seconds long
	return w
}

// eventually polls the world; it is the server whose pace we don't know.
func eventually(t *testing.T, what string, ok func(access.Grant) bool) func(*world) access.Grant {
	return func(w *world) access.Grant {
		t.Helper()
		deadline := time.After(30 * time.Second)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			g, err := w.Grant(context.Background(), key1)
			if err == nil && ok(g) {
				return g
			}
			select {
			case <-deadline:
				t.Fatalf("after 30 s the grant is not %s: %s, closed %v, %q (%v)", what, g.State, g.Closed, g.Why, err)
			case <-tick.C:
			}
		}
	}
}

func isActive(g access.Grant) bool { return g.State == access.StateActive }
func isClosed(g access.Grant) bool { return !g.Closed.IsZero() }

// wantOnTime fails unless the grant is gone soon after its end.
// wantOnTime waits for the end. What nobody took away would stay for ever; a
// loaded machine may stand still for some seconds.
func wantOnTime(t *testing.T, w *world) {
	t.Helper()
	g := eventually(t, "closed", isClosed)(w)
	if late := g.Closed.Sub(g.NotAfter); late < 0 || late > 15*time.Second {
		t.Errorf("closed %s after its end", late)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.minted[key1] {
		t.Error("the access is still at the target")
	}
}

func hint(t *testing.T, ctl *Control, kind HintKind) {
	t.Helper()
	if err := ctl.Hint(t.Context(), Hint{Kind: kind, Ref: pr7}); err != nil {
		t.Fatal(err)
	}
}

func TestServerRunsTheWholeLife(t *testing.T) {
	server := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	c := server.Client(t)
	w := approved(t, 4)
	ctl := control(t, c, w)
	begin := time.Now()
	hint(t, ctl, HintPull)
	hint(t, ctl, HintPull)
	eventually(t, "active", isActive)(w)
	t.Logf("from hint to active: %s", time.Since(begin).Round(time.Millisecond))
	h := hold(t, w, time.Now().Add(time.Minute))
	if err := ctl.startHolds(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.comment(alice, "extend", "1s", "a", "little", "more")
	w.comment(bob, "approve", "H7", h.Short())
	hint(t, ctl, HintComment)
	wantOnTime(t, w)
	for name, id := range map[string]string{"grant": grantID(key1), "request": requestID(pr7), "hold": holdID(h.ID)} {
		finished(t, c, id)
		record(t, c, "life-"+name, id)
	}
	if got, _ := w.Held(t.Context(), h.ID); got.State != access.HeldAnswered {
		t.Errorf("held is %s", got.State)
	}
	if g := w.grant(t, key1); g.NotAfter.Sub(g.NotBefore) != 5*time.Second {
		t.Errorf("lasted %s, want 4 s and the second more", g.NotAfter.Sub(g.NotBefore))
	}
}

func finished(t *testing.T, c client.Client, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.GetWorkflow(ctx, id, "").Get(ctx, nil); err != nil {
		t.Errorf("%s: %v", id, err)
	}
}

func history(t *testing.T, c client.Client, id string) *historypb.History {
	t.Helper()
	var h historypb.History
	it := c.GetWorkflowHistory(t.Context(), id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		h.Events = append(h.Events, e)
	}
	return &h
}

func record(t *testing.T, c client.Client, name, id string) {
	t.Helper()
	h := history(t, c, id)
	opts := temporalproto.CustomJSONMarshalOptions{Indent: " "}
	b, err := opts.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), `"expansion"`) || strings.Contains(string(b), "public.orders") {
		t.Errorf("the plan of %s is in its history", id)
	}
	if !*update {
		return
	}
	host, _ := os.Hostname()
	b = []byte(strings.ReplaceAll(string(b), host, "localhost"))
	if err := os.WriteFile(filepath.Join("testdata", "history", name+".json"), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestServerGrantTerminatedByHand(t *testing.T) {
	server := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	c := server.Client(t)
	w := approved(t, 5)
	hint(t, control(t, c, w), HintPull)
	eventually(t, "active", isActive)(w)
	first := c.GetWorkflow(t.Context(), grantID(key1), "").GetRunID()
	if err := c.TerminateWorkflow(t.Context(), grantID(key1), first, "by hand"); err != nil {
		t.Fatal(err)
	}
	wantOnTime(t, w)
	finished(t, c, grantID(key1))
}

func TestServerRevokedEarlyByCommandAndCancel(t *testing.T) {
	for name, end := range map[string]func(*Control) error{
		"revoked": func(ctl *Control) error {
			return ctl.Revoke(t.Context(), EndInput{Key: key1, By: "bob", Why: "enough"})
		},
		"cancelled": func(ctl *Control) error { return ctl.client.CancelWorkflow(t.Context(), grantID(key1), "") },
	} {
		t.Run(name, func(t *testing.T) {
			c := temporaltest.Start(t, temporaltest.Options{InMemory: true}).Client(t)
			w := approved(t, 600)
			a := *w.activities()
			ctl, err := Start(context.Background(), Config{Client: c, Activities: a, Sweep: time.Hour, Reconcile: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			defer ctl.Stop()
			hint(t, ctl, HintPull)
			eventually(t, "active", isActive)(w)
			if err := end(ctl); err != nil {
				t.Fatal(err)
			}
			g := eventually(t, "closed", isClosed)(w)
			if g.State != access.StateRevoked || w.minted[key1] {
				t.Errorf("state is %s", g.State)
			}
			finished(t, c, grantID(key1))
			record(t, c, name+"-grant", grantID(key1))
		})
	}
}

// unheard is a forge whose comments can't be read for as many tries as one turn has.
type unheard struct {
	fakeForge
	left atomic.Int32
	over chan struct{}
}

func (f *unheard) Comments(ctx context.Context, ref Ref, heard int64) (Talk, error) {
	switch left := f.left.Add(-1); {
	case left == 0:
		close(f.over)
		fallthrough
	case left > 0:
		return Talk{}, access.Errorf(access.CodeUnavailable, "GitHub answered 502.")
	}
	return f.fakeForge.Comments(ctx, ref, heard)
}

// TestServerUnheardComments are read in the next turn, which no comment woke;
// testdata has the history of one from before that as well.
func TestServerUnheardComments(t *testing.T) {
	c := temporaltest.Start(t, temporaltest.Options{InMemory: true}).Client(t)
	w := approved(t, 600)
	f := &unheard{fakeForge: fakeForge{w}, over: make(chan struct{})}
	a := *w.activities()
	a.Forge, a.Rules = f, Rules{Poll: time.Hour}
	ctl, err := Start(context.Background(), Config{Client: c, Activities: a, Sweep: time.Hour, Reconcile: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer ctl.Stop()
	hint(t, ctl, HintPull)
	eventually(t, "active", isActive)(w)
	w.comment(bob, "revoke")
	f.left.Store(4)
	hint(t, ctl, HintComment)
	select {
	case <-f.over:
	case <-time.After(30 * time.Second):
		t.Fatal("the comments were not asked for")
	}
	hint(t, ctl, HintPull)
	if g := eventually(t, "closed", isClosed)(w); g.State != access.StateRevoked {
		t.Errorf("state is %s", g.State)
	}
	finished(t, c, requestID(pr7))
	record(t, c, "unheard-request", requestID(pr7))
}

// TestServerRevokedElsewhere: the end is written by another process, as
// `tidegate revoke` does; a change notice is all that control hears of it. The
// second time its workflow is gone as well.
func TestServerRevokedElsewhere(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("workflow lost %t", lost), func(t *testing.T) {
			c := temporaltest.Start(t, temporaltest.Options{InMemory: true}).Client(t)
			w := approved(t, 600)
			changed := make(chan struct{}, 1)
			ctl, err := Start(context.Background(), Config{Client: c, Activities: *w.activities(), Sweep: time.Hour, Reconcile: time.Hour, Changed: changed})
			if err != nil {
				t.Fatal(err)
			}
			defer ctl.Stop()
			hint(t, ctl, HintPull)
			g := eventually(t, "active", isActive)(w)
			if lost {
				if err := c.TerminateWorkflow(t.Context(), grantID(key1), "", "by hand"); err != nil {
					t.Fatal(err)
				}
			}
			g.State, g.Why = access.StateRevoked, "enough"
			if _, err := w.Update(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			changed <- struct{}{}
			if g := eventually(t, "closed", isClosed)(w); g.State != access.StateRevoked || g.Why != "enough" || w.minted[key1] {
				t.Errorf("state is %s (%s)", g.State, g.Why)
			}
			finished(t, c, grantID(key1))
		})
	}
}

func TestServerEmptiedStore(t *testing.T) {
	server := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	w := approved(t, 8)
	ctl := control(t, server.Client(t), w)
	hint(t, ctl, HintPull)
	eventually(t, "active", isActive)(w)
	ctl.cancel()
	server.Kill(t)
	empty := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	c := empty.Client(t)
	control(t, c, w)
	wantOnTime(t, w)
	finished(t, c, grantID(key1))
}

// TestServerStoppedAndBack: Temporal is gone over a grant's end. The access is
// taken away on time without it; when it is back, its workflow ends by itself.
func TestServerStoppedAndBack(t *testing.T) {
	server := temporaltest.Start(t, temporaltest.Options{})
	c := server.Client(t)
	w := approved(t, 6)
	ctl := control(t, c, w)
	hint(t, ctl, HintPull)
	eventually(t, "active", isActive)(w)
	server.Kill(t)
	wantOnTime(t, w)
	server.Restart(t)
	finished(t, c, grantID(key1))
	if g := w.grant(t, key1); g.State != access.StateExpired || w.mints != 1 {
		t.Errorf("grant is %s after %d mints", g.State, w.mints)
	}
}

func TestServerWorkerKilledAtEachBoundary(t *testing.T) {
	for _, boundary := range []string{"landed", "minting", "active", "revoking"} {
		t.Run(boundary, func(t *testing.T) { killAt(t, boundary) })
	}
}

func killAt(t *testing.T, boundary string) {
	server := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	w := approved(t, 5)
	var first atomic.Bool
	reached, release := make(chan struct{}), make(chan struct{})
	block := func() {
		if first.CompareAndSwap(false, true) {
			close(reached)
			<-release
		}
	}
	switch boundary {
	case "minting":
		w.onMint = block
	case "revoking":
		w.onRevoke = block
	}
	ctl := control(t, server.Client(t), w)
	hint(t, ctl, HintPull)
	switch boundary {
	case "landed":
		eventually(t, "landed", func(access.Grant) bool { return true })(w)
	case "active":
		eventually(t, "active", isActive)(w)
	default:
		<-reached
	}
	ctl.cancel()
	ctl.stopWorkers()
	control(t, server.Client(t), w)
	wantOnTime(t, w)
	close(release) // the dead worker's call comes to its end late
	eventually(t, "gone from the target", func(access.Grant) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.minted[key1] && (boundary != "minting" || w.revokes > 1)
	})(w)
}

// TestReplay proves that the code still understands the histories of running
// workflows. A difference freezes them, and their revocations with them.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/history/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no histories to replay: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			if err := replayer().ReplayWorkflowHistoryFromJSONFile(nil, f); err != nil {
				t.Error(err)
			}
		})
	}
}

func replayer() worker.WorkflowReplayer {
	r := worker.NewWorkflowReplayer()
	r.RegisterWorkflowWithOptions(Request, workflow.RegisterOptions{Name: workflowRequest})
	r.RegisterWorkflowWithOptions(Grant, workflow.RegisterOptions{Name: workflowGrant})
	r.RegisterWorkflowWithOptions(Hold, workflow.RegisterOptions{Name: workflowHold})
	return r
}
