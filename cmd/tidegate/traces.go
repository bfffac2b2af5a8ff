package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tidegate/tidegate/access/tracing"
)

// tracesConfig says where spans go. The zero value sends none.
type tracesConfig struct {
	Endpoint    string            // an OTLP/HTTP URL
	Roots       []byte            // PEM; nil: the system's
	Headers     map[string]string // secrets among them
	Sample      float64           // of the pull requests; 0 is all
	File        io.Writer         // dev: JSON lines
	Environment bool              // dev: OTEL_EXPORTER_OTLP_… says where
}

func (c tracesConfig) off() bool {
	return c.Endpoint == "" && c.File == nil && (!c.Environment || !tracesInEnvironment())
}

// tracesInEnvironment reports whether the standard variables name a collector.
func tracesInEnvironment() bool {
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Bounds on what waits for the collector. A full queue drops: the road never
// waits for a span.
const (
	spanQueue   = 4096
	spanBatch   = 512
	spanTimeout = 10 * time.Second
	spanRetry   = 5 * time.Second
)

// openTraces makes the provider. Nothing is sent yet: a collector that is down
// is found out later, and hurts nobody.
func openTraces(ctx context.Context, cfg tracesConfig, spans *prometheus.CounterVec, log *slog.Logger) (*sdk.TracerProvider, error) {
	out, err := cfg.exporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("open traces: %w", err)
	}
	return newTracerProvider(out, cfg.Sample, spans, log), nil
}

func newTracerProvider(out sdk.SpanExporter, sample float64, spans *prometheus.CounterVec, log *slog.Logger) *sdk.TracerProvider {
	if sample == 0 {
		sample = 1
	}
	patient := &patientExporter{next: out, spans: spans, log: log, now: time.Now}
	// What the SDK has to say besides, such as a collector that takes a batch
	// in part, it says to the whole process, and by default to standard error.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { patient.complain("tracing", 0, err) }))
	return sdk.NewTracerProvider(
		sdk.WithIDGenerator(tracing.IDs{}),
		// By the trace's id alone: every process picks the same pull requests.
		sdk.WithSampler(sdk.TraceIDRatioBased(sample)),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "tidegate"), attribute.String("service.version", versionText()))),
		sdk.WithBatcher(patient,
			sdk.WithMaxQueueSize(spanQueue), sdk.WithMaxExportBatchSize(spanBatch), sdk.WithExportTimeout(spanTimeout), sdk.WithBatchTimeout(2*time.Second)),
	)
}

func (c tracesConfig) exporter(ctx context.Context) (sdk.SpanExporter, error) {
	if c.File != nil {
		return stdouttrace.New(stdouttrace.WithWriter(c.File))
	}
	retry := otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: time.Second, MaxElapsedTime: spanRetry})
	opts := []otlptracehttp.Option{retry, otlptracehttp.WithTimeout(spanTimeout)}
	if c.Endpoint == "" {
		return otlptracehttp.New(ctx, opts...) // the environment says the rest
	}
	opts = append(opts, otlptracehttp.WithEndpointURL(c.Endpoint), otlptracehttp.WithHeaders(c.Headers), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if strings.HasPrefix(c.Endpoint, "http://") { // on this machine: the configuration refuses it elsewhere
		return otlptracehttp.New(ctx, opts...)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Roots != nil {
		conf.RootCAs = pool(c.Roots)
	}
	return otlptracehttp.New(ctx, append(opts, otlptracehttp.WithTLSClientConfig(conf))...)
}

// patientExporter keeps a dead collector from being more than a number and a
// log line a minute.
type patientExporter struct {
	next  sdk.SpanExporter
	spans *prometheus.CounterVec
	log   *slog.Logger
	now   func() time.Time

	mu   sync.Mutex
	said time.Time
}

// ExportSpans implements sdk.SpanExporter.
func (e *patientExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.next.ExportSpans(ctx, spans)
	if err == nil {
		e.spans.WithLabelValues("sent").Add(float64(len(spans)))
		return nil
	}
	e.spans.WithLabelValues("lost").Add(float64(len(spans)))
	e.complain("spans lost: the collector does not take them", len(spans), err)
	return nil
}

// complain writes at most one line a minute.
func (e *patientExporter) complain(what string, spans int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.now(); now.Sub(e.said) >= time.Minute {
		e.said = now
		e.log.Warn(what, "spans", spans, "error", firstWords(err))
	}
}

// firstWords is an error that may quote the collector's whole answer, cut.
func firstWords(err error) string {
	text := strings.ToValidUTF8(err.Error(), "")
	return text[:min(len(text), 300)]
}

// Shutdown implements sdk.SpanExporter.
func (e *patientExporter) Shutdown(ctx context.Context) error { return e.next.Shutdown(ctx) }
