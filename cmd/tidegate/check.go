package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/policies"
)

// checked is what check prints.
type checked struct {
	Files       int                    `json:"files"`
	Diagnostics access.Diagnostics     `json:"diagnostics,omitempty"`
	Checks      []policies.CheckResult `json:"checks,omitempty"`
}

// runCheck loads the access repository in a folder, prints every diagnostic,
// and runs the check blocks.
func runCheck(_ context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print the results as JSON")
	words, err := mixed(flags, args, io)
	if err != nil {
		return err
	}
	if len(words) > 1 {
		return fmt.Errorf("%w: got %s, want one folder", errUsage, listed(words))
	}
	tree, err := readTree(strings.Join(append(words, ".")[:1], ""))
	if err != nil {
		return err
	}
	c := checked{Files: len(tree.Files), Diagnostics: policies.Load(tree)}
	if !c.Diagnostics.HasErrors() {
		c.Checks = policies.Check(tree, policies.OfflineDirectory(tree))
	}
	if *asJSON {
		err = encodeOne(io.out, c)
	} else {
		c.tell(io)
	}
	return errors.Join(err, c.verdict())
}

// verdict is why the repository is not right, or nil.
func (c checked) verdict() error {
	if c.Diagnostics.HasErrors() {
		return fmt.Errorf("%d diagnostics", len(c.Diagnostics))
	}
	if n := c.failed(); n > 0 {
		return fmt.Errorf("%d of %d checks failed", n, len(c.Checks))
	}
	return nil
}

func (c checked) failed() (n int) {
	for _, r := range c.Checks {
		if !r.OK {
			n++
		}
	}
	return n
}

func (c checked) tell(io stdio) {
	for _, d := range c.Diagnostics {
		fmt.Fprintln(io.out, d)
	}
	for _, r := range c.Checks {
		if r.OK {
			fmt.Fprintf(io.out, "ok    %s: %s\n", r.Name, r.Got)
			continue
		}
		fmt.Fprintf(io.out, "FAIL  %s:%d: %s: want %s, got %s\n", r.File, r.Line, r.Name, r.Want, r.Got)
		for _, d := range r.Why {
			fmt.Fprintf(io.out, "      %s\n", d)
		}
	}
	if !c.Diagnostics.HasErrors() {
		fmt.Fprintf(io.err, "%d files, %d checks, %d failed\n", c.Files, len(c.Checks), c.failed())
	}
}

// readTree reads grants/ and policies/ of a working folder, within the bounds
// that hold for a repository: a pull request that is checked in CI may be
// anybody's.
func readTree(dir string) (access.Tree, error) {
	var tree access.Tree
	if at, err := os.Stat(dir); err != nil || !at.IsDir() {
		return tree, fmt.Errorf("read access repository: got %s, want the folder that holds grants/ and policies/", dir)
	}
	for _, sub := range []string{"grants", "policies"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".hcl") {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			switch {
			case err != nil:
				return err
			case !d.Type().IsRegular():
				return fmt.Errorf("%s is no plain file, and grants/ and policies/ hold nothing else", rel)
			case len(tree.Files) == policies.MaxFiles:
				return fmt.Errorf("grants/ and policies/ hold more than %d files", policies.MaxFiles)
			}
			text, err := readBounded(path, policies.MaxFileBytes)
			tree.Files = append(tree.Files, access.File{Path: filepath.ToSlash(rel), Content: text})
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			return tree, fmt.Errorf("read access repository: %w", err)
		}
	}
	if len(tree.Files) == 0 {
		return tree, fmt.Errorf("read access repository: no .hcl files in %s or %s; name the folder that holds the two", filepath.Join(dir, "grants"), filepath.Join(dir, "policies"))
	}
	return tree, nil
}
