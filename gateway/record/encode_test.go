package record

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func byJSON(t *testing.T, e access.Event) string {
	t.Helper()
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		t.Fatal(err)
	}
	return want.String()
}

func same(t *testing.T, e access.Event) {
	t.Helper()
	var got bytes.Buffer
	if err := encode(&got, &e); err != nil {
		t.Fatal(err)
	}
	if want := byJSON(t, e); got.String() != want {
		t.Errorf("got  %swant %s", got.String(), want)
	}
}

func TestEncodeIsJSON(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 120_000, time.UTC)
	facts := access.Facts{"kind": "select", "writes": false, "n": int64(-3), "tables": []string{"a", `b"c`}, "columns": []string(nil), "none": []string{}}
	op := access.Operation{Kind: "query", Subject: "statement", Facts: facts, Text: "select '<a>&\\'\n\t\"x\"", Params: []string{"1", ""}, Context: []string{"begin"}}
	strange := op
	strange.Text = "é \u2028 \x01 \xff"
	for _, e := range []access.Event{
		{Type: access.EventOpen, Time: at, Op: 7, Operation: &op, Decision: &access.Decision{Verdict: access.Allow}},
		{Type: access.EventOpen, Time: at, Operation: &op, Decision: &access.Decision{Rule: "r", Say: "No, \"no\".", Sync: true}},
		{Type: access.EventOpen, Time: at, Operation: &strange},
		{Type: access.EventOpen, Time: at, Operation: &access.Operation{Guard: &access.Decision{Say: "x"}}},
		{Type: access.EventOpen, Time: at, Decision: &access.Decision{Ask: []access.Party{{ID: 1}}}},
		{Type: access.EventClose, Time: at, Op: 1 << 60, Outcome: &access.Outcome{Status: "ok", Rows: 3, Bytes: 1 << 40}},
		{Type: access.EventClose, Time: at, Outcome: &access.Outcome{Status: "error", Code: "42P01", Hash: "ab"}},
		{Type: access.EventData, Time: at, Op: 1, Direction: access.ToClient, Data: []byte("rows")},
		{Type: access.EventData, Time: at, Direction: access.ToTarget, Data: []byte("\x00\xff\n")},
		{Type: access.EventData, Time: at, Op: 1, Direction: "else", Data: []byte("x")},
		{Type: access.EventData, Time: at, Op: 1, Direction: access.ToClient},
		{Type: access.EventData, Time: at, Op: 1, Direction: access.ToClient, Data: []byte("x"), Text: "y"},
		{Type: access.EventOpen, Time: at.UTC(), Op: 3, Operation: &access.Operation{Kind: "file", Opaque: true}},
		{Type: access.EventClose, Time: at.UTC(), Op: 3, Outcome: &access.Outcome{Status: "ok", Received: 7, ReceivedHash: "ab"}},
		{Type: access.EventOpen, Time: at.UTC(), Op: 3, Decision: &access.Decision{Verdict: access.Allow, Limits: access.Limits{Rows: 5, Say: "Few."}}},
		{Type: access.EventNotice, Time: at.In(time.FixedZone("x", 3600)), Text: "ends"},
	} {
		same(t, e)
	}
}

// TestAClassIsWrittenOnce: what operations have in common is kept, and nothing
// else is.
func TestAClassIsWrittenOnce(t *testing.T) {
	class := new(access.Class)
	for _, c := range []struct{ text, fact string }{{text: "select 1"}, {text: "select 2"}, {"execute p(1)", "execute p(1)\nselect 3"}, {"execute p(2)", "execute p(2)\nselect 3"}, {text: "select 4"}} {
		op := access.Operation{Kind: "query", Subject: "statement", Facts: access.Facts{"kind": "select", "tables": []string{"t"}}, Text: c.text, Class: class}
		if c.fact != "" {
			op.Facts["text"] = c.fact
		}
		same(t, access.Event{Type: access.EventOpen, Time: time.Unix(1, 0).UTC(), Op: 1, Operation: &op})
	}
	if class.Written.Load() == nil {
		t.Error("nothing is kept")
	}
}

// A field that is added to one of these must be added to encode.go as well.
func TestEncodeKnowsEveryField(t *testing.T) {
	for typ, want := range map[reflect.Type]int{
		reflect.TypeFor[access.Event](): 13, reflect.TypeFor[access.Operation](): 11, reflect.TypeFor[access.Decision](): 6, reflect.TypeFor[access.Outcome](): 7,
	} {
		if typ.NumField() != want {
			t.Errorf("%s has %d fields, encode.go knows %d", typ, typ.NumField(), want)
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("select 1", "kind", "a", int64(4), true)
	f.Add("\x00\"\\é\u2029", "", "\x7f", int64(-1), false)
	f.Fuzz(func(t *testing.T, text, name, value string, n int64, flag bool) {
		op := access.Operation{Kind: value, Text: text, Params: []string{value, text}, Facts: access.Facts{name: flag, "n": n, "t": text, "l": []string{value}}}
		same(t, access.Event{Type: access.EventOpen, Time: time.Unix(n%1e9, n%1e9).UTC(), Op: uint64(n), Operation: &op, Decision: &access.Decision{Say: value, Sync: flag}})
		same(t, access.Event{Type: access.EventClose, Time: time.Unix(0, 0).UTC(), Outcome: &access.Outcome{Status: text, Code: value, Rows: n}})
	})
}
