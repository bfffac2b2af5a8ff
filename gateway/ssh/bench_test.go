package ssh

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tidegate/tidegate/gateway/record"
)

// TestBench is `make bench-ssh`: the way through the gateway, everything
// recorded to the disk, beside the direct way and OpenSSH's ProxyJump through
// the same sshd, in turns. TIDEGATE_BENCH is "full" or "quick";
// TIDEGATE_BENCH_ONLY names some of the measurements, and a profile of idle
// memory goes to TIDEGATE_BENCH_PROFILE.
func TestBench(t *testing.T) {
	mode := os.Getenv("TIDEGATE_BENCH")
	if mode == "" {
		t.Skip("make bench-ssh runs this")
	}
	r := &benchRun{track: newTrack(t), rounds: 10, bulk: 256 << 20}
	if mode == "quick" {
		r.rounds, r.bulk = 4, 64<<20
	}
	defer func() { fmt.Println(r.table()) }()
	only := os.Getenv("TIDEGATE_BENCH_ONLY")
	for _, step := range []struct {
		name string
		do   func()
	}{{"login", r.logins}, {"echo", r.echo}, {"download", r.download}, {"upload", r.upload}, {"idle", r.idle}, {"verify", r.verify}} {
		if only == "" || strings.Contains(only, step.name) {
			step.do()
		}
	}
}

type benchRun struct {
	*track
	rounds int
	bulk   int
	lines  [][]string
}

func (r *benchRun) add(what, got, must, aim, figures string) {
	r.lines = append(r.lines, []string{what, got, must, aim, figures})
}

func (r *benchRun) table() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| what\t| measured\t| must\t| aim\t| in figures\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|")
	for _, l := range r.lines {
		fmt.Fprintln(w, "| "+strings.Join(l, "\t| ")+"\t|")
	}
	_ = w.Flush()
	return out.String()
}

// times are the median seconds of each way.
type times map[string]float64

// measure takes turns, so that what else the machine does hits all ways alike.
func (r *benchRun) measure(rounds int, do func(way string)) times {
	all := map[string][]float64{}
	for range rounds {
		for _, way := range []string{"direct", "gateway", "jump"} {
			began := time.Now()
			do(way)
			all[way] = append(all[way], time.Since(began).Seconds())
		}
	}
	m := times{}
	for way, v := range all {
		slices.Sort(v)
		m[way] = v[len(v)/2]
	}
	return m
}

// ofDirect is the speed of the way through the gateway, of the direct one.
func (m times) ofDirect() string { return fmt.Sprintf("%.2f", m["direct"]/m["gateway"]) }

func (m times) seconds() string {
	return fmt.Sprintf("direct %.0f, gateway %.0f, ProxyJump %.0f ms", 1000*m["direct"], 1000*m["gateway"], 1000*m["jump"])
}

func (m times) perSecond(bytes int) string {
	rate := func(way string) float64 { return float64(bytes) / m[way] / 1e6 }
	return fmt.Sprintf("direct %.0f, gateway %.0f, ProxyJump %.0f MB/s", rate("direct"), rate("gateway"), rate("jump"))
}

func (r *benchRun) must(cmd *exec.Cmd) {
	r.t.Helper()
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("%v: %v: %s", cmd.Args, err, &said)
	}
}

func (r *benchRun) logins() {
	for _, c := range []struct {
		clients   int
		must, aim string
	}{{1, "≥ 0.95", "0.98"}, {4, "≥ 0.85", "0.90"}} {
		m := r.measure(2*r.rounds, func(way string) {
			var all sync.WaitGroup
			for range c.clients {
				all.Go(func() {
					if err := r.openssh("ssh", way, "host", "true").Run(); err != nil {
						r.t.Errorf("%s: %v", way, err)
					}
				})
			}
			all.Wait()
		})
		r.add(fmt.Sprintf("logins, %d at once, of direct", c.clients), m.ofDirect(), c.must, c.aim, m.seconds())
	}
}

