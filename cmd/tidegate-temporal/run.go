package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// stdio is what a process reads from and writes to.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// options are the command line.
type options struct {
	db         string // SQLite file; empty keeps everything in memory
	host       string // loopback address that every port binds to
	port       int    // frontend; 0 takes a free one
	namespace  string // registered at start
	json       bool   // print one line of JSON when ready
	parentPipe bool   // the end of standard input means that the parent died
}

// run serves until ctx ends, and returns the exit code.
func run(ctx context.Context, args []string, std stdio) int {
	opts, err := parseOptions(args, std.err)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(std.err, "tidegate-temporal:", err)
		return exitUsage
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if opts.parentPipe {
		// Not waited for: a read of standard input cannot be interrupted,
		// and it ends with the process.
		go cancelAtEOF(std.in, cancel)
	}
	if err := serve(ctx, opts, std); err != nil {
		fmt.Fprintln(std.err, "tidegate-temporal:", err)
		return exitFailed
	}
	return exitOK
}

// cancelAtEOF cancels when in ends. The parent holds the other end and writes
// nothing; the kernel closes it however the parent dies.
func cancelAtEOF(in io.Reader, cancel context.CancelFunc) {
	_, _ = io.Copy(io.Discard, in)
	cancel()
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("tidegate-temporal", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.db, "db", "", "SQLite `file` that keeps the workflows (default: in memory)")
	flags.StringVar(&o.host, "host", "127.0.0.1", "loopback `address` to listen on")
	flags.IntVar(&o.port, "port", 0, "`port` of the frontend; 0 takes a free one")
	flags.StringVar(&o.namespace, "namespace", "tidegate", "`name` of the namespace to register")
	flags.BoolVar(&o.json, "json", false, "print one line of JSON when ready")
	flags.BoolVar(&o.parentPipe, "parent-pipe", false, "stop when standard input ends")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: only flags are taken", flags.Arg(0))
	}
	return o, o.validate()
}

var namespacePattern = regexp.MustCompile(`\A[a-zA-Z0-9][a-zA-Z0-9._-]{1,99}\z`)

// validate reports everything that is wrong at once.
func (o options) validate() error {
	var errs []error
	if ip, err := netip.ParseAddr(o.host); err != nil || !ip.IsLoopback() {
		errs = append(errs, fmt.Errorf("--host is %q, want a loopback address such as 127.0.0.1: this server authorizes everybody", o.host))
	}
	if o.port < 0 || o.port > 65535 {
		errs = append(errs, fmt.Errorf("--port is %d, want 0 to 65535", o.port))
	}
	if !namespacePattern.MatchString(o.namespace) || o.namespace == "temporal-system" {
		errs = append(errs, fmt.Errorf("--namespace is %q, want 2 to 100 letters, digits, dots, dashes or underscores, and not temporal-system", o.namespace))
	}
	return errors.Join(errs...)
}

// ready is the line that --json prints.
type ready struct {
	Address   string `json:"address"`
	Namespace string `json:"namespace"`
	PID       int    `json:"pid"`
}

func announce(o options, address string, std stdio) error {
	if !o.json {
		_, err := fmt.Fprintf(std.err, "Temporal is ready at %s, namespace %s\n", address, o.namespace)
		return err
	}
	line := ready{Address: address, Namespace: o.namespace, PID: os.Getpid()}
	if err := json.NewEncoder(std.out).Encode(line); err != nil {
		return fmt.Errorf("print readiness: %w", err)
	}
	return nil
}
