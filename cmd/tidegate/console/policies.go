package console

import (
	"net/http"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/policies"
)

const (
	auditRows = 200
	// adoptions are looked for in this many rows of the audit log.
	adoptionRows = 1000
)

type policiesView struct {
	policies.Overview
	Commit   string
	Files    []string
	Changes  []ledger.Entry // adoptions and refusals, the last first
	Mistakes []string
}

// policiesPage is for those who see all.
func (c *Console) policiesPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	tree, err := c.policyTree(r, v)
	if err != nil {
		return err
	}
	out := policiesView{Commit: tree.Commit}
	var diags access.Diagnostics
	out.Overview, diags = policies.Describe(tree)
	for _, d := range diags {
		out.Mistakes = append(out.Mistakes, d.String())
	}
	for _, f := range tree.Files {
		if strings.HasPrefix(f.Path, "policies/") {
			out.Files = append(out.Files, strings.TrimPrefix(f.Path, "policies/"))
		}
	}
	rows, err := c.cfg.Ledger.AuditTail(r.Context(), adoptionRows)
	if err != nil && access.CodeOf(err) != access.CodeInvalid { // a broken chain is the audit page's to say
		return err
	}
	for _, e := range rows {
		if strings.HasPrefix(e.Action, "policies.") {
			out.Changes = append(out.Changes, e)
		}
	}
	c.render(w, r, answer{page: "policies", title: "Policies in force", viewer: v, data: out})
	return nil
}

func (c *Console) policyTree(r *http.Request, v *viewer) (access.Tree, error) {
	if !v.all {
		return access.Tree{}, errNotFound
	}
	tree, err := c.cfg.Ledger.Adopted(r.Context())
	if access.CodeOf(err) == access.CodeNotFound && err != nil {
		return tree, errNotFound // nobody is known then, so nobody gets here
	}
	return tree, err
}

type policyFileView struct{ Path, Text, Commit string }

func (c *Console) policyFile(w http.ResponseWriter, r *http.Request, v *viewer) error {
	tree, err := c.policyTree(r, v)
	if err != nil {
		return err
	}
	path := "policies/" + r.PathValue("file")
	for _, f := range tree.Files {
		if f.Path == path {
			c.render(w, r, answer{page: "policyfile", title: path, viewer: v, data: policyFileView{path, string(f.Content), tree.Commit}})
			return nil
		}
	}
	return errNotFound
}

type auditView struct {
	Rows   []ledger.Entry
	Broken string
	Whole  bool // the whole chain was walked
}

// auditPage shows the end of the audit log to those who see all. The rows
// shown are proved to follow one another; the whole chain is on request.
func (c *Console) auditPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	if !v.all {
		return errNotFound
	}
	var out auditView
	var err error
	out.Rows, err = c.cfg.Ledger.AuditTail(r.Context(), auditRows)
	if err == nil && r.URL.Query().Get("whole") == "1" {
		var give func()
		if give, err = turn(r.Context(), c.reading); err != nil {
			return err
		}
		err = c.cfg.Ledger.VerifyAudit(r.Context())
		give()
		out.Whole = true
	}
	if err != nil && access.CodeOf(err) != access.CodeInvalid {
		return err
	}
	if err != nil {
		out.Broken = access.Message(err)
	}
	c.render(w, r, answer{page: "audit", title: "Audit log", viewer: v, data: out})
	return nil
}
