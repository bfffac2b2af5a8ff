package forge

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// lowRate is a share of the hourly budget below which things become slow.
const lowRate = 5 // a fifth

// Diagnose says how GitHub is to us: reach, repository, rights, protection of
// the main branch, webhook, rate limit. It changes nothing.
func (f *Forge) Diagnose(ctx context.Context) []access.Finding {
	ctx = workflows.Urgent(ctx) // when few calls are left it is wanted most
	d := &diagnosis{Forge: f, Findings: &access.Findings{Part: "github"}}
	if !d.repository(ctx) {
		return d.List
	}
	if f.asApp != nil {
		d.app(ctx)
	}
	d.protection(ctx)
	d.webhook(ctx)
	d.rate(ctx)
	return d.List
}

// diagnosis is one look at GitHub.
type diagnosis struct {
	*Forge
	*access.Findings
}

// repository looks at what the login may do with a token; an App's
// permissions are those of its installation.
func (d *diagnosis) repository(ctx context.Context) bool {
	asked := d.cfg.Now()
	r, res, err := d.gh.Repositories.Get(ctx, d.cfg.Owner, d.cfg.Repo)
	if err != nil {
		d.Fail("Look at base_url, the network, and the App's installation or the token.", "%s/%s can't be read: %v", d.cfg.Owner, d.cfg.Repo, failed("read repository", err))
		return false
	}
	d.OK("it answers; %s is repository %d", r.GetFullName(), r.GetID())
	if d.cfg.RepoID != 0 && d.cfg.RepoID != r.GetID() {
		d.Fail("Was it renamed or replaced? Set the new name or repository_id.", "%s is repository %d, the configuration says %d", r.GetFullName(), r.GetID(), d.cfg.RepoID)
	}
	if at, err := time.Parse(time.RFC1123, res.Header.Get("Date")); err == nil {
		d.Clock(at, asked.Add(-time.Second), d.cfg.Now())
	}
	if me, err := d.Self(ctx); err != nil {
		d.Fail("Look at the App's key or the token.", "it does not say who we are: %v", err)
	} else {
		d.OK("we are %s", me.Login)
	}
	if d.asApp == nil {
		d.token(r, res.Header.Get("X-OAuth-Scopes"))
	}
	return true
}

// token judges a token. A fine-grained one has no scopes to show.
func (d *diagnosis) token(r *github.Repository, scopes string) {
	if !r.Permissions["push"] {
		d.Fail("Give the token's account write access to the repository.", "we may not write to %s", r.GetFullName())
		return
	}
	if scopes == "" {
		d.OK("the token may write to the repository")
		return
	}
	have := strings.FieldsFunc(scopes, func(c rune) bool { return c == ',' || c == ' ' })
	for _, want := range []string{"repo", "read:org"} {
		if !slices.Contains(have, want) && (want != "read:org" || !slices.Contains(have, "admin:org") && !slices.Contains(have, "write:org")) {
			d.Fail("Make a token with it, or better an App.", "the token lacks the scope %s", want)
		}
	}
}

// wantedPermissions of an App, and the events that it should be told.
var (
	wantedPermissions = []struct{ name, level string }{
		{"checks", "write"}, {"contents", "write"}, {"pull_requests", "write"}, {"members", "read"}, {"metadata", "read"},
	}
	wantedEvents = []string{"pull_request", "pull_request_review", "push", "issue_comment", "check_run", "membership"}
)

func (d *diagnosis) app(ctx context.Context) {
	in, _, err := d.asApp.Apps.GetInstallation(ctx, d.cfg.App.InstallationID)
	if err != nil {
		d.Fail("Look at id, installation_id and private_key_file.", "the App's installation %d can't be read: %v", d.cfg.App.InstallationID, failed("read installation", err))
		return
	}
	if !in.GetSuspendedAt().IsZero() {
		d.Fail("Unsuspend it in the organization's settings.", "the App's installation is suspended")
	}
	have := permissions(in.Permissions)
	lacks := 0
	for _, want := range wantedPermissions {
		if got := have[want.name]; got != "write" && got != want.level {
			lacks++
			d.Fail("Give it in the App's settings, and accept it for the installation.", "the App lacks the permission %s: %s (it has %q)", want.name, want.level, got)
		}
	}
	for _, event := range wantedEvents {
		if !slices.Contains(in.Events, event) {
			d.Warn("Tick it in the App's settings; until then changes are found by polling.", "the App is not told of %s events", event)
		}
	}
	if lacks == 0 {
		d.OK("the App has every permission that it needs")
	}
}

// permissions by GitHub's own names.
func permissions(p *github.InstallationPermissions) map[string]string {
	out := map[string]string{}
	text, err := json.Marshal(p)
	if err != nil || json.Unmarshal(text, &out) != nil {
		return nil
	}
	return out
}

