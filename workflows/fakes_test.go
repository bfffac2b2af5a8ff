package workflows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

const repoID = 1296269

var (
	alice   = access.User{ID: 1, Login: "alice"}
	bob     = access.User{ID: 2, Login: "bob"}
	carol   = access.User{ID: 3, Login: "carol"}
	mallory = access.User{ID: 4, Login: "mallory"}
	dba     = access.Party{Principal: access.Principal{Kind: access.KindTeam, Name: "acme/dba"}, ID: 77, Members: []access.User{bob, alice}}
	pr7     = Ref{Repo: repoID, Number: 7}
	key1    = access.GrantKey{Repo: repoID, ID: "inc-1"}
)

// world is a forge, policies, a ledger and a target in memory. Grants are
// JSON files; what the rules of HCL are is another package's test.
type world struct {
	mu    sync.Mutex
	clock func() time.Time

	pulls      map[int]*Pull
	trees      map[string]access.Tree
	main       string
	behind     map[string]int // commit on main -> pull request
	was        []string       // commits of main between two readings
	gaps       bool           // and there may be more of them
	commands   []Command
	partial    bool  // there are more comments
	unreadable bool  // pull requests can't be read
	nobody     bool  // and nobody is known
	hidden     bool  // no team is shown
	policy     []int // pull requests that changed policies, in order
	tidied     []string
	meddled    []Meddling
	movers     []access.User // of the branch, as the forge says; nil is the author
	silent     bool          // the forge can't say who pushed
	reports    []Report
	shown      []access.Held
	merges     int
	judged     int               // evaluations
	outside    map[string]bool   // commits that change more than grants and policies
	links      map[string]string // commits that can't be read whole, and why

	grants  map[access.GrantKey]access.Grant
	seq     int64
	adopted *access.Tree
	seen    map[int64]access.Review
	pushed  map[string][]access.User
	helds   map[string]access.Held
	done    map[string]bool
	audits  []string
	broken  string // what the minter says of every grant

	named      []string // in policies and grants
	carolToo   bool     // policies change only with carol's approval
	longNeeds2 bool     // more than an hour needs two people
	team       []access.User
	teamID     int64
	people     []access.Person // who receives; nil is alice

	drain    string               // of the role
	sessions []access.SessionInfo // of every grant

	today func(*access.Plan) error // what other policies than v1 make of a plan

	minted     map[access.GrantKey]bool // exists at the target
	generation int                      // of what was minted last
	expands    int
	tables     string // that the target has besides orders
	mints      int
	validUntil time.Time // of the credential minted last
	revokes    int
	failMint   func(n int) error // after minting
	failRevoke func(n int) error
	onMint     func() // called without the lock
	onRevoke   func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		clock: time.Now, pulls: map[int]*Pull{}, trees: map[string]access.Tree{}, behind: map[string]int{},
		grants: map[access.GrantKey]access.Grant{}, seen: map[int64]access.Review{}, pushed: map[string][]access.User{},
		helds: map[string]access.Held{}, done: map[string]bool{}, minted: map[access.GrantKey]bool{}, team: dba.Members, teamID: dba.ID,
	}
	w.trees["base"] = access.Tree{Commit: "base", Files: []access.File{policyFile("v1")}}
	w.main = "base"
	adopted := w.trees["base"]
	w.adopted = &adopted
	return w
}

func policyFile(version string) access.File {
	return access.File{Path: "policies/main.hcl", Blob: "policy-" + version, Content: []byte(version)}
}

func grantFile(r access.Request) access.File {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return access.File{Path: r.File, Blob: fmt.Sprintf("%x", b[len(b)-20:]) + r.Lasts.String() + r.Reason, Content: b}
}

func request(id string, lasts access.Seconds) access.Request {
	return access.Request{
		ID: id, File: "grants/alice/" + id + ".hcl", To: []access.Principal{{Kind: access.KindUser, Name: "alice"}},
		On: access.TargetRef{Kind: "postgres", Name: "orders"}, Role: "readonly", Lasts: lasts, Reason: "look",
	}
}

// open opens pull request 7 by alice with one grant.
func (w *world) open(lasts access.Seconds) { w.push("head1", request("inc-1", lasts)) }

func (w *world) push(head string, r access.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trees[head] = access.Tree{Commit: head, Files: []access.File{grantFile(r), policyFile("v1")}}
	p := w.pulls[7]
	if p == nil {
		p = &Pull{Ref: pr7, URL: "https://forge.test/pull/7", Author: alice, Base: "base", Open: true}
		w.pulls[7] = p
	}
	p.Head = head
}

