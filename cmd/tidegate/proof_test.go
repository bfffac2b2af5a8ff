package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// Words of the story that must, or must not, be found somewhere.
const (
	allowedMark = "allowed_mark"
	refusedMark = "refused_mark"
	heldMark    = "held_mark"
	heldDelete  = "DELETE FROM orders RETURNING '" + heldMark + "'"
)

// TestProof tells one story on a whole house and then looks at everything
// that it left behind.
func TestProof(t *testing.T) {
	t.Parallel()
	ctx, p := playHouse(t)
	p.dev.log.Info("the proof begins") // the log says little of its own when all is well
	told := p.tell(ctx, t)
	left := p.leftBehind(ctx, t, told.number)
	t.Run("every place was really read", func(t *testing.T) {
		for name, word := range map[string]string{
			"log": "the proof begins", "target log": allowedMark, "recordings": refusedMark,
			"ledger": "proof-1", "temporal": "proof-1", "comments": "proof-1",
		} {
			if !bytes.Contains(left[name], []byte(word)) {
				t.Errorf("%s: want %q in its %d bytes: the proof would prove nothing", name, word, len(left[name]))
			}
		}
	})
	t.Run("no secret stands anywhere", func(t *testing.T) { noSecrets(t, p.secrets(t, told.lease), left) })
	t.Run("no raw value leaves the target", func(t *testing.T) {
		for name, text := range left {
			if name != "target log" && bytes.Contains(text, []byte(canary)) {
				t.Errorf("%s: %s", name, around(text, canary))
			}
		}
	})
	t.Run("what was refused never reached the target", func(t *testing.T) {
		ran := withoutPlanned(left["target log"])
		for _, mark := range []string{refusedMark, heldMark} {
			if bytes.Contains(ran, []byte(mark)) {
				t.Errorf("%s", around(ran, mark))
			}
		}
	})
	t.Run("the target's log has verifiers, no passwords", func(t *testing.T) { onlyVerifiers(t, left["target log"]) })
	t.Run("a session ends on time without Temporal", func(t *testing.T) { p.withoutTemporal(ctx, t) })
}

// withoutPlanned takes away that the target was asked to plan the held
// statement, for the estimate that its approver is shown. That runs nothing.
func withoutPlanned(text []byte) []byte {
	return bytes.ReplaceAll(text, []byte("explain (format json) "+heldDelete), nil)
}

// story is what the proof needs to know of the story.
type story struct {
	number int // the pull request
	lease  access.Lease
}

// tell plays a masked read, a refused, a held and a denied statement, and
// waits until the grant is proved closed.
func (p played) tell(ctx context.Context, t *testing.T) story {
	t.Helper()
	l := p.open(ctx, t, asked{"proof-1", "operator", "20s"})
	g, err := p.grant(ctx, "proof-1")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := p.dev.ctl.minters["postgres"].Lease(ctx, g, "proof")
	if err != nil {
		t.Fatalf("derive the minted password: %v", err)
	}
	done := p.session(ctx, t, "proof-1",
		"SELECT id, email, '"+allowedMark+"' FROM users ORDER BY id LIMIT 2;",
		"DROP TABLE public."+refusedMark+";",
		heldDelete+";",
		"SELECT 'left: ' || count(*) FROM orders;")
	p.deny(ctx, t, l.number)
	s := wait(t, done)
	for _, want := range []string{allowedMark, "42501", "left: 100"} {
		if !strings.Contains(s.out, want) {
			t.Errorf("want %q in\n%s", want, s.out)
		}
	}
	if strings.Contains(s.out, canary) {
		t.Errorf("a raw value reached the client:\n%s", s.out)
	}
	p.closed(ctx, t, "proof-1", 60*time.Second)
	if err := waitOver(ctx, p.dev.ledger, 20*time.Second); err != nil { // its recording moves no more
		t.Fatalf("want no session open: %v", err)
	}
	return story{l.number, lease}
}

var heldName = regexp.MustCompile(`/tidegate deny (H\d+)`)

// deny says no to what is held, as bob.
func (p played) deny(ctx context.Context, t *testing.T, number int) {
	t.Helper()
	line := ""
	err := eventually(ctx, 15*time.Second, func() (bool, error) {
		all, err := p.comments(ctx, number)
		line = heldName.FindString(strings.Join(all, "\n"))
		return line != "", err
	})
	if err != nil {
		t.Fatalf("want a held statement on the pull request: %v", err)
	}
	if err := p.say(ctx, "bob", number, line); err != nil {
		t.Fatal(err)
	}
}

// closed waits for the proof that nothing is left, and looks for itself.
func (p played) closed(ctx context.Context, t *testing.T, id string, limit time.Duration) {
	t.Helper()
	err := eventually(ctx, limit, func() (bool, error) {
		g, err := p.grant(ctx, id)
		return !g.Closed.IsZero(), err
	})
	if err != nil {
		t.Fatalf("want %s closed: %v", id, err)
	}
	if _, err := p.nothingLeft(ctx, id); err != nil {
		t.Errorf("%v", err)
	}
}

