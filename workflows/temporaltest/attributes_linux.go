package temporaltest

import "syscall"

const exeSuffix = ""

// childAttributes keep a terminal's Ctrl-C from the child, which the parent
// stops in its own order, and end it with a parent that is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
