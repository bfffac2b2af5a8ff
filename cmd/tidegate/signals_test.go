package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// collected is an OTLP collector behind TLS, with a password.
type collected struct {
	*httptest.Server
	header string // of the last request

	mu    sync.Mutex
	spans []*spans.Span
	raw   bytes.Buffer
}

func startCollector(t *testing.T) *collected {
	c := &collected{}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := gzip.NewReader(r.Body)
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("collector: got %s, %v", r.URL, err)
			return
		}
		text, err := io.ReadAll(body)
		var req collector.ExportTraceServiceRequest
		if err := errors.Join(err, proto.Unmarshal(text, &req)); err != nil {
			t.Errorf("collector: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.header = r.Header.Get("Authorization")
		c.raw.Write(text)
		for _, res := range req.ResourceSpans {
			for _, scope := range res.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

// scrape reads the metrics port.
func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// series is "name" or "name label": the sum over everything that has the label.
func series(all map[string]*dto.MetricFamily, of string) (sum float64) {
	name, label, _ := strings.Cut(of, " ")
	for _, m := range all[name].GetMetric() {
		if label == "" || slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetValue() == label }) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// TestSignals scrapes before and after a grant's life on a real serve, and
// reads the one trace that joins all of it.
func TestSignals(t *testing.T) {
	w, c := newServeWorld(t), startCollector(t)
	dir := filepath.Dir(w.config)
	put(t, filepath.Join(dir, "collector-ca.crt"), pemText("CERTIFICATE", c.Certificate().Raw), 0o644)
	const password = "Bearer collectors-own-password"
	put(t, filepath.Join(dir, "headers"), "Authorization: "+password+"\n", 0o600)
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	put(t, w.config, string(text)+`
traces {
  endpoint     = "`+c.URL+`/v1/traces"
  ca_file      = "collector-ca.crt"
  headers_file = "headers"
}
`, 0o644)
	log, stop := w.start(t)
	metrics := "http://" + w.ports["@METRICS@"] + "/metrics"
	before := scrape(t, metrics)
	w.tell(t)
	if err := eventually(t.Context(), 10*time.Second, func() (bool, error) { // the session ends a moment after its client
		return series(scrape(t, metrics), "tidegate_gateway_sessions_open") == 0, nil
	}); err != nil {
		t.Error("a session stays open")
	}
	after := scrape(t, metrics)
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, log)
	}
	for of, want := range map[string]float64{
		"tidegate_control_plans_total false": 1, "tidegate_control_plans_total true": 1, "tidegate_control_reviews_total true": 1, "tidegate_control_reviews_total false": 0,
		"tidegate_control_grants_total landed": 1, "tidegate_control_grants_total active": 1, "tidegate_control_grants_total revoked": 1,
		"tidegate_control_grants_total closed": 1, "tidegate_control_grants_total refused": 0, "tidegate_control_mint_seconds ok": 1, "tidegate_control_mint_seconds failed": 0,
		"tidegate_control_start_to_active_seconds": 1, "tidegate_control_alerts_total": 0, "tidegate_control_swept_total": 0, "tidegate_control_refused_total": 0,
		"tidegate_gateway_sessions_opened_total ok": 1, "tidegate_gateway_sessions_ended_total": 1, "tidegate_gateway_operations_total allow": 1,
		"tidegate_gateway_operations_total deny": 0, "tidegate_gateway_holds_total": 0, "tidegate_gateway_recorder_errors_total": 0,
		"tidegate_webhook_deliveries_total refused": 0, "tidegate_webhook_deliveries_total failed": 0, "tidegate_webhook_deliveries_total repeated": 0,
		"tidegate_webhook_hints_lost_total": 0, "tidegate_ledger_errors_total": 0, "tidegate_temporal_workflow_task_failures_total": 0,
	} {
		if got := series(after, of) - series(before, of); got != want {
			t.Errorf("%s moved by %v, want %v", of, got, want)
		}
	}
	for _, of := range []string{"tidegate_webhook_deliveries_total taken", "tidegate_github_requests_total 2xx", "tidegate_recorder_written_bytes_total",
		"tidegate_temporal_schedule_to_start_seconds revoke", "tidegate_temporal_pollers revoke", "tidegate_recorder_free_bytes"} {
		if series(after, of) <= 0 {
			t.Errorf("%s stays 0", of)
		}
	}
	c.check(t, password)
	w.secret = append(w.secret, password)
	w.silent(t, log)
	for _, word := range []string{"SELECT", "Customer", "@acme.test FROM"} {
		if strings.Contains(log.String(), word) {
			t.Errorf("the log holds %q", word)
		}
	}
	for _, s := range w.secret {
		if strings.Contains(c.raw.String(), s) {
			t.Error("a secret stands in a span")
		}
	}
}

// check reads the trace.
func (c *collected) check(t *testing.T, password string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.header != password {
		t.Errorf("the collector was sent the header %q", c.header)
	}
	byID, parents, traces := map[string]*spans.Span{}, map[string][]string{}, map[string]bool{}
	for _, s := range c.spans {
		byID[string(s.SpanId)] = s
		traces[string(s.TraceId)] = true
	}
	if len(traces) != 1 {
		t.Errorf("got %d traces, want the one of the pull request", len(traces))
	}
	for _, s := range c.spans {
		parent := "nothing"
		if len(s.ParentSpanId) > 0 {
			parent = byID[string(s.ParentSpanId)].GetName()
		}
		if !slices.Contains(parents[s.Name], parent) {
			parents[s.Name] = append(parents[s.Name], parent)
		}
	}
	for name, want := range map[string]string{
		"request.reading": "webhook", "request.plan": "request.reading", "request.approval": "request.reading", "grant.land": "request.reading",
		"grant.mint": "webhook", "grant.activate": "webhook", "gateway.session": "webhook", "gateway.lease": "gateway.session",
		"gateway.operation": "gateway.session", "grant.end": "webhook", "grant.close": "webhook", "grant.revoke": "grant.close", "grant.prove": "grant.close",
	} {
		if got := parents[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s stands below %q, want %s", name, got, want)
		}
	}
	if got := parents["webhook"]; !slices.Contains(got, "nothing") || !slices.Contains(got, "webhook") {
		t.Errorf("webhooks stand below %q, want one below nothing, and the others below it", got)
	}
	for _, word := range []string{"SELECT", "users", "Customer", "alice@", "Refund", "tidegate_serve1"} {
		if bytes.Contains(c.raw.Bytes(), []byte(word)) {
			t.Errorf("the spans hold %q", word)
		}
	}
}

// TestDeadCollector costs a number, and a log line a minute.
func TestDeadCollector(t *testing.T) {
	var log strings.Builder
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	lost := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spans"}, []string{"result"})
	e := &patientExporter{next: deadExporter{}, spans: lost, log: slog.New(slog.NewTextHandler(&log, nil)), now: func() time.Time { return now }}
	batch := tracetest.SpanStubs{{Name: "a"}, {Name: "b"}}.Snapshots()
	for range 100 {
		if err := e.ExportSpans(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * time.Second)
	}
	var m dto.Metric
	if err := lost.WithLabelValues("lost").Write(&m); err != nil || m.GetCounter().GetValue() != 200 {
		t.Errorf("got %v spans lost, %v, want 200", m.GetCounter().GetValue(), err)
	}
	if n := strings.Count(log.String(), "spans lost"); n != 4 || log.Len() > 4*600 {
		t.Errorf("got %d lines in 200 s, %d bytes, want 4 short ones", n, log.Len())
	}
}

type deadExporter struct{}

func (deadExporter) ExportSpans(context.Context, []sdk.ReadOnlySpan) error {
	return errors.New(strings.Repeat("nobody home ", 1000))
}
func (deadExporter) Shutdown(context.Context) error { return nil }

// TestHangingCollector: neither the road nor the end waits for one for long.
func TestHangingCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spans"}, []string{"result"})
		provider := newTracerProvider(hangingExporter{}, 0, spans, slog.New(slog.DiscardHandler))
		s := &signals{tracing: tracing.New(provider, "test1")}
		began := time.Now()
		for range 3 * spanQueue {
			span := spanOf(s)
			span.End()
			synctest.Wait() // the exporter gets its turn
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("%d spans waited %s for a collector that hangs", 3*spanQueue, took)
		}
		if err := flushTraces(provider, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("the end took %s", took)
		}
		time.Sleep(10 * spanTimeout) // of the bubble's clock: what was left behind gives up
	})
}

