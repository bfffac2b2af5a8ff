package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/lease"
	"github.com/tidegate/tidegate/gateway/record"
)

var keysNoon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func lineCount(t *testing.T, set keySet) int {
	t.Helper()
	lines, err := set.authorizedKeys()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(lines, []byte("\n"))
}

// TestRotationOfACA: the new key is known a day before it signs, the old one a
// day longer, and never is there a moment with neither.
func TestRotationOfACA(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ssh-user-ca.pem")
	if _, err := rotateKey(path, time.Hour, keysNoon); err == nil {
		t.Error("a key that is not there was rotated")
	}
	first, err := signingKey(path)
	if err != nil {
		t.Fatal(err)
	}
	now := keysNoon
	signer := turningSigner{path: path, now: func() time.Time { return now }}
	set, err := rotateKey(path, time.Hour, now)
	if err != nil || set.Next == nil || !set.Signs.Equal(first) || lineCount(t, set) != 2 {
		t.Fatalf("got %+v, %v; want the old key to sign and both to be printed", set, err)
	}
	if _, err := rotateKey(path, time.Hour, now); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("rotated twice: %v", err)
	}
	for _, at := range []struct {
		after time.Duration
		old   bool
		lines int
	}{{59 * time.Minute, true, 2}, {time.Hour, false, 2}, {26 * time.Hour, false, 1}} {
		now = keysNoon.Add(at.after)
		if set, err = readKeySet(path, now); err != nil || set.Signs.Equal(first) != at.old || lineCount(t, set) != at.lines {
			t.Errorf("after %s: got %+v, %v", at.after, set, err)
		}
		wantCertificateOf(t, signer, set.Signs)
	}
	second := set.Signs
	if set, err = rotateKey(path, 0, now); err != nil || set.Signs.Equal(second) || len(set.Old) != 2 || lineCount(t, set) != 1 {
		t.Errorf("at once: got %+v, %v; want a third key, and it alone printed", set, err)
	}
}

func wantCertificateOf(t *testing.T, ca gossh.Signer, key ed25519.PrivateKey) {
	t.Helper()
	cert := &gossh.Certificate{Key: ca.PublicKey(), CertType: gossh.UserCert, ValidBefore: gossh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	want, err := gossh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	check := gossh.CertChecker{IsUserAuthority: func(k gossh.PublicKey) bool { return bytes.Equal(k.Marshal(), want.PublicKey().Marshal()) }}
	if !check.IsUserAuthority(cert.SignatureKey) {
		t.Error("another key signed than the one whose time it is")
	}
	if err := check.CheckCert("", cert); err != nil {
		t.Errorf("the certificate does not verify: %v", err)
	}
}

// TestSignsWithTheKeyThatIsNamed: the key turns between a certificate's body
// and its signature.
func TestSignsWithTheKeyThatIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	if _, err := signingKey(path); err != nil {
		t.Fatal(err)
	}
	signer := turningSigner{path: path, now: time.Now}
	old := signer.PublicKey()
	if _, err := rotateKey(path, 0, time.Now()); err != nil {
		t.Fatal(err)
	}
	data := append([]byte("body of "), old.Marshal()...)
	sig, err := signer.Sign(rand.Reader, data)
	if err != nil || old.Verify(data, sig) != nil {
		t.Errorf("got a signature of another key: %v", err)
	}
}

// recorderWorld is a gateway's recorder with a CA beside it.
type recorderWorld struct {
	keys *recorderKeys
	ca   recordingCA
	now  time.Time
	away bool
	told int
}

func newRecorderWorld(t *testing.T) *recorderWorld {
	w := &recorderWorld{now: keysNoon}
	clock := func() time.Time { return w.now }
	w.ca = recordingCA{dir: t.TempDir(), installation: "acme01", now: clock, told: func(context.Context, string, string, time.Time) error { w.told++; return nil }}
	w.keys = &recorderKeys{dir: t.TempDir(), now: clock, log: slog.New(slog.DiscardHandler), certify: func(ctx context.Context, key ed25519.PublicKey) (lease.Certified, error) {
		if w.away {
			return lease.Certified{}, errors.New("away")
		}
		return w.ca.certify(ctx, "gw-1", key)
	}}
	return w
}

