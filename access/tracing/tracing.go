// Package tracing gives each pull request one OpenTelemetry trace: webhook,
// plan, approval, mint, every session with its statements, revocation and
// proof join it, whichever process they happen in and however many days lie
// between. The trace's id is derived ([access.TraceOf]) and not handed along,
// so no span context enters a history, a row or a header.
//
// The root is the delivery that opened the pull request. When it was lost the
// trace has no root, and is whole otherwise. There is no other trace: what is
// about no pull request has numbers and log lines.
//
// A nil [Tracer] traces nothing and costs nothing; so does the zero [Span].
package tracing

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/access"
)

// Tracer makes spans for one installation.
type Tracer struct {
	tracer       trace.Tracer
	installation string
}

// New makes a tracer. The provider must take its ids from [IDs]. A nil
// provider makes a nil tracer.
func New(p trace.TracerProvider, installation string) *Tracer {
	if p == nil {
		return nil
	}
	return &Tracer{tracer: p.Tracer("github.com/tidegate/tidegate"), installation: installation}
}

// On reports whether anything is traced. Who makes attributes for nothing
// should ask first.
func (t *Tracer) On() bool { return t != nil }

// Pull names a pull request.
type Pull struct {
	Repo   int64
	Number int // 0 is none: nothing is traced
}

// Of is the pull request of a grant.
func Of(g access.Grant) Pull { return Pull{Repo: g.Pull.Repo, Number: g.Pull.Number} }

// Start begins a span of the pull request's trace now. It is a child of the
// span in ctx, if that is of the same trace, or of the root.
func (t *Tracer) Start(ctx context.Context, p Pull, name Name, attrs ...Attr) (context.Context, Span) {
	return t.StartAt(ctx, time.Time{}, p, name, attrs...)
}

// StartAt is Start with the moment when it really began; zero is now.
func (t *Tracer) StartAt(ctx context.Context, at time.Time, p Pull, name Name, attrs ...Attr) (context.Context, Span) {
	if t == nil || p.Number == 0 {
		return ctx, Span{}
	}
	of := access.TraceOf(t.installation, p.Repo, p.Number)
	if trace.SpanContextFromContext(ctx).TraceID() != of.ID {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: of.ID, SpanID: of.Root, TraceFlags: trace.FlagsSampled, Remote: true,
		}))
	}
	return t.start(ctx, at, p, name, attrs)
}

// Root begins the span that all others stand below: the delivery that opened
// the pull request.
func (t *Tracer) Root(ctx context.Context, at time.Time, p Pull, name Name, attrs ...Attr) (context.Context, Span) {
	if t == nil || p.Number == 0 {
		return ctx, Span{}
	}
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{}) // no parent: IDs is asked for both ids
	return t.start(context.WithValue(ctx, rootKey{}, access.TraceOf(t.installation, p.Repo, p.Number)), at, p, name, attrs)
}

// Watch begins a span that is told only if one below it is: end drops it
// otherwise. It is for what looks again and again and mostly finds nothing.
func (t *Tracer) Watch(ctx context.Context, p Pull, name Name) (_ context.Context, end func(error)) {
	ctx, span := t.Start(ctx, p, name)
	if !span.On() {
		return ctx, func(error) {}
	}
	found := new(atomic.Bool)
	return context.WithValue(ctx, watchKey{}, found), func(err error) {
		if found.Load() {
			span.Done(err)
		}
	}
}

func (t *Tracer) start(ctx context.Context, at time.Time, p Pull, name Name, attrs []Attr) (context.Context, Span) {
	if found, ok := ctx.Value(watchKey{}).(*atomic.Bool); ok {
		found.Store(true)
	}
	opts := []trace.SpanStartOption{
		trace.WithAttributes(KeyPull.Text(strconv.FormatInt(p.Repo, 10) + "-" + strconv.Itoa(p.Number))), trace.WithAttributes(attrs...),
	}
	if !at.IsZero() {
		opts = append(opts, trace.WithTimestamp(at))
	}
	ctx, span := t.tracer.Start(ctx, string(name), opts...)
	return ctx, Span{span: span, tracer: t, pull: p}
}

// Span is something that happens. It is exported when it ends, and never if
// nobody ends it.
type Span struct {
	span   trace.Span
	tracer *Tracer
	pull   Pull
}

// On reports whether the span is recorded. Who makes attributes for nothing
// should ask first.
func (s Span) On() bool { return s.span != nil && s.span.IsRecording() }

// Child begins a span below this one; zero is now.
func (s Span) Child(at time.Time, name Name, attrs ...Attr) Span {
	if s.span == nil {
		return Span{}
	}
	_, child := s.tracer.start(trace.ContextWithSpan(context.Background(), s.span), at, s.pull, name, attrs)
	return child
}

// Set adds attributes.
func (s Span) Set(attrs ...Attr) {
	if s.span != nil {
		s.span.SetAttributes(attrs...)
	}
}

// Fail marks the span as failed; nil does nothing. Only the error's code is
// kept: its text may hold what no span may.
func (s Span) Fail(err error) {
	if s.span == nil || err == nil {
		return
	}
	code := string(access.CodeOf(err))
	s.span.SetAttributes(KeyCode.Text(code))
	s.span.SetStatus(codes.Error, code)
}

// End ends the span now.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// Done is Fail and End.
func (s Span) Done(err error) {
	s.Fail(err)
	s.End()
}

type (
	rootKey  struct{}
	watchKey struct{}
)

// IDs makes span ids at random, and trace ids as [Tracer.Root] wants them. It
// is an IDGenerator of the OpenTelemetry SDK.
type IDs struct{}

// NewIDs is asked for a span without parent.
func (i IDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if of, ok := ctx.Value(rootKey{}).(access.Trace); ok {
		return of.ID, of.Root
	}
	var id trace.TraceID
	_, _ = rand.Read(id[:]) // never fails: the runtime ends the process instead
	return id, i.NewSpanID(ctx, id)
}

// NewSpanID is asked for a span with a parent.
func (IDs) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	_, _ = rand.Read(id[:])
	return id
}
