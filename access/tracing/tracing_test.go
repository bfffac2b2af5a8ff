package tracing_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

func newTracer(installation string) (*tracing.Tracer, *tracetest.InMemoryExporter) {
	out := tracetest.NewInMemoryExporter()
	return tracing.New(sdk.NewTracerProvider(sdk.WithSyncer(out), sdk.WithIDGenerator(tracing.IDs{})), installation), out
}

// TestOneTrace: two processes that know only the pull request's number write
// one trace, below the delivery that opened it.
func TestOneTrace(t *testing.T) {
	pull := tracing.Pull{Repo: 7, Number: 42}
	control, first := newTracer("acme1")
	gate, second := newTracer("acme1")
	_, root := control.Root(context.Background(), time.Time{}, pull, tracing.Webhook)
	root.End()
	ctx, outer := control.Start(context.Background(), pull, tracing.Close)
	_, inner := control.Start(ctx, pull, tracing.Revoke)
	inner.End()
	outer.End()
	_, session := gate.Start(context.Background(), pull, tracing.Session)
	session.Child(time.Time{}, tracing.Operation).End()
	session.End()

	of := access.TraceOf("acme1", 7, 42)
	spans := map[string]tracetest.SpanStub{}
	for _, s := range slices.Concat(first.GetSpans(), second.GetSpans()) {
		spans[s.Name] = s
		if s.SpanContext.TraceID() != of.ID {
			t.Errorf("%s: got trace %s, want %x", s.Name, s.SpanContext.TraceID(), of.ID)
		}
	}
	if r := spans["webhook"]; r.SpanContext.SpanID() != of.Root || r.Parent.IsValid() {
		t.Errorf("root: got span %s below %s, want %x below nothing", r.SpanContext.SpanID(), r.Parent.SpanID(), of.Root)
	}
	for child, parent := range map[string]string{
		"grant.close": "webhook", "gateway.session": "webhook", "grant.revoke": "grant.close", "gateway.operation": "gateway.session",
	} {
		if got, want := spans[child].Parent.SpanID(), spans[parent].SpanContext.SpanID(); got != want {
			t.Errorf("%s stands below %s, want %s, the span of %s", child, got, want, parent)
		}
	}
}

// TestOthersHaveOtherTraces: another pull request, repository or installation.
func TestOthersHaveOtherTraces(t *testing.T) {
	seen := map[access.Trace]bool{}
	for _, of := range []access.Trace{
		access.TraceOf("acme1", 7, 42), access.TraceOf("acme1", 7, 43), access.TraceOf("acme1", 74, 2),
		access.TraceOf("acme1", 8, 42), access.TraceOf("acme17", 0, 42), access.TraceOf("acme", 7, 42),
	} {
		if seen[of] || of.ID == [16]byte{} || of.Root == [8]byte{} {
			t.Errorf("%x is somebody else's or nobody's", of)
		}
		seen[of] = true
	}
}

// TestStranger: a context that carries somebody else's span is no parent.
func TestStranger(t *testing.T) {
	tracer, out := newTracer("acme1")
	ctx, other := tracer.Start(context.Background(), tracing.Pull{Repo: 7, Number: 1}, tracing.Reading)
	_, span := tracer.Start(ctx, tracing.Pull{Repo: 7, Number: 2}, tracing.Mint)
	span.End()
	other.End()
	if got := out.GetSpans()[0]; got.Parent.TraceID() != access.TraceOf("acme1", 7, 2).ID {
		t.Errorf("the span of pull request 2 has a parent in trace %s", got.Parent.TraceID())
	}
}

// TestFailKeepsNoText: an error's text may hold a statement or a password.
func TestFailKeepsNoText(t *testing.T) {
	tracer, out := newTracer("acme1")
	_, span := tracer.Start(context.Background(), tracing.Pull{Repo: 7, Number: 1}, tracing.Mint, tracing.KeyRule.Text(strings.Repeat("ä", 100)+"\xff"))
	span.Done(&access.Error{Code: access.CodeUnavailable, Message: "hunter2", Cause: errors.New("hunter2")})
	got := out.GetSpans()[0]
	if got.Status.Description != "unavailable" || len(got.Events) > 0 {
		t.Errorf("got %+v, want the code alone", got)
	}
	for _, a := range got.Attributes {
		if v := a.Value.String(); strings.Contains(v, "hunter2") || len(v) > 128 || strings.ToValidUTF8(v, "?") != v {
			t.Errorf("%s holds %q", a.Key, v)
		}
	}
}

// TestOffIsFree: without a tracer nothing is allocated.
func TestOffIsFree(t *testing.T) {
	off := tracing.New(nil, "acme1")
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() {
		_, span := off.Start(ctx, tracing.Pull{Repo: 7, Number: 1}, tracing.Session)
		child := span.Child(time.Time{}, tracing.Operation)
		child.Done(nil)
		span.End()
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
