package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

const (
	controlAlone = `
parts        = ["control"]
installation = "serve1"
state_dir    = "@DIR@/control-state"
ledger { url_file = "control-ledger" }
metrics { listen = "@METRICS@" }
log { level = "debug" }
control { listen = "@DOOR@" }
ssh {` + sshControl + `}
` + worldControl
	gatewayAlone = `
parts        = ["gateway"]
installation = "serve1"
state_dir    = "@DIR@/gateway-state"
ledger { url_file = "gateway-ledger" }
metrics { listen = "@METRICS2@" }
log { level = "debug" }
ssh {` + sshGate + `}
` + worldGateway + `
  control {
    address   = "@DOOR@"
    enrolment = "gateway-1"
  }
}
`
	gatewayRole = "tidegate_gateway_1"
)

// apartWorld is a control side and a gateway, each in a process of its own.
type apartWorld struct {
	*serveWorld
	t                            *testing.T // of the whole story: its processes outlive a subtest
	controlConfig, gatewayConfig string
	control, gateway             *process
}

// newApartWorld starts both with a ledger in the target's PostgreSQL.
func newApartWorld(t *testing.T) *apartWorld {
	t.Helper()
	w := newServeWorld(t)
	return w.apart(t, w.target.Server)
}

// apart makes the ledger with a login for each, as an operator would who
// follows docs/guides/serve.md, and starts both.
func (s *serveWorld) apart(t *testing.T, server *pgtest.Server) *apartWorld {
	t.Helper()
	w := &apartWorld{serveWorld: s, t: t}
	var err error
	if w.ledger, err = server.CreateDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.login(t, "tidegate", "control-ledger")
	w.admin(t, "create role tidegate login", "grant create on schema public to tidegate", w.password("tidegate"))
	w.controlConfig, w.gatewayConfig = w.write(t, "control.hcl", controlAlone), w.write(t, "gateway.hcl", gatewayAlone)
	w.control = startProcess(t, w.controlConfig)
	w.enrol(t)
	w.setUpLedger(t)
	w.gateway = startProcess(t, w.gatewayConfig)
	return w
}

// login writes the URL of a login to the ledger into a secret file.
func (w *apartWorld) login(t *testing.T, user, file string) {
	t.Helper()
	u, err := url.Parse(w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, "the password of "+user)
	w.secret = append(w.secret, url.PathEscape("the password of "+user), "the password of "+user)
	w.put(t, file, u.String())
}

func (w *apartWorld) password(user string) string {
	return fmt.Sprintf("alter role %s password 'the password of %s'", user, user)
}

// admin runs SQL as a superuser in the ledger's database.
func (w *apartWorld) admin(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%v in:\n%s", err, sql)
		}
	}
}

func (w *apartWorld) enrol(t *testing.T) {
	t.Helper()
	code, said := tool(t, "setup", "gateway", "--config", w.controlConfig, "--name", "gateway-1", "--out", filepath.Join(w.folder(), "gateway-1"))
	if code != exitOK || !strings.Contains(said, "gateway-1 is enrolled") {
		t.Fatalf("enrol the gateway: exit code %d:\n%s", code, said)
	}
}

