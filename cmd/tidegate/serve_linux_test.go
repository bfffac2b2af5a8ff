package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoCores: a crash leaves no keys in a file, and no other process of our
// user can read them.
func TestNoCores(t *testing.T) {
	if err := noCores(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("want no core files, got %+v, %v", limit, err)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("want a process that is not dumpable, got %d, %v", dumpable, err)
	}
}
