package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/access/tracing"
	"github.com/tidegate/tidegate/gateway/record"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
)

// signals are what a process tells its operator besides its log: numbers, and
// the spans of pull requests' traces.
type signals struct {
	metrics *prometheus.Registry
	tracing *tracing.Tracer // nil traces nothing
	ledger  prometheus.Counter
}

// openSignals starts to tell.
func (h *house) openSignals(ctx context.Context, cfg tracesConfig, installation string) error {
	s := &signals{
		metrics: prometheus.NewRegistry(),
		ledger:  prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_ledger_errors_total", Help: "What the ledger's database could not do."}),
	}
	s.metrics.MustRegister(s.ledger, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	h.signals = s
	if cfg.off() {
		return nil
	}
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_traces_spans_total", Help: "Spans handed to the collector, by result."}, []string{"result"})
	s.metrics.MustRegister(spans)
	provider, err := openTraces(ctx, cfg, spans, h.log.With("part", "traces"))
	if err != nil {
		return err
	}
	s.tracing = tracing.New(provider, installation)
	h.onClose(func() error { return flushTraces(provider, h.log) })
	return nil
}

// serveMetrics opens the port for Prometheus. Nothing else is there.
func (h *house) serveMetrics(listen string) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.signals.metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return h.openDoor(httpDoor{Part: "metrics", Listen: listen, Handler: mux, Exchange: 30 * time.Second})
}

// recorded tells how much the recorder writes, and how much room it has.
func (s *signals) recorded(store *record.Store) error {
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_recorder_" + name, Help: help}, f)
	}
	return s.register(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tidegate_recorder_written_bytes_total", Help: "Bytes of recordings written since the start."},
			func() float64 { return float64(store.Written()) }),
		gauge("free_bytes", "Bytes that the disk of the recordings has left; -1 if it does not say.", func() float64 {
			free, err := store.Free()
			if err != nil {
				return -1
			}
			return float64(free)
		}),
		gauge("least_bytes", "Below this many free bytes open sessions end.", func() float64 { return float64(store.Least()) }),
		gauge("needed_bytes", "Below this many free bytes no session opens.", func() float64 { return float64(store.Need()) }),
	)
}

func (s *signals) register(all ...prometheus.Collector) error {
	for _, c := range all {
		if err := s.metrics.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// controlSignals are the numbers of the control side outside of its workflows.
type controlSignals struct {
	*workflows.Signals
	tracing     *tracing.Tracer
	deliveries  *prometheus.CounterVec
	hintsLost   *prometheus.CounterVec
	hub         *githubNumbers
	orchestrate *temporalNumbers
}

// newControlSignals registers them; nil is for nobody to see.
func newControlSignals(s *signals) (*controlSignals, error) {
	if s == nil {
		s = &signals{metrics: prometheus.NewRegistry()}
	}
	flows, err := workflows.NewSignals(s.metrics, s.tracing)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	c := &controlSignals{
		Signals: flows, tracing: s.tracing, hub: newGithubNumbers(), orchestrate: newTemporalNumbers(),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_webhook_deliveries_total", Help: "Deliveries of webhooks, by what became of them."}, []string{"result"}),
		hintsLost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidegate_webhook_hints_lost_total", Help: "Hints that woke no workflow: the queue was full, or Temporal did not take them. Reconciling finds what they were about.",
		}, []string{"why"}),
	}
	start(c.deliveries, forge.Results()...)
	start(c.hintsLost, "queue", "temporal")
	return c, s.register(append(c.orchestrate.all(), c.deliveries, c.hintsLost, c.hub.requests, c.hub.left)...)
}

// start makes counters be there from the beginning, so that a rate sees the
// first thing counted.
func start(c *prometheus.CounterVec, values ...string) {
	for _, v := range values {
		c.WithLabelValues(v)
	}
}

// githubNumbers watch the calls to GitHub.
type githubNumbers struct {
	requests *prometheus.CounterVec
	left     prometheus.Gauge
}

func newGithubNumbers() *githubNumbers {
	return &githubNumbers{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_github_requests_total", Help: "Requests to GitHub, by the class of the answer."}, []string{"result"}),
		left:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_github_rate_limit_remaining", Help: "Requests that GitHub's last answer left us for this hour."}),
	}
}

// watch counts what goes through a transport; nil is the default one.
func (n *githubNumbers) watch(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if err != nil {
			n.requests.WithLabelValues("error").Inc()
			return nil, err
		}
		n.requests.WithLabelValues(strconv.Itoa(res.StatusCode/100) + "xx").Inc()
		resource := res.Header.Get("X-RateLimit-Resource")
		if left, err := strconv.Atoi(res.Header.Get("X-RateLimit-Remaining")); err == nil && (resource == "" || resource == "core") {
			n.left.Set(float64(left))
		}
		return res, nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// received is an event and when it came.
type received struct {
	forge.Event
	at time.Time
}

// delivery traces a delivery about a pull request until its workflow was
// woken. The one that opened it is the root of the trace.
func (c *controlSignals) delivery(ctx context.Context, repo int64, e received) (context.Context, tracing.Span) {
	if !c.tracing.On() {
		return ctx, tracing.Span{}
	}
	of, event := tracing.Pull{Repo: repo, Number: e.Number}, tracing.KeyEvent.Text(e.Kind+"."+e.Action)
	if e.Kind == forge.EventPull && e.Action == "opened" {
		return c.tracing.Root(ctx, e.at, of, tracing.Webhook, event)
	}
	return c.tracing.StartAt(ctx, e.at, of, tracing.Webhook, event)
}

// flushTraces hands over what is left. A collector that is down is a log line,
// no failure of ours.
func flushTraces(p interface{ Shutdown(context.Context) error }, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		log.Warn("the last spans were not handed over", "error", err)
	}
	return nil
}
