package temporaltest

import "syscall"

const exeSuffix = ".exe"

// childAttributes keep a console's Ctrl-C from the child, which the parent
// stops in its own order. A killed parent is noticed by the pipe alone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
