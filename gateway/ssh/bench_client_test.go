package ssh

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// TestBenchClient is the client's process of TestBench.
func TestBenchClient(t *testing.T) {
	what := os.Getenv("TIDEGATE_BENCH_CLIENT")
	if what == "" {
		t.Skip("a part of TestBench")
	}
	c := benchLogin(t)
	switch what {
	case "echo":
		echoTurns(t, c())
	case "hold":
		for range idleShells {
			openShell(t, c())
		}
		fmt.Printf("\nopen %d\n", idleShells)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the bench has measured
	}
}

// benchLogin answers with what opens a connection.
func benchLogin(t *testing.T) func() *gossh.Client {
	t.Helper()
	signer, err := certifiedKey(os.Getenv("TIDEGATE_BENCH_KEY"))
	if err != nil {
		t.Fatal(err)
	}
	return func() *gossh.Client {
		c, err := gossh.Dial("tcp", os.Getenv("TIDEGATE_BENCH_ADDRESS"), &gossh.ClientConfig{
			Config: gossh.Config{Ciphers: gcmOnly}, User: os.Getenv("TIDEGATE_BENCH_USER"), Auth: []gossh.AuthMethod{gossh.PublicKeys(signer)},
			HostKeyCallback: gossh.InsecureIgnoreHostKey(),
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// echoTurns types to a program that says it back, a turn for each line of
// standard input, and prints the median of each turn.
func echoTurns(t *testing.T, c *gossh.Client) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	for turns := bufio.NewScanner(os.Stdin); turns.Scan(); {
		fmt.Printf("\np50 %d\n", echoTime(t, in, out).Microseconds())
	}
}

// echoKeys are typed in one turn, one after the other's echo.
const echoKeys = 500

func echoTime(t *testing.T, in io.Writer, out io.Reader) time.Duration {
	t.Helper()
	var all []time.Duration
	key := []byte("x")
	for range echoKeys {
		began := time.Now()
		if _, err := in.Write(key); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, key); err != nil {
			t.Fatal(err)
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func openShell(t *testing.T, c *gossh.Client) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the prompt
		t.Fatal(err)
	}
}
