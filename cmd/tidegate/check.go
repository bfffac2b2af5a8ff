package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/policies"
)

// runCheck loads the access repository in a folder, prints every diagnostic,
// and runs the check blocks.
func runCheck(_ context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	if err := parse(flags, args, io, 1); err != nil {
		return err
	}
	dir := "."
	if flags.NArg() == 1 {
		dir = flags.Arg(0)
	}
	tree, err := readTree(dir)
	if err != nil {
		return err
	}
	diags := policies.Load(tree)
	for _, d := range diags {
		fmt.Fprintln(io.out, d)
	}
	if diags.HasErrors() {
		return fmt.Errorf("%d diagnostics", len(diags))
	}
	return runChecks(tree, io)
}

func runChecks(tree access.Tree, io stdio) error {
	failed := 0
	results := policies.Check(tree, policies.OfflineDirectory(tree))
	for _, r := range results {
		if r.OK {
			fmt.Fprintf(io.out, "ok    %s: %s\n", r.Name, r.Got)
			continue
		}
		failed++
		fmt.Fprintf(io.out, "FAIL  %s:%d: %s: want %s, got %s\n", r.File, r.Line, r.Name, r.Want, r.Got)
		for _, d := range r.Why {
			fmt.Fprintf(io.out, "      %s\n", d)
		}
	}
	fmt.Fprintf(io.err, "%d files, %d checks, %d failed\n", len(tree.Files), len(results), failed)
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(results))
	}
	return nil
}

// readTree reads grants/ and policies/ of a working folder.
func readTree(dir string) (access.Tree, error) {
	var tree access.Tree
	for _, sub := range []string{"grants", "policies"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".hcl") {
				return err
			}
			text, err := os.ReadFile(path)
			rel, relErr := filepath.Rel(dir, path)
			if err == nil {
				err = relErr
			}
			tree.Files = append(tree.Files, access.File{Path: filepath.ToSlash(rel), Content: text})
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			return tree, fmt.Errorf("read access repository: %w", err)
		}
	}
	if len(tree.Files) == 0 {
		return tree, fmt.Errorf("read access repository: no .hcl files in %s or %s", filepath.Join(dir, "grants"), filepath.Join(dir, "policies"))
	}
	return tree, nil
}
