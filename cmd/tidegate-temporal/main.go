// Command tidegate-temporal is a Temporal server in one process, for a laptop
// and for tests.
//
// Temporal runs the workflows that open and close grants. In production it is
// a cluster that the operator already has; `tidegate dev` and the end-to-end
// tests need one that starts in a second, keeps what it knows in one SQLite
// file, listens on loopback only, and is gone when its parent is gone. That is
// this program: Temporal's own services, configured in code.
//
// It lives in a module of its own because the server asks for some two hundred
// modules that no other part of Tidegate needs.
//
// The server authorizes everybody who can reach its port, which every user of
// the machine can. It is for development: what it stores may be thrown away,
// because git and the ledger hold the truth.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal ends the process at once: a person who asks twice
	// does not want to wait.
	context.AfterFunc(ctx, restore)
	os.Exit(run(ctx, os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
