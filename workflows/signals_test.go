package workflows

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// number sums a metric over one label value; "" sums all.
func number(t *testing.T, reg prometheus.Gatherer, name, label string) (sum float64) {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.Metric {
			if f.GetName() == name && (label == "" || m.Label[0].GetValue() == label) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// listen makes activities that tell.
func listen(t *testing.T, a *Activities) (*prometheus.Registry, *tracetest.InMemoryExporter) {
	t.Helper()
	reg, spans := prometheus.NewPedanticRegistry(), tracetest.NewInMemoryExporter()
	var err error
	a.Signals, err = NewSignals(reg, tracing.New(sdk.NewTracerProvider(sdk.WithSyncer(spans), sdk.WithIDGenerator(tracing.IDs{})), "test1"))
	if err != nil {
		t.Fatal(err)
	}
	return reg, spans
}

func spanNames(spans tracetest.SpanStubs) map[string]int {
	out := map[string]int{}
	for _, s := range spans {
		out[s.Name]++
	}
	return out
}

// TestSignalsOfALife: a grant's life is one trace with one span for each thing
// that happened, however often it was looked at, and exact numbers.
func TestSignalsOfALife(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	reg, spans := listen(t, a)
	var log strings.Builder
	a.Log = slog.New(slog.NewTextHandler(&log, nil))
	landed(t, w, a, 60)
	for range 3 {
		follow(t, a)
	}
	if _, err := a.MintGrant(t.Context(), key1); err != nil {
		t.Fatal(err)
	}
	later(w, 2*time.Minute)
	w.failRevoke = func(n int) error {
		if n < 4 {
			return errors.New("connection refused: hunter2")
		}
		return nil
	}
	for range 4 {
		_, _ = a.CloseGrant(t.Context(), CloseInput{Key: key1})
	}
	wantGone(t, w, access.StateExpired)
	follow(t, a)

	want := map[string]int{"request.reading": 1, "request.plan": 1, "request.approval": 1, "grant.land": 1, "grant.mint": 1, "grant.activate": 1,
		"grant.end": 1, "grant.close": 2, "grant.revoke": 2, "grant.prove": 1} // of three failures the first is told
	if diff := cmp.Diff(want, spanNames(spans.GetSpans())); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	of, parents, ids := access.TraceOf("test1", pr7.Repo, pr7.Number), map[string]string{}, map[string]string{fmt.Sprintf("%x", access.TraceOf("test1", pr7.Repo, pr7.Number).Root): "root"}
	for _, s := range spans.GetSpans() {
		ids[s.SpanContext.SpanID().String()] = s.Name
		if s.SpanContext.TraceID() != of.ID {
			t.Errorf("%s is of trace %s", s.Name, s.SpanContext.TraceID())
		}
	}
	for _, s := range spans.GetSpans() {
		parents[s.Name] = ids[s.Parent.SpanID().String()]
	}
	wantParents := map[string]string{"request.reading": "root", "request.plan": "request.reading", "request.approval": "request.reading",
		"grant.land": "request.reading", "grant.mint": "root", "grant.activate": "root", "grant.end": "root", "grant.close": "root",
		"grant.revoke": "grant.close", "grant.prove": "grant.close"}
	if diff := cmp.Diff(wantParents, parents); diff != "" {
		t.Errorf("parents (-want +got):\n%s", diff)
	}
	for name, want := range map[string]float64{
		"readings_total ok": 5, "plans_total true": 1, "reviews_total true": 1, "grants_total landed": 1, "grants_total active": 1, "grants_total expired": 1,
		"grants_total closed": 1, "mint_seconds ok": 1, "revoke_seconds ok": 1, "revoke_seconds failed": 3, "start_to_active_seconds ": 1,
		"end_to_closed_seconds ": 1, "refused_total ": 0, "swept_total ": 0,
	} {
		metric, label, _ := strings.Cut(name, " ")
		if got := number(t, reg, "tidegate_control_"+metric, label); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if all := fmt.Sprintf("%+v", spans.GetSpans()); strings.Contains(all, "hunter2") {
		t.Error("a span holds the text of an error")
	}
	for _, line := range []string{"grant landed", "grant active", "grant ended", "grant closed"} {
		if !strings.Contains(log.String(), `msg="`+line+`" grant=`+key1.String()+" pr="+pr7.String()) {
			t.Errorf("want %q with its grant and pull request in:\n%s", line, &log)
		}
	}
}

// TestReviewIsToldAgainWhenItStopsCounting.
func TestReviewIsToldAgainWhenItStopsCounting(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	reg, spans := listen(t, a)
	w.open(60)
	w.review(bob, access.ReviewApproved)
	w.review(mallory, access.ReviewApproved)
	follow(t, a)
	w.push("head2", request("inc-1", 120))
	for range 2 {
		follow(t, a)
	}
	if yes, no := number(t, reg, "tidegate_control_reviews_total", "true"), number(t, reg, "tidegate_control_reviews_total", "false"); yes != 1 || no != 2 {
		t.Errorf("%v reviews counted and %v not, want bob's, and then mallory's and bob's of the old head", yes, no)
	}
	if n := spanNames(spans.GetSpans()); n["request.approval"] != 3 || n["request.plan"] != 2 || n["request.reading"] != 2 {
		t.Errorf("spans %v", n)
	}
}

// TestLateness is what the alarm reads: it grows while the ledger is away, and
// ends with the last overdue grant.
func TestLateness(t *testing.T) {
	s, err := NewSignals(prometheus.NewPedanticRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	open := access.Grant{Key: key1, State: access.StateActive, NotAfter: now.Add(time.Hour)}
	s.measured([]access.Grant{open})
	if got := s.late(); got != 0 {
		t.Errorf("an open grant is %v s late", got)
	}
	early := open
	early.State = access.StateRevoked
	s.measured([]access.Grant{early})
	now = now.Add(30 * time.Second)
	s.measured([]access.Grant{early})
	if got := s.late(); got != 30 {
		t.Errorf("revoked early: %v s late, want 30: since it was first seen", got)
	}
	now = now.Add(2 * time.Hour) // nobody measures: the ledger is away
	if got := s.late(); got != 7230 {
		t.Errorf("got %v s late, want 7230", got)
	}
	s.measured(nil)
	if got := s.late(); got != 0 {
		t.Errorf("all closed, and %v s late", got)
	}
}

// TestMemoryIsBounded: what was told is forgotten some day, not kept for ever.
func TestMemoryIsBounded(t *testing.T) {
	s := &Signals{told: map[string]struct{}{}}
	for i := range 3 * maxTold {
		if !s.first(fmt.Sprint(i)) {
			t.Fatalf("%d was told before", i)
		}
	}
	if len(s.told) > maxTold || s.first(fmt.Sprint(3*maxTold-1)) {
		t.Errorf("%d are remembered, want at most %d and the last among them", len(s.told), maxTold)
	}
}
