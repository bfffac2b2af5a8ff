package postgres

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

func serverError(fields ...string) []byte {
	var body []byte
	for _, f := range fields {
		body = append(append(body, f...), 0)
	}
	return message('E', append(body, 0))
}

// An error about a row of a masked table keeps everything but the row.
func TestWithoutValues(t *testing.T) {
	masked := backing.Backing{Masked: []backing.MaskedTable{{Schema: "public", Table: "users", MaskSchema: "m"}}}
	row := "DFailing row contains (null, ann, ann@acme.test)."
	for _, c := range []struct {
		name   string
		msg    []byte
		plan   backing.Backing
		hidden bool
	}{
		{"of the table", serverError("SERROR", "C23502", "Mnull value", row, "spublic", "tusers"), masked, true},
		{"of the view", serverError("SERROR", "C23514", "Mcheck", row, "sm", "tusers"), masked, true},
		{"of the view's check", serverError("SERROR", "C44000", "Mcheck", row), masked, true},
		{"of no table", serverError("SERROR", "C23000", "Mcheck", row), masked, true},
		{"of another table", serverError("SERROR", "C23505", "Mtwice", row, "spublic", "torders"), masked, false},
		{"of another schema's", serverError("SERROR", "C23505", "Mtwice", row, "ssales", "tusers"), masked, false},
		{"of a row that is referred to", serverError("SERROR", "C23503", `Mupdate or delete on table "users" violates foreign key constraint "k" on table "members"`, row, "spublic", "tmembers"), masked, true},
		{"of a foreign key to another table", serverError("SERROR", "C23503", `Mupdate or delete on table "orders" violates foreign key constraint "k" on table "members"`, row, "spublic", "tmembers"), masked, false},
		{"of something else", serverError("SERROR", "C42601", "Msyntax", row), masked, false},
		{"without masks", serverError("SERROR", "C23502", "Mnull value", row, "spublic", "tusers"), backing.Backing{}, false},
	} {
		got := string(withoutValues(c.msg, c.plan))
		if hidden := !strings.Contains(got, "acme.test"); hidden != c.hidden {
			t.Errorf("%s: hidden: %t, want %t", c.name, hidden, c.hidden)
		}
		if f := allFields([]byte(got)[headSize:]); f.value('S') != "ERROR" || f.value('M') == "" || f.value('D') == "" {
			t.Errorf("%s: lost a field: %q", c.name, got)
		}
	}
}

func FuzzWithoutValues(f *testing.F) {
	f.Add(serverError("SERROR", "C23502", "Mx", "Drow", "spublic", "tusers")[headSize:])
	f.Add([]byte("S\x00C23\x00D\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		got := withoutValues(message('E', body), backing.Backing{Masked: []backing.MaskedTable{{Schema: "public", Table: "users", MaskSchema: "m"}}})
		fields := allFields(got[headSize:])
		if code := fields.value('C'); strings.HasPrefix(code, "23") && fields.value('t') == "" && fields.value('D') != "" && fields.value('D') != withheld {
			t.Errorf("%q keeps its detail", got)
		}
		if frame, size, ok, err := takeAnswer(got); !ok || err != nil || size != len(got) || frame != 'E' {
			t.Errorf("%q is no message", got)
		}
	})
}

// takeAnswer reads one message of a server whole.
func takeAnswer(p []byte) (kind byte, size int, ok bool, err error) {
	if len(p) < headSize {
		return 0, 0, false, nil
	}
	f, size, ok, err := takeFrame(append([]byte{'Q'}, p[1:]...))
	_ = f
	return p[0], size, ok, err
}
