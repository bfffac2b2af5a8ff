package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// process is a child and the goroutine that waits for it.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// launch starts cmd on a thread that lives as long as the child: the kernel's
// parent-death signal is sent when the starting thread ends, not the process.
func launch(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// run runs cmd to its end, and answers with what it wrote.
func run(cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := launch(cmd)
	if err != nil {
		return nil, err
	}
	<-p.done
	if !cmd.ProcessState.Success() {
		return out.Bytes(), errors.New(cmd.ProcessState.String())
	}
	return out.Bytes(), nil
}

// end sends sig and waits; what does not end in time is killed.
func (p *process) end(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %d: %w", p.cmd.Process.Pid, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(wait):
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return errors.Join(fmt.Errorf("stop %d: it did not end within %s and was killed", p.cmd.Process.Pid, wait), err)
}

// account is whom a root caller's cluster runs as; ok is false for others.
func account() (uid, gid int, ok bool, err error) {
	if os.Getuid() != 0 {
		return 0, 0, false, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("find a user for PostgreSQL, which refuses to run as root: %w", err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	return uid, gid, true, errors.Join(errUID, errGID)
}

// own gives a file to the account that the cluster runs as.
func own(path string) error {
	uid, gid, ok, err := account()
	if err != nil || !ok {
		return err
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return fmt.Errorf("give %s to PostgreSQL's user: %w", path, err)
	}
	return nil
}

func attributes() (*syscall.SysProcAttr, error) {
	attr := dieWithParent()
	uid, gid, ok, err := account()
	if ok {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr, err
}
