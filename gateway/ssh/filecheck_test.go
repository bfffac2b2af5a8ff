package ssh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// TestExchangedBetweenLookUpAndUse: mallory, with another way onto the host,
// puts a link in the place of what was judged, just before it is used.
func TestExchangedBetweenLookUpAndUse(t *testing.T) {
	t.Run("the kernel proves it", func(t *testing.T) { exchangedBetween(t, "internal-sftp") })
	t.Run("it looks the same", func(t *testing.T) { exchangedBetween(t, "internal-sftp -P readlink") })
}

func exchangedBetween(t *testing.T, server string) {
	f := newFolders(t)
	if err := os.Mkdir(f.write+"/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	f.put(t, "write/sub/key", "harmless\n")
	exchange := ""
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, sshd: []string{"Subsystem sftp " + server}, read: []string{f.write}, write: []string{f.write}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if op.Kind == kindFile && exchange != "" && strings.HasPrefix(op.Text, exchange) {
				f.exchange(t)
				exchange = ""
			}
			return access.Decision{Verdict: access.Allow}
		},
	}})
	mine, local := f.put(t, "mine", "overwritten\n"), t.TempDir()
	for _, c := range []struct{ name, on, command string }{
		{"read", "read ", "get " + f.write + "/sub/key " + local + "/key"},
		{"write", "write ", "put " + mine + " " + f.write + "/sub/key"},
		{"list", "list ", "ls " + f.write + "/sub"},
	} {
		t.Run(c.name, func(t *testing.T) {
			exchange = c.on
			r := h.sftp(c.command)
			if exchange != "" {
				t.Fatalf("nothing was exchanged: %+v", r)
			}
			f.back(t)
			if r.code == 0 || !strings.Contains(r.err, "changed while it was opened") {
				t.Errorf("got %+v", r)
			}
			if text, _ := os.ReadFile(local + "/key"); strings.Contains(string(text), "secret") {
				t.Errorf("it came out: %q", text)
			}
			f.unharmed(t)
			if r := h.sftp(c.command); r.code != 0 {
				t.Errorf("without an exchange: %+v", r)
			}
		})
	}
	t.Run("length", func(t *testing.T) {
		r := h.rawSFTP(t)
		exchange = "setstat "
		p := r.ask(r.message(fxSetstat).text(f.write + "/sub/key").uint32(attrSize).uint32(0).uint32(3))
		f.back(t)
		if code := statusCode(p); code != fxDenied {
			t.Errorf("got packet %d, code %d", p.kind, code)
		}
		f.unharmed(t)
		if code := statusCode(r.ask(r.message(fxSetstat).text(f.write + "/sub/key").uint32(attrSize).uint32(0).uint32(3))); code != fxOK {
			t.Errorf("without an exchange: code %d", code)
		}
		if text, err := os.ReadFile(f.write + "/sub/key"); err != nil || len(text) != 3 {
			t.Errorf("it is %q, %v; want 3 bytes", text, err)
		}
	})
}

func statusCode(p packet) uint32 {
	f := fields{rest: p.body}
	f.uint32() // the id
	return f.uint32()
}

// exchange puts a link to the secret folder in the place of write/sub.
func (f folders) exchange(t *testing.T) {
	if err := os.Rename(f.write+"/sub", f.root+"/aside"); err != nil {
		t.Error(err)
	}
	if err := os.Symlink(f.secret, f.write+"/sub"); err != nil {
		t.Error(err)
	}
}

func (f folders) back(t *testing.T) {
	t.Helper()
	if err := os.Remove(f.write + "/sub"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.root+"/aside", f.write+"/sub"); err != nil {
		t.Fatal(err)
	}
}

func (f folders) unharmed(t *testing.T) {
	t.Helper()
	if text, err := os.ReadFile(filepath.Join(f.secret, "key")); string(text) != "the secret\n" {
		t.Errorf("the secret is %q, %v", text, err)
	}
}

// TestLinkExchangedForMode: a mode is not set through a link that came to the
// place of a file.
func TestLinkExchangedForMode(t *testing.T) {
	f := newFolders(t)
	file := f.put(t, "write/file", "mine\n")
	h := newHouse(t, houseOptions{write: []string{f.write}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if strings.HasPrefix(op.Text, "setstat ") {
				if err := os.Remove(file); err == nil {
					err = os.Symlink(f.secret+"/key", file)
					if err != nil {
						t.Error(err)
					}
				}
			}
			return access.Decision{Verdict: access.Allow}
		},
	}})
	h.sftp("chmod 666 " + file)
	if info, err := os.Stat(f.secret + "/key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret's mode is %v, %v", info.Mode(), err)
	}
}

// TestConfirmComparesWhatIsOpen: a path that leads right again proves nothing
// when what was opened looks otherwise.
func TestConfirmComparesWhatIsOpen(t *testing.T) {
	same := attributes{flag: attrSize | attrOwner | attrMode, size: 5, user: 1, mode: 0o100600}
	encode := func(a attributes) packet {
		m := newMessage(fxAttrs, 1).uint32(a.flag).uint32(0).uint32(uint32(a.size)).uint32(a.user).uint32(a.group).uint32(a.mode)
		return packet{fxAttrs, m[5:]}
	}
	if got, ok := attributesOf(encode(same)); !ok || got != same {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, other := range []func(*attributes){
		func(a *attributes) { a.size++ }, func(a *attributes) { a.user++ }, func(a *attributes) { a.group++ }, func(a *attributes) { a.mode++ },
	} {
		a := same
		other(&a)
		if got, ok := attributesOf(encode(a)); !ok || got == same {
			t.Errorf("%+v looks like %+v", got, same)
		}
	}
	if _, ok := attributesOf(packet{fxAttrs, newMessage(fxAttrs, 1).uint32(0)[5:]}); ok {
		t.Error("attributes without a mode prove something")
	}
}
