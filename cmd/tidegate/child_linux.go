package main

import "syscall"

// childAttr makes a child end with us, however we end, and keeps it out of
// the terminal's own interrupts: we stop it in order.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