// secrets are all of the run's, by name, in each way of writing them.
func (p played) secrets(t *testing.T, lease access.Lease) map[string]string {
	t.Helper()
	all := map[string]string{"admin": p.dev.state.AdminSecret, "webhook": string(p.dev.webhookSecret()), "minted password": lease.Password.Reveal()}
	for who, token := range p.dev.state.HubTokens {
		all["hub token of "+who] = token
	}
	for who, token := range p.dev.ready.Tokens {
		all["identity token of "+who] = token
	}
	superuser, err := url.Parse(p.dev.target.DSN)
	if err != nil {
		t.Fatal("parse the superuser's DSN")
	}
	all["superuser"], _ = superuser.User.Password()
	for name, key := range map[string][]byte{
		"mint": p.dev.keys.mint, "webhook": p.dev.keys.webhook,
		"control": p.dev.keys.control.Seed(), "recorder": p.dev.keys.recorder.Seed(),
	} {
		all[name+" key"], all[name+" key, hex"] = string(key), hex.EncodeToString(key)
		all[name+" key, base64"] = base64.RawStdEncoding.EncodeToString(key)
		all[name+" key, base64url"] = base64.RawURLEncoding.EncodeToString(key)
	}
	return all
}

func noSecrets(t *testing.T, secrets map[string]string, left map[string][]byte) {
	t.Helper()
	for what, secret := range secrets {
		if len(secret) < 16 {
			t.Errorf("%s: %d bytes are no secret", what, len(secret))
		}
		for name, text := range left {
			if i := bytes.Index(text, []byte(secret)); i >= 0 {
				t.Errorf("%s: the %s stands at byte %d, after %q", name, what, i, text[max(0, i-80):i])
			}
		}
	}
}

// around is where a word stands, for a failing test.
func around(text []byte, word string) string {
	i := bytes.Index(text, []byte(word))
	return string(text[max(0, i-120):min(len(text), i+80)])
}

var passwordSQL = regexp.MustCompile(`(?i)password\s+E?'([^']*)'`)

func onlyVerifiers(t *testing.T, log []byte) {
	t.Helper()
	passwords := passwordSQL.FindAllSubmatch(log, -1)
	if len(passwords) == 0 {
		t.Error("the target's log holds no password clause at all: the search can't have seen a mint")
	}
	for _, m := range passwords {
		if !bytes.HasPrefix(m[1], []byte("SCRAM-SHA-256$")) {
			t.Errorf("a password of %d bytes stands in the target's log, want only SCRAM verifiers", len(m[1]))
		}
	}
}

// leftBehind reads everything that the story wrote, by place.
func (p played) leftBehind(ctx context.Context, t *testing.T, number int) map[string][]byte {
	t.Helper()
	comments, err := p.comments(ctx, number)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"log":        files(t, filepath.Join(p.dir, "log")),
		"target log": files(t, p.dev.target.Log),
		"recordings": append(files(t, filepath.Join(p.dir, recordingsDir)), recorded(t, filepath.Join(p.dir, recordingsDir))...),
		"ledger":     files(t, filepath.Join(p.dir, ledgerFile+"*")),
		"temporal":   files(t, filepath.Join(p.dir, "temporal.db*")),
		"comments":   []byte(strings.Join(comments, "\n")),
	}
}

// files joins the bytes of all files that match, and of those in folders that do.
func files(t *testing.T, pattern string) (all []byte) {
	t.Helper()
	walk(t, pattern, func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	})
	return all
}

func walk(t *testing.T, pattern string, visit func(path string)) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("find %s: %v, %d files", pattern, err, len(paths))
	}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				visit(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// recorded is what the recordings say once they are decoded.
func recorded(t *testing.T, dir string) (all []byte) {
	t.Helper()
	walk(t, dir, func(path string) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for e, err := range record.Read(f) {
			if err != nil {
				break // not a recording: its bytes are looked at as they are
			}
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			all = append(append(all, text...), e.Data...)
		}
	})
	return all
}

// withoutTemporal kills Temporal under an open session: the gateway's own
// clock cuts it. Once Temporal is back, the role goes too.
func (p played) withoutTemporal(ctx context.Context, t *testing.T) {
	p.open(ctx, t, asked{"proof-2", "readonly", "10s"})
	g, err := p.grant(ctx, "proof-2")
	if err != nil {
		t.Fatal(err)
	}
	done := p.session(ctx, t, "proof-2", "SELECT pg_sleep(60);")
	if err := p.dev.flows.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill Temporal: %v", err)
	}
	_ = p.dev.flows.cmd.Wait() // it was killed
	if !time.Now().Before(g.NotAfter) {
		t.Fatalf("Temporal died %s after the grant's end: nothing to see", time.Since(g.NotAfter))
	}
	s := wait(t, done)
	if late := s.at.Sub(g.NotAfter); late < 0 || late > 2*time.Second || !strings.Contains(s.out, "57P01") {
		t.Errorf("cut %s after the end, want within 2 s and with 57P01:\n%s", late, s.out)
	}
	again, err := startTemporal(ctx, filepath.Join(p.dir, "temporal.db"), p.dev.state.Ports["temporal"], p.dev.opts.Log)
	if err != nil {
		t.Fatalf("start Temporal again: %v", err)
	}
	t.Cleanup(again.Close)
	p.closed(ctx, t, "proof-2", 100*time.Second)
}
