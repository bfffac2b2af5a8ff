package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// TestHeadsOfAStart: what a start sealed is anchored, and a recording that does
// not continue what was anchored is told of.
func TestHeadsOfAStart(t *testing.T) {
	l, err := ledger.Open(t.Context(), ledger.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), ledgerFile), Installation: "acme01"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var log bytes.Buffer
	h := newHouse(slog.New(slog.NewTextHandler(&log, nil)))
	anchor := h.anchors(t.Context(), l)
	anchor(access.Head{Session: "s1", Segment: 3, Hash: "3fa9", Sealed: true, Time: keysNoon})
	if heads, err := l.Heads(t.Context(), "s1"); err != nil || len(heads) != 1 || heads[0].Hash != "3fa9" || !heads[0].Sealed {
		t.Fatalf("got %+v, %v\n%s", heads, err, &log)
	}
	anchor(access.Head{Session: "s1", Segment: 2, Hash: "77", Sealed: true, Time: keysNoon})
	if !strings.Contains(log.String(), "does not continue what was anchored") {
		t.Errorf("the log says %q", &log)
	}
}
