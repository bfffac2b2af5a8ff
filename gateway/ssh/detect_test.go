package ssh

import (
	"io"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// canaries must reach neither a client nor a recording.
var canaries = []string{"alice.canary@acme.test", "AKIAQ3EGRZPFWNDXKTYM", "hunter2canary", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"}

const canaryText = "mail alice.canary@acme.test now\n" +
	"aws_access_key_id = AKIAQ3EGRZPFWNDXKTYM\n" +
	"colour \x1b[1malice.\x1b[0;31mcanary@ac\x1b[0mme.test\n" +
	"url postgres://app:hunter2canary@db/orders\n" +
	"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\nAbCd==\n-----END PRIVATE KEY-----\nthe end\n"

// detecting is a house whose grant masks what it detects. Nothing withheld is
// released by the clock: a test's machine may be slow.
func detecting(t *testing.T, o houseOptions) *house {
	t.Helper()
	if o.config.Quiet == 0 {
		o.config.Quiet = time.Hour
	}
	o.gate.Masks = []access.Mask{{Name: "found", Detect: []string{"email", "secrets"}}}
	return newHouse(t, o)
}

func wantNoCanary(t *testing.T, where, text string) {
	t.Helper()
	for _, c := range canaries {
		if strings.Contains(uncoloured.Replace(text), c) {
			t.Errorf("%s: %q is in %q", where, c, text)
		}
	}
}

var uncoloured = strings.NewReplacer("\x1b[1m", "", "\x1b[0;31m", "", "\x1b[0m", "")

// TestDetectedValuesAreMasked: in what commands and shells write, byte by
// byte, on both streams, and in what is recorded of them.
func TestDetectedValuesAreMasked(t *testing.T) {
	h := detecting(t, houseOptions{role: map[string]string{"exec": "true", "shell": "true"}})
	file := h.write("canaries", canaryText)
	bytewise := "dd bs=1 status=none if=" + file
	for name, got := range map[string]result{
		"exec":           h.ssh(bytewise + "; echo password=hunter2canary"),
		"on stderr":      h.ssh(bytewise + " >&2"),
		"on a terminal":  h.run(h.client("alice", "ssh", "-tt", "web-1@127.0.0.1", bytewise)),
		"a shell's pipe": h.run(input(h.client("alice", "ssh", "-T", "web-1@127.0.0.1"), bytewise+"\n")),
		"all at once":    h.ssh("cat " + file),
	} {
		wantNoCanary(t, name, got.out+got.err)
		text := strings.ReplaceAll(got.out+got.err, "\r", "")
		if !strings.Contains(text, "mail ********************** now\n") || !strings.Contains(text, "the end\n") || got.code != 0 {
			t.Errorf("%s: got %q, %q, exit %d", name, got.out, got.err, got.code)
		}
	}
	wantNoCanary(t, "recorded output", h.recorded(access.ToClient))
	wantNoCanary(t, "recorded events", h.events())
	if !strings.Contains(h.events(), "echo password=[withheld: 13 bytes, ") {
		t.Errorf("the command as it is recorded: %s", h.events())
	}
}

// TestPromptComesWithoutALineEnd: what may be the beginning of a value is not
// withheld for ever.
func TestPromptComesWithoutALineEnd(t *testing.T) {
	h := detecting(t, houseOptions{role: map[string]string{"exec": "true", "terminal": "true"}, record: "input", config: Config{Quiet: 50 * time.Millisecond}})
	s, err := h.mustDial().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := s.StdoutPipe()
	in, _ := s.StdinPipe()
	if err := s.RequestPty("xterm", 24, 80, gossh.TerminalModes{gossh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("printf name@host; read x; echo got $x"); err != nil {
		t.Fatal(err)
	}
	prompt := make([]byte, len("name@host"))
	if _, err := io.ReadFull(out, prompt); err != nil || string(prompt) != "name@host" {
		t.Fatalf("got %q, %v", prompt, err)
	}
	if _, err := io.WriteString(in, "password=hunter2canary\n"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if got := string(rest); err != nil || strings.TrimSpace(got) != "got password=*************" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	typed := h.recorded(access.ToTarget)
	if wantNoCanary(t, "recorded input", typed); typed != "password=*************\n" {
		t.Errorf("recorded input: %q", typed)
	}
}