func (w *world) review(u access.User, state access.ReviewState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pulls[7]
	p.Reviews = append(p.Reviews, access.Review{
		ID: int64(len(p.Reviews) + 1), User: u, State: state, Commit: p.Head, Submitted: w.clock().UTC().Truncate(time.Second),
	})
}

// merge merges as GitHub does; tree is what lands ("" is the head's).
func (w *world) merge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mergeLocked()
}

func (w *world) mergeLocked() {
	p := w.pulls[7]
	p.Open, p.MergedAt, p.Merge = false, w.clock().UTC().Truncate(time.Second), "merge7"
	t := w.trees[p.Head]
	t.Commit = "merge7"
	w.trees["merge7"], w.main, w.behind["merge7"] = t, "merge7", 7
}

func (w *world) comment(u access.User, verb string, args ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commands = append(w.commands, Command{Comment: int64(len(w.commands) + 1), By: u, Verb: verb, Args: args, At: w.clock()})
}

func (w *world) grant(t *testing.T, key access.GrantKey) access.Grant {
	t.Helper()
	g, err := w.Grant(context.Background(), key)
	if err != nil {
		t.Fatalf("grant %s: %v", key, err)
	}
	return g
}

func (w *world) lastReport(t *testing.T) Report {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) == 0 {
		t.Fatal("nothing was published")
	}
	return w.reports[len(w.reports)-1]
}

func (w *world) activities() *Activities {
	f := fakeForge{w}
	return &Activities{
		Repo: repoID, Forge: f, Policies: fakePolicies{w}, Ledger: w, Minters: map[string]Minter{"postgres": fakeMinter{w}},
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.clock() },
	}
}

type fakeForge struct{ *world }

func (w fakeForge) OpenPulls(context.Context, time.Time) ([]Ref, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Ref
	for _, n := range slices.Sorted(maps.Keys(w.pulls)) {
		out = append(out, Ref{Repo: repoID, Number: n})
	}
	return out, nil
}

func (w fakeForge) Pull(_ context.Context, ref Ref) (Pull, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.pulls[ref.Number]
	if w.unreadable {
		return Pull{}, access.Errorf(access.CodeUnavailable, "GitHub answered 502.")
	}
	if !ok {
		return Pull{}, access.Errorf(access.CodeNotFound, "no pull request %d", ref.Number)
	}
	out := *p
	out.Reviews = slices.Clone(p.Reviews)
	return out, nil
}

func (w fakeForge) Pushers(_ context.Context, p Pull) ([]access.User, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent {
		return nil, false, nil
	}
	if w.movers != nil {
		return slices.Clone(w.movers), true, nil
	}
	return []access.User{p.Author}, true, nil
}

func (w fakeForge) Tree(_ context.Context, commit string) (access.Tree, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok := w.trees[commit]
	if !ok {
		return t, access.Errorf(access.CodeNotFound, "no commit %s", commit)
	}
	if why := w.links[commit]; why != "" {
		return access.Tree{}, Unreadable(access.CodeInvalid, "%s", why)
	}
	return t, nil
}

func (w fakeForge) Blobs(_ context.Context, commit string, files []string) (map[string]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok := w.trees[commit]
	if !ok {
		return nil, access.Errorf(access.CodeNotFound, "no commit %s", commit)
	}
	out := map[string]string{}
	for _, file := range files {
		out[file] = blobOf(t, file)
	}
	return out, nil
}

func (w fakeForge) Main(context.Context) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.main, nil
}

func (w fakeForge) MainWas(_ context.Context, mark int64, _ string) (Passed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Passed{Commits: slices.Clone(w.was), Mark: mark + 1, Whole: !w.gaps}, nil
}

func (w fakeForge) PullOf(_ context.Context, commit string) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.behind[commit], nil
}

// PolicyPulls has the changes of policies in w.policy, the newest last; 0 is
// one that no pull request brought.
func (w fakeForge) PolicyPulls(context.Context) ([]int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []int
	for _, n := range slices.Backward(w.policy) {
		if n == 0 {
			break
		}
		out = append(out, n)
	}
	return out, nil
}

func (w fakeForge) Directory(_ context.Context, users, teams []string) (access.Directory, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(users)+len(teams) > MaxNames {
		return access.Directory{}, access.Errorf(access.CodeTooLarge, "Got too many names.")
	}
	if w.nobody {
		return access.Directory{}, access.Errorf(access.CodeUnavailable, "GitHub answered 502.")
	}
	if w.hidden {
		return access.Directory{Users: map[string]access.User{"alice": alice, "bob": bob, "carol": carol, "mallory": mallory}}, nil
	}
	return access.Directory{
		Users: map[string]access.User{"alice": alice, "bob": bob, "carol": carol, "mallory": mallory},
		Teams: map[string]access.Team{"acme/dba": {ID: w.teamID, Name: "acme/dba", Members: slices.Clone(w.team)}},
	}, nil
}

