package ssh

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/mint"
)

func TestExec(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	r := h.ssh("echo to stdout; echo to stderr >&2; exit 7")
	if r.out != "to stdout\n" || r.err != "to stderr\n" || r.code != 7 {
		t.Fatalf("got %+v", r)
	}
	eventually(t, "the session is sealed", func() bool { return len(h.gate.Tape.Unsealed()) == 0 })
	if got := h.recorded(access.ToClient); got != "to stdout\nto stderr\n" && got != "to stderr\nto stdout\n" {
		t.Errorf("recorded %q", got)
	}
	if !strings.Contains(h.events(), "op.close error 7") {
		t.Errorf("events:\n%s", h.events())
	}
	id := h.gate.Tape.Events("")[0].Session.ID
	if log := h.host.LogText(); !strings.Contains(log, id) {
		t.Errorf("sshd's log does not name session %s (serial %d):\n%s", id, mint.Serial(id), log)
	}
}

func TestShell(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"shell": "true"}})
	cmd := h.client("alice", "ssh", "-tt", "web-1@127.0.0.1")
	cmd.Stdin = strings.NewReader("stty -echo; PS1=; echo from $((40+2)); exit 3\n")
	r := h.run(cmd)
	if !strings.Contains(r.out, "from 42") || r.code != 3 {
		t.Fatalf("got %+v", r)
	}
	if r := h.ssh("true"); r.code != 1 || !strings.Contains(r.err, "runs no commands here") {
		t.Errorf("a command without exec: got %+v", r)
	}
}

func TestNobodyElse(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	if r := h.run(h.client("mallory", "ssh", "web-1@127.0.0.1", "id")); r.code != 1 || !strings.Contains(r.err, "no active grant") || r.out != "" {
		t.Errorf("mallory: got %+v", r)
	}
	if r := h.run(h.client("alice", "ssh", "other%web-1@127.0.0.1", "id")); r.code != 1 || !strings.Contains(r.err, `does not give the account "other"`) {
		t.Errorf("another account: got %+v", r)
	}
	if r := h.run(h.client("alice", "ssh", "no such@127.0.0.1", "id")); r.code == 0 {
		t.Errorf("no target: got %+v", r)
	}
	if log := h.host.LogText(); strings.Contains(log, "mallory") || strings.Contains(log, "Failed") {
		t.Errorf("sshd was reached:\n%s", log)
	}
}

func TestRevokeCuts(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	done := make(chan result, 1)
	cmd := h.client("alice", "ssh", "web-1@127.0.0.1", "echo started; sleep 60")
	go func() { done <- h.run(cmd) }()
	eventually(t, "it started", func() bool { return strings.Contains(h.recorded(access.ToClient), "started") })
	h.gate.Revoke("inc-1", "The incident is over.")
	r := <-done
	if r.code != 1 || !strings.Contains(r.err, "The incident is over.") || !strings.Contains(r.err, "https://forge.test/pull/1") {
		t.Errorf("got %+v", r)
	}
}
