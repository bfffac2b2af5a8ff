package gateway

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the gateway's numbers. No label holds a name from outside.
type metrics struct {
	opened         *prometheus.CounterVec
	operations     *prometheus.CounterVec
	recorderErrors prometheus.Counter
	refusedConns   prometheus.Counter
	panics         prometheus.Counter
	badRows        prometheus.Counter
	holds          prometheus.Gauge
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
	m := &metrics{
		opened:         vec("sessions_opened_total", "Attempts to open a session, by result.", "code"),
		operations:     vec("operations_total", "Operations, by verdict.", "verdict"),
		recorderErrors: counter("recorder_errors_total", "Recordings that failed and ended their session."),
		refusedConns:   counter("connections_refused_total", "Connections over a bound."),
		panics:         counter("room_panics_total", "Rooms that panicked; each ended one connection."),
		badRows:        counter("bad_snapshots_total", "Snapshots with rows that were not believed."),
		holds:          prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_gateway_holds_waiting", Help: "Operations that wait for a person."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.opened, m.operations, m.recorderErrors, m.refusedConns, m.panics, m.badRows, m.holds,
		gauge("sessions_open", "Sessions open now.", func() float64 { return float64(len(s.live())) }),
		gauge("snapshot_age_seconds", "Age of the snapshot of grants; -1 before the first.", s.snapshotAge),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (s *Server) snapshotAge() float64 {
	v := s.book.view.Load()
	if v == nil {
		return -1
	}
	return s.cfg.Now().Sub(v.read).Seconds()
}
