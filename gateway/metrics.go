package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/access"
)

// metrics are the gateway's numbers. No label holds a name from outside.
type metrics struct {
	opened         *prometheus.CounterVec
	ended          *prometheus.CounterVec
	operations     [access.Allow + 1]prometheus.Counter // by verdict: looked up once, not for each operation
	recorderErrors prometheus.Counter
	refusedConns   prometheus.Counter
	panics         prometheus.Counter
	badRows        prometheus.Counter
	holds          prometheus.Gauge
	held           *prometheus.CounterVec
	holdWait       prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_gateway_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_gateway_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_gateway_" + name, Help: help}, f)
	}
	operations := vec("operations_total", "Operations, by verdict.", "verdict")
	m := &metrics{
		opened:         vec("sessions_opened_total", "Attempts to open a session, by result.", "code"),
		ended:          vec("sessions_ended_total", "Sessions that ended: closed by their client, or cut with a code.", "code"),
		recorderErrors: counter("recorder_errors_total", "Recordings that failed and ended their session."),
		refusedConns:   counter("connections_refused_total", "Connections over a bound."),
		panics:         counter("room_panics_total", "Rooms that panicked; each ended one connection."),
		badRows:        counter("bad_snapshots_total", "Snapshots with rows that were not believed."),
		holds:          prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_gateway_holds_waiting", Help: "Operations that wait for a person."}),
		held:           vec("holds_total", "Held operations that ended, by answer.", "answer"),
		holdWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tidegate_gateway_hold_wait_seconds", Help: "How long a held operation waited.", Buckets: []float64{1, 5, 15, 30, 60, 120, 300, 600, 900, 3600},
		}),
	}
	for v := range m.operations {
		m.operations[v] = operations.WithLabelValues(access.Verdict(v).String())
	}
	for _, how := range []string{"approved", "denied", "timed_out", "cancelled", "cut"} {
		m.held.WithLabelValues(how) // there from the start, so that a rate sees the first one
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.opened, m.ended, operations, m.recorderErrors, m.refusedConns, m.panics, m.badRows, m.holds, m.held, m.holdWait,
		gauge("sessions_open", "Sessions open now.", func() float64 { return float64(len(s.live())) }),
		gauge("snapshot_age_seconds", "Age of the snapshot of grants; -1 before the first.", s.snapshotAge),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// judged counts an operation. A verdict that is none was refused.
func (m *metrics) judged(v access.Verdict) {
	if v < access.Deny || v > access.Allow {
		v = access.Deny
	}
	m.operations[v].Inc()
}

func (s *Server) snapshotAge() float64 {
	v := s.book.view.Load()
	if v == nil {
		return -1
	}
	return s.cfg.Now().Sub(v.read).Seconds()
}