// record makes a sealed recording and answers with its path.
func (w *recorderWorld) record(t *testing.T, dir, id string) string {
	t.Helper()
	store, err := record.Open(record.Config{Dir: dir, Signers: w.keys.signers, MinFree: 1, Now: w.keys.now})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rec, err := store.Record(access.SessionInfo{ID: id, Started: w.now}, func(access.Head) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.Append(access.Event{Type: access.EventNotice, Time: w.now, Text: "x"}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := rec.Seal("done"); err != nil {
		t.Fatal(err)
	}
	path, err := record.Find(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRecordersKeysComeAndGo: whatever is rotated, each recording verifies by
// the file of public keys, and by nobody else's.
func TestRecordersKeysComeAndGo(t *testing.T) {
	w, dir := newRecorderWorld(t), t.TempDir()
	var paths []string
	one := func(id string) { paths = append(paths, w.record(t, dir, id)) }
	one("first")
	w.now = w.now.Add(recorderCertLasts / 3)
	one("same-certificate")
	if w.told != 1 {
		t.Errorf("%d certificates, want one", w.told)
	}
	if _, err := rotateKey(filepath.Join(w.keys.dir, recorderFile), 0, w.now); err != nil {
		t.Fatal(err)
	}
	one("another-recorder")
	if _, err := rotateKey(filepath.Join(w.ca.dir, recordingCAFile), 0, w.now); err != nil {
		t.Fatal(err)
	}
	one("old-ca")
	w.now = w.now.Add(recorderCertLasts/2 + time.Hour)
	w.away = true
	one("half-over-and-control-away")
	if w.told != 2 {
		t.Errorf("%d certificates, want two", w.told)
	}
	w.now, w.away = w.now.Add(2*certifyAgain), false
	one("another-ca")
	w.now, w.away = w.now.Add(2*recorderCertLasts), true
	if _, err := w.keys.signers(); err == nil {
		t.Error("a session would begin under a certificate that is over")
	}
	keys, err := trustedKeys(w.keys.dir)()
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys are trusted, %v; want the two CAs alone", len(keys), err)
	}
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := record.Verify(bytes.NewReader(file), keys, nil)
		if err != nil || !r.Sealed || r.Gateway != "gw-1" || r.Installation != "acme01" {
			t.Errorf("%s: %+v, %v", path, r, err)
		}
	}
}

// TestACrashBetweenTwoRecorders: what the old key began, it ends.
func TestACrashBetweenTwoRecorders(t *testing.T) {
	w, dir := newRecorderWorld(t), t.TempDir()
	store, err := record.Open(record.Config{Dir: dir, Signers: w.keys.signers, MinFree: 1, Now: w.keys.now})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := store.Record(access.SessionInfo{ID: "s1", Started: w.now}, func(access.Head) {})
	if err == nil {
		err = rec.Append(access.Event{Type: access.EventNotice, Time: w.now, Text: "x"}, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "open", "s1.tgr")) // as a crash leaves it
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := rotateKey(filepath.Join(w.keys.dir, recorderFile), 0, w.now); err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	if err := os.MkdirAll(filepath.Join(again, "open"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(again, "open", "s1.tgr"), string(file), 0o600)
	w.record(t, again, "s2")
	path, err := record.Find(again, "s1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trustedKeys(w.keys.dir)()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := record.Verify(bytes.NewReader(sealed), keys, nil); err != nil || !r.Sealed || r.Events != 2 {
		t.Errorf("got %+v, %v; want it sealed with its end", r, err)
	}
}

// TestKeysVerb lists, prints and rotates in a state folder.
func TestKeysVerb(t *testing.T) {
	dir := t.TempDir()
	if _, err := openOwnKeys(filepath.Join(dir, keysDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := openUserCA(filepath.Join(dir, keysDir)); err != nil {
		t.Fatal(err)
	}
	ask := func(code int, args ...string) said {
		s := cli(t, "", append([]string{"keys", "--dir", dir}, args...)...)
		if s.code != code {
			t.Errorf("keys %q: exit code %d, want %d\n%s%s", args, s.code, code, s.out, s.err)
		}
		return s
	}
	if s := ask(exitOK); !strings.Contains(s.out, "user-ca") || !strings.Contains(s.out, "recording-ca") || strings.Contains(s.out, "host-ca") {
		t.Errorf("list: %s", s.out)
	}
	before := ask(exitOK, "print", "user-ca").out
	next := lines[keyRow](t, ask(exitOK, "rotate", "user-ca", "--json").out)
	if len(next) != 1 || next[0].State != "next" || next[0].From.IsZero() || !strings.Contains(ask(exitOK).out, next[0].ID) {
		t.Errorf("rotate: %+v; want the next one's id and when it signs", next)
	}
	var all map[string][]string
	if err := json.Unmarshal([]byte(ask(exitOK, "print", "--json").out), &all); err != nil {
		t.Fatal(err)
	}
	if len(all["user-ca"]) != 2 || all["user-ca"][0]+"\n" != before || !strings.HasPrefix(all["recording-ca"][0], "-----BEGIN PUBLIC KEY") {
		t.Errorf("print: %v; want the old user CA, then the next", all)
	}
	file, err := os.ReadFile(filepath.Join(dir, keysDir, userCAFile))
	if err != nil || strings.TrimSpace(string(file)) != strings.Join(all["user-ca"], "\n") {
		t.Errorf("%s holds %s, %v; want both", userCAFile, file, err)
	}
	ask(exitFailed, "rotate", "user-ca")
	ask(exitFailed, "rotate", "host-ca")
	ask(exitFailed, "rotate", "tls")
	ask(exitUsage, "rotate")
	ask(exitUsage, "rotate", "recording-ca", "--lead", "soon")
	ask(exitUsage, "rotate", "recording-ca", "--lead", "1h")
	row := lines[keyRow](t, ask(exitOK, "rotate", "recording-ca", "--json").out)
	if len(row) != 1 || row[0].State != "signs" || !strings.Contains(ask(exitOK).out, row[0].ID) {
		t.Errorf("rotate: %+v", row)
	}
	ask(exitOK, "rotate", "recording-ca")
	if keys, err := trustedKeys(filepath.Join(dir, keysDir))(); err != nil || len(keys) != 3 {
		t.Errorf("%d recording CAs are trusted, %v; want old and new", len(keys), err)
	}
	for _, s := range []said{ask(exitOK), ask(exitOK, "print")} {
		if strings.Contains(s.out+s.err, "PRIVATE") {
			t.Error("a private key was printed")
		}
	}
}

// TestKeysVerbRefuses what would leave a service without its keys, and says
// where it looked.
func TestKeysVerbRefuses(t *testing.T) {
	dir := t.TempDir()
	if s := cli(t, "", "keys", "--dir", dir); s.code != exitFailed || !strings.Contains(s.err, "there are none in "+filepath.Join(dir, keysDir)) {
		t.Errorf("no keys: exit code %d\n%s%s", s.code, s.out, s.err)
	}
	keys := filepath.Join(dir, keysDir)
	if _, err := openOwnKeys(keys); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	if err := os.Chown(keys, 4711, -1); err != nil {
		t.Fatal(err)
	}
	if s := cli(t, "", "keys", "rotate", "recording-ca", "--dir", dir); s.code != exitFailed || !strings.Contains(s.err, "is of user 4711") {
		t.Errorf("another user's: exit code %d\n%s%s", s.code, s.out, s.err)
	}
}
