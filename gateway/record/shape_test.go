package record

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func TestEventsThatAreNone(t *testing.T) {
	const at = `"time":"2026-03-01T12:00:00Z"`
	for _, body := range []string{
		``, `null`, `[]`, `"x"`, `{}`, `{"type":"notice"}`, `{` + at + `}`,
		`{"type":"strange",` + at + `}`, `{"type":null,` + at + `}`, `{"type":"notice","time":"yesterday"}`,
		`{"Type":"notice",` + at + `}`, `{"type":"notice",` + at + `,"type":"notice"}`, `{"type":"notice",` + at + `,"more":1}`,
		`{"type":"notice",` + at + `}{}`, `{"type":"notice",` + at + `,}`, `{"type":"notice",` + at, `{"type":"notice" ,` + at + `}`,
		`{"type":"data",` + at + `,"data":"abc"}`, `{"type":"data",` + at + `,"data":"ab=c"}`, `{"type":"data",` + at + `,"data":7}`, `{"type":"data",` + at + `,"data":"===="}`,
		`{"type":"resize",` + at + `,"rows":"1"}`, `{"type":"resize",` + at + `,"rows":1.5}`, `{"type":"resize",` + at + `,"rows":01}`, `{"type":"resize",` + at + `,"rows":-}`,
		`{"type":"notice",` + at + `,"text":"` + "\x01" + `"}`, `{"type":"notice",` + at + `,"text":"` + "\xff" + `"}`, `{"type":"notice",` + at + `,"text":"\q"}`,
		`{"type":"op.open",` + at + `,"operation":{"kind":"x","kind":"y"}}`, `{"type":"op.open",` + at + `,"operation":[]}`,
		`{"type":"op.open",` + at + `,"operation":{"facts":{"a":1,"a":2}}}`, `{"type":"op.open",` + at + `,"operation":{"facts":{"a":` + strings.Repeat("[", 99) + `}}}`,
	} {
		if checkEvent([]byte(body)) == nil {
			t.Errorf("%s: taken for an event", body)
		}
	}
}

// FuzzEventShape: what is taken for an event, encoding/json understands, too;
// and what this package writes is taken for an event.
func FuzzEventShape(f *testing.F) {
	f.Add([]byte(`{"type":"notice","time":"2026-03-01T12:00:00.5Z","text":"é\u00e9\n12345678"}`), int64(3))
	f.Add([]byte(`{"type":"op.open","time":"2026-03-01T12:00:00Z","op":1,"operation":{"kind":"q","subject":"s","facts":{"l":["a"],"b":true,"n":-3},"text":""},"decision":{"verdict":2}}`), int64(-1))
	f.Add([]byte(`{"type":"data","time":"2026-03-01T12:00:00Z","data":"AAECAw=="}`), int64(0))
	f.Fuzz(func(t *testing.T, body []byte, n int64) {
		if checkEvent(body) == nil {
			dec := json.NewDecoder(bytes.NewReader(body))
			dec.DisallowUnknownFields()
			if err := dec.Decode(new(access.Event)); err != nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
				t.Errorf("%s: taken for an event, and it is none: %v", body, err)
			}
		}
		text := string(body)
		op := access.Operation{Kind: text, Text: text, Params: []string{text}, Facts: access.Facts{text: text, text + "n": n, text + "l": []string{text}}}
		for _, e := range []access.Event{
			{Type: access.EventOpen, Time: time.Unix(n%1e9, n%1e9).UTC(), Op: uint64(n), Operation: &op, Decision: &access.Decision{Say: text}},
			{Type: access.EventData, Time: time.Unix(n%1e9, 0).UTC(), Direction: access.ToClient, Data: body},
			{Type: access.EventSessionStart, Session: &access.SessionInfo{ID: text, Identity: access.Identity{Claims: map[string]string{text: text}}}},
		} {
			var line bytes.Buffer
			if err := encode(&line, &e); err != nil {
				t.Fatal(err)
			}
			if err := checkEvent(bytes.TrimSuffix(line.Bytes(), []byte("\n"))); err != nil {
				t.Errorf("%s: %v", line.Bytes(), err)
			}
		}
	})
}

// TestTheFormatsPageListsEveryField: whoever adds one adds it there.
func TestTheFormatsPageListsEveryField(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/recording.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range eventShape.fields {
		if !bytes.Contains(page, []byte("`"+f.name+"`")) {
			t.Errorf("docs/reference/recording.md does not list the field %q", f.name)
		}
	}
	source, err := os.ReadFile("../../access/event.go")
	if err != nil {
		t.Fatal(err)
	}
	types := regexp.MustCompile(`EventType = "([a-z.]+)"|Event\w+ += "([a-z.]+)"`).FindAllSubmatch(source, -1)
	if len(types) != len(eventTypes) {
		t.Errorf("access has %d types of event, shape.go knows %d", len(types), len(eventTypes))
	}
	for _, m := range types {
		name := string(m[1]) + string(m[2])
		if !slices.Contains(eventTypes, access.EventType(name)) || !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("the type %q is not in shape.go, or not in docs/reference/recording.md", name)
		}
	}
}
