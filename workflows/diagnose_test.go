package workflows

import (
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/workflows/temporaltest"
)

func TestDiagnose(t *testing.T) {
	server := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	find := func(address, namespace string) string {
		var b strings.Builder
		for _, f := range Diagnose(t.Context(), client.Options{HostPort: address, Namespace: namespace, Logger: quietLog{}}) {
			b.WriteString(string(f.Level) + " " + f.Say + "\n")
		}
		return b.String()
	}
	for _, c := range []struct{ address, namespace, want string }{
		{server.Address, "tidegate", "fail nobody works at the queue tidegate-revoke (revocations)"},
		{server.Address, "nothing", `fail the namespace "nothing" can't be read`},
		{"127.0.0.1:1", "tidegate", "fail 127.0.0.1:1 is not reached"},
	} {
		if got := find(c.address, c.namespace); !strings.Contains(got, c.want) {
			t.Errorf("want %q in\n%s", c.want, got)
		}
	}
	control(t, server.Client(t), newWorld(t))
	deadline, last := time.Now().Add(20*time.Second), ""
	for strings.Count(last, "ok 1 workers at the queue") != 3 { // it is Temporal whose pace we don't know
		if last = find(server.Address, "tidegate"); time.Now().After(deadline) {
			t.Fatalf("want workers at three queues, got\n%s", last)
		}
	}
}

type quietLog struct{}

func (quietLog) Debug(string, ...any) {}
func (quietLog) Info(string, ...any)  {}
func (quietLog) Warn(string, ...any)  {}
func (quietLog) Error(string, ...any) {}
