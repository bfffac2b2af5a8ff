package postgres

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// TestBench is `make bench-postgres`: the room beside a direct connection and
// pgbouncer, in one run. TIDEGATE_BENCH is "full", or "quick" for one round
// without TLS, or with TIDEGATE_BENCH_TLS=on with it; TIDEGATE_BENCH_ONLY names
// some of its parts. A profile of the gateway alone goes to
// TIDEGATE_BENCH_PROFILE.
func TestBench(t *testing.T) {
	mode := os.Getenv("TIDEGATE_BENCH")
	if mode == "" {
		t.Skip("make bench-postgres runs this")
	}
	b := newBenchRig(t)
	// Long enough that connecting, and the first query of a new backend, which
	// pgbouncer keeps, count for little.
	run := benchRun{benchRig: b, rounds: 3, seconds: 4}
	if mode == "quick" {
		run.rounds, run.seconds = 1, 2
	}
	defer func() { fmt.Println(run.table()) }()
	for _, tls := range []bool{false, true} {
		if mode == "quick" && tls != (os.Getenv("TIDEGATE_BENCH_TLS") == "on") {
			continue
		}
		b.open(tls)
		run.all()
	}
}

func testKey(t *testing.T) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type benchRun struct {
	*benchRig
	rounds, seconds int
	lines           [][]string
	ended           int // grants
}

// median of the rounds of one measurement, by way.
type medians map[string]float64

func (r *benchRun) measure(f func(benchWay) float64) medians {
	all := map[string][]float64{}
	for range r.rounds {
		for _, w := range r.ways {
			all[w.name] = append(all[w.name], f(w))
		}
	}
	m := medians{}
	for name, v := range all {
		m[name] = median(v)
	}
	return m
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

func (r *benchRun) all() {
	only := os.Getenv("TIDEGATE_BENCH_ONLY")
	for _, step := range []struct {
		name string
		do   func()
	}{{"simple", r.simple}, {"prepared", r.prepared}, {"latency", r.latency}, {"bulk", r.bulk}, {"connects", r.connects}, {"sessions", r.sessions}} {
		if only == "" || strings.Contains(only, step.name) {
			step.do()
		}
	}
}

func (r *benchRun) add(what, got, must, aim string, details ...any) {
	tls := "off"
	if r.tls {
		tls = "on"
	}
	r.lines = append(r.lines, []string{what, tls, got, must, aim, fmt.Sprint(details...)})
}

func (r *benchRun) simple() {
	for _, c := range []struct {
		clients   int
		must, aim string
	}{{8, "≥ 0.75", "0.85"}, {32, "≥ 0.82", "0.92"}} {
		var cpu []float64
		m := r.measure(func(w benchWay) float64 {
			before := ownCPU()
			tps, n := r.pgbench(w, "simple", c.clients)
			if w.name == "gateway" {
				cpu = append(cpu, float64((ownCPU()-before).Microseconds())/n)
			}
			return tps
		})
		r.add(fmt.Sprintf("pgbench -S simple, %d clients, of pgbouncer's tps", c.clients), ratio(m["gateway"], m["pgbouncer"]), c.must, c.aim, m.tell("tps"))
		if c.clients == 8 {
			r.add("gateway CPU per simple query, 8 clients", fmt.Sprintf("%.1f µs", median(cpu)), "≤ 40 µs", "34 µs")
		}
	}
}

func (r *benchRun) prepared() {
	for _, c := range []struct {
		clients   int
		must, aim string
	}{{8, "≥ 0.70", "0.80"}, {32, "≥ 0.80", "0.88"}} {
		m := r.measure(func(w benchWay) float64 { tps, _ := r.pgbench(w, "prepared", c.clients); return tps })
		r.add(fmt.Sprintf("pgbench -S prepared, %d clients, of pgbouncer's tps", c.clients), ratio(m["gateway"], m["pgbouncer"]), c.must, c.aim, m.tell("tps"))
	}
}

func ratio(a, b float64) string { return fmt.Sprintf("%.2f", a/b) }

func (m medians) tell(unit string) string {
	return fmt.Sprintf("direct %.0f, pgbouncer %.0f, gateway %.0f %s", m["direct"], m["pgbouncer"], m["gateway"], unit)
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
var countLine = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)

// pgbench answers with transactions per second, and how many there were.
func (r *benchRun) pgbench(w benchWay, mode string, clients int, more ...string) (tps, n float64) {
	r.t.Helper()
	stop := r.profile(w)
	defer stop()
	out := ""
	for _, patience := range []int{1, 5} { // on a busy machine connecting alone may take all the time
		args := append([]string{"-S", "-n", "-M", mode, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)), "-T", strconv.Itoa(patience * r.seconds)}, more...)
		if out = r.command([]string{"PGPASSWORD=" + w.password}, "pgbench", append(args, w.dsn)...); tpsLine.MatchString(out) {
			break
		}
	}
	number := func(re *regexp.Regexp) float64 {
		m := re.FindStringSubmatch(out)
		if m == nil {
			r.t.Fatalf("pgbench printed:\n%s", out)
		}
		v, _ := strconv.ParseFloat(m[1], 64)
		return v
	}
	return number(tpsLine), number(countLine)
}

