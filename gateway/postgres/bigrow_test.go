package postgres

import (
	"io"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// Rows of any size are recorded as they were shown, though only a piece of
// them is ever in memory.
func TestLargeRowsAreRecorded(t *testing.T) {
	r := newRig(t, Config{})
	r.door.limit = access.Limits{Results: true}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	value := `repeat(E'a\\é\n', 600000)`
	want := "1\t" + strings.Repeat(`a\\é\n`, 600000) + "\t\\N\n"
	for mode, exec := range protocols {
		sql := "select 1, " + value + ", null"
		if _, err := exec(t.Context(), r.connect(), sql); err != nil {
			t.Fatal(err)
		}
		if got := r.door.last().find(sql).recorded(); got != want {
			t.Errorf("%s: %d bytes are recorded, want %d", mode, len(got), len(want))
		}
	}
	c := r.connect().PgConn()
	if _, err := c.CopyTo(t.Context(), io.Discard, "copy (select 1, "+value+", null) to stdout"); err != nil {
		t.Fatal(err)
	}
	if got := r.door.last().find("copy").recorded(); got != want {
		t.Errorf("copy: %d bytes are recorded, want %d", len(got), len(want))
	}
	if _, err := c.Exec(t.Context(), "select 'before'; select "+value+"; select 'after'").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if got := r.door.last().find("select 'after'").recorded(); got != "after\n" {
		t.Errorf("after a large row: recorded %q", got)
	}
}

func TestBigRowInPieces(t *testing.T) {
	row := message('D', []byte("\x00\x03"+"\x00\x00\x00\x07é\xff\x01x\xe2\x82"+"\xff\xff\xff\xff"+"\x00\x00\x00\x00"))
	const want = "é\\xff\\x01x\\xe2\\x82\t\\N\t\n"
	for size := 1; size <= len(row); size++ {
		k := &results{of: &reply{}}
		var out []byte
		for p := row; len(p) > 0; {
			n := min(size, len(p))
			for piece := p[:n]; len(piece) > 0; {
				piece = k.big.take(piece, &out)
			}
			p = p[n:]
		}
		if got := string(out) + "\n"; got != want {
			t.Errorf("in pieces of %d: %q, want %q", size, got, want)
		}
	}
}
