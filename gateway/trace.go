package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// Bounds on the spans of one session. The first operations have one each;
// after them only those that were not simply allowed, and then none: the
// session's span says how many were left out.
const (
	everySpans = 500
	mostSpans  = 1000
)

// sessionTrace is what a session adds to its pull request's trace. Nil does
// nothing, at the price of a comparison.
type sessionTrace struct {
	span           tracing.Span
	total, leftOut atomic.Int64
	used           atomic.Int64
}

// traceSession begins the session's span, if anything is traced.
func (s *Server) traceSession(info access.SessionInfo, g access.Grant) *sessionTrace {
	if !s.cfg.Tracing.On() {
		return nil
	}
	_, span := s.cfg.Tracing.Start(context.Background(), tracing.Of(g), tracing.Session, tracing.Grant(g, tracing.KeySession.Text(info.ID))...)
	if !span.On() {
		return nil // not sampled: nothing below it is either
	}
	return &sessionTrace{span: span}
}

func (t *sessionTrace) lease() tracing.Span {
	if t == nil {
		return tracing.Span{}
	}
	return t.span.Child(time.Time{}, tracing.Lease)
}

// now is when an operation began, if anybody wants to know.
func (t *sessionTrace) now() time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Now()
}

// operation begins the span of one operation. What the statement says is not
// in it.
func (t *sessionTrace) operation(began time.Time, id uint64, op access.Operation, d access.Decision) tracing.Span {
	if t == nil {
		return tracing.Span{}
	}
	t.total.Add(1)
	if !t.take(d.Verdict) {
		t.leftOut.Add(1)
		return tracing.Span{}
	}
	kind, _ := op.Facts["kind"].(string)
	return t.span.Child(began, tracing.Operation, tracing.KeyOperation.Number(int64(id)), tracing.KeyKind.Text(op.Kind),
		tracing.KeyStatement.Text(kind), tracing.KeyVerdict.Text(d.Verdict.String()), tracing.KeyRule.Text(d.Rule))
}

// take says whether there is room for one more span. Two that ask at once may
// pass the bound by one.
func (t *sessionTrace) take(v access.Verdict) bool {
	used := t.used.Load()
	if used >= mostSpans || used >= everySpans && v == access.Allow {
		return false
	}
	t.used.Add(1)
	return true
}

func (t *sessionTrace) done(err error) {
	if t == nil {
		return
	}
	t.span.Set(tracing.KeyTotal.Number(t.total.Load()), tracing.KeyLeftOut.Number(t.leftOut.Load()))
	t.span.Done(err)
}

func endOperation(s tracing.Span, out access.Outcome) {
	if !s.On() {
		return
	}
	s.Set(tracing.KeyStatus.Text(out.Status), tracing.KeyCode.Text(out.Code), tracing.KeyRows.Number(out.Rows), tracing.KeyBytes.Number(out.Bytes))
	s.End()
}

// Why a hold ended without a yes, for the numbers.
var (
	errNoAnswer = errors.New("nobody answered")
	errSaidNo   = errors.New("the answer is no")
)

// holding begins to count and trace a hold; the answer ends it.
func (s *session) holding(o *openOp, h access.Held) (answered func(error)) {
	span, began := o.span.Child(time.Time{}, tracing.Hold, tracing.KeyHeld.Text(h.ID)), time.Now()
	m := s.server.metrics
	m.holds.Inc()
	s.log.Info("operation held", "held", h.ID, "number", h.Number, "rule", h.Rule)
	return func(err error) {
		state := answer(err)
		m.holds.Dec()
		m.held.WithLabelValues(state).Inc()
		m.holdWait.Observe(time.Since(began).Seconds())
		s.log.Info("held operation ended", "held", h.ID, "number", h.Number, "state", state)
		span.Set(tracing.KeyState.Text(state))
		span.End() // a no is no failure of ours
	}
}

// answer is one of five words.
func answer(err error) string {
	switch {
	case err == nil:
		return "approved"
	case errors.Is(err, errSaidNo):
		return "denied"
	case errors.Is(err, errNoAnswer):
		return "timed_out"
	case access.CodeOf(err) == access.CodeCancelled:
		return "cancelled"
	}
	return "cut"
}

// logOf is the log of one session: every line of it says whose it is.
func (s *Server) logOf(info access.SessionInfo, g access.Grant) *slog.Logger {
	return s.log.With("session", info.ID, "grant", g.Key.String(), "pr", strconv.FormatInt(g.Pull.Repo, 10)+"-"+strconv.Itoa(g.Pull.Number),
		"target", info.Target.String(), "person", info.Person.Login)
}

// over tells what became of the session: nil is an end that its client chose.
func (s *session) over(cut, failed error) {
	code := "closed"
	if cut != nil {
		code = string(access.CodeOf(cut))
	}
	s.server.metrics.ended.WithLabelValues(code).Inc()
	s.log.Info("session ended", "code", code, "operations", s.lastOp.Load())
	s.trace.cut(cut, failed)
}

// cut ends the session's span. A grant that ended is no failure.
func (t *sessionTrace) cut(cut, failed error) {
	if t == nil {
		return
	}
	if cut != nil {
		t.span.Set(tracing.KeyStatus.Text("cut"), tracing.KeyCode.Text(string(access.CodeOf(cut))))
	} else {
		t.span.Set(tracing.KeyStatus.Text("closed"))
	}
	t.done(failed)
}
