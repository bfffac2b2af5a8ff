package gateway_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// told is everything that a gateway tells the outside.
type told struct {
	spans   *tracetest.InMemoryExporter
	metrics *prometheus.Registry
	log     *strings.Builder
}

func listening() (*told, func(*gateway.Config)) {
	out := &told{tracetest.NewInMemoryExporter(), prometheus.NewRegistry(), &strings.Builder{}}
	return out, func(c *gateway.Config) {
		c.Metrics, c.Log = out.metrics, slog.New(slog.NewTextHandler(out.log, nil))
		c.Tracing = tracing.New(sdk.NewTracerProvider(sdk.WithSyncer(out.spans), sdk.WithIDGenerator(tracing.IDs{})), "test1")
	}
}

func (o *told) named(name tracing.Name) (out []tracetest.SpanStub) {
	for _, s := range o.spans.GetSpans() {
		if s.Name == string(name) {
			out = append(out, s)
		}
	}
	return out
}

func attr(s tracetest.SpanStub, k tracing.Key) string {
	for _, a := range s.Attributes {
		if a.Key == "" || string(a.Key) != string(k) {
			continue
		}
		return a.Value.String()
	}
	return ""
}

// value sums a metric over the label value; "" sums all.
func (o *told) value(t *testing.T, name, label string) (sum float64) {
	t.Helper()
	all, err := o.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.Metric {
			if f.GetName() != name || label != "" && (len(m.Label) == 0 || m.Label[0].GetValue() != label) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// TestSignalsOfASession: one trace, right parents, exact numbers, and no word
// of any statement.
func TestSignalsOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, tune := listening()
		g := gatewaytest.New(t, gatewaytest.Options{Tune: tune})
		g.Rules(holdBig("carol"))
		s := g.Open("alice")
		const secret = "select 'hunter2'"
		o, err := s.Admit(t.Context(), access.Operation{Kind: "query", Text: secret, Params: []string{secret}, Facts: access.Facts{"kind": "select"}})
		if err != nil {
			t.Fatal(err)
		}
		o.Count(3, 0)
		o.Close(access.Outcome{Status: "ok"})
		waiting := admit(t.Context(), s, deletion)
		h := g.NextHeld()
		time.Sleep(time.Minute)
		g.Answer(h, gatewaytest.Reply{By: gatewaytest.User("carol"), Approve: true})
		if got := <-waiting; got.err != nil {
			t.Fatal(got.err)
		} else {
			got.op.Close(access.Outcome{Status: "ok"})
		}
		g.Revoke("inc-1", "The incident is over.")
		<-s.Context().Done()
		s.Close("")

		session, ops, hold := out.named(tracing.Session), out.named(tracing.Operation), out.named(tracing.Hold)
		if len(session) != 1 || len(ops) != 2 || len(hold) != 1 || len(out.named(tracing.Lease)) != 1 {
			t.Fatalf("got %d sessions, %d operations, %d holds, want 1, 2 and 1", len(session), len(ops), len(hold))
		}
		of := access.TraceOf("test1", 1, 1)
		if p := session[0].Parent; p.TraceID() != of.ID || p.SpanID() != of.Root {
			t.Errorf("the session stands below %v, want the root of its pull request", p)
		}
		if ops[0].Parent.SpanID() != session[0].SpanContext.SpanID() || hold[0].Parent.SpanID() != ops[1].SpanContext.SpanID() {
			t.Error("want session > operation > hold")
		}
		if got := attr(ops[0], tracing.KeyRows) + attr(ops[0], tracing.KeyStatement) + attr(ops[1], tracing.KeyRule) + attr(hold[0], tracing.KeyState) +
			attr(session[0], tracing.KeyCode) + attr(session[0], tracing.KeyTotal); got != "3selectbigapprovedended2" {
			t.Errorf("the attributes say %q", got)
		}
		for name, want := range map[string]float64{
			"tidegate_gateway_sessions_opened_total ok": 1, "tidegate_gateway_sessions_ended_total ended": 1, "tidegate_gateway_operations_total allow": 1,
			"tidegate_gateway_operations_total hold": 1, "tidegate_gateway_holds_total approved": 1, "tidegate_gateway_holds_waiting ": 0,
			"tidegate_gateway_hold_wait_seconds ": 1, "tidegate_gateway_sessions_open ": 0,
		} {
			metric, label, _ := strings.Cut(name, " ")
			if got := out.value(t, metric, label); got != want {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
		all := fmt.Sprintf("%+v %s", out.spans.GetSpans(), out.log)
		for _, word := range []string{"hunter2", "delete from", g.Token("alice")} {
			if strings.Contains(all, word) {
				t.Errorf("%q is told", word)
			}
		}
		for _, line := range []string{"session opened", "operation held", "held operation ended", "session ended"} {
			if !strings.Contains(out.log.String(), `msg="`+line+`" session=`+s.Info().ID+" grant=1-inc-1 pr=1-1 target=postgres.orders-prod person=alice") {
				t.Errorf("want %q with whose it is in the log:\n%s", line, out.log)
			}
		}
	})
}

// TestSpansAreBounded: a session that never ends its statements fills nobody's
// collector, and what was refused after it shows longer than what was not.
func TestSpansAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, tune := listening()
		g := gatewaytest.New(t, gatewaytest.Options{Tune: tune, Judge: func(op access.Operation) access.Decision {
			if op.Kind == "bad" {
				return access.Decision{Verdict: access.Deny, Say: "No."}
			}
			return access.Decision{Verdict: access.Allow}
		}})
		s := g.Open("alice")
		for i := range 3000 {
			kind := "good"
			if i >= 1500 {
				kind = "bad"
			}
			if o, err := s.Admit(t.Context(), access.Operation{Kind: kind}); err == nil {
				o.Close(access.Outcome{Status: "ok"})
			}
		}
		s.Close("done")
		kinds := map[string]int{}
		for _, op := range out.named(tracing.Operation) {
			kinds[attr(op, tracing.KeyKind)]++
		}
		session := out.named(tracing.Session)[0]
		if kinds["good"] != 500 || kinds["bad"] != 500 || attr(session, tracing.KeyTotal) != "3000" || attr(session, tracing.KeyLeftOut) != "2000" {
			t.Errorf("got %v of %s, left out %s, want 500 and 500 of 3000, left out 2000", kinds, attr(session, tracing.KeyTotal), attr(session, tracing.KeyLeftOut))
		}
	})
}