// profile keeps what the gateway does while it is measured.
func (r *benchRun) profile(w benchWay) func() {
	path := os.Getenv("TIDEGATE_BENCH_PROFILE")
	if path == "" || w.name != "gateway" {
		return func() {}
	}
	f, err := os.Create(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		r.t.Fatal(err)
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }
}

// latency compares medians of single queries at one client.
func (r *benchRun) latency() {
	m := r.measure(func(w benchWay) float64 {
		dir := r.t.TempDir()
		prefix := filepath.Join(dir, "log")
		r.pgbench(w, "simple", 1, "-l", "--log-prefix="+prefix)
		logs, _ := filepath.Glob(prefix + "*")
		var all []float64
		for _, l := range logs {
			data, err := os.ReadFile(l)
			if err != nil {
				r.t.Fatal(err)
			}
			for line := range bytes.Lines(data) {
				if f := strings.Fields(string(line)); len(f) > 2 {
					us, _ := strconv.ParseFloat(f[2], 64)
					all = append(all, us)
				}
			}
		}
		return median(all)
	})
	r.add("added p50 at 1 client", fmt.Sprintf("%.0f µs", m["gateway"]-m["direct"]), "≤ 110 µs", "90 µs", m.tell("µs"))
}

// bulk reads a million rows of six columns with one masked.
func (r *benchRun) bulk() {
	var cpu, grown []float64
	m := r.measure(func(w benchWay) float64 {
		stop := r.profile(w)
		defer stop()
		before, mem := ownCPU(), heapInUse()
		took := r.helper(w, "bulk").seconds()
		if w.name == "gateway" {
			cpu = append(cpu, float64((ownCPU()-before).Microseconds())/1e6)
			grown = append(grown, float64(heapInUse()-mem)/1024)
		}
		return took
	})
	r.add("1M rows × 6 columns, one masked, of the same SELECT direct", ratio(m["direct"], m["gateway"]), "≥ 0.95", "1.1",
		fmt.Sprintf("direct %.2f, pgbouncer %.2f, gateway %.2f s; heap grew by %.0f KiB", m["direct"], m["pgbouncer"], m["gateway"], median(grown)))
	r.add("gateway CPU per row of it", fmt.Sprintf("%.2f µs", median(cpu)), "≤ 0.45 µs", "0.35 µs")
}

func (r *benchRun) connects() {
	m := r.measure(func(w benchWay) float64 { tps, _ := r.pgbench(w, "simple", 4, "-C"); return tps })
	r.add("connects per second, of direct", ratio(m["gateway"], m["direct"]), "≥ 0.85", "0.92", m.tell("per second"))
}

// sessions holds many open, and lets their grant end.
func (r *benchRun) sessions() {
	before, rss := heapInUse(), residentSet()
	h := r.helper(r.ways[2], "hold")
	h.expect("open")
	r.heapProfile()
	heap, res := heapInUse()-before, residentSet()-rss
	r.add("idle session, 1,000 open", fmt.Sprintf("%.1f KiB", float64(heap)/1024/benchSessions), "≤ 32 KiB", "20 KiB",
		fmt.Sprintf("heap and stacks in use; resident set %.1f KiB", float64(res)/1024/benchSessions))
	end := time.Now().Add(time.Second)
	r.endGrant(end)
	last := h.expect("cut")
	late := time.Unix(0, last).Sub(end)
	r.add("expiry with 1,000 sessions open", fmt.Sprintf("%.2f s", late.Seconds()), "≤ 2 s", "0.5 s", "until the last client saw its connection closed")
	h.wait()
	r.nextGrant()
}

// heapProfile keeps what idle sessions hold.
func (r *benchRun) heapProfile() {
	path := os.Getenv("TIDEGATE_BENCH_PROFILE")
	if path == "" {
		return
	}
	heapInUse()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.t.Logf("heap %d KiB, stacks %d KiB, %d goroutines", m.HeapInuse/1024, m.StackInuse/1024, runtime.NumGoroutine())
	f, err := os.Create(path + ".heap")
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	if err := pprof.WriteHeapProfile(f); err != nil {
		r.t.Fatal(err)
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func residentSet() int64 {
	debug.FreeOSMemory()
	data, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(data))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// ownCPU is what this process, which is the gateway, has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (r *benchRun) table() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| what\t| TLS\t| measured\t| must\t| aim\t| in figures\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, l := range r.lines {
		fmt.Fprintln(w, "| "+strings.Join(l, "\t| ")+"\t|")
	}
	_ = w.Flush()
	return out.String()
}
