package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// built is what version prints.
type built struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Go      string `json:"go"`
}

// runVersion prints what was built, from what.
func runVersion(_ context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print it as JSON")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	b := built{Version: versionText(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	if *asJSON {
		return encodeOne(io.out, b)
	}
	_, err := fmt.Fprintln(io.out, strings.Join(strings.Fields("tidegate "+b.Version+" "+b.Commit+" "+b.OS+"/"+b.Arch), " "))
	return err
}

// versionText is the version that was built.
func versionText() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(devel)"
}
