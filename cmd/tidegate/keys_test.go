package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
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

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/lease"
	"github.com/tidegate/tidegate/gateway/record"
)

var keysNoon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

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

// TestSignerTurns: the minter's next certificate is of the key whose time it is.
func TestSignerTurns(t *testing.T) {
	w := newKeysWorld(t, userCAKey)
	ca := userCA{w.live}
	first, err := ca.signer()
	if err != nil {
		t.Fatal(err)
	}
	w.rotate(t, userCAKey, rotation{lead: time.Hour})
	w.live.look()
	w.now = w.now.Add(time.Hour)
	second, err := ca.signer()
	if err != nil || bytes.Equal(first.PublicKey().Marshal(), second.PublicKey().Marshal()) {
		t.Errorf("the old key signs on: %v", err)
	}
}

// TestHostKeysTurn: the gateway shows the host key whose time it is, with a
// certificate of the CA whose time it is, and one that has not ended.
func TestHostKeysTurn(t *testing.T) {
	w := &keysWorld{dir: t.TempDir(), now: keysNoon}
	k, err := openSSHKeys(w.dir, []string{"gate.acme.test"}, func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.live = k.keys
	shows := func(names []string, principal string) *gossh.Certificate {
		t.Helper()
		keys, err := k.hostKeys(names)
		if err != nil {
			t.Fatal(err)
		}
		cert := keys[0].PublicKey().(*gossh.Certificate)
		cas, err := k.hostCAs()
		if err != nil {
			t.Fatal(err)
		}
		check := gossh.CertChecker{Clock: func() time.Time { return w.now }, IsHostAuthority: func(key gossh.PublicKey, _ string) bool {
			return bytes.Equal(key.Marshal(), cas[0].Marshal())
		}}
		if !check.IsHostAuthority(cert.SignatureKey, "") {
			t.Error("another CA signed than the one that signs now")
		}
		if err := check.CheckCert(principal, cert); err != nil {
			t.Error(err)
		}
		return cert
	}
	first := shows(nil, "gate.acme.test")
	if again := shows(nil, "gate.acme.test"); again != first {
		t.Error("each connection has a certificate made")
	}
	w.now = keysNoon.Add(hostCertificateLasts * 3)
	shows(nil, "gate.acme.test")
	for _, name := range []string{hostCAKey, hostKey} {
		w.rotate(t, name, rotation{})
		w.live.look()
		shows(nil, "gate.acme.test")
		shows([]string{"web-1"}, "web-1")
	}
	if last := shows(nil, "gate.acme.test"); bytes.Equal(last.Key.Marshal(), first.Key.Marshal()) {
		t.Error("the host key did not turn")
	}
}

// TestLoginsOutliveTheirCA: certificates of the CA before are taken until they
// end, SSH's and TLS's; after a compromise none is.
func TestLoginsOutliveTheirCA(t *testing.T) {
	w := &keysWorld{dir: t.TempDir(), now: keysNoon}
	k, err := openSSHKeys(w.dir, []string{"gate"}, func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.live = k.keys
	certs := k.certificates()
	id := access.Identity{Issuer: "https://okta.test", Subject: "1", Expires: keysNoon.Add(100 * time.Hour)}
	_, signer, err := newSSHKey()
	if err != nil {
		t.Fatal(err)
	}
	client, err := newClientKey()
	if err != nil {
		t.Fatal(err)
	}
	issue := func() (all [][]byte) {
		for _, key := range [][]byte{signer.PublicKey().Marshal(), client.public} {
			cert, err := certs.Certify(id, key)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, cert)
		}
		return all
	}
	taken := func(when string, all [][]byte, want bool) {
		t.Helper()
		for i, cert := range all {
			if _, err := certs.IdentifyCertificate(cert); (err == nil) != want {
				t.Errorf("%s: certificate %d: %v, want it taken: %v", when, i, err, want)
			}
		}
	}
	both := func(r rotation) {
		w.rotate(t, loginCAKey, r)
		w.rotate(t, clientCAKey, r)
		w.live.look()
	}
	first := issue()
	both(rotation{})
	second := issue()
	taken("after a rotation", append(first, second...), true)
	w.now = keysNoon.Add(59 * time.Minute)
	both(rotation{})
	taken("after two", append(first, second...), true)
	third := issue()
	w.now = keysNoon.Add(identify.CertificateLasts + time.Second)
	taken("after an hour", append(first, second...), false)
	taken("after an hour", third, true)
	both(rotation{compromised: true})
	taken("after a compromise", third, false)
	taken("after a compromise", issue(), true)
}

// TestTLSTurns: a client that has the file with both is served before and after.
func TestTLSTurns(t *testing.T) {
	w := newKeysWorld(t, tlsCAKey)
	own := &ownTLS{keys: w.live}
	w.rotate(t, tlsCAKey, rotation{lead: time.Hour})
	w.live.look()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(contents(t, filepath.Join(w.dir, "gateway-ca.pem")))
	var seen []*tls.Certificate
	for _, after := range []time.Duration{0, time.Hour, 80 * 24 * time.Hour} {
		w.now = keysNoon.Add(after)
		cert, err := own.certificate()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots, CurrentTime: w.now}); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
		seen = append(seen, cert)
	}
	if seen[0] == seen[1] || seen[1] == seen[2] {
		t.Error("the certificate did not change with its CA, or in time")
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
}
