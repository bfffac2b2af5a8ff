package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// runVersion prints what was built, from what.
func runVersion(_ context.Context, args []string, io stdio) error {
	if err := parse(flag.NewFlagSet("version", flag.ContinueOnError), args, io, 0); err != nil {
		return err
	}
	version, commit := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value
			}
		}
	}
	fmt.Fprintf(io.out, "tidegate %s%s %s/%s\n", version, commit, runtime.GOOS, runtime.GOARCH)
	return nil
}