func (w fakeForge) Publish(_ context.Context, _ Ref, r Report) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
	return nil
}

func (w fakeForge) PublishHeld(_ context.Context, _ Ref, h access.Held) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown = append(w.shown, h)
	return nil
}

func (w fakeForge) Comments(_ context.Context, _ Ref, heard int64) (Talk, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := Talk{Meddled: slices.Clone(w.meddled), Newest: int64(len(w.commands)), Partial: w.partial}
	for _, c := range w.commands {
		if c.Comment > heard {
			out.Commands = append(out.Commands, c)
		}
	}
	return out, nil
}

func (w fakeForge) Outside(_ context.Context, _, head string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outside[head], nil
}

func (w fakeForge) Merge(_ context.Context, ref Ref, head string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pulls[ref.Number].Head != head {
		return access.Errorf(access.CodeConflict, "the head moved")
	}
	w.merges++
	w.mergeLocked()
	return nil
}

func (w fakeForge) Tidy(_ context.Context, files []string, _ Tidy) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tidied = append(w.tidied, files...)
	return "tidy", nil
}

type fakePolicies struct{ w *world }

// Names are the one team of every policy, if the test has no others.
func (p fakePolicies) Names(adopted, _, _ access.Tree) (users, teams []string) {
	if p.w.named != nil || len(adopted.Files) == 0 {
		return p.w.named, nil
	}
	return nil, []string{"acme/dba"}
}

func requests(t access.Tree) map[string]access.File {
	out := map[string]access.File{}
	for _, f := range t.Files {
		if f.Path[:7] == "grants/" {
			out[f.Path] = f
		}
	}
	return out
}

func (p fakePolicies) Evaluate(in Evaluate) Evaluation {
	p.w.mu.Lock()
	p.w.judged++
	p.w.mu.Unlock()
	e := Evaluation{Plans: map[string]access.Plan{}}
	base, head := requests(in.Base), requests(in.Head)
	for _, path := range slices.Sorted(maps.Keys(head)) {
		var r access.Request
		if err := json.Unmarshal(head[path].Content, &r); err != nil {
			e.Diagnostics = append(e.Diagnostics, access.Diagnostic{File: path, Summary: "not JSON"})
			continue
		}
		was, there := base[path]
		if there && was.Blob == head[path].Blob {
			continue
		}
		c := access.Change{Kind: access.ChangeAdded, Request: r, Blob: head[path].Blob}
		if there {
			c.Kind = access.ChangeEdited
		}
		e.Changes = append(e.Changes, c)
		e.Plans[r.ID], _ = p.Replan(in.Adopted, in.Directory, r)
	}
	for _, path := range slices.Sorted(maps.Keys(base)) {
		var r access.Request
		if _, stays := head[path]; !stays && json.Unmarshal(base[path].Content, &r) == nil {
			e.Changes = append(e.Changes, access.Change{Kind: access.ChangeRemoved, Request: r, Blob: base[path].Blob})
		}
	}
	changed := in.Base.Commit != "" && policyFiles(in.Base) != policyFiles(in.Head)
	e.PolicyOnly, e.Mixed = changed && len(e.Changes) == 0, changed && len(e.Changes) > 0
	return e
}

func (p fakePolicies) Replan(adopted access.Tree, dir access.Directory, r access.Request) (access.Plan, access.Diagnostics) {
	need := 1
	if p.w.longNeeds2 && r.Length() > 3600 {
		need = 2
	}
	team, _ := dir.Team("acme/dba")
	from := access.Party{Principal: dba.Principal, ID: team.ID, Members: team.Members}
	people := p.w.people
	if people == nil {
		people = []access.Person{{User: alice}}
	}
	plan := access.Plan{
		Request: r, People: people, Target: access.Target{TargetRef: r.On},
		Role: access.Role{Name: r.Role, Longest: 8 * 3600, Read: []string{"public.*"}}, PolicyDigest: policyFiles(adopted),
		Requirements: []access.Requirement{{Name: "dba", Need: need, From: []access.Party{from}}},
	}
	if p.w.drain != "" {
		plan.Role.Settings = map[string]string{"drain": p.w.drain}
	}
	if p.w.today != nil && policyFiles(adopted) != policyFiles(access.Tree{Files: []access.File{policyFile("v1")}}) {
		if err := p.w.today(&plan); err != nil {
			return plan, access.Diagnostics{{Summary: "refused", Detail: err.Error()}}
		}
	}
	if r.Length() > plan.Role.Longest {
		return plan, access.Diagnostics{{Summary: "The time is too long"}}
	}
	return plan, nil
}

