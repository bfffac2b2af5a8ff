package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// canary stands in every raw e-mail of the demo's data.
const canary = "canary"

const demoTarget = "orders-prod"

// grantFile is the text of a request.
func grantFile(id, who, role, lasts string) string {
	return fmt.Sprintf(`grant "%s" {
  to     = user("%s")
  on     = postgres.%s
  role   = "%s"
  lasts  = "%s"
  reason = "Refund jobs stuck since 14:10"
  ticket = "INC-4821"
}
`, id, who, demoTarget, role, lasts)
}

func (d *demo) opens(ctx context.Context) (string, error) {
	file := "grants/alice/inc-1.hcl"
	if err := d.push(ctx, "alice", "inc-1", file, strings.Replace(grantFile("inc-1", "alice", "operator", "60s"), `"60s"`, "60 seconds", 1)); err != nil {
		return "", err
	}
	var err error
	if d.num, err = d.pullRequest(ctx, "alice", "inc-1", "Refund jobs are stuck"); err != nil {
		return "", err
	}
	broken, err := d.check(ctx, d.num, "tidegate/plan", "failure")
	if err != nil {
		return "", err
	}
	if broken.Output.Annotations == 0 {
		return "", errors.New("want an annotation on the broken line, got none")
	}
	if err := d.push(ctx, "alice", "inc-1", file, grantFile("inc-1", "alice", "operator", "60s")); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%s/pull/%d", d.house.Hub, d.house.Repo, d.num), nil
}

func (d *demo) planned(ctx context.Context) (string, error) {
	if _, err := d.check(ctx, d.num, "tidegate/plan", "success"); err != nil {
		return "", err
	}
	text, err := d.comment(ctx, d.num, "inc-1", demoTarget, "operator")
	if err != nil {
		return "", err
	}
	if !strings.Contains(text, "email") {
		return "", fmt.Errorf("want the masked columns in the comment, got:\n%s", text)
	}
	return "", nil
}

func (d *demo) selfApproves(ctx context.Context) (string, error) {
	if err := d.approve(ctx, "alice", d.num); err != nil {
		return "", err
	}
	if _, err := d.comment(ctx, d.num, "does not count"); err != nil {
		return "", err
	}
	return "", nil
}

func (d *demo) merges(ctx context.Context) (string, error) {
	if err := d.approve(ctx, "bob", d.num); err != nil {
		return "", err
	}
	if _, err := d.check(ctx, d.num, "tidegate/approved", "success"); err != nil {
		return "", err
	}
	merged := time.Now()
	if err := d.merge(ctx, "bob", d.num); err != nil {
		return "", err
	}
	if err := d.waitState(ctx, "inc-1", access.StateActive); err != nil {
		return "", err
	}
	return fmt.Sprintf("merged to active: %d ms", time.Since(merged).Milliseconds()), nil
}

// grant reads a grant from the ledger, as `tidegate ls` does.
func (d *demo) grant(ctx context.Context, id string) (found access.Grant, err error) {
	err = withLedger(ctx, d.dir, func(l *ledger.Ledger) error {
		grants, err := l.ListGrants(ctx)
		for _, g := range grants {
			if g.Key.ID == id {
				found = g
			}
		}
		return err
	})
	return found, err
}

func (d *demo) waitState(ctx context.Context, id string, want access.State) error {
	var g access.Grant
	err := eventually(ctx, 20*time.Second, func() (bool, error) {
		var err error
		g, err = d.grant(ctx, id)
		return g.State == want, err
	})
	if err != nil {
		return fmt.Errorf("want grant %s %s, got %q (%s): %w", id, want, g.State, g.Why, err)
	}
	return nil
}

func (d *demo) reads(ctx context.Context) (string, error) {
	out, err := d.query(ctx, "alice", demoTarget, "SELECT id, name, email FROM users ORDER BY id LIMIT 2;")
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, "1|Customer 1|") || strings.Contains(out, canary) || !strings.Contains(out, "test") {
		return "", fmt.Errorf("want rows with masked e-mails, got:\n%s", out)
	}
	return strings.ReplaceAll(strings.TrimSpace(out), "\n", "\n    "), nil
}

func (d *demo) bypasses(ctx context.Context) (string, error) {
	t, err := d.tap()
	if err != nil {
		return "", err
	}
	addr := strings.Split(t.listener.Addr().String(), ":")
	cmd, err := d.psqlAt(ctx, "alice", fmt.Sprintf("host=127.0.0.1 port=%s dbname=%s user=alice sslmode=disable", addr[1], demoTarget))
	if err != nil {
		t.Close()
		return "", err
	}
	tries := []string{
		"SELECT u.email AS x FROM users u;",
		"SELECT CAST(email AS int) FROM users;",
		"SELECT CAST(email AS int) FROM public.users;",
		"COPY users TO STDOUT;",
		"COPY (SELECT email FROM public.users) TO STDOUT;",
		"PREPARE p AS SELECT email FROM users; EXECUTE p;",
		"SELECT u FROM users u;",
		"SELECT row_to_json(u) FROM public.users u;",
		"SELECT query_to_xml('SELECT email FROM public.users', true, false, '');",
		"SELECT 'still here';",
	}
	out, err := feed(cmd, tries)
	got := t.Close()
	if err != nil {
		return "", err
	}
	if bytes.Contains(got, []byte(canary)) {
		return "", fmt.Errorf("a raw value reached the client:\n%s", out)
	}
	if !strings.Contains(out, "still here") {
		return "", fmt.Errorf("want the session to go on, got:\n%s", out)
	}
	return fmt.Sprintf("%d tries, %d bytes received, none of a raw value", len(tries)-1, len(got)), nil
}

