package forge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const (
	maxTalkPages = 20     // of one reading
	onePage      = 50     // comments, as the query says
	maxLooked    = 10_000 // pull requests remembered; forgotten, they are looked at once more
)

// commentsQuery asks for the comments with their edits, from the newest on, and
// for the first ones, of which one is ours. REST has whole seconds
// and no editor: there a comment that was edited within its second looks new,
// and nobody can tell who edited it.
const commentsQuery = `query TidegateComments($owner: String!, $name: String!, $number: Int!, $before: String) {
  repository(owner: $owner, name: $name) {
    databaseId
    pullRequest(number: $number) {
      first: comments(first: 20) { nodes { ...said } }
      comments(last: 50, before: $before) {
        pageInfo { hasPreviousPage startCursor }
        nodes { ...said }
      }
    }
  }
}
fragment said on IssueComment {
  fullDatabaseId
  body
  createdAt
  lastEditedAt
  includesCreatedEdit
  author { ...who }
  editor { ...who }
  newest: userContentEdits(first: 25) { nodes { id editedAt editor { ...who } } }
  oldest: userContentEdits(last: 25) { nodes { id editedAt editor { ...who } } }
}
fragment who on Actor {
  __typename
  login
  ... on User { databaseId }
  ... on Bot { databaseId }
}`

// actor is somebody in GraphQL's words.
type actor struct {
	Type  string `json:"__typename"`
	Login string `json:"login"`
	ID    int64  `json:"databaseId"`
}

func (a *actor) user() access.User {
	if a == nil || a.ID <= 0 {
		return access.User{}
	}
	return access.User{ID: a.ID, Login: a.Login, Bot: a.Type != "User" || strings.HasSuffix(a.Login, "[bot]")}
}

type edit struct {
	ID     string    `json:"id"`
	At     time.Time `json:"editedAt"`
	Editor *actor    `json:"editor"`
}

// talk is a comment with its edits.
type talk struct {
	ID         string       `json:"fullDatabaseId"` // a number, as text
	Body       string       `json:"body"`
	Created    time.Time    `json:"createdAt"`
	LastEdited *time.Time   `json:"lastEditedAt"`
	WasEdited  bool         `json:"includesCreatedEdit"`
	Author     *actor       `json:"author"`
	Editor     *actor       `json:"editor"`
	Newest     nodes[*edit] `json:"newest"` // both ends: GitHub does not say which comes first
	Oldest     nodes[*edit] `json:"oldest"`
}

type nodes[T any] struct {
	Nodes []T `json:"nodes"`
}

func (c *talk) edited() bool { return c.LastEdited != nil || c.WasEdited || c.Editor != nil }

// Comments lists the commands of people in comments that were never edited: an
// edited comment may have been written by anybody with write access. And it
// lists what others did to our own comments. Of many comments the newest are
// read, so that nobody can put what is said now out of reach.
func (f *Forge) Comments(ctx context.Context, ref workflows.Ref, heard int64) (out workflows.Talk, err error) {
	if err := f.serve(ctx, ref.Repo); err != nil {
		return out, err
	}
	me, err := f.Self(ctx)
	if err != nil {
		return out, err
	}
	all, whole, err := f.talks(ctx, ref, me, heard)
	if err != nil {
		return out, err
	}
	for _, c := range all {
		id := c.number()
		if id == 0 {
			return workflows.Talk{}, access.Errorf(access.CodeUnavailable, "GitHub did not say the id of a comment.")
		}
		out.Newest = max(out.Newest, id)
		by := c.Author.user()
		if by.ID == me.ID {
			out.Meddled = append(out.Meddled, c.meddling(id, me)...)
		}
		if by.ID != 0 && !by.Bot && !c.edited() {
			out.Commands = append(out.Commands, c.commands(id, by)...)
		}
	}
	out.Partial = !whole && !slices.ContainsFunc(all, isPlan(me))
	return out, nil
}

// isPlan finds the comment that people go by. The account alone does not tell: a
// token may be a person's, or one that several tools share.
func isPlan(me access.User) func(*talk) bool {
	return func(c *talk) bool { return c.Author.user().ID == me.ID && isMarked(c.Body) }
}

// number is the comment's id; 0 if GitHub did not say it.
func (c *talk) number() int64 {
	id, err := strconv.ParseInt(c.ID, 10, 64)
	if err != nil || id < 0 {
		return 0
	}
	return id
}

func (c *talk) commands(id int64, by access.User) []workflows.Command {
	list := ParseCommands(c.Body)
	for i := range list {
		list[i].Comment, list[i].By, list[i].At = id, by, c.Created.UTC()
	}
	return list
}

// meddling are the edits of our comment that are not ours. Who is not named, a
// deleted account, is not us.
func (c *talk) meddling(id int64, me access.User) []workflows.Meddling {
	var out []workflows.Meddling
	seen := map[string]bool{}
	for _, e := range append(c.Newest.Nodes, c.Oldest.Nodes...) {
		if e == nil || seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		if by := e.Editor.user(); by.ID != me.ID {
			out = append(out, workflows.Meddling{Comment: id, Edit: e.ID, By: by, At: e.At.UTC()})
		}
	}
	return out
}

