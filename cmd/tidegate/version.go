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
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value
			}
		}
	}
	fmt.Fprintf(io.out, "tidegate %s%s %s/%s\n", versionText(), commit, runtime.GOOS, runtime.GOARCH)
	return nil
}

// versionText is the version that was built.
func versionText() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(devel)"
}