func (d *demo) drops(ctx context.Context) (string, error) {
	out, err := d.query(ctx, "alice", demoTarget, "DROP TABLE public.orders;", "SELECT 'orders: ' || count(*) FROM orders;")
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, "42501") || !strings.Contains(out, "orders: 100") {
		return "", fmt.Errorf("want 42501 and then 100 orders, got:\n%s", out)
	}
	return firstLine(out), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

var answerLine = regexp.MustCompile(`/tidegate approve H\d+ [0-9a-f]{8}`)

func (d *demo) holds(ctx context.Context) (string, error) {
	cmd, err := d.psql(ctx, "alice", demoTarget)
	if err != nil {
		return "", err
	}
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := feed(cmd, []string{"DELETE FROM orders;", "SELECT 'left: ' || count(*) FROM orders;"})
		done <- result{out, err}
	}()
	var line string
	err = eventually(ctx, 20*time.Second, func() (bool, error) {
		all, err := d.comments(ctx, d.num)
		line = answerLine.FindString(strings.Join(all, "\n"))
		return line != "", err
	})
	if err != nil {
		return "", fmt.Errorf("want a hold on the pull request: %w", err)
	}
	if err := d.say(ctx, "bob", d.num, line); err != nil {
		return "", err
	}
	select {
	case r := <-done:
		if r.err != nil || !strings.Contains(r.out, "DELETE 100") || !strings.Contains(r.out, "left: 0") {
			return "", fmt.Errorf("want DELETE 100 and none left, got %v:\n%s", r.err, r.out)
		}
	case <-time.After(20 * time.Second):
		return "", errors.New("bob answered, and the statement did not go on within 20 s")
	}
	return "bob: " + line, nil
}

func (d *demo) mallory(ctx context.Context) (string, error) {
	out, err := d.query(ctx, "mallory", demoTarget, "SELECT 1;")
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, "FATAL") {
		return "", fmt.Errorf("want a refusal, got:\n%s", out)
	}
	return lastWords(out), nil
}

// lastWords is psql's last complaint without its own introduction.
func lastWords(out string) string {
	if i := strings.LastIndex(out, "FATAL:"); i >= 0 {
		return firstLine(out[i:])
	}
	return firstLine(out)
}

// bobApproves waits for the plan, and after the review until it counts.
func (d *demo) bobApproves(ctx context.Context, number int) error {
	if _, err := d.check(ctx, number, "tidegate/plan", "success"); err != nil {
		return err
	}
	if err := d.approve(ctx, "bob", number); err != nil {
		return err
	}
	_, err := d.check(ctx, number, "tidegate/approved", "success")
	return err
}

func (d *demo) pushes(ctx context.Context) (string, error) {
	file := "grants/alice/inc-2.hcl"
	if err := d.push(ctx, "alice", "inc-2", file, grantFile("inc-2", "alice", "readonly", "10m")); err != nil {
		return "", err
	}
	number, err := d.pullRequest(ctx, "alice", "inc-2", "More of it")
	if err != nil {
		return "", err
	}
	if err := d.bobApproves(ctx, number); err != nil {
		return "", err
	}
	if err := d.push(ctx, "alice", "inc-2", file, grantFile("inc-2", "alice", "operator", "50m")); err != nil {
		return "", err
	}
	if _, err := d.comment(ctx, number, "operator", "does not count"); err != nil {
		return "", err
	}
	return "", nil
}

func (d *demo) ends(ctx context.Context) (string, error) {
	if _, err := d.opened(ctx, asked{"inc-3", "readonly", "5s"}); err != nil {
		return "", err
	}
	told, err := d.cut(ctx)
	if err != nil {
		return "", err
	}
	gone, err := d.nothingLeft(ctx, "inc-3")
	if err != nil {
		return "", err
	}
	if err := d.reverted(ctx, "grants/alice/inc-3.hcl"); err != nil {
		return "", err
	}
	return told + "\n    " + gone, nil
}

// cut holds a session open until it is ended, and checks when and with what.
func (d *demo) cut(ctx context.Context) (string, error) {
	cmd, err := d.psql(ctx, "alice", demoTarget+"+inc-3")
	if err != nil {
		return "", err
	}
	out, err := feed(cmd, []string{"SELECT pg_sleep(30);"})
	at := time.Now()
	if err != nil {
		return "", err
	}
	g, err := d.grant(ctx, "inc-3")
	if err != nil {
		return "", err
	}
	late := at.Sub(g.NotAfter)
	if !strings.Contains(out, "57P01") || late < 0 {
		return "", fmt.Errorf("want the session cut at %s with 57P01, got at %s:\n%s", g.NotAfter, at, out)
	}
	return fmt.Sprintf("cut %d ms after the end: %s", late.Milliseconds(), lastWords(out)), nil
}

