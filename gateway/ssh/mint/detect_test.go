package mint

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestDetectAndFiles: where values are to be masked in flight, no right moves
// files past the masking.
func TestDetectAndFiles(t *testing.T) {
	m, err := New(Config{Installation: "test1", CA: fixed(signer(t))})
	if err != nil {
		t.Fatal(err)
	}
	found := []access.Mask{{Name: "found", Detect: []string{"secrets"}}}
	for _, c := range []struct {
		name, refusal string
		role          access.Role
		masks         []access.Mask
	}{
		{"a shell", "", access.Role{Settings: map[string]string{"accounts": "a", "shell": "true"}}, found},
		{"rsync", "transfers (git, rsync)", access.Role{Settings: map[string]string{"accounts": "a", "transfers": "git\nrsync"}}, found},
		{"sftp", "sftp", access.Role{Read: []string{"/srv"}, Settings: map[string]string{"accounts": "a"}}, found},
		{"a subsystem", "subsystems", access.Role{Settings: map[string]string{"accounts": "a", "subsystems": "netconf"}}, found},
		{"columns", "in databases only", access.Role{Settings: map[string]string{"accounts": "a", "shell": "true"}}, []access.Mask{{Name: "x", Columns: []string{"*.email"}}}},
	} {
		plan := grant(t, m, time.Now(), c.role).Plan
		plan.Masks = c.masks
		_, err := m.Expand(context.Background(), plan)
		if (err == nil) != (c.refusal == "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("%s: got %v, want a refusal with %q", c.name, err, c.refusal)
		}
	}
}

func TestNarrowedByDetect(t *testing.T) {
	m, err := New(Config{Installation: "test1", CA: fixed(signer(t))})
	if err != nil {
		t.Fatal(err)
	}
	shell := access.Role{Name: "r", Settings: map[string]string{"accounts": "a", "shell": "true"}}
	approved := grant(t, m, time.Now(), shell).Plan
	today := approved
	today.Masks = []access.Mask{{Name: "found", Detect: []string{"secrets"}}}
	got, err := m.Narrow(context.Background(), approved, today)
	if err != nil || len(got.Masks) != 1 || string(got.Expansion.Body) != string(approved.Expansion.Body) {
		t.Errorf("got %+v, %v, want the plan with one mask more", got, err)
	}
	today.Masks[0].Detect = []string{"token"}
	if again, err := m.Narrow(context.Background(), got, today); err != nil || again.Digest() != got.Digest() {
		t.Errorf("a mask that detects less: got %+v, %v, want no change", again.Masks, err)
	}
	today.Role.Settings = map[string]string{"accounts": "a", "exec": "true"}
	if _, err := m.Narrow(context.Background(), approved, today); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("another role: got %v, want a refusal", err)
	}
}
