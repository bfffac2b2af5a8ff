package postgres

import "testing"

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

func FuzzTakeFrame(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x06;\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, size, ok, err := takeFrame(in)
		if err == nil && ok && (size > len(in) || len(got.body)+headSize != size) {
			t.Errorf("took %d bytes with a body of %d out of %d", size, len(got.body), len(in))
		}
	})
}