// talks reads the newest comments of a pull request, back to those that were
// heard before, and its first ones. Our own may have been edited since, so it is
// looked for among those in between: before a yes counts, and now and then. Not
// always, since anybody can write a thousand. Its answer has the oldest first,
// and says whether they are all.
func (f *Forge) talks(ctx context.Context, ref workflows.Ref, me access.User, heard int64) (all []*talk, whole bool, err error) {
	var first []*talk
	before, due := (*string)(nil), f.lookDue(ref.Number)
	for range maxTalkPages {
		p, err := f.talkPage(ctx, ref, before)
		if err != nil {
			return nil, false, err
		}
		page := present(p.Comments.Nodes)
		all, first, before = append(page, all...), present(p.First.Nodes), &p.Comments.Page.Start
		found := slices.ContainsFunc(first, isPlan(me)) || slices.ContainsFunc(all, isPlan(me))
		caught := len(page) > 0 && page[0].number() <= heard
		if whole = !p.Comments.Page.More; whole || caught && (found || !due && !saysYes(all, heard)) {
			break
		}
	}
	if far := len(all) > onePage && !slices.ContainsFunc(first, isPlan(me)); due && far {
		f.lookedFor(ref.Number)
	}
	known := map[string]bool{}
	for _, c := range all {
		known[c.ID] = true
	}
	first = slices.DeleteFunc(first, func(c *talk) bool { return known[c.ID] })
	return append(first, all...), whole, nil
}

// saysYes reports whether comments that were not heard yet may say yes to
// something that is held.
func saysYes(all []*talk, heard int64) bool {
	return slices.ContainsFunc(all, func(c *talk) bool {
		return c.number() > heard && slices.ContainsFunc(ParseCommands(c.Body), func(said workflows.Command) bool { return said.Verb == workflows.VerbApprove })
	})
}

// lookDue reports whether our comment of a pull request, which stands far from
// both ends, was not looked for lately.
func (f *Forge) lookDue(number int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cfg.Now().Sub(f.looked[number]) >= recheck
}

func (f *Forge) lookedFor(number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.looked == nil || len(f.looked) >= maxLooked {
		f.looked = map[int]time.Time{}
	}
	f.looked[number] = f.cfg.Now()
}

// talkPage is one answer to commentsQuery.
type talkPage struct {
	First    nodes[*talk] `json:"first"`
	Comments struct {
		Page struct {
			More  bool   `json:"hasPreviousPage"`
			Start string `json:"startCursor"`
		} `json:"pageInfo"`
		nodes[*talk]
	} `json:"comments"`
}

func (f *Forge) talkPage(ctx context.Context, ref workflows.Ref, before *string) (*talkPage, error) {
	var out struct {
		Repository *struct {
			ID   int64     `json:"databaseId"`
			Pull *talkPage `json:"pullRequest"`
		} `json:"repository"`
	}
	vars := map[string]any{"owner": f.cfg.Owner, "name": f.cfg.Repo, "number": ref.Number, "before": before}
	if err := f.graph(ctx, commentsQuery, vars, &out); err != nil {
		return nil, err
	}
	if out.Repository == nil || out.Repository.Pull == nil || out.Repository.ID != ref.Repo {
		return nil, access.Errorf(access.CodeNotFound, "GitHub does not have pull request %d, or does not show it to Tidegate.", ref.Number)
	}
	return out.Repository.Pull, nil
}

func present(list []*talk) []*talk {
	return slices.DeleteFunc(list, func(c *talk) bool { return c == nil })
}

// graph asks GitHub's GraphQL interface, which stands beside REST on
// github.com and beside /api/v3 elsewhere.
func (f *Forge) graph(ctx context.Context, query string, vars map[string]any, data any) error {
	at := "graphql"
	if strings.HasSuffix(f.gh.BaseURL.Path, "/api/v3/") {
		at = "../graphql"
	}
	req, err := f.gh.NewRequest(http.MethodPost, at, map[string]any{"query": query, "variables": vars})
	if err != nil {
		return fmt.Errorf("ask GraphQL: %w", err)
	}
	var out struct {
		Data   json.RawMessage `json:"data"`
		Errors []struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if _, err := f.gh.Do(ctx, req, &out); err != nil {
		return failed("ask GraphQL", err)
	}
	if len(out.Errors) > 0 { // half an answer is none
		code := access.CodeUnavailable
		if out.Errors[0].Type == "NOT_FOUND" {
			code = access.CodeNotFound
		}
		return access.Errorf(code, "GitHub says: %s", clip(visible(out.Errors[0].Message), maxSaid))
	}
	if err := json.Unmarshal(out.Data, data); err != nil {
		return &access.Error{Code: access.CodeUnavailable, Message: "GitHub's answer is not understood; Tidegate tries again.", Cause: fmt.Errorf("decode GraphQL: %w", err)}
	}
	return nil
}
