package gateway_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// TestWhatTapKeeps: size and hash of both directions always, the bytes as the
// role says.
func TestWhatTapKeeps(t *testing.T) {
	for _, c := range []struct {
		record  string
		out, in string
	}{
		{"", "abcd", ""},
		{access.RecordInput, "abcd", "wxyz"},
		{access.RecordAll, "abcdefgh", "wxyzwxyz"},
	} {
		t.Run("record "+c.record, func(t *testing.T) {
			g := gatewaytest.New(t, gatewaytest.Options{
				Role: access.Role{Record: c.record}, Tune: func(cfg *gateway.Config) { cfg.MaxRecorded = 7 },
			})
			s := g.Open("alice")
			open, err := s.Admit(context.Background(), access.Operation{Kind: "exec", Subject: "command", Text: "x"})
			if err != nil {
				t.Fatal(err)
			}
			for _, out := range []string{"abcd", "efgh"} {
				tap(t, open, access.ToClient, out)
			}
			for _, in := range []string{"wxyz", "wxyz"} {
				tap(t, open, access.ToTarget, in)
			}
			if err := open.Close(access.Outcome{Status: "ok"}); err != nil {
				t.Fatal(err)
			}
			kept := map[access.Direction]string{}
			var outcome access.Outcome
			for _, e := range g.Tape.Events("") {
				if e.Type == access.EventData {
					kept[e.Direction] += string(e.Data)
				}
				if e.Outcome != nil {
					outcome = *e.Outcome
				}
			}
			if kept[access.ToClient] != c.out || kept[access.ToTarget] != c.in {
				t.Errorf("kept %q, want out %q and in %q", kept, c.out, c.in)
			}
			want := access.Outcome{Status: "ok", Bytes: 8, Hash: sum("abcdefgh"), Received: 8, ReceivedHash: sum("wxyzwxyz")}
			if outcome != want {
				t.Errorf("got %+v, want %+v", outcome, want)
			}
		})
	}
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func tap(t *testing.T, open gateway.Open, dir access.Direction, text string) {
	t.Helper()
	if p, err := open.Tap(dir, []byte(text)); err != nil || string(p) != text {
		t.Fatalf("tap %q: got %q, %v", text, p, err)
	}
}
