package ssh

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/access"
)

// TestWindowOfARealTerminal: somebody drags the window's corner while a stock
// client runs. The kernel tells it by SIGWINCH, it tells the gateway, and that
// tells the host and the recording.
func TestWindowOfARealTerminal(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "shell": "true"}, sshd: []string{"LogLevel DEBUG1"}})
	screen, tty := openTerminal(t, 80, 24)
	client := h.client("alice", "ssh", "-tt", "web-1@127.0.0.1", "echo ready; read line; echo got $line")
	client.Stdin, client.Stdout, client.Stderr = tty, tty, tty
	client.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close()
	lines := bufio.NewReader(screen)
	readUntil(t, lines, "ready")
	for n, size := range [][2]uint16{{132, 50}, {40, 10}} {
		resize(t, screen, size[0], size[1])
		eventually(t, "the recording has the new size", func() bool {
			return h.resized(int(size[0]), int(size[1])) == 1
		})
		eventually(t, "the host is told", func() bool { // its sshd logs the size of pty-req the same way
			return strings.Count(h.host.LogText(), "session_input_channel_req: session 0 req window-change") == n+2
		})
	}
	if n := h.resized(80, 24); n != 1 {
		t.Errorf("the terminal's first size was recorded %d times", n)
	}
	if _, err := screen.WriteString("it\r"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, lines, "got it")
	if err := client.Wait(); err != nil {
		t.Errorf("the client ended with %v", err)
	}
}

func (h *house) resized(columns, rows int) (n int) {
	for _, e := range h.gate.Tape.Events("") {
		if e.Type == access.EventResize && e.Columns == columns && e.Rows == rows {
			n++
		}
	}
	return n
}

func readUntil(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	var seen strings.Builder
	for !strings.Contains(seen.String(), want+"\r\n") {
		line, err := r.ReadString('\n')
		seen.WriteString(line)
		if err != nil {
			t.Fatalf("the terminal shows %q, %v; want %q", seen.String(), err, want)
		}
	}
}

// openTerminal is a terminal of the kernel's: what a person sees and types on,
// and what a program gets.
func openTerminal(t *testing.T, columns, rows uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	var n int
	on(t, screen, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	resize(t, screen, columns, rows)
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

func resize(t *testing.T, screen *os.File, columns, rows uint16) {
	t.Helper()
	on(t, screen, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	})
}

// on does something to a file's descriptor that leaves it as it is.
func on(t *testing.T, f *os.File, do func(fd int) error) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if outer := raw.Control(func(fd uintptr) { err = do(int(fd)) }); outer != nil || err != nil {
		t.Fatal(outer, err)
	}
}
