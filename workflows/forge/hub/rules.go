package hub

import "net/http"

// branchRules is what the hub asks for at the main branch, as a ruleset would
// have it.
func branchRules(c *call) error {
	rules := []obj{}
	if c.r.PathValue("branch") == c.cfg.Branch {
		from := func(kind string, parameters obj) obj {
			return obj{"type": kind, "parameters": parameters, "ruleset_source_type": "Repository",
				"ruleset_source": c.cfg.Owner + "/" + c.cfg.Repo, "ruleset_id": 1}
		}
		rules = append(rules, from("pull_request", obj{"dismiss_stale_reviews_on_push": false, "require_code_owner_review": false,
			"require_last_push_approval": false, "required_review_thread_resolution": false,
			"required_approving_review_count": c.cfg.RequireApprovals}))
		checks := []obj{}
		for _, name := range c.cfg.RequireChecks {
			checks = append(checks, obj{"context": name})
		}
		if len(checks) > 0 {
			rules = append(rules, from("required_status_checks", obj{"strict_required_status_checks_policy": false, "required_status_checks": checks}))
		}
	}
	return c.reply(http.StatusOK, rules)
}
