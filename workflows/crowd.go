package workflows

import (
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// What is too much to be read, and what is said of it by names alone.

func splitIt(n int, what string, most int) string {
	return fmt.Sprintf("The pull request changes %d %s, and at most %d are judged together. Split it.", n, what, most)
}

// tooMany says why a commit is not evaluated, or nothing. Files are counted
// before any is parsed: thousands that are made to be slow would keep the
// server from everything else for minutes.
func tooMany(base, head access.Tree) string {
	if n := differing(base, head, "grants/"); n > maxGrantsPerPR {
		return splitIt(n, "grants", maxGrantsPerPR)
	}
	if n := differing(base, head, "policies/"); n > maxPolicyFiles {
		return splitIt(n, "policy files", maxPolicyFiles)
	}
	return ""
}

// tooManyNames says why the people are not looked up, or nothing.
func tooManyNames(users, teams []string, where string) string {
	n := len(users) + len(teams)
	if n <= MaxNames {
		return ""
	}
	return fmt.Sprintf("%s %d people and teams, and at most %d are looked up together.", where, n, MaxNames)
}

// differing counts the files below a folder that only one of the trees has, or
// that are not the same in both.
func differing(base, head access.Tree, folder string) (n int) {
	blobs := map[string]string{}
	for _, f := range base.Files {
		if strings.HasPrefix(f.Path, folder) {
			blobs[f.Path] = f.Blob
		}
	}
	for _, f := range head.Files {
		if !strings.HasPrefix(f.Path, folder) {
			continue
		}
		if blob, ok := blobs[f.Path]; !ok || blob != f.Blob {
			n++
		}
		delete(blobs, f.Path)
	}
	return n + len(blobs)
}

// brought are the grant files that head has and base has not, or other than it.
func brought(base, head access.Tree) (out []access.Change) {
	for _, f := range head.Files {
		r, ok := named(f)
		if was := blobOf(base, f.Path); ok && was != f.Blob {
			c := access.Change{Kind: access.ChangeAdded, Request: r, Blob: f.Blob}
			if was != "" {
				c.Kind = access.ChangeEdited
			}
			out = append(out, c)
		}
	}
	return out
}
