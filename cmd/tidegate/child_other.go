//go:build !linux

package main

import "syscall"

// childAttr has no way here to tie a child's life to ours but its standard
// input, which closes with us.
func childAttr() *syscall.SysProcAttr { return nil }