// protection: Tidegate is safe without it, since it compares what landed with
// what was approved; people are spared mistakes by it.
func (d *diagnosis) protection(ctx context.Context) {
	main := d.cfg.MainBranch
	b, _, err := d.gh.Repositories.GetBranch(ctx, d.cfg.Owner, d.cfg.Repo, main, 0)
	if err != nil {
		d.Fail("Look at main_branch.", "the branch %s can't be read: %v", main, failed("read branch", err))
		return
	}
	if !b.GetProtected() {
		d.Warn("Protect it: pull requests with a review, and the check "+approvedCheck+".", "%s is not protected: who may write can push grants there, which are then refused", main)
		return
	}
	reviews, check, whole := d.demands(ctx, main)
	switch {
	case reviews && check:
		d.OK("%s is protected, and asks for reviews and %s", main, approvedCheck)
	case !whole:
		d.Warn("Look at the branch's settings, or give us administration: read.", "%s is protected; whether it asks for reviews and %s is not shown to us", main, approvedCheck)
	default:
		d.Warn("Ask for both in the branch's rules: then nobody merges what Tidegate refuses.", "%s is protected; it asks for reviews: %s, for the check %s: %s",
			main, yes(reviews), approvedCheck, yes(check))
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// demands reads rulesets and the older branch protection. whole says that
// both could be read.
func (d *diagnosis) demands(ctx context.Context, main string) (reviews, check, whole bool) {
	rules, _, rulesErr := d.gh.Repositories.GetRulesForBranch(ctx, d.cfg.Owner, d.cfg.Repo, main)
	for _, r := range rules {
		var p struct {
			github.PullRequestRuleParameters
			github.RequiredStatusChecksRuleParameters
		}
		if r.Parameters == nil || json.Unmarshal(*r.Parameters, &p) != nil {
			continue
		}
		reviews = reviews || p.RequiredApprovingReviewCount > 0
		check = check || slices.ContainsFunc(p.RequiredStatusChecks, func(c github.RuleRequiredStatusChecks) bool { return c.Context == approvedCheck })
	}
	old, _, oldErr := d.gh.Repositories.GetBranchProtection(ctx, d.cfg.Owner, d.cfg.Repo, main)
	if oldErr == nil {
		reviews = reviews || old.GetRequiredPullRequestReviews() != nil && old.RequiredPullRequestReviews.RequiredApprovingReviewCount > 0
		if c := old.GetRequiredStatusChecks(); c != nil && c.Contexts != nil {
			check = check || slices.Contains(*c.Contexts, approvedCheck)
		}
	}
	return reviews, check, rulesErr == nil && (oldErr == nil || isMissing(oldErr))
}

func (d *diagnosis) webhook(ctx context.Context) {
	deliveries, where, err := d.deliveries(ctx)
	switch {
	case err != nil:
		d.Warn("Give us webhooks: read, or look at the webhook's page.", "the webhook's deliveries are not shown to us: %v", err)
		return
	case where == "":
		d.Warn("Add one, with the address and the secret of the block webhook; until then changes are found by polling.", "the repository has no active webhook")
		return
	case len(deliveries) == 0:
		d.OK("%s is there; nothing was delivered yet", where)
		return
	}
	for i, one := range deliveries {
		if code := one.GetStatusCode(); code >= 200 && code < 300 || one.GetStatus() == "pending" {
			continue
		}
		say := fmt.Sprintf("%s: %s at %s failed: %s (%d)", where, one.GetEvent(), one.GetDeliveredAt().UTC().Format(time.DateTime), one.GetStatus(), one.GetStatusCode())
		if i == 0 {
			d.Fail("Look whether serve runs, whether GitHub reaches its address, and whether both have the same secret.", "%s; it was the last", say)
			return
		}
		d.Warn("The deliveries after it went through.", "%s", say)
		return
	}
	d.OK("%s: its last %d deliveries went through", where, len(deliveries))
}

// deliveries are the last ones of the App's webhook, or of the repository's.
func (d *diagnosis) deliveries(ctx context.Context) (list []*github.HookDelivery, where string, err error) {
	opts := &github.ListCursorOptions{PerPage: perPage}
	if d.asApp != nil {
		list, _, err = d.asApp.Apps.ListHookDeliveries(ctx, opts)
		return list, "the App's webhook", explained(err)
	}
	hooks, _, err := d.gh.Repositories.ListHooks(ctx, d.cfg.Owner, d.cfg.Repo, &github.ListOptions{PerPage: perPage})
	if err != nil {
		return nil, "", explained(err)
	}
	for _, h := range hooks {
		if !h.GetActive() {
			continue
		}
		list, _, err = d.gh.Repositories.ListHookDeliveries(ctx, d.cfg.Owner, d.cfg.Repo, h.GetID(), opts)
		return list, fmt.Sprintf("webhook %d", h.GetID()), explained(err)
	}
	return nil, "", nil
}

func explained(err error) error {
	if err == nil {
		return nil
	}
	return failed("read webhook", err)
}

func (d *diagnosis) rate(ctx context.Context) {
	all, _, err := d.gh.RateLimit.Get(ctx)
	if err != nil {
		d.Warn("Try again.", "the rate limit can't be read: %v", failed("read rate limit", err))
		return
	}
	core := all.GetCore()
	if core == nil {
		return
	}
	if core.Remaining*lowRate < core.Limit {
		d.Warn("Who else uses this login? With an App of its own Tidegate has its own budget.", "%d of %d calls are left until %s", core.Remaining, core.Limit, core.Reset.UTC().Format(time.TimeOnly))
		return
	}
	d.OK("%d of %d calls an hour are left", core.Remaining, core.Limit)
}