// TestHoldsAreCounted by how they ended.
func TestHoldsAreCounted(t *testing.T) {
	for want, end := range map[string]func(g *gatewaytest.Gate, h access.Held, cancel func()){
		"denied": func(g *gatewaytest.Gate, h access.Held, _ func()) {
			g.Answer(h, gatewaytest.Reply{By: gatewaytest.User("carol")})
		},
		"timed_out": func(*gatewaytest.Gate, access.Held, func()) { time.Sleep(time.Hour) },
		"cancelled": func(_ *gatewaytest.Gate, _ access.Held, cancel func()) { cancel() },
		"cut":       func(g *gatewaytest.Gate, _ access.Held, _ func()) { g.Revoke("inc-1", "Over.") },
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out, tune := listening()
				g := gatewaytest.New(t, gatewaytest.Options{Tune: tune, Lasts: 2 * time.Hour})
				g.Rules(holdBig("carol"))
				s := g.Open("alice")
				ctx, cancel := context.WithCancel(t.Context())
				waiting := admit(ctx, s, deletion)
				end(g, g.NextHeld(), cancel)
				if got := <-waiting; got.err == nil {
					t.Error("want no yes")
				}
				if got := out.value(t, "tidegate_gateway_holds_total", want); got != 1 || out.value(t, "tidegate_gateway_holds_total", "") != 1 {
					t.Errorf("got %v holds that were %s, want 1 and no other", got, want)
				}
				cancel()
				s.Close("done")
			})
		})
	}
}

// BenchmarkAdmit is the road of one statement, traced and not.
func BenchmarkAdmit(b *testing.B) {
	for name, traced := range map[string]bool{"off": false, "on": true} {
		b.Run(name, func(b *testing.B) {
			g := gatewaytest.New(b, gatewaytest.Options{Recorders: silent{}, Tune: func(c *gateway.Config) {
				if traced {
					c.Tracing = tracing.New(sdk.NewTracerProvider(sdk.WithSyncer(tracetest.NewNoopExporter()), sdk.WithIDGenerator(tracing.IDs{})), "test1")
				}
			}})
			s := g.Open("alice")
			defer s.Close("done")
			op := access.Operation{Kind: "query"}
			b.ReportAllocs()
			for b.Loop() {
				o, err := s.Admit(b.Context(), op)
				if err != nil {
					b.Fatal(err)
				}
				o.Close(access.Outcome{Status: "ok"})
			}
		})
	}
}

// silent records nothing.
type silent struct{}

func (silent) Record(access.SessionInfo, func(access.Head)) (gateway.Recorder, error) {
	return silent{}, nil
}
func (silent) Append(access.Event, bool) error  { return nil }
func (silent) Seal(string) (access.Head, error) { return access.Head{}, nil }
