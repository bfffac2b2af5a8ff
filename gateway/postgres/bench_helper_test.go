package postgres

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/access"
)

// The bench's own clients run in another process, so that what this one uses
// is the gateway's.

// benchClient is that process.
type benchClient struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func (r *benchRun) helper(w benchWay, what string) *benchClient {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(r.t.Context(), exe, "-test.run=^TestBenchClient$")
	cmd.Env = append(os.Environ(), "TIDEGATE_BENCH_CLIENT="+what, "TIDEGATE_BENCH_DSN="+w.dsn, "PGPASSWORD="+w.password)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return &benchClient{t: r.t, cmd: cmd, lines: bufio.NewScanner(out)}
}

// expect waits for a line "word number".
func (c *benchClient) expect(word string) int64 {
	c.t.Helper()
	for c.lines.Scan() {
		if f := strings.Fields(c.lines.Text()); len(f) == 2 && f[0] == word {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	c.t.Fatalf("the bench's client said no %q", word)
	return 0
}

func (c *benchClient) wait() {
	c.t.Helper()
	for c.lines.Scan() {
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *benchClient) seconds() float64 {
	c.t.Helper()
	n := c.expect("took")
	c.wait()
	return time.Duration(n).Seconds()
}

// endGrant lets the grant end at a moment by the gateway's own clock.
func (r *benchRun) endGrant(at time.Time) {
	r.gate.Change(r.grant(), func(g *access.Grant) { g.NotAfter = at.UTC() })
}

// nextGrant makes another one, for what is measured after that.
func (r *benchRun) nextGrant() {
	r.ended++
	r.gate.Put(r.gate.NewGrant(r.grant(), time.Hour))
}

func (r *benchRun) grant() string { return fmt.Sprint("inc-", r.ended+1) }

// TestBenchClient is the other process.
func TestBenchClient(t *testing.T) {
	switch os.Getenv("TIDEGATE_BENCH_CLIENT") {
	case "bulk":
		benchBulk(t)
	case "hold":
		benchHold(t)
	default:
		t.Skip("a part of TestBench")
	}
}

func benchBulk(t *testing.T) {
	c := benchConnect(t)
	defer c.Close(context.Background())
	began, n := time.Now(), 0
	res := c.PgConn().Exec(t.Context(), "select * from wide")
	for res.NextResult() {
		for rr := res.ResultReader(); rr.NextRow(); n++ {
		}
	}
	if err := res.Close(); err != nil || n != 1_000_000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	fmt.Printf("\ntook %d\n", time.Since(began))
}

func benchConnect(t *testing.T) *pgx.Conn {
	c, err := pgx.Connect(t.Context(), os.Getenv("TIDEGATE_BENCH_DSN"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// benchHold opens many sessions, uses each once, and says when the last of
// them was cut.
func benchHold(t *testing.T) {
	conns := make([]*pgx.Conn, benchSessions)
	var open errgroup.Group
	open.SetLimit(8)
	for i := range conns {
		open.Go(func() (err error) {
			if conns[i], err = pgx.Connect(t.Context(), os.Getenv("TIDEGATE_BENCH_DSN")); err == nil {
				_, err = conns[i].Exec(t.Context(), "select 1", pgx.QueryExecModeSimpleProtocol)
			}
			return err
		})
	}
	if err := open.Wait(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var last time.Time
	var cut sync.WaitGroup
	for _, c := range conns {
		h := c.PgConn().Conn()
		cut.Go(func() {
			_, _ = io.Copy(io.Discard, h)
			mu.Lock()
			defer mu.Unlock()
			last = time.Now()
		})
	}
	fmt.Printf("\nopen %d\n", len(conns))
	cut.Wait()
	fmt.Printf("cut %d\n", last.UnixNano())
}
