package main

import (
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/record"
)

const signalsPage = "../../docs/reference/signals.md"

// registered is every metric that a process with both parts has, as the page's
// table has it.
func registered(t *testing.T) []string {
	t.Helper()
	h := newHouse(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { h.Close() })
	keys, err := openOwnKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.openSignals(t.Context(), tracesConfig{File: &strings.Builder{}}, "test1"); err != nil {
		t.Fatal(err)
	}
	if _, err := newControlSignals(h.signals); err != nil {
		t.Fatal(err)
	}
	if err := h.signals.recorded(&record.Store{}); err != nil {
		t.Fatal(err)
	}
	_, err = gateway.New(gateway.Config{
		Ledger: gatewayLedger{}, Minter: leases{}, Identifier: nobody{}, Compiler: policy{}, Recorders: recorders{},
		ControlKey: publicOf(keys.control), Key: keys.recorder, Metrics: h.signals.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows(h.signals.metrics)
}

type nobody struct{ gateway.Identifier }

var described = regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)", (?:unit: "[^"]*", )?constLabels: \{[^}]*\}, variableLabels: \{([^}]*)\}`)

func rows(reg *prometheus.Registry) (rows []string) {
	all := make(chan *prometheus.Desc, 1000)
	reg.Describe(all)
	close(all)
	for d := range all {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			panic("not understood: " + d.String())
		}
		if strings.HasPrefix(m[1], "tidegate_") {
			rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2]))
		}
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}

// TestMetricsAreDocumented: the page's table is what is registered, word for
// word; -update writes it.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(signalsPage)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| metric | labels | meaning |\n|---|---|---|\n"
	before, rest, ok := strings.Cut(string(text), head)
	old, after, ends := strings.Cut(rest, "\n\n")
	if !ok || !ends {
		t.Fatalf("%s: no table of metrics", signalsPage)
	}
	want := registered(t)
	if *update {
		put(t, signalsPage, before+head+strings.Join(want, "\n")+"\n\n"+after, 0o644)
		return
	}
	if diff := cmp.Diff(want, strings.Split(old, "\n")); diff != "" {
		t.Errorf("%s (-registered +page); go test ./cmd/tidegate -run Documented -update writes it:\n%s", signalsPage, diff)
	}
	for _, name := range regexp.MustCompile(`tidegate_[a-z_]+`).FindAllString(before+after, -1) {
		base := regexp.MustCompile(`_(bucket|count|sum)\z`).ReplaceAllString(name, "")
		if !slices.ContainsFunc(want, func(row string) bool {
			return strings.Contains(row, "`"+name+"`") || strings.Contains(row, "`"+base+"`")
		}) {
			t.Errorf("%s speaks of %s, which is not registered", signalsPage, name)
		}
	}
}