// nothingLeft waits for the proof and then looks for itself.
func (d *demo) nothingLeft(ctx context.Context, id string) (string, error) {
	var g access.Grant
	err := eventually(ctx, 20*time.Second, func() (bool, error) {
		var err error
		g, err = d.grant(ctx, id)
		return !g.Closed.IsZero(), err
	})
	if err != nil {
		return "", fmt.Errorf("want grant %s closed, got %s: %w", id, g, err)
	}
	if err := leftAt(ctx, d.house.admin, g); err != nil {
		return "", err
	}
	return fmt.Sprintf("role, views and schema gone %d ms after the end", g.Closed.Sub(g.NotAfter).Milliseconds()), nil
}

// leftAt looks at the target, as its superuser, for anything of the grant.
func leftAt(ctx context.Context, admin string, g access.Grant) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return fmt.Errorf("look at the target: %w", err)
	}
	defer conn.Close(ctx)
	minted, err := backing.Parse(g.Backing)
	if err != nil {
		return err
	}
	for what, sql := range map[string]string{
		"roles":    `SELECT count(*) FROM pg_roles WHERE rolname = $1`,
		"schemas":  `SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, $1)`,
		"backends": `SELECT count(*) FROM pg_stat_activity WHERE usename = $1`,
	} {
		var n int
		if err := conn.QueryRow(ctx, sql, minted.Role).Scan(&n); err != nil {
			return fmt.Errorf("look at the target: %w", err)
		}
		if n != 0 {
			return fmt.Errorf("want no %s of %s left, got %d", what, minted.Role, n)
		}
	}
	return nil
}

// reverted removes the grant's file from main and brings it back, as a revert
// of a revert would; the grant must stay ended.
func (d *demo) reverted(ctx context.Context, file string) error {
	if err := d.clone(ctx, "admin"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"fetch", "-q", "origin"}, {"checkout", "-q", "-B", "main", "origin/main"},
		{"rm", "-q", file}, {"commit", "-q", "-m", "Tidy"}, {"revert", "--no-edit", "HEAD"}, {"push", "-q", "origin", "main"},
	} {
		if _, err := d.git(ctx, "admin", args...); err != nil {
			return err
		}
	}
	out, err := d.query(ctx, "alice", demoTarget+"+inc-3", "SELECT 1;")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "FATAL") {
		return fmt.Errorf("want no way back by a revert, got:\n%s", out)
	}
	return nil
}

func (d *demo) proves(ctx context.Context) (string, error) {
	id, err := d.droppingSession(ctx)
	if err != nil {
		return "", err
	}
	var replay, good, bad bytes.Buffer
	if err := runReplay(ctx, []string{"--dir", d.dir, id}, stdio{out: &replay, err: io.Discard}); err != nil {
		return "", err
	}
	if !strings.Contains(replay.String(), "DROP TABLE public.orders") || strings.Contains(replay.String(), canary) {
		return "", fmt.Errorf("want the refused statement and no raw value in the replay, got:\n%s", replay.String())
	}
	if err := runVerify(ctx, []string{"--dir", d.dir, id}, stdio{out: &good, err: io.Discard}); err != nil {
		return "", err
	}
	f, err := openRecording(ctx, filepath.Join(d.dir, recordingsDir), "", id)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("read recording: %w", err)
	}
	text = bytes.Replace(text, []byte("DROP TABLE"), []byte("DROP VIEWS"), 1)
	changed := filepath.Join(d.work, "changed.tgr")
	if err := os.WriteFile(changed, text, 0o600); err != nil {
		return "", fmt.Errorf("write changed recording: %w", err)
	}
	err = runVerify(ctx, []string{"--dir", d.dir, changed}, stdio{out: &bad, err: io.Discard})
	if err == nil {
		return "", fmt.Errorf("a changed recording verified: %s", bad.String())
	}
	return strings.TrimSpace(good.String()) + "\n    changed: " + err.Error(), nil
}

// droppingSession finds the session in which alice tried DROP TABLE.
func (d *demo) droppingSession(ctx context.Context) (id string, err error) {
	err = withLedger(ctx, d.dir, func(l *ledger.Ledger) error {
		sessions, err := l.ListSessions(ctx)
		if err != nil {
			return err
		}
		for _, s := range sessions {
			var text bytes.Buffer
			if err := runReplay(ctx, []string{"--dir", d.dir, s.ID}, stdio{out: &text, err: io.Discard}); err != nil {
				return err
			}
			if strings.Contains(text.String(), "DROP TABLE") {
				id = s.ID
			}
		}
		return nil
	})
	if err == nil && id == "" {
		err = errors.New("want a recorded session with DROP TABLE, found none")
	}
	return id, err
}
