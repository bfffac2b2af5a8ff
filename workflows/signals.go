package workflows

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// Signals is what the workflows tell an operator: numbers, and the spans of a
// pull request's trace. Nil tells nothing. No label holds a name from outside.
type Signals struct {
	tracing *tracing.Tracer
	numbers

	mu   sync.Mutex
	told map[string]struct{}           // what need not be told again
	ends map[access.GrantKey]time.Time // when each unclosed grant's access had to end
	wait map[string]wanted             // the commands that narrow and can't be carried out yet
	now  func() time.Time
}

// numbers are the metrics, without the gauges that are read on demand.
type numbers struct {
	readings, plans, approvals, grants, refusals, loops *prometheus.CounterVec
	unclosed, lastLoop                                  *prometheus.GaugeVec
	mint, revoke                                        *prometheus.HistogramVec
	opening, closing                                    prometheus.Histogram
	alerts, swept, meddled                              prometheus.Counter
	olderLedger                                         prometheus.Gauge
}

// maxTold bounds the memory; a full one is begun anew.
const maxTold = 4096

// NewSignals registers the numbers. A nil tracer traces nothing.
func NewSignals(reg prometheus.Registerer, t *tracing.Tracer) (*Signals, error) {
	s := &Signals{tracing: t, told: map[string]struct{}{}, ends: map[access.GrantKey]time.Time{}, wait: map[string]wanted{}, now: time.Now, numbers: newNumbers()}
	late := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tidegate_control_revocation_late_seconds", Help: "How long ago the longest overdue access had to be gone; 0 if none is overdue.",
	}, s.late)
	waits := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tidegate_control_command_wait_seconds", Help: "How long the oldest revoke, deny or hold waits that GitHub or the ledger keeps from being carried out; 0 if none does.",
	}, s.longestWait)
	for _, c := range []prometheus.Collector{
		s.readings, s.plans, s.approvals, s.grants, s.refusals, s.loops, s.unclosed, s.lastLoop, s.mint, s.revoke, s.opening, s.closing, s.alerts, s.swept, s.meddled, s.olderLedger, late, waits,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	for _, state := range []access.State{access.StateLanded, access.StateActive, access.StateExpired, access.StateRevoked, access.StateRefused, "closed"} {
		s.grants.WithLabelValues(string(state)) // there from the start, so that a rate sees the first one
	}
	for _, what := range []string{"grant", "policies", "command"} {
		s.refusals.WithLabelValues(what)
	}
	return s, nil
}

func newNumbers() numbers {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_control_" + name, Help: help}, labels)
	}
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_control_" + name, Help: help}, []string{label})
	}
	times := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: "tidegate_control_" + name, Help: help, Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800}}
	}
	return numbers{
		readings:    counter("readings_total", "Readings of pull requests, by result.", "result"),
		plans:       counter("plans_total", "Plans shown, once for each digest and whether it is approved.", "approved"),
		approvals:   counter("reviews_total", "Reviews looked at, once for each grant and whether they count.", "counts"),
		grants:      counter("grants_total", "Transitions of grants, by the state that was reached; closed is proved to be gone.", "state"),
		refusals:    counter("refused_total", "What was refused: a grant that landed, policies, a command.", "what"),
		loops:       counter("loops_total", "Runs of the loops beside Temporal, by result.", "loop", "result"),
		unclosed:    gauge("grants", "Grants that are not proved to be gone, by state.", "state"),
		lastLoop:    gauge("loop_last_success_timestamp_seconds", "When each loop last went through.", "loop"),
		mint:        prometheus.NewHistogramVec(times("mint_seconds", "How long making access at a target took."), []string{"result"}),
		revoke:      prometheus.NewHistogramVec(times("revoke_seconds", "How long taking access away and proving it took."), []string{"result"}),
		opening:     prometheus.NewHistogram(times("start_to_active_seconds", "From a grant's start, its merge unless it names one, until gateways may open it.")),
		closing:     prometheus.NewHistogram(times("end_to_closed_seconds", "From the end of a grant that ran its time until it was proved to be gone.")),
		alerts:      prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_control_alerts_total", Help: "Alerts: a revocation is late, a command that ends access can't be carried out, or whether an open grant's file changed can't be read."}),
		meddled:     prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_control_meddled_total", Help: "Alerts: somebody else edited a comment of ours."}),
		olderLedger: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_control_ledger_older", Help: "1 while the ledger lacks what was seen of it and nothing opens, else 0."}),
		swept:       prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_control_swept_total", Help: "Grants that the sweep had to close, since their workflow had not."}),
	}
}