// hangingExporter waits as the real one does for a collector that takes what
// is sent and says nothing.
type hangingExporter struct{}

func (hangingExporter) ExportSpans(ctx context.Context, _ []sdk.ReadOnlySpan) error {
	<-ctx.Done()
	return ctx.Err()
}
func (hangingExporter) Shutdown(context.Context) error { return nil }

// TestHangingServer: the real exporter gives up, too, while the collector still
// hangs.
func TestHangingServer(t *testing.T) {
	block, reached := make(chan struct{}), make(chan struct{}, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached <- struct{}{}; <-block }))
	defer srv.Close()
	defer close(block)
	h := newHouse(slog.New(slog.DiscardHandler))
	if err := h.openSignals(t.Context(), tracesConfig{Endpoint: srv.URL + "/v1/traces"}, "test1"); err != nil {
		t.Fatal(err)
	}
	for range spanBatch {
		span := spanOf(h.signals)
		span.End()
	}
	<-reached
	closed := make(chan error, 1)
	go func() { closed <- h.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the end waits for a collector that hangs")
	}
}

// TestTracesFile: dev writes spans as JSON lines.
func TestTracesFile(t *testing.T) {
	var out bytes.Buffer
	h := newHouse(slog.New(slog.DiscardHandler))
	if err := h.openSignals(t.Context(), tracesConfig{File: &out}, "test1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		span := spanOf(h.signals)
		span.End()
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %d lines, want 2:\n%s", len(lines), &out)
	}
	for _, line := range lines {
		var span struct{ Name string }
		if err := json.Unmarshal([]byte(line), &span); err != nil || span.Name != "webhook" {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestHeadersFile: what is no header is said without being repeated.
func TestHeadersFile(t *testing.T) {
	got, err := readHeaders(access.NewSecret("Authorization: Bearer a:b\r\n\nX-Tenant:acme"))
	if err != nil || len(got) != 2 || got["Authorization"] != "Bearer a:b" || got["X-Tenant"] != "acme" {
		t.Errorf("got %d headers, %v", len(got), err)
	}
	for _, text := range []string{"hunter2", "A B: hunter2", "A: hunter2\x00", "A: hunter2\na: hunter2", ": hunter2", "A:"} {
		if _, err := readHeaders(access.NewSecret(text)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want an error that does not repeat it", text, err)
		}
	}
}

// TestOldStateFolderGetsAPort: a folder of dev that is older than a part.
func TestOldStateFolderGetsAPort(t *testing.T) {
	dir := t.TempDir()
	s, err := openDevState(dir)
	if err != nil {
		t.Fatal(err)
	}
	delete(s.Ports, "metrics")
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	var ports []int
	for range 2 {
		again, err := openDevState(dir)
		if err != nil || again.Ports["metrics"] == 0 || again.Ports["hub"] != s.Ports["hub"] {
			t.Fatalf("got %v, %v", again, err)
		}
		ports = append(ports, again.Ports["metrics"])
	}
	if ports[0] != ports[1] {
		t.Errorf("the port moved from %d to %d", ports[0], ports[1])
	}
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func spanOf(s *signals) tracing.Span {
	_, span := s.tracing.Start(context.Background(), tracing.Pull{Repo: 1, Number: 1}, tracing.Webhook)
	return span
}

// TestTemporalNumbers keeps what is listed, and no label that could grow.
func TestTemporalNumbers(t *testing.T) {
	n, reg := newTemporalNumbers(), prometheus.NewPedanticRegistry()
	reg.MustRegister(n.all()...)
	sticky := n.handler().WithTags(map[string]string{"task_queue": "host-4711:uuid", "workflow_type": "w-1", "namespace": "tidegate"})
	sticky.WithTags(map[string]string{"failure_reason": "NonDeterminismError"}).Counter("temporal_workflow_task_execution_failed").Inc(2)
	sticky.Timer("temporal_workflow_task_schedule_to_start_latency").Record(time.Second)
	n.handler().WithTags(map[string]string{"task_queue": "tidegate-revoke"}).Timer("temporal_activity_schedule_to_start_latency").Record(time.Second)
	n.handler().WithTags(map[string]string{"task_queue": "tidegate-revoke", "poller_type": "activity_task"}).Gauge("temporal_num_pollers").Update(2)
	sticky.Counter("temporal_request").Inc(1)
	sticky.Gauge("temporal_sticky_cache_size").Update(1)
	sticky.Timer("temporal_request_latency").Record(time.Second)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range all {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			got = append(got, strings.TrimPrefix(f.GetName(), "tidegate_temporal_")+" "+strings.Join(labels, " "))
		}
	}
	want := []string{"pollers revoke activity_task", "schedule_to_start_seconds main workflow", "schedule_to_start_seconds revoke activity",
		"workflow_task_failures_total NonDeterminismError", "workflow_task_failures_total WorkflowError"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