func (p fakePolicies) Count(plan access.Plan, b access.Ballot) access.Reason {
	latest := map[int64]access.Review{}
	for _, r := range b.Reviews {
		if r.State != access.ReviewCommented {
			latest[r.User.ID] = r
		}
	}
	for _, q := range plan.Requirements {
		n := 0
		for id, r := range latest {
			_, out := b.Excluded[id]
			ok := r.Digest == plan.Digest() && r.PolicyDigest == plan.PolicyDigest && access.Includes(q.From, r.User.ID)
			if ok && !out && r.State == access.ReviewApproved {
				n++
			}
		}
		if n < q.Need {
			return access.Reason{Name: q.Name, Text: fmt.Sprintf("%d of %d approvals.", n, q.Need)}
		}
	}
	return access.Reason{Met: true, Text: "approved"}
}

func (p fakePolicies) Rules(t access.Tree, _ access.Directory) ([]access.Rule, access.Diagnostics) {
	if policyFiles(t) == policyFiles(access.Tree{Files: []access.File{policyFile("broken")}}) {
		return nil, access.Diagnostics{{Summary: "broken"}}
	}
	return nil, nil
}

func (p fakePolicies) Targets(access.Tree) ([]access.Target, error) { return nil, nil }

// AdoptionRequirements asks for carol too where the policies in force say so.
func (p fakePolicies) AdoptionRequirements(old access.Tree, owners []access.Party, _ access.Directory) ([]access.Requirement, access.Diagnostics) {
	out := []access.Requirement{{Name: "policy_owners", Need: 1, From: owners}}
	if p.w.carolToo {
		user := access.Party{Principal: access.Principal{Kind: access.KindUser, Name: "carol"}, ID: carol.ID}
		out = append(out, access.Requirement{Name: "carol", Need: 1, From: []access.Party{user}})
	}
	return out, nil
}

type fakeMinter struct{ w *world }

func (fakeMinter) Kind() string { return "postgres" }

func (m fakeMinter) Expand(context.Context, access.Plan) (access.Expansion, error) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.expands++
	return access.Expansion{Body: json.RawMessage(`{"tables":["public.orders"` + m.w.tables + `]}`)}, nil
}

func (m fakeMinter) Mint(_ context.Context, g access.Grant) (access.Minted, error) {
	if m.w.onMint != nil {
		m.w.onMint()
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.mints++
	m.w.minted[g.Key], m.w.validUntil, m.w.generation = true, g.NotAfter, g.Generation
	if m.w.failMint != nil {
		if err := m.w.failMint(m.w.mints); err != nil {
			return access.Minted{}, err
		}
	}
	return access.Minted{Backing: []byte(`{}`)}, nil
}

// Narrow gives today's role if it is not the one that nothing is left of.
func (m fakeMinter) Narrow(_ context.Context, approved, today access.Plan) (access.Plan, error) {
	if len(today.Role.Read) == 0 {
		return access.Plan{}, access.Errorf(access.CodeInvalid, "Nothing is left of it.")
	}
	approved.Role, approved.Masks = today.Role, today.Masks
	return approved, nil
}

func (m fakeMinter) Broken(context.Context, access.Grant) (string, error) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	return m.w.broken, nil
}

func (m fakeMinter) Revoke(_ context.Context, g access.Grant) error {
	if m.w.onRevoke != nil {
		m.w.onRevoke()
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.revokes++
	if m.w.failRevoke != nil {
		if err := m.w.failRevoke(m.w.revokes); err != nil {
			return err
		}
	}
	delete(m.w.minted, g.Key)
	return nil
}

func (m fakeMinter) Prove(_ context.Context, g access.Grant) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.w.minted[g.Key] {
		return errors.New("the role is still there")
	}
	return nil
}

// The ledger.

func (w *world) Grant(_ context.Context, key access.GrantKey) (access.Grant, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g, ok := w.grants[key]
	if !ok {
		return g, access.Errorf(access.CodeNotFound, "no grant %s", key)
	}
	return g, nil
}

// SignedGrant believes every row; signedWorld does not.
func (w *world) SignedGrant(ctx context.Context, key access.GrantKey) (access.Grant, error) {
	return w.Grant(ctx, key)
}

