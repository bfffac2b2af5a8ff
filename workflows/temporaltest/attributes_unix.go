//go:build unix && !linux

package temporaltest

import "syscall"

const exeSuffix = ""

// childAttributes keep a terminal's Ctrl-C from the child, which the parent
// stops in its own order. A killed parent is noticed by the pipe alone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
