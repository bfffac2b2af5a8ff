package postgres

import (
	"strings"
	"testing"
)

// Of a statement that does not parse nobody knows which of its words is the
// password.
func TestPasswordsWithoutQuotesAreNotRecorded(t *testing.T) {
	r := newRig(t, Config{})
	for mode, exec := range protocols {
		c := r.connect()
		for _, sql := range []string{
			"alter role x password zq7secret", "alter role x with encrypted PassWord zq7secret valid until 'x'", `create user x passwd "zq7secret"`,
			"password is zq7secret", "zq7secret is the password", "connect postgres://me:zq7secret@host/db",
			"set app.password = zq7secret", "set app.password to zq7secret, 'zq7secret'", "set local app.password = 'zq7secret'",
		} {
			if _, err := exec(t.Context(), c, sql); err == nil {
				t.Errorf("%s: %s ran", mode, sql)
			}
		}
		s := r.door.last()
		s.mu.Lock()
		for _, o := range s.opens {
			if strings.Contains(o.op.Text, "zq7secret") || strings.Contains(o.op.Guard.Say, "zq7secret") {
				t.Errorf("%s: recorded: %s (%s)", mode, o.op.Text, o.op.Guard.Say)
			}
		}
		if len(s.opens) != 9 {
			t.Errorf("%s: %d refusals were recorded, want 9", mode, len(s.opens))
		}
		s.mu.Unlock()
		if _, err := exec(t.Context(), c, "selct 'shown'"); err == nil {
			t.Error("it ran")
		}
		if s.find("selct 'shown'") == nil {
			t.Errorf("%s: a text without a password is not recorded as it is", mode)
		}
	}
}