// The world's ledger never lost anything; oldLedger did.
func (w *world) Watch(context.Context) (string, error)        { return "", nil }
func (w *world) Began(context.Context) (time.Time, error)     { return time.Time{}, nil }
func (w *world) Rebase(context.Context, string, string) error { return nil }

func (w *world) Create(_ context.Context, g access.Grant) (access.Grant, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.grants[g.Key]; ok {
		return g, access.Errorf(access.CodeConflict, "the id is used")
	}
	w.seq++
	g.Sequence = w.seq
	w.grants[g.Key] = g
	return g, nil
}

func (w *world) Update(_ context.Context, g access.Grant) (access.Grant, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.grants[g.Key].Sequence != g.Sequence {
		return g, access.Errorf(access.CodeConflict, "look again")
	}
	w.seq++
	g.Sequence = w.seq
	w.grants[g.Key] = g
	return g, nil
}

func (w *world) Unclosed(context.Context) ([]access.Grant, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []access.Grant
	for _, g := range w.grants {
		if g.Closed.IsZero() {
			out = append(out, g)
		}
	}
	return out, nil
}

func (w *world) Ending(ctx context.Context) ([]access.Grant, error) {
	all, err := w.Unclosed(ctx)
	return slices.DeleteFunc(all, func(g access.Grant) bool { return !g.State.Ended() }), err
}

func (w *world) GrantsOf(_ context.Context, ref Ref) ([]access.Grant, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []access.Grant
	for _, g := range w.grants {
		if refOf(g) == ref {
			out = append(out, g)
		}
	}
	return out, nil
}

func (w *world) Adopted(context.Context) (access.Tree, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.adopted == nil {
		return access.Tree{}, access.Errorf(access.CodeNotFound, "nothing adopted")
	}
	return *w.adopted, nil
}

func (w *world) SetAdopted(_ context.Context, t access.Tree, _ []access.Rule, once string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done["policies "+once] {
		return access.Errorf(access.CodeConflict, "adopted before")
	}
	if once != "" {
		w.done["policies "+once] = true
	}
	w.adopted = &t
	return nil
}

func (w *world) SeeReview(_ context.Context, _ Ref, r access.Review) (access.Review, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if first, ok := w.seen[r.ID]; ok {
		return first, nil
	}
	w.seen[r.ID] = r
	return r, nil
}

func (w *world) Pushed(_ context.Context, _ int64, commits []string, by access.User) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range commits {
		w.pushed[c] = append(w.pushed[c], by)
	}
	return nil
}

func (w *world) Pushers(_ context.Context, _ int64, commits []string) (map[string][]access.User, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string][]access.User{}
	for _, c := range commits {
		if users := w.pushed[c]; len(users) > 0 {
			out[c] = slices.Clone(users)
		}
	}
	return out, nil
}

func (w *world) OpenHelds(context.Context) ([]access.Held, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []access.Held
	for _, h := range w.helds {
		if h.State == access.HeldOpen {
			out = append(out, h)
		}
	}
	return out, nil
}

func (w *world) Held(_ context.Context, id string) (access.Held, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h, ok := w.helds[id]
	if !ok {
		return h, access.Errorf(access.CodeNotFound, "no hold %s", id)
	}
	return h, nil
}

func (w *world) HeldByNumber(_ context.Context, _ Ref, n int) (access.Held, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.helds {
		if h.Number == n {
			return h, nil
		}
	}
	return access.Held{}, access.Errorf(access.CodeNotFound, "no hold %d", n)
}

func (w *world) AnswerHeld(_ context.Context, a access.Answer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.helds[a.Held]
	if h.State != access.HeldOpen {
		return access.Errorf(access.CodeConflict, "not open")
	}
	h.State, h.Answer = access.HeldAnswered, &a
	w.helds[a.Held] = h
	return nil
}

func (w *world) CancelHeld(_ context.Context, id string, state access.HeldState) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.helds[id]
	h.State = state
	w.helds[id] = h
	return nil
}

func (w *world) Once(_ context.Context, kind, id string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := !w.done[kind+" "+id]
	w.done[kind+" "+id] = true
	return first, nil
}

func (w *world) Done(_ context.Context, kind, id string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done[kind+" "+id], nil
}

func (w *world) Audit(_ context.Context, actor, action, subject, detail string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.audits = append(w.audits, actor+" "+action+" "+subject+" "+detail)
	return nil
}

func (w *world) Sessions(context.Context, access.GrantKey) ([]access.SessionInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sessions), nil
}