// first says once that something is to be told. The memory is lost with the
// process; then it is told once more.
func (s *Signals) first(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, old := s.told[key]; old {
		return false
	}
	if len(s.told) >= maxTold {
		clear(s.told)
	}
	s.told[key] = struct{}{}
	return true
}

// start begins a span of the grant's trace.
func (s *Signals) start(ctx context.Context, name tracing.Name, g access.Grant, more ...tracing.Attr) (context.Context, tracing.Span) {
	if s == nil || !s.tracing.On() {
		return ctx, tracing.Span{}
	}
	return s.tracing.Start(ctx, tracing.Of(g), name, tracing.Grant(g, more...)...)
}

// finish ends a span. What fails is tried again until it succeeds: of the
// failures of a kind only the first is told.
func (s *Signals) finish(span tracing.Span, name tracing.Name, key access.GrantKey, err error) {
	if span.On() && (err == nil || s.first("failed "+string(name)+" "+key.String())) {
		span.Done(err)
	}
}

// reading begins the span of one reading, which is told only if something new
// was found, and counts it.
func (s *Signals) reading(ctx context.Context, ref Ref) (context.Context, func(error)) {
	if s == nil {
		return ctx, func(error) {}
	}
	ctx, end := s.tracing.Watch(ctx, tracing.Pull(ref), tracing.Reading)
	return ctx, func(err error) {
		s.readings.WithLabelValues(result(err)).Inc()
		end(err)
	}
}

