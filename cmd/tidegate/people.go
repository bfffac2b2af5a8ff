package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// people act on the pocket GitHub with the tools that people have: git and
// GitHub's REST interface. The demo and `tidegate dev pr` play with them.
type people struct {
	house devReady
	work  string // a scratch folder for clones
}

// api makes one REST call as somebody. A status of 300 or more is an error.
func (p *people) api(ctx context.Context, who, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, p.house.Hub+"/api/v3/repos/"+p.house.Repo+path, &body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+p.house.HubTokens[who])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s as %s: %s: %s", method, path, who, res.Status, inWords(text))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// inWords is what GitHub's answer says, in its own words.
func inWords(answer []byte) string {
	var a struct {
		Message string `json:"message"`
		Errors  []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(answer, &a) != nil || a.Message == "" {
		return string(answer)
	}
	for _, e := range a.Errors {
		a.Message += "; " + e.Message
	}
	return a.Message
}

// git runs git in somebody's clone.
func (p *people) git(ctx context.Context, who string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = filepath.Join(p.work, who)
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME="+who, "GIT_AUTHOR_EMAIL="+who+"@acme.test", "GIT_COMMITTER_NAME="+who, "GIT_COMMITTER_EMAIL="+who+"@acme.test",
		"HOME="+filepath.Join(p.work, who+".home"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s as %s: %w\n%s", args[0], who, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// clone makes somebody's clone. The token lies in git's own credential file,
// as a careful person would have it.
func (p *people) clone(ctx context.Context, who string) error {
	dir, home := filepath.Join(p.work, who), filepath.Join(p.work, who+".home")
	if isDir(dir) {
		return nil
	}
	for _, p := range []string{dir, home} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return fmt.Errorf("make clone: %w", err)
		}
	}
	address := strings.Replace(p.house.CloneURL, "://", "://"+who+":"+p.house.HubTokens[who]+"@", 1)
	store := strings.SplitAfterN(address, "/", 4)
	credentials := filepath.Join(home, "credentials")
	if err := os.WriteFile(credentials, []byte(strings.TrimSuffix(strings.Join(store[:3], ""), "/")+"\n"), 0o600); err != nil {
		return fmt.Errorf("store credentials: %w", err)
	}
	_, err := p.git(ctx, who, "clone", "-q", "-c", "credential.helper=store --file="+credentials,
		strings.Replace(p.house.CloneURL, "://", "://"+who+"@", 1), ".")
	return err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// push commits one file on a branch made from main (or going on) and pushes.
func (p *people) push(ctx context.Context, who, branch, file, text string) error {
	return p.pushAll(ctx, who, branch, map[string]string{file: text})
}

// pushAll is push for several files in one commit.
func (p *people) pushAll(ctx context.Context, who, branch string, files map[string]string) error {
	if err := p.clone(ctx, who); err != nil {
		return err
	}
	if _, err := p.git(ctx, who, "fetch", "-q", "origin"); err != nil {
		return err
	}
	from := "origin/" + branch
	if _, err := p.git(ctx, who, "rev-parse", "-q", "--verify", from); err != nil {
		from = "origin/main"
	}
	if _, err := p.git(ctx, who, "checkout", "-q", "-B", branch, from); err != nil {
		return err
	}
	for file, text := range files {
		path := filepath.Join(p.work, who, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write grant: %w", err)
		}
	}
	return p.commit(ctx, who, branch)
}

// commit pushes what changed. What is there already is pushed as it is.
func (p *people) commit(ctx context.Context, who, branch string) error {
	if _, err := p.git(ctx, who, "add", "--all"); err != nil {
		return err
	}
	changed, err := p.git(ctx, who, "status", "--porcelain")
	if err == nil && changed != "" {
		_, err = p.git(ctx, who, "commit", "-q", "-m", "Ask for access")
	}
	if err == nil {
		_, err = p.git(ctx, who, "push", "-q", "origin", branch)
	}
	return err
}

// openPull is the open pull request of a branch, or 0.
func (p *people) openPull(ctx context.Context, who, branch string) (int, error) {
	var open []struct {
		Number int `json:"number"`
	}
	owner, _, _ := strings.Cut(p.house.Repo, "/")
	err := p.api(ctx, who, "GET", "/pulls?state=open&head="+url.QueryEscape(owner+":"+branch), nil, &open)
	if err != nil || len(open) == 0 {
		return 0, err
	}
	return open[0].Number, nil
}

// pullRequest opens a pull request and answers with its number.
func (p *people) pullRequest(ctx context.Context, who, branch, title string) (int, error) {
	var pr struct {
		Number int `json:"number"`
	}
	err := p.api(ctx, who, "POST", "/pulls", map[string]string{"title": title, "head": branch, "base": "main", "body": ""}, &pr)
	return pr.Number, err
}

// approve reviews the pull request as it is now.
func (p *people) approve(ctx context.Context, who string, number int) error {
	return p.api(ctx, who, "POST", fmt.Sprintf("/pulls/%d/reviews", number), map[string]string{"event": "APPROVE"}, nil)
}

// merge merges the head that is there now.
func (p *people) merge(ctx context.Context, who string, number int) error {
	head, err := p.head(ctx, number)
	if err != nil {
		return err
	}
	return p.api(ctx, who, "PUT", fmt.Sprintf("/pulls/%d/merge", number), map[string]string{"sha": head}, nil)
}

func (p *people) head(ctx context.Context, number int) (string, error) {
	var pr struct {
		Head struct {
			SHA string `json:"sha"`
		} `json:"head"`
	}
	err := p.api(ctx, "bob", "GET", fmt.Sprintf("/pulls/%d", number), nil, &pr)
	return pr.Head.SHA, err
}

// say writes a comment.
func (p *people) say(ctx context.Context, who string, number int, text string) error {
	return p.api(ctx, who, "POST", fmt.Sprintf("/issues/%d/comments", number), map[string]string{"body": text}, nil)
}

// comments are the bodies of the bot's comments.
func (p *people) comments(ctx context.Context, number int) ([]string, error) {
	var all []struct {
		Body string `json:"body"`
		User struct {
			Login string `json:"login"`
		} `json:"user"`
	}
	if err := p.api(ctx, "bob", "GET", fmt.Sprintf("/issues/%d/comments?per_page=100", number), nil, &all); err != nil {
		return nil, err
	}
	var bodies []string
	for _, c := range all {
		if c.User.Login == devBot {
			bodies = append(bodies, c.Body)
		}
	}
	return bodies, nil
}
