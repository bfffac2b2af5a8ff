package record

import (
	"strings"
	"testing"
)

// TestHeadersAreUnderstoodInOneWay: another verifier must find in them what this
// one does. encoding/json takes names in any case, twice, and null.
func TestHeadersAreUnderstoodInOneWay(t *testing.T) {
	const good = `{"v":2,"session":"s","segment":0,"prev":"","key":"k","opened":"2026-11-28T12:00:00Z"}`
	const closed = `{"segment":0,"events":0,"closed":"2026-11-28T12:00:00Z","last":true}`
	var h header
	var c closing
	if err := strict([]byte(good), headerShape, &h); err != nil || h.Version != 2 || h.Session != "s" {
		t.Fatalf("%+v, %v", h, err)
	}
	if err := strict([]byte(closed), closingShape, &c); err != nil || !c.Last {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, change := range [][2]string{
		{`"v"`, `"V"`}, {`"v":2`, `"v":2,"v":1`}, {`"v":2`, `"v":2,"x":1`}, {`"v":2,`, ``}, {`"session":"s",`, ``}, {`"opened"`, `"Opened"`},
		{`{`, `{ `}, {`}`, `}x`}, {`"s"`, `null`}, {`"s"`, "\"\xff\""}, {`2`, `2.0`}, {`2`, `99999999999999999999`}, {good, `null`}, {good, `[]`}, {good, ``},
	} {
		if text := strings.Replace(good, change[0], change[1], 1); strict([]byte(text), headerShape, &h) == nil {
			t.Errorf("taken as a header: %s", text)
		}
	}
	for _, change := range [][2]string{{closed, `null`}, {closed, `{}`}, {`"last":true`, `"last":true,"last":false`}, {`,"last":true`, ``}, {`"events"`, `"EVENTS"`}} {
		if text := strings.Replace(closed, change[0], change[1], 1); strict([]byte(text), closingShape, &c) == nil {
			t.Errorf("taken as a closing line: %s", text)
		}
	}
}