// setUpLedger gives the gateway its login; before, it must not start.
func (w *apartWorld) setUpLedger(t *testing.T) {
	t.Helper()
	u, err := url.Parse(w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	code, sql := tool(t, "setup", "ledger", "--database", strings.TrimPrefix(u.Path, "/"), "--gateway", gatewayRole)
	if code != exitOK {
		t.Fatalf("setup ledger: exit code %d:\n%s", code, sql)
	}
	w.put(t, "gateway-ledger", strings.TrimSpace(string(contents(t, filepath.Join(w.folder(), "control-ledger")))))
	early := launchProcess(t, w.gatewayConfig)
	if code := early.wait(t, startTimeout); code != exitRefused || !strings.Contains(early.log.String(), "may write grants") {
		t.Errorf("a gateway with control's login to the ledger: exit code %d:\n%s", code, early.log)
	}
	w.login(t, gatewayRole, "gateway-ledger")
	w.admin(t, sql, w.password(gatewayRole))
}

// TestServeApart plays the whole story on two processes: pull request,
// approval, merge, a masked read, a refused and a held statement, a stranger,
// control down and back, the end, and nothing left.
func TestServeApart(t *testing.T) {
	t.Parallel()
	w := newApartWorld(t)
	for name, p := range map[string]*process{"control": w.control, "gateway": w.gateway} {
		t.Run("the process "+name, func(t *testing.T) { guarded(t, p) })
	}
	w.num = w.open(t, asked{"inc-1", "operator", "30m"})
	w.letIn(t)
	t.Run("works", func(t *testing.T) { w.works(t) })
	t.Run("doctor", func(t *testing.T) { w.doctor(t) })
	t.Run("logs in", func(t *testing.T) { w.logsIn(t) })
	t.Run("each has its own keys", func(t *testing.T) { w.keysApart(t) })
	t.Run("ssh", func(t *testing.T) { w.sshStory(t, w.sshWithoutControl) })
	t.Run("a migration", func(t *testing.T) { w.yields(t) })
	t.Run("a migration's yield is killed", func(t *testing.T) { w.yieldKilled(t) })
	t.Run("what a killed yield left is taken back", func(t *testing.T) { w.yieldTakenBack(t) })
	t.Run("control is down", func(t *testing.T) { w.controlDown(t) })
	t.Run("both were killed", func(t *testing.T) { w.bothKilled(t) })
	t.Run("the end", func(t *testing.T) { w.ends(t) })
	t.Run("recordings", func(t *testing.T) { w.verifies(t) })
	t.Run("the gateway is removed", func(t *testing.T) { w.removed(t) })
	for name, p := range map[string]*process{"control": w.control, "gateway": w.gateway} {
		if code := p.stop(t); code != exitOK || !strings.Contains(p.log.String(), "msg=stopped") {
			t.Errorf("%s: exit code %d after SIGTERM, want %d", name, code, exitOK)
		}
		w.silent(t, p.log)
	}
}

// guarded: no core file, and no other door into the process.
func guarded(t *testing.T, p *process) {
	limits := string(contents(t, fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid)))
	if !regexp.MustCompile(`(?m)^Max core file size\s+0\s+0\s`).MatchString(limits) {
		t.Errorf("want no core files, got:\n%s", limits)
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", p.cmd.Process.Pid)); err != nil {
		t.Error(err)
	} else if uid, ok := owner(info); ok && uid != 0 { // the kernel gives what can't be dumped to root
		t.Errorf("the process can be looked into by user %d", uid)
	}
}

