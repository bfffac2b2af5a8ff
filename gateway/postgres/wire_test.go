package postgres

import (
	"encoding/binary"
	"strings"
	"testing"
)

func TestTakeFrame(t *testing.T) {
	f, size, ok, err := takeFrame([]byte("Q\x00\x00\x00\x06;\x00rest"))
	if err != nil || !ok || f.kind != 'Q' || string(f.body) != ";\x00" || size != 7 {
		t.Errorf("got %+v of %d bytes, %v, %v", f, size, ok, err)
	}
	for _, in := range []string{"Q\x00\x00\x00\x03", "Q\xff\xff\xff\xff", "z", "z\x00\x00\x00\x04"} {
		if f, _, _, err := takeFrame([]byte(in)); err == nil {
			t.Errorf("%q: took %+v, want an error", in, f)
		}
	}
	for _, in := range []string{"", "Q\x00\x00", "Q\x00\x00\x00\x09ab"} {
		if _, _, ok, err := takeFrame([]byte(in)); ok || err != nil {
			t.Errorf("%q: got %v, %v, want more to be asked for", in, ok, err)
		}
	}
}

// TestEveryMessageType: each of the 256 is either understood, with a bound that
// holds as soon as the length is there, or refused by its first byte.
func TestEveryMessageType(t *testing.T) {
	const understood = "QPBCDEFHSXcdfp"
	for kind := range 256 {
		limit := frameLimit(byte(kind))
		if known := strings.IndexByte(understood, byte(kind)) >= 0; known != (limit > 0) {
			t.Errorf("type %q has the bound %d, want it understood: %t", rune(kind), limit, known)
		}
		if limit == 0 {
			if _, _, _, err := takeFrame([]byte{byte(kind)}); err == nil {
				t.Errorf("type %q is waited for", rune(kind))
			}
			continue
		}
		over := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(limit+5))
		if _, _, _, err := takeFrame(over); err == nil {
			t.Errorf("type %q: %d bytes over the bound are waited for", rune(kind), 1)
		}
		at := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(limit+4))
		if _, _, ok, err := takeFrame(at); ok || err != nil {
			t.Errorf("type %q: at the bound got %t, %v, want more to be asked for", rune(kind), ok, err)
		}
	}
}

func FuzzTakeFrame(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x06;\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, size, ok, err := takeFrame(in)
		if err == nil && ok && (size > len(in) || len(got.body)+headSize != size) {
			t.Errorf("took %d bytes with a body of %d out of %d", size, len(got.body), len(in))
		}
	})
}
