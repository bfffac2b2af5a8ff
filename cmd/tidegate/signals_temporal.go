package main

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
)

// temporalNumbers are the few of the Temporal SDK's numbers that say something
// about grants. The SDK has some forty, with labels that grow with the
// cluster; what is not listed here is dropped.
type temporalNumbers struct {
	taskFailures, activityFailures, requestFailures *prometheus.CounterVec
	waits                                           *prometheus.HistogramVec
	pollers                                         *prometheus.GaugeVec
}

func newTemporalNumbers() *temporalNumbers {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_temporal_" + name, Help: help}, []string{label})
	}
	n := &temporalNumbers{
		taskFailures:     counter("workflow_task_failures_total", "Workflow tasks that failed: code that does not fit a history stops its grant's workflow.", "reason"),
		activityFailures: counter("activity_failures_total", "Activities that failed and are tried again, by type.", "activity"),
		requestFailures:  counter("request_failures_total", "Calls to Temporal that failed, by operation.", "operation"),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidegate_temporal_schedule_to_start_seconds", Help: "How long tasks waited for a worker, by queue.", Buckets: []float64{0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300},
		}, []string{"queue", "task"}),
		pollers: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_temporal_pollers", Help: "Polls for tasks that are open, by queue; 0 is a worker that hears nothing."}, []string{"queue", "task"}),
	}
	start(n.taskFailures, "WorkflowError", "NonDeterminismError")
	return n
}

func (n *temporalNumbers) all() []prometheus.Collector {
	return []prometheus.Collector{n.taskFailures, n.activityFailures, n.requestFailures, n.waits, n.pollers}
}

func (n *temporalNumbers) handler() client.MetricsHandler { return temporalHandler{numbers: n} }

// temporalHandler takes the SDK's numbers in. Tags are the SDK's labels.
type temporalHandler struct {
	numbers *temporalNumbers
	tags    map[string]string
}

// WithTags implements client.MetricsHandler.
func (h temporalHandler) WithTags(tags map[string]string) client.MetricsHandler {
	all := make(map[string]string, len(h.tags)+len(tags))
	for _, from := range []map[string]string{h.tags, tags} {
		for k, v := range from {
			all[k] = v
		}
	}
	return temporalHandler{h.numbers, all}
}

type (
	countFunc func(int64)
	gaugeFunc func(float64)
	timerFunc func(time.Duration)
)

func (f countFunc) Inc(n int64)            { f(n) }
func (f gaugeFunc) Update(v float64)       { f(v) }
func (f timerFunc) Record(d time.Duration) { f(d) }

// Counter implements client.MetricsHandler.
func (h temporalHandler) Counter(name string) client.MetricsCounter {
	var to prometheus.Counter
	switch name {
	case "temporal_workflow_task_execution_failed":
		to = h.numbers.taskFailures.WithLabelValues(h.tag("failure_reason"))
	case "temporal_activity_execution_failed":
		to = h.numbers.activityFailures.WithLabelValues(h.tag("activity_type"))
	case "temporal_request_failure":
		to = h.numbers.requestFailures.WithLabelValues(h.tag("operation"))
	default:
		return countFunc(func(int64) {})
	}
	return countFunc(func(n int64) { to.Add(float64(n)) })
}

// Gauge implements client.MetricsHandler.
func (h temporalHandler) Gauge(name string) client.MetricsGauge {
	if name != "temporal_num_pollers" {
		return gaugeFunc(func(float64) {})
	}
	return gaugeFunc(h.numbers.pollers.WithLabelValues(h.queue(), h.tag("poller_type")).Set)
}

// Timer implements client.MetricsHandler.
func (h temporalHandler) Timer(name string) client.MetricsTimer {
	task := map[string]string{
		"temporal_activity_schedule_to_start_latency": "activity", "temporal_workflow_task_schedule_to_start_latency": "workflow",
	}[name]
	if task == "" {
		return timerFunc(func(time.Duration) {})
	}
	to := h.numbers.waits.WithLabelValues(h.queue(), task)
	return timerFunc(func(d time.Duration) { to.Observe(d.Seconds()) })
}

// queue is one of two words: a sticky queue's name holds a host's.
func (h temporalHandler) queue() string {
	if strings.HasSuffix(h.tags["task_queue"], "-revoke") {
		return "revoke"
	}
	return "main"
}

// tag is a label of the SDK's own words; all of them are names in its code or
// in ours.
func (h temporalHandler) tag(name string) string {
	if v := h.tags[name]; v != "" {
		return v
	}
	return "none"
}
