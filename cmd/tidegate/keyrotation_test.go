package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keysWorld is a folder of keys with a clock.
type keysWorld struct {
	dir  string
	now  time.Time
	log  bytes.Buffer
	live *liveKeys
}

func newKeysWorld(t *testing.T, names ...string) *keysWorld {
	t.Helper()
	w := &keysWorld{dir: t.TempDir(), now: keysNoon}
	var err error
	w.live, err = openLiveKeys(w.dir, func() time.Time { return w.now }, slog.New(slog.NewTextHandler(&w.log, nil)), names...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// rotate does what the verb does.
func (w *keysWorld) rotate(t *testing.T, name string, r rotation) keyView {
	t.Helper()
	v, err := rotateKey(w.dir, keyKindOf(name), r, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// printed are the public halves in the file for others.
func (w *keysWorld) printed(t *testing.T, name string) int {
	t.Helper()
	text := contents(t, filepath.Join(w.dir, keyKindOf(name).public))
	return bytes.Count(text, []byte("ssh-ed25519 ")) + bytes.Count(text, []byte("BEGIN CERTIFICATE"))
}

// TestRotationOfACA: the new key is known a day before it signs, the old one a
// day longer, and never is there a moment with neither. The running part and
// its files take it up by themselves.
func TestRotationOfACA(t *testing.T) {
	for _, name := range []string{userCAKey, tlsCAKey} {
		t.Run(name, func(t *testing.T) {
			w := newKeysWorld(t, name)
			first := w.live.at(name).Signs
			next := w.rotate(t, name, rotation{lead: time.Hour}).Next
			if next == nil {
				t.Fatal("there is no next key")
			}
			if _, err := rotateKey(w.dir, keyKindOf(name), rotation{lead: time.Hour}, w.now); err == nil || !strings.Contains(err.Error(), "under way") {
				t.Errorf("rotated twice: %v", err)
			}
			for _, at := range []struct {
				after   time.Duration
				old     bool
				printed int
			}{{0, true, 2}, {59 * time.Minute, true, 2}, {time.Hour, false, 2}, {24 * time.Hour, false, 2}, {25 * time.Hour, false, 1}} {
				w.now = keysNoon.Add(at.after)
				before := w.live.at(name) // the time alone turns it
				w.live.look()
				for _, v := range []keyView{before, w.live.at(name)} {
					if at.after > 0 && v.Signs.is(first) != at.old || !at.old && !v.Signs.is(*next) {
						t.Errorf("after %s another key signs than the one whose time it is", at.after)
					}
				}
				if n := w.printed(t, name); n != at.printed {
					t.Errorf("after %s: %d public halves, want %d", at.after, n, at.printed)
				}
			}
			if isFile(besideKey(filepath.Join(w.dir, keyKindOf(name).file), nextSuffix)) || isFile(besideKey(filepath.Join(w.dir, keyKindOf(name).file), oldSuffix)) {
				t.Error("files of a rotation that is over are still there")
			}
			if n := strings.Count(w.log.String(), "another key signs now"); n != 1 {
				t.Errorf("told %d times, want once:\n%s", n, w.log.String())
			}
		})
	}
}

// TestOldHalves: of a CA that signs no more only the public half is kept; a
// second rotation leaves the first one's overlap as it is; a compromised key is
// gone at once, with the next one that lay beside it.
func TestOldHalves(t *testing.T) {
	w := newKeysWorld(t, userCAKey)
	w.rotate(t, userCAKey, rotation{})
	w.now = w.now.Add(time.Hour)
	v := w.rotate(t, userCAKey, rotation{})
	if len(v.trusted()) != 3 || !v.Old[1].Until.Equal(keysNoon.Add(usualOverlap)) || !v.Old[0].Until.Equal(w.now.Add(usualOverlap)) {
		t.Errorf("after two rotations: %+v; want both old ones, each with its own end", v.Old)
	}
	if old := string(contents(t, filepath.Join(w.dir, "ssh-user-ca.old.pem"))); strings.Contains(old, "PRIVATE") || strings.Count(old, "PUBLIC KEY") != 4 {
		t.Errorf("want two public halves alone, got\n%s", old)
	}
	w.now = keysNoon.Add(usualOverlap)
	w.live.look()
	if n := w.printed(t, userCAKey); n != 2 {
		t.Errorf("the first one's time is over: %d are printed, want 2", n)
	}
	w.rotate(t, userCAKey, rotation{lead: time.Hour})
	v = w.rotate(t, userCAKey, rotation{lead: time.Hour, compromised: true})
	if len(v.trusted()) != 1 || v.Next != nil {
		t.Errorf("after a compromise: %+v; want the new one alone", v)
	}
	w.live.look()
	if w.printed(t, userCAKey) != 1 || !w.live.at(userCAKey).Signs.is(v.Signs) {
		t.Error("the running part does not use the new one alone")
	}
}

// TestKilledInARotation: whatever step was the last, the same key signs.
func TestKilledInARotation(t *testing.T) {
	for _, name := range []string{userCAKey, clientCAKey} {
		w := newKeysWorld(t, name)
		path := filepath.Join(w.dir, keyKindOf(name).file)
		first := w.live.at(name).Signs
		next := w.rotate(t, name, rotation{lead: time.Hour}).Next
		w.now = keysNoon.Add(2 * time.Hour)
		set, err := readKeySet(w.dir, keyKindOf(name))
		if err != nil {
			t.Fatal(err)
		}
		view := set.at(w.now)
		for step, do := range []func() error{
			func() error { return nil },
			func() error { return view.writeOld(path) },
			func() error { s := view.Signs; s.From = time.Time{}; return writeHalf(path, s) },
			func() error { return removeNext(path) },
		} {
			if err := do(); err != nil {
				t.Fatal(err)
			}
			set, err := readKeySet(w.dir, keyKindOf(name))
			if err != nil {
				t.Fatalf("%s, step %d: %v", name, step, err)
			}
			if v := set.at(w.now); !v.Signs.is(*next) || v.Next != nil || len(v.Old) != 1 || !v.Old[0].is(first) || !v.trusts(v.Old[0]) {
				t.Errorf("%s, step %d: %+v", name, step, v)
			}
		}
	}
}

// TestUnreadableKeys: what was read holds on, its time included; that is told
// once, and when it is over.
func TestUnreadableKeys(t *testing.T) {
	w := newKeysWorld(t, userCAKey)
	next := w.rotate(t, userCAKey, rotation{lead: time.Hour}).Next
	w.live.look()
	path := filepath.Join(w.dir, keyKindOf(userCAKey).file)
	good := contents(t, path)
	for _, text := range []string{"", "no key", string(good) + string(good), "-----BEGIN PRIVATE KEY-----\nMade: yesterday\n\nAAAA\n-----END PRIVATE KEY-----\n"} {
		w.log.Reset()
		put(t, path, text, 0o600)
		w.live.look()
		w.live.look()
		if n := strings.Count(w.log.String(), "level=ERROR"); n != 1 {
			t.Errorf("with %q: told %d times, want once:\n%s", text, n, w.log.String())
		}
		w.now = keysNoon.Add(2 * time.Hour)
		if !w.live.at(userCAKey).Signs.is(*next) {
			t.Errorf("with %q the next key did not take over", text)
		}
		w.now = keysNoon
		put(t, path, string(good), 0o600)
		w.live.look()
		if !strings.Contains(w.log.String(), "can be used again") {
			t.Errorf("with %q: nothing said that it is over", text)
		}
	}
}

// TestKeysOfBefore: files of before there were heads and one file for a CA are
// read as they are, and brought forward by a rotation.
func TestKeysOfBefore(t *testing.T) {
	dir := t.TempDir()
	root, err := openCA(caFiles{filepath.Join(dir, "client-ca.pem"), filepath.Join(dir, "client-ca.crt")}, "Tidegate client CA", keysNoon)
	if err != nil {
		t.Fatal(err)
	}
	user, err := signingKey(filepath.Join(dir, "ssh-user-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	old, err := newSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeHalf(filepath.Join(dir, "ssh-user-ca.old.pem"), keyHalf{Key: old}); err != nil {
		t.Fatal(err)
	}
	live, err := openLiveKeys(dir, func() time.Time { return keysNoon }, slog.New(slog.DiscardHandler), clientCAKey, userCAKey)
	if err != nil {
		t.Fatal(err)
	}
	if v := live.at(clientCAKey); !bytes.Equal(v.Signs.Cert.Raw, root.cert.Raw) || v.Signs.Made.IsZero() {
		t.Errorf("got %+v, want the CA of before", v.Signs)
	}
	if v := live.at(userCAKey); !user.Equal(v.Signs.Key) || len(v.trusted()) != 1 {
		t.Errorf("got %+v, want the key of before alone", v)
	}
	for _, name := range []string{clientCAKey, userCAKey} {
		v, err := rotateKey(dir, keyKindOf(name), rotation{}, keysNoon)
		if err != nil || len(v.trusted()) != 2 {
			t.Errorf("%s: %+v, %v; want the new one and the one of before", name, v, err)
		}
	}
	if again, err := signingKey(filepath.Join(dir, "ssh-user-ca.pem")); err != nil || again.Equal(user) {
		t.Errorf("an older program would not read the new key: %v", err)
	}
}
