package gateway

import (
	"bytes"
	"crypto/ed25519"
	"testing"
)

func TestWithheldValuesCanOnlyBeCompared(t *testing.T) {
	make := func(seed byte) *Withholder {
		w, err := NewWithholder(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	a, again, other := make(1), make(1), make(2)
	got := a.Withhold([]byte("123-45-6789"))
	if want := "[withheld: 11 bytes, 12ff6fd08a1c90e8]"; got != want {
		t.Errorf("got %s, want %s: recordings hold what was written before", got, want)
	}
	if got != again.Withhold([]byte("123-45-6789")) {
		t.Error("the same key and value give two texts, want one")
	}
	if got == a.Withhold([]byte("123-45-6780")) {
		t.Error("two values give one text")
	}
	if got == other.Withhold([]byte("123-45-6789")) {
		t.Error("another gateway's key gives the same text")
	}
}