func (w *apartWorld) works(t *testing.T) {
	for _, s := range []step{{"a masked read", w.reads}, {"a refused statement", w.drops}, {"a held one", w.holds}} {
		t.Run(s.tells, func(t *testing.T) {
			told, err := s.play(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Log(told)
		})
	}
	w.refused(t, "mallory", "has no active grant")
	metricsOnly(t, w.ports["@METRICS@"])
	metricsOnly(t, w.ports["@METRICS2@"])
}

// doctor finds both healthy, each by its own configuration.
func (w *apartWorld) doctor(t *testing.T) {
	w.trust(t)
	for config, wants := range map[string][]string{
		w.controlConfig: {"ok   ledger: its clock agrees", "ok   target postgres.orders-prod: grant inc-1 can be given", "ok   target ssh.web-1: it lets " + w.host.Account + " in by a certificate of the user CA"},
		w.gatewayConfig: {"ok   ledger: it answers", "ok   gateway: it opens sessions", "knows us as gateway-1", "ok   target ssh.web-1: " + w.host.Address + " proves itself by the pinned key", "warn target ssh.web-1: whether it lets sessions in is asked where the control side runs"},
	} {
		code, said := tool(t, "doctor", "--config", config)
		for _, want := range wants {
			if !strings.Contains(said, want) {
				t.Errorf("want %q in:\n%s", want, said)
			}
		}
		if code != exitOK {
			t.Errorf("exit code %d:\n%s", code, said)
		}
	}
}

// logsIn: the gateway signs client certificates by a CA of its own, and control
// has none of it.
func (w *apartWorld) logsIn(t *testing.T) {
	hostCA := filepath.Join(w.folder(), "gateway-state", keysDir, hostCAFile)
	service := loggedIn(t, &w.demo, "alice", w.ports["@SSH@"], hostCA)
	if out, err := service("orders-prod"); err != nil || !strings.Contains(out, "hello there") {
		t.Errorf("psql by the service file: %v, %s", err, out)
	}
	walk(t, filepath.Join(w.folder(), "control-state", keysDir), func(path string) {
		if strings.Contains(path, "client") || strings.Contains(path, "login") {
			t.Errorf("control has %s, want the gateway alone to have it", path)
		}
	})
}

// talk is a psql that goes on while the test says what.
type talk struct {
	in  *os.File
	out *words
	cmd *exec.Cmd
}

func (w *apartWorld) talk(t *testing.T) *talk {
	t.Helper()
	return w.talkOn(t, demoTarget)
}

func (w *apartWorld) talkOn(t *testing.T, database string) *talk {
	t.Helper()
	cmd, err := w.psql(t.Context(), "alice", database)
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k := &talk{write, &words{}, cmd}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, k.out, k.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read.Close()
	t.Cleanup(func() {
		k.in.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // its output says how
	})
	k.say(t, "SELECT 'hello ' || 'there';", "hello there")
	return k
}

// say runs a statement and waits for words in what psql said in all.
func (k *talk) say(t *testing.T, sql, want string) {
	t.Helper()
	if _, err := k.in.WriteString(sql + "\n"); err != nil {
		t.Fatal(err)
	}
	k.hears(t, want, 20*time.Second)
}

func (k *talk) hears(t *testing.T, want string, limit time.Duration) {
	t.Helper()
	err := eventually(t.Context(), limit, func() (bool, error) { return strings.Contains(k.out.String(), want), nil })
	if err != nil {
		t.Fatalf("want psql to say %q, got:\n%s", want, k.out)
	}
}

// controlDown kills control under an open session: it goes on, no new one
// opens, and when control is back all is as it was.
func (w *apartWorld) controlDown(t *testing.T) {
	k := w.talk(t)
	w.control.kill()
	w.refused(t, "alice", "no new session opens")
	k.say(t, "SELECT count(*) || ' users' FROM users;", " users")
	w.silent(t, w.control.log)
	w.control = startProcess(w.t, w.controlConfig)
	w.letIn(t)
	k.say(t, "SELECT 'still ' || 'here';", "still here")
}

// bothKilled: what a killed gateway left is ended at its next start, which
// needs no control side, and the grant opens again.
func (w *apartWorld) bothKilled(t *testing.T) {
	w.talk(t)
	w.gateway.kill()
	w.control.kill()
	w.silent(t, w.gateway.log)
	w.gateway = startProcess(w.t, w.gatewayConfig)
	w.refused(t, "alice", "no new session opens")
	w.control = startProcess(w.t, w.controlConfig)
	err := w.look(t.Context(), func(l *ledger.Ledger) error {
		all, err := l.ListSessions(t.Context())
		for _, s := range all {
			if s.Ended.IsZero() {
				t.Errorf("session %s is open in the ledger after the gateway was killed", s.ID)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.talk(t)
}

// ends revokes the grant under a statement that runs. What control did when it was
// killed, Temporal gives to the next one after 30 s: so the end is waited for.
func (w *apartWorld) ends(t *testing.T) {
	k := w.talk(t)
	if _, err := k.in.WriteString("SELECT pg_sleep(120);\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.say(t.Context(), "alice", w.num, "/tidegate revoke"); err != nil {
		t.Fatal(err)
	}
	k.hears(t, "57P01", time.Minute)
	g := w.waitGrant(t, "inc-1", access.StateRevoked)
	if err := leftAt(t.Context(), w.house.admin, g); err != nil {
		t.Error(err)
	}
	w.refused(t, "alice", "has no active grant")
}

// verifies proves each recording by the keys that control keeps, away from
// the gateway.
func (w *apartWorld) verifies(t *testing.T) {
	w.allOver(t, 20*time.Second)
	keys, n := filepath.Join(w.folder(), "control-state", keysDir, publicKeys), 0
	walk(t, filepath.Join(w.folder(), "recordings"), func(path string) {
		if !strings.HasSuffix(path, ".tgr") {
			return
		}
		n++
		if code, said := tool(t, "verify", "--keys", keys, path); code != exitOK || !strings.Contains(said, "is whole") {
			t.Errorf("verify %s: exit code %d:\n%s", path, code, said)
		}
	})
	if n < 5 {
		t.Errorf("%d recordings, want one of each session", n)
	}
}

// removed: a gateway that control forgot opens nothing more.
func (w *apartWorld) removed(t *testing.T) {
	w.open(t, asked{"inc-2", "readonly", "10m"})
	w.letIn(t)
	if code, said := tool(t, "setup", "gateway", "--config", w.controlConfig, "--name", "gateway-1", "--remove"); code != exitOK {
		t.Fatalf("remove the gateway: exit code %d:\n%s", code, said)
	}
	w.refused(t, "alice", "not enrolled")
}

// sshWithoutControl: while control is down no session opens, and the open one
// goes on.
func (w *apartWorld) sshWithoutControl(t *testing.T, a *sshWorld) {
	w.control.kill()
	if out := a.ssh(t.Context(), "web-1", "id"); !strings.Contains(out, "no new session opens") || strings.Contains(out, "uid=") {
		t.Errorf("without control: got %q", out)
	}
	w.control = startProcess(w.t, w.controlConfig)
}
