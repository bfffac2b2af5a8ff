package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/lease"
	"github.com/tidegate/tidegate/gateway/record"
)

var keysNoon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

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

// TestSessionsDoNotQueueForACertificate: a gateway whose recorder has no
// certificate, before a control side that does not answer. Sessions that come
// together are refused together, with a sentence.
func TestSessionsDoNotQueueForACertificate(t *testing.T) {
	w := newRecorderWorld(t)
	asked := 0 // under the lock of the keys
	w.keys.now = time.Now
	w.keys.certify = func(ctx context.Context, _ ed25519.PublicKey) (lease.Certified, error) {
		asked++
		<-ctx.Done()
		return lease.Certified{}, ctx.Err()
	}
	store, err := record.Open(record.Config{Dir: t.TempDir(), Signers: w.keys.signers, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	gate := gatewaytest.New(t, gatewaytest.Options{Recorders: recorders{store}})
	var all sync.WaitGroup
	began := time.Now()
	for range 20 {
		all.Go(func() {
			_, err := gate.Server.Door().Open(context.Background(), gate.Knock("alice"))
			if access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.Message(err), "cannot be recorded") {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > 2*certifyWait {
		t.Errorf("the last was told after %s; want all within %s", took, certifyWait)
	}
	if asked != 1 {
		t.Errorf("the control side was asked %d times, want once", asked)
	}
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
	if _, err := rotateKey(w.keys.dir, keyKindOf(recorderKey), rotation{}, w.now); err != nil {
		t.Fatal(err)
	}
	one("another-recorder")
	if _, err := rotateKey(w.ca.dir, keyKindOf(recordingCAKey), rotation{}, w.now); err != nil {
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

// TestACertificateOfAnotherTime: under one that is not good yet, or no longer,
// no session opens, for its recording would never verify.
func TestACertificateOfAnotherTime(t *testing.T) {
	for _, apart := range []time.Duration{5 * time.Minute, -recorderCertLasts} {
		w := newRecorderWorld(t)
		w.ca.now = func() time.Time { return w.now.Add(apart) }
		if _, err := w.keys.signers(); access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.Message(err), "clock and this one are apart") {
			t.Errorf("%s apart: got %v", apart, err)
		}
		w.ca.now, w.now = w.keys.now, w.now.Add(2*certifyPause)
		if _, err := w.keys.signers(); err != nil {
			t.Errorf("after the clock was set: %v", err)
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
	if _, err := rotateKey(w.keys.dir, keyKindOf(recorderKey), rotation{}, w.now); err != nil {
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
	if _, err := openUserCA(filepath.Join(dir, keysDir), time.Now, slog.New(slog.DiscardHandler)); err != nil {
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
	list := map[string]keyRow{}
	for _, r := range lines[keyRow](t, ask(exitOK, "--json").out) {
		list[r.Name+" "+r.State] = r
	}
	for name, file := range map[string]string{
		"user-ca signs": "ssh-user-ca.pem", "user-ca next": "ssh-user-ca.next.pem", "recording-ca old": "recording-ca.old.pem", "control fixed": "control.pem",
	} {
		if r := list[name]; r.File != file || r.Made.IsZero() || r.About == "" {
			t.Errorf("%s: got %+v, want %s with its age and what it is for", name, r, file)
		}
	}
	if s := ask(exitFailed, "rotate", "control"); !strings.Contains(s.err, "every grant that there is stands on it") {
		t.Errorf("rotate control: %s", s.err)
	}
	ask(exitUsage, "rotate", "recorder", "--compromised")
	ask(exitUsage, "rotate", "user-ca", "--compromised", "--lead", "1h")
	if s := ask(exitOK, "rotate", "user-ca", "--compromised"); !strings.Contains(s.err, oldRefused) {
		t.Errorf("compromised: %s", s.err)
	}
	if s := ask(exitOK, "print", "user-ca"); strings.Count(s.out, "\n") != 1 || s.out == before {
		t.Errorf("after a compromise: %q; want a new key alone", s.out)
	}
	if _, err := rotateKey(filepath.Join(dir, keysDir), keyKindOf(loginCAKey), rotation{}, keysNoon); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rotated what is not there: %v", err)
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
