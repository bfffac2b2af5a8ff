package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestDoctorReadsKeys: what a running part can't read any more is a failure,
// and so is what others can.
func TestDoctorReadsKeys(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, keysDir)
	if _, err := openOwnKeys(keys); err != nil {
		t.Fatal(err)
	}
	if err := keyKindOf(recorderKey).ensure(keys, keysNoon); err != nil {
		t.Fatal(err)
	}
	if _, err := openUserCA(keys, time.Now, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	p := &patient{installation: installation{Dir: dir}, parts: parts{Control: true, Gateway: true}}
	looks := func(failures int, want string) {
		t.Helper()
		n, all := 0, ""
		for _, f := range p.keys(t.Context()) {
			all += f.Say + "\n"
			if f.Level == access.LevelFail {
				n++
			}
		}
		if n != failures || !strings.Contains(all, want) {
			t.Errorf("%d failures, want %d and %q in\n%s", n, failures, want, all)
		}
	}
	looks(0, "holds every key")
	p.ssh = true
	looks(len(gatewaySSHKeys), "ssh-host-ca.pem: no such file")
	p.ssh = false
	path := filepath.Join(keys, "ssh-user-ca.pem")
	good := string(contents(t, path))
	put(t, path, "no key", 0o600)
	looks(1, "no PEM in it")
	if s := cli(t, "", "keys", "--dir", dir); s.code != exitFailed || !strings.Contains(s.err, "no PEM in it") || !strings.Contains(s.out, "recording-ca") {
		t.Errorf("list: exit code %d\n%s%s; want the other keys all the same", s.code, s.out, s.err)
	}
	put(t, path, good, 0o600)
	put(t, besideKey(path, nextSuffix), good, 0o600)
	looks(1, "want one private key, and Signs-From in its head")
	if err := os.Remove(besideKey(path, nextSuffix)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	looks(1, "others may use it")
	p.ssh = true
	looks(1+len(gatewaySSHKeys), "others may use it")

	apart := t.TempDir() // a gateway that had no session yet
	if err := os.Mkdir(filepath.Join(apart, keysDir), 0o700); err != nil {
		t.Fatal(err)
	}
	p = &patient{installation: installation{Dir: apart}, parts: parts{Gateway: true}}
	looks(0, "holds every key")
}

// TestDoctorCertificates: of a chain the first end counts, of several CAs the
// last.
func TestDoctorCertificates(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, years ...int) string {
		text := ""
		for _, n := range years {
			key, err := newCAKey()
			if err != nil {
				t.Fatal(err)
			}
			cert, err := selfSigned(key, "one", time.Now().AddDate(n-10, 0, 20)) // each lasts for ten years
			if err != nil {
				t.Fatal(err)
			}
			text += pemText("CERTIFICATE", cert.Raw)
		}
		return put(t, filepath.Join(dir, name), text, 0o600)
	}
	cas, chain, soon := file("cas", -1, 2), file("chain", -1, 2), file("soon", 0, 2)
	p := &patient{installation: installation{Dir: dir}, files: []certFile{{path: cas}, {path: chain, shown: true}, {path: soon, shown: true}, {path: cas}}}
	said := map[access.Level]string{}
	for _, f := range p.certificates(t.Context()) {
		said[f.Level] += f.Say + "\n"
	}
	for level, want := range map[access.Level]string{
		access.LevelOK: "the last CA in " + cas + " is good until ", access.LevelFail: chain + " ended on ", access.LevelWarn: soon + " ends on ",
	} {
		if !strings.HasPrefix(said[level], want) || strings.Count(said[level], "\n") != 1 {
			t.Errorf("%s: got %q, want %q", level, said[level], want)
		}
	}
	if !strings.Contains(said[access.LevelWarn], "days)") {
		t.Errorf("want how many days are left, got %q", said[access.LevelWarn])
	}
}
