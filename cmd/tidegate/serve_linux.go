package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// undumpable closes /proc/PID/mem and ptrace to other processes of our user.
func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid dumps: %w", err)
	}
	return nil
}