func result(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

// planned tells of a plan that was not shown like this before.
func (s *Signals) planned(ctx context.Context, ref Ref, plan access.Plan, digest string, approved bool) {
	if s == nil {
		return
	}
	s.plans.WithLabelValues(strconv.FormatBool(approved)).Inc()
	g := access.Grant{Key: access.GrantKey{Repo: ref.Repo, ID: plan.Request.ID}, Plan: plan, Pull: access.Pull{Repo: ref.Repo, Number: ref.Number}}
	_, span := s.start(ctx, tracing.Plan, g, tracing.KeyDigest.Text(digest), tracing.KeyApproved.Is(approved))
	span.End()
}

// counted tells of each review that was not seen like this before.
func (s *Signals) counted(ctx context.Context, a *assessment) {
	if s == nil {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(a.ballots)) {
		for _, r := range a.ballots[id].Reviews {
			counts := a.counts(id, r)
			if s.first("review " + id + " " + strconv.FormatInt(r.ID, 10) + string(r.State) + strconv.FormatBool(counts)) {
				s.review(ctx, a, id, r, counts)
			}
		}
	}
}

// counts reports whether a review is one of those that approve the grant.
func (a *assessment) counts(id string, r access.Review) bool {
	_, out := a.ballots[id].Excluded[r.User.ID]
	asked := slices.ContainsFunc(a.plans[id].Requirements, func(need access.Requirement) bool { return access.Includes(need.From, r.User.ID) })
	return asked && !out && r.State == access.ReviewApproved && r.Digest == a.digests[id]
}

func (s *Signals) review(ctx context.Context, a *assessment, id string, r access.Review, counts bool) {
	s.approvals.WithLabelValues(strconv.FormatBool(counts)).Inc()
	ref := a.pull.Ref
	g := access.Grant{Key: access.GrantKey{Repo: ref.Repo, ID: id}, Plan: a.plans[id], Pull: access.Pull{Repo: ref.Repo, Number: ref.Number}}
	_, span := s.start(ctx, tracing.Approval, g, tracing.KeyReview.Number(r.ID), tracing.KeyState.Text(string(r.State)),
		tracing.KeyCounts.Is(counts), tracing.KeyApproved.Is(a.approvals[id].Met), tracing.KeyDigest.Text(a.digests[id]))
	span.End()
}

// moved tells that a grant reached a state.
func (s *Signals) moved(ctx context.Context, name tracing.Name, g access.Grant) {
	if s == nil {
		return
	}
	if name != tracing.Extend {
		s.grants.WithLabelValues(string(g.State)).Inc()
	}
	if name == tracing.Activate {
		s.opening.Observe(s.now().Sub(g.NotBefore).Seconds())
	}
	_, span := s.start(ctx, name, g, tracing.KeyState.Text(string(g.State)))
	span.End()
}

// closed tells that nothing is left of a grant.
func (s *Signals) closed(g access.Grant, by string) {
	if s == nil {
		return
	}
	s.grants.WithLabelValues("closed").Inc()
	if by == bySweep {
		s.swept.Inc()
	}
	if g.State == access.StateExpired {
		s.closing.Observe(g.Closed.Sub(g.NotAfter).Seconds())
	}
}

// edited counts an edit of our comment by somebody else.
func (s *Signals) edited() {
	if s != nil {
		s.meddled.Inc()
	}
}

func (s *Signals) refused(what string) {
	if s != nil {
		s.refusals.WithLabelValues(what).Inc()
	}
}

func (s *Signals) alert() {
	if s != nil {
		s.alerts.Inc()
	}
}

// minting times one mint, and revoking one revocation with its proof.
func (s *Signals) minting() func(error) {
	if s == nil {
		return func(error) {}
	}
	return timed(s.mint)
}

func (s *Signals) revoking() func(error) {
	if s == nil {
		return func(error) {}
	}
	return timed(s.revoke)
}

func timed(h *prometheus.HistogramVec) func(error) {
	began := time.Now()
	return func(err error) { h.WithLabelValues(result(err)).Observe(time.Since(began).Seconds()) }
}

// ran counts a run of a loop.
func (s *Signals) ran(loop string, err error) {
	if s == nil {
		return
	}
	s.loops.WithLabelValues(loop, result(err)).Inc()
	if err == nil {
		s.lastLoop.WithLabelValues(loop).Set(float64(s.now().UnixMilli()) / 1000)
	}
}

// measured takes in which grants are not closed. If the ledger can't be read,
// the last answer stays, and what is late in it grows later.
func (s *Signals) measured(rows []access.Grant) {
	if s == nil {
		return
	}
	count := map[access.State]int{access.StateLanded: 0, access.StateActive: 0, access.StateExpired: 0, access.StateRevoked: 0, access.StateRefused: 0, access.StateSuperseded: 0}
	ends, now := map[access.GrantKey]time.Time{}, s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range rows {
		count[g.State]++
		ends[g.Key] = g.NotAfter
		if g.State.Ended() && now.Before(g.NotAfter) { // early: its row has no time of that
			ends[g.Key] = now
		}
		if old, ok := s.ends[g.Key]; ok && g.State.Ended() && old.Before(ends[g.Key]) {
			ends[g.Key] = old
		}
	}
	s.ends = ends
	for state, n := range count {
		s.unclosed.WithLabelValues(string(state)).Set(float64(n))
	}
}

// older says whether the ledger lacks what was seen of it.
func (s *Signals) older(is bool) {
	switch {
	case s == nil:
	case is:
		s.olderLedger.Set(1)
	default:
		s.olderLedger.Set(0)
	}
}

func (s *Signals) late() (most float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, end := range s.ends {
		most = max(most, s.now().Sub(end).Seconds())
	}
	return most
}

// wanted is a command that waits.
type wanted struct {
	since time.Time // it was written
	seen  time.Time // it was tried last
}

// forgetWait is when a command that was not tried again counts as gone: another
// control carried it out, or its comment was deleted.
const forgetWait = 2 * time.Hour // poll is an hour at most

// waits tells of a command that could not be carried out.
func (s *Signals) waits(id string, since time.Time) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wait) >= maxTold {
		clear(s.wait)
	}
	s.wait[id] = wanted{since, s.now()}
}

// answered tells that it does not wait any more.
func (s *Signals) answered(id string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wait, id)
}

func (s *Signals) longestWait() (most float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.wait {
		if s.now().Sub(w.seen) > forgetWait {
			delete(s.wait, id)
			continue
		}
		most = max(most, s.now().Sub(w.since).Seconds())
	}
	return most
}