// echo is the time from a key to its echo, one after the other. Both ways are
// open all the time and take many short turns: what it costs to wake a
// processor changes from second to second, and so hits both alike.
func (r *benchRun) echo() {
	ways := map[string]*benchClient{"direct": r.helper("direct", "echo"), "gateway": r.helper("gateway", "echo")}
	m := map[string][]int64{}
	for range 3 * r.rounds {
		for _, way := range []string{"direct", "gateway"} {
			m[way] = append(m[way], ways[way].turn("p50"))
		}
	}
	for _, v := range m {
		slices.Sort(v)
	}
	direct, gate := m["direct"][len(m["direct"])/2], m["gateway"][len(m["gateway"])/2]
	r.add("echo of one key, added p50", fmt.Sprintf("%d µs", gate-direct), "≤ 160 µs", "110 µs", fmt.Sprintf("direct %d, gateway %d µs", direct, gate))
}

func (r *benchRun) download() {
	text := filepath.Join(r.dir, "text")
	line := strings.Repeat("a line of text, as logs have them\n", 1<<10)
	if err := os.WriteFile(text, []byte(strings.Repeat(line, r.bulk/len(line))), 0o600); err != nil {
		r.t.Fatal(err)
	}
	m := r.measure(max(3, r.rounds/3), func(way string) { r.must(r.openssh("ssh", way, "host", "cat "+text)) })
	r.add("download of text through exec, of direct", m.ofDirect(), "≥ 0.43", "0.55", m.perSecond(r.bulk))
}

func (r *benchRun) upload() {
	from, to := filepath.Join(r.dir, "from"), filepath.Join(r.t.(*testing.T).TempDir(), "to")
	if err := os.WriteFile(from, make([]byte, r.bulk), 0o600); err != nil {
		r.t.Fatal(err)
	}
	m := r.measure(max(3, r.rounds/3), func(way string) {
		put := r.openssh("sftp", way, "-b", "-", "host")
		put.Stdin = strings.NewReader("put " + from + " " + to + "\n")
		r.must(put)
	})
	r.add("upload, sftp put, of direct", m.ofDirect(), "≥ 0.65", "0.75", m.perSecond(r.bulk))
}

// idleShells are held open at once.
const idleShells = 200

func (r *benchRun) idle() {
	before := inUse()
	client := r.helper("gateway", "hold")
	client.expect("open")
	bytes := inUse() - before
	r.heapProfile()
	r.add(fmt.Sprintf("idle session, %d shells", idleShells), fmt.Sprintf("%.1f KiB", float64(bytes)/1024/idleShells), "≤ 140 KiB", "100 KiB",
		"heap and stacks in use, after the collector's visits")
}

// inUse is what the process uses when the collector has visited so often that
// stacks which were needed for a login have shrunk.
func inUse() int64 {
	for range 6 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func (r *benchRun) heapProfile() {
	path := os.Getenv("TIDEGATE_BENCH_PROFILE")
	if path == "" {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.t.Logf("heap %d KiB (live %d), stacks %d KiB, %d goroutines", m.HeapInuse/1024, m.HeapAlloc/1024, m.StackInuse/1024, runtime.NumGoroutine())
	for name, debug := range map[string]int{"heap": 0, "goroutine": 1} {
		f, err := os.Create(path + "." + name)
		if err == nil {
			err = pprof.Lookup(name).WriteTo(f, debug)
			_ = f.Close()
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// verify takes the largest recording of the measurements before.
func (r *benchRun) verify() {
	var largest string
	var size int64
	_ = filepath.WalkDir(r.spool, func(path string, d os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".tgr" { // beside them lies the journal
			return err
		}
		if info, err := d.Info(); err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return nil
	})
	var all []float64
	for range r.rounds {
		f, err := os.Open(largest)
		if err != nil {
			r.t.Fatal(err)
		}
		began := time.Now()
		if _, err := record.Verify(f, record.NewKeys(r.key.Public().(ed25519.PublicKey)), nil); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, float64(size)/time.Since(began).Seconds()/1e6)
		_ = f.Close()
	}
	slices.Sort(all)
	r.add("verify", fmt.Sprintf("%.0f MB/s", all[len(all)/2]), "≥ 400 MB/s", "1 GB/s", fmt.Sprintf("a recording of %d MB", size/1e6))
}
