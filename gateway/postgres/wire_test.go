package postgres

import (
	"bytes"
	"testing"
)

func TestReadFrame(t *testing.T) {
	f, err := readFrame(bytes.NewReader([]byte("Q\x00\x00\x00\x06;\x00")))
	if err != nil || f.kind != 'Q' || string(f.body) != ";\x00" {
		t.Errorf("got %+v, %v", f, err)
	}
	for _, in := range []string{"", "Q\x00\x00", "Q\x00\x00\x00\x03", "Q\xff\xff\xff\xff", "z\x00\x00\x00\x04", "Q\x00\x00\x00\x09ab"} {
		if f, err := readFrame(bytes.NewReader([]byte(in))); err == nil {
			t.Errorf("%q: read %+v, want an error", in, f)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x06;\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := readFrame(bytes.NewReader(in)); err == nil && len(got.body)+5 > len(in) {
			t.Errorf("read %d bytes out of %d", len(got.body)+5, len(in))
		}
	})
}
