// Command tidegate is the whole of Tidegate in one binary: the control side,
// the gateway, and what people and jobs call. `tidegate help` lists the verbs.
//
// cli.go has the list of verbs; each verb's function is named after it
// (runServe). The files belong together by their first word:
//
//   - config: the configuration of serve, read and checked
//   - serve, dev, demo: what these verbs start; house.go has what serve and dev
//     share, rooms.go the one list of protocols
//   - adapters, control: the parts don't know one another; here they are joined
//   - key, keyring, livekeys, recorderkeys, enrol: keys, their rotation, and the
//     enrolment of gateways in other processes
//   - installation, lists, recordings, revoke, adopt, yield, doctor: the
//     operator's verbs, on an installation that runs or not
//   - connect, login, oidclogin, sshfiles: the verbs of whoever uses a grant
//   - signals, traces: numbers and spans
//   - bench: what `make bench` measures
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// stdio is what a verb reads and writes: data on out, words on err.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}
