package policies

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/tidegate/tidegate/access"
)

// Input is what an evaluation reads.
type Input struct {
	Adopted   access.Tree // policies/ are read from here
	Base      access.Tree // grants/ before
	Head      access.Tree // grants/ after
	Directory access.Directory
}

// Evaluation is what a pull request would do.
type Evaluation struct {
	Diagnostics access.Diagnostics
	Mixed       bool // policies and grants in one pull request
	PolicyOnly  bool
	Changes     []access.Change
	Plans       map[string]access.Plan // by grant id; for added and edited grants without errors
}

// Evaluate plans each grant that differs between Base and Head, under the
// policies of Adopted. A change of layout alone is an edit too: what to do
// about it depends on the grant's state, which is not known here. Where
// policies change, the new ones are loaded and their checks run.
func Evaluate(in Input) Evaluation {
	var diags diagnostics
	out := Evaluation{Plans: map[string]access.Plan{}}
	policies := changed(in.Base, in.Head, policiesDir)
	grants := changed(in.Base, in.Head, grantsDir)
	out.Mixed = len(policies) > 0 && len(grants) > 0
	out.PolicyOnly = len(policies) > 0 && len(grants) == 0
	if len(policies) > 0 {
		diags = append(diags, reviewPolicies(in.Head, in.Directory)...)
	}
	if len(grants) > 0 {
		evaluateGrants(in, grants, &out, &diags)
	}
	out.Diagnostics = diags.sorted()
	return out
}

func evaluateGrants(in Input, differing []difference, out *Evaluation, diags *diagnostics) {
	set := loadPolicies(in.Adopted, diags)
	usable := !diags.hasErrors()
	for _, d := range differing {
		var own diagnostics
		change, w, ok := readChange(d, &own)
		if ok {
			out.Changes = append(out.Changes, change)
		}
		if ok && usable && change.Kind != access.ChangeRemoved {
			plan := planner{set, in.Directory, &own}.plan(w)
			if !own.hasErrors() {
				out.Plans[w.ID] = plan
			}
		}
		*diags = append(*diags, own...)
	}
	for id := range takenIDs(in, diags) {
		delete(out.Plans, id)
	}
}

// difference is one file before and after; nil is absent.
type difference struct{ before, after *access.File }

// changed lists the files under a folder that differ, by path.
func changed(base, head access.Tree, dir string) (out []difference) {
	before, after := filesUnder(base, dir), filesUnder(head, dir)
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, path := range sortedKeys(all) {
		b, a := before[path], after[path]
		if b == nil || a == nil || b.Blob != a.Blob || !bytes.Equal(b.Content, a.Content) {
			out = append(out, difference{b, a})
		}
	}
	return out
}

func filesUnder(t access.Tree, dir string) map[string]*access.File {
	out := map[string]*access.File{}
	for i, f := range t.Files {
		if strings.HasPrefix(f.Path, dir) && !placeholder(f.Path) {
			out[f.Path] = &t.Files[i]
		}
	}
	return out
}

// placeholder reports the two files that may stand in grants/ and grant
// nothing. Any other name is refused: it may be a grant with a slip in it.
func placeholder(path string) bool {
	return path == grantsDir+"README.md" || path == grantsDir+".gitkeep"
}

// readChange reads what happened to one grant file; false if the file in the
// head has mistakes. A removal is a removal whatever the file said: its path
// names the grant.
func readChange(d difference, diags *diagnostics) (access.Change, wrote, bool) {
	var ignored diagnostics
	if d.after == nil {
		w, ok := readGrant(*d.before, &ignored)
		if !ok {
			w.Request = access.Request{ID: pathID(d.before.Path), File: d.before.Path}
		}
		return access.Change{Kind: access.ChangeRemoved, Request: w.Request, Blob: d.before.Blob}, w, true
	}
	w, ok := readGrant(*d.after, diags)
	change := access.Change{Kind: access.ChangeAdded, Request: w.Request, Blob: d.after.Blob}
	if d.before != nil {
		change.Kind = access.ChangeEdited
		before, readable := readGrant(*d.before, &ignored)
		if !readable {
			before.Request = access.Request{ID: pathID(d.before.Path), File: d.before.Path}
		}
		change.Before = &before.Request
	}
	return change, w, ok
}

// takenIDs finds ids that the head, or base and head together, use for two
// files: an id is one grant for all time, so moving a file is not possible.
func takenIDs(in Input, diags *diagnostics) map[string]bool {
	paths, taken := map[string]string{}, map[string]bool{}
	for _, t := range []access.Tree{in.Base, in.Head} {
		for _, f := range t.Files {
			id, ok := access.GrantFileID(f.Path)
			if !ok {
				continue
			}
			first, used := paths[id]
			if used && first != f.Path {
				at := hcl.Range{Filename: f.Path}
				diags.errorf(at, "The id is taken", "%q is already the grant %s; an id is used once for ever, so choose another.", id, first)
				taken[id] = true
			}
			if !used {
				paths[id] = f.Path
			}
		}
	}
	return taken
}

// reviewPolicies loads new policies and runs their checks.
func reviewPolicies(t access.Tree, dir access.Directory) diagnostics {
	var diags diagnostics
	set := loadPolicies(t, &diags)
	if diags.hasErrors() {
		return diags
	}
	for _, c := range set.checks {
		if r := set.run(c, dir); !r.OK {
			diags.errorf(c.at, "A check fails", "%q expects %q, got %q.", c.name, r.Want, r.Got)
		}
	}
	return diags
}

// Names lists the logins and team names that an evaluation, a reading of
// rules or an adoption will look up, in lower case, sorted.
func Names(adopted, base, head access.Tree) (users, teams []string) {
	var ignored diagnostics
	var names []access.Principal
	trees := []access.Tree{adopted}
	if len(changed(base, head, policiesDir)) > 0 {
		trees = append(trees, head)
	}
	for _, t := range trees {
		set := loadPolicies(t, &ignored)
		names = append(names, set.principals()...)
		for _, c := range set.checks {
			names = append(names, c.given.To...)
		}
	}
	for _, d := range changed(base, head, grantsDir) {
		if d.after != nil {
			w, _ := readGrant(*d.after, &ignored)
			names = append(names, w.To...)
		}
	}
	return split(names)
}

func split(names []access.Principal) (users, teams []string) {
	for _, n := range names {
		if n.Kind == access.KindUser {
			users = append(users, n.Name)
		} else {
			teams = append(teams, n.Name)
		}
	}
	slices.Sort(users)
	slices.Sort(teams)
	return slices.Compact(users), slices.Compact(teams)
}

// Rules are the rules in force with ask resolved, for the gateways' snapshot.
func Rules(adopted access.Tree, dir access.Directory) ([]access.Rule, access.Diagnostics) {
	var diags diagnostics
	set := loadPolicies(adopted, &diags)
	p := planner{set, dir, &diags}
	var out []access.Rule
	for _, r := range set.rules {
		out = append(out, p.rule(r))
	}
	return out, diags.sorted()
}

// Replan plans a request that stands in no tree, as it would be planned under
// the adopted policies: an extension is judged by what its total length asks.
func Replan(adopted access.Tree, dir access.Directory, r access.Request) (access.Plan, access.Diagnostics) {
	var diags diagnostics
	set := loadPolicies(adopted, &diags)
	if diags.hasErrors() {
		return access.Plan{}, diags.sorted()
	}
	at := hcl.Range{Filename: r.File, Start: hcl.InitialPos, End: hcl.InitialPos}
	plan := planner{set, dir, &diags}.plan(wrote{Request: r, at: at})
	return plan, diags.sorted()
}
