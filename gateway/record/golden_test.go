package record_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// The golden recordings are of keys that everybody knows. v1 was written by
// the last writer of that version; v2 is what this writer writes. A recording
// of today must verify for as long as there is Tidegate.
var (
	goldenCA   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	goldenKeys = record.NewKeys(goldenCA.Public().(ed25519.PublicKey))
)

func goldenSigner(t *testing.T) record.Signer {
	t.Helper()
	text, err := record.Certify(goldenCA, record.Certificate{
		Installation: "acme01", Gateway: "gw-1", Key: key.Public().(ed25519.PublicKey), From: noon.Add(-time.Hour), Until: noon.Add(90 * 24 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return record.Signer{Key: key, Certificate: text}
}

func goldenEvents() []access.Event {
	info := access.SessionInfo{
		ID: "golden", Grant: access.GrantKey{Repo: 7, ID: "inc-1"}, Digest: "3fa9c2d1", PullURL: "https://git.acme.test/acme/access/pull/12",
		Person: access.User{ID: 1, Login: "alice"}, Identity: access.Identity{Issuer: "okta", Subject: "00u1", Email: "alice@acme.test"},
		Target: access.TargetRef{Kind: "ssh", Name: "web-1"}, Role: "operator", Remote: "192.0.2.7:50122", Client: "SSH-2.0-OpenSSH_9.2",
		Gateway: "gw-1", Started: noon, NotAfter: noon.Add(time.Hour),
	}
	shell := access.Operation{Kind: "shell", Subject: "session", Facts: access.Facts{"terminal": true, "columns": int64(80)}, Text: "shell"}
	exec := access.Operation{Kind: "exec", Subject: "command", Facts: access.Facts{"program": "uptime", "words": []string{"uptime", "-p"}}, Text: "uptime -p \"é\""}
	drop := access.Operation{Kind: "exec", Subject: "command", Text: "rm -rf /"}
	return []access.Event{
		{Type: access.EventSessionStart, Session: &info},
		{Type: access.EventOpen, Op: 1, Operation: &shell, Decision: &access.Decision{Verdict: access.Allow}},
		{Type: access.EventResize, Op: 1, Columns: 80, Rows: 24},
		{Type: access.EventData, Op: 1, Direction: access.ToClient, Data: []byte("$ ")},
		{Type: access.EventData, Op: 1, Direction: access.ToTarget, Data: []byte("ls\r")},
		{Type: access.EventData, Op: 1, Direction: access.ToClient, Data: []byte("ls\r\n\x1b[1;32mbin\x1b[0m  etc\r\n$ ")},
		{Type: access.EventOpen, Op: 2, Operation: &exec, Decision: &access.Decision{Verdict: access.Allow, Sync: true}},
		{Type: access.EventClose, Op: 2, Outcome: &access.Outcome{Status: "ok", Code: "0", Bytes: 12, Hash: "c0ffee", Received: 3, ReceivedHash: "beef"}},
		{Type: access.EventOpen, Op: 3, Operation: &drop, Decision: &access.Decision{Verdict: access.Deny, Rule: "no-rm", Say: "Nothing is removed here <ever>."}},
		{Type: access.EventOpen, Op: 4, Operation: &exec, Decision: &access.Decision{Verdict: access.Hold, Rule: "held", Say: "Ask.", Ask: []access.Party{{ID: 4}}}},
		{Type: access.EventHoldOpen, Op: 4, Held: "h-1", Text: "H7 3fa9c2d1"},
		{Type: access.EventHoldAnswer, Op: 4, Held: "h-1", Decision: &access.Decision{Verdict: access.Allow}, Text: "bob answered"},
		{Type: access.EventClose, Op: 4, Outcome: &access.Outcome{Status: "ok", Code: "0"}},
		{Type: access.EventNotice, Text: "Your grant inc-1 ends in 5 minutes, at 13:00 UTC."},
		{Type: access.EventClose, Op: 1, Outcome: &access.Outcome{Status: "ok", Code: "0", Bytes: 41}},
	}
}

// writeGolden is a certified recording of several segments.
func writeGolden(t *testing.T) []byte {
	t.Helper()
	dir, now, signer := t.TempDir(), noon, goldenSigner(t)
	store, err := record.Open(record.Config{
		Dir: dir, MinFree: 1, SegmentBytes: 900, SyncEvery: time.Hour,
		Signers: func() ([]record.Signer, error) { return []record.Signer{signer}, nil },
		Now:     func() time.Time { now = now.Add(250 * time.Millisecond); return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	w, err := store.Record(access.SessionInfo{ID: "golden", Started: noon}, func(access.Head) {})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range goldenEvents() {
		e.Time = noon.Add(time.Duration(i) * 300 * time.Millisecond)
		if err := w.Append(e, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Seal("The client closed the connection."); err != nil {
		t.Fatal(err)
	}
	return read(t, dir, "golden")
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestTheFormatIsStillTheSame: a change of it is a new version, with a golden
// recording of its own.
func TestTheFormatIsStillTheSame(t *testing.T) {
	got := writeGolden(t)
	if os.Getenv("UPDATE_GOLDEN") != "" { // only for a new version
		if err := os.WriteFile("testdata/v2.tgr", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, golden(t, "v2.tgr")) {
		t.Errorf("the writer writes another format than testdata/v2.tgr:\n%s", got)
	}
}

func TestGoldenRecordingsVerify(t *testing.T) {
	for name, keys := range map[string]record.Keys{"v1.tgr": keys(), "v2.tgr": goldenKeys} {
		r, err := record.Verify(bytes.NewReader(golden(t, name)), keys, nil)
		if err != nil || !r.Sealed || r.Events != 16 || r.Segments != 4 {
			t.Errorf("%s: got %+v, %v; want 4 segments with 16 events, sealed", name, r, err)
		}
		if name == "v2.tgr" && (r.Installation != "acme01" || r.Gateway != "gw-1") {
			t.Errorf("%s: got the certificate of %q, %q", name, r.Installation, r.Gateway)
		}
	}
}

// TestAnotherVerifierAgrees runs a verifier in another language, which was
// written from docs/reference/recording.md alone and shares no line with ours.
func TestAnotherVerifierAgrees(t *testing.T) {
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		if os.Getenv("TIDEGATE_REQUIRE_PARTS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := put("ca.pem", record.MarshalKey(goldenCA.Public().(ed25519.PublicKey)))
	recorder := put("recorder.pem", record.MarshalKey(key.Public().(ed25519.PublicKey)))
	v2 := golden(t, "v2.tgr")
	segments := bytes.SplitAfter(v2, []byte("==\n"))
	if len(segments) != 5 {
		t.Fatalf("got %d parts, want four segments", len(segments))
	}
	join := func(s ...[]byte) []byte { return bytes.Join(s, nil) }
	for _, c := range []struct {
		name, keys string
		file       []byte
		whole      bool
	}{
		{"v1", recorder, golden(t, "v1.tgr"), true},
		{"v2", ca, v2, true},
		{"open", ca, join(segments[:2]...), true},
		{"v2 with the recorder's key for the CA's", ca, bytes.Replace(v2, []byte("golden"), []byte("silver"), 1), false},
		{"of another CA", put("other.pem", record.MarshalKey(ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))), v2, false},
		{"dropped", ca, join(segments[0], segments[2], segments[3]), false},
		{"moved", ca, join(segments[1], segments[0], segments[2], segments[3]), false},
		{"doubled", ca, join(v2, segments[3]), false},
		{"torn", ca, v2[:len(v2)-9], false},
		{"no JSON", ca, bytes.Replace(v2, []byte(`E {"type":"resize"`), []byte(`E {"type":"resize`), 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := exec.Command(python, "testdata/verify.py", c.keys, put("file.tgr", c.file)).CombinedOutput()
			if c.whole != (err == nil) {
				t.Fatalf("the other verifier says %v, %s", err, out)
			}
			text, err := os.ReadFile(c.keys)
			if err != nil {
				t.Fatal(err)
			}
			trusted, err := record.ParseKeys(text)
			if err != nil {
				t.Fatal(err)
			}
			r, err := record.Verify(bytes.NewReader(c.file), trusted, nil)
			if c.whole != (err == nil) {
				t.Fatalf("ours says %v", err)
			}
			if !c.whole {
				return
			}
			var other record.Report
			if err := json.Unmarshal(out, &other); err != nil || other != r {
				t.Errorf("the other found %s, ours %+v", strings.TrimSpace(string(out)), r)
			}
		})
	}
}
