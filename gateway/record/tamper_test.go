package record_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// segmentsOf cuts a recording behind each signature.
func segmentsOf(file []byte) (out [][]byte) {
	for len(file) > 0 {
		at := bytes.Index(file, []byte("\nS "))
		if at < 0 {
			return append(out, file)
		}
		end := at + 1 + bytes.IndexByte(file[at+1:], '\n') + 1
		out, file = append(out, file[:end]), file[end:]
	}
	return out
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// refused fails unless the file has a fault at the segment (or with -1 at any).
func refused(t *testing.T, what string, file []byte, heads []access.Head, segment int) {
	t.Helper()
	r, err := record.Verify(bytes.NewReader(file), goldenKeys, heads)
	var fault *record.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("%s: got %+v, %v; want a fault", what, r, err)
	}
	if segment >= 0 && fault.Segment != uint64(segment) || fault.Offset < 0 || fault.Offset > int64(len(file)) {
		t.Errorf("%s: got %v, want it in segment %d", what, fault, segment)
	}
}

// TestWhateverIsDoneToARecordingShows takes each byte, each line and each
// segment, and does to it what somebody with the file but no key may do.
func TestWhateverIsDoneToARecordingShows(t *testing.T) {
	file := golden(t, "v2.tgr")
	whole, err := record.Verify(bytes.NewReader(file), goldenKeys, nil)
	if err != nil {
		t.Fatal(err)
	}
	heads := []access.Head{{Segment: whole.Segments - 1, Hash: whole.Head, Sealed: true}}
	segments := segmentsOf(file)
	place := 0
	for n, s := range segments {
		for i := range s {
			at := place + i
			refused(t, fmt.Sprintf("byte %d flipped", at), join(file[:at], []byte{file[at] ^ byte(1<<(i%8))}, file[at+1:]), nil, n)
			if i%13 != 0 {
				continue
			}
			refused(t, fmt.Sprintf("byte %d left out", at), join(file[:at], file[at+1:]), nil, -1)
			refused(t, fmt.Sprintf("byte %d twice", at), join(file[:at], file[at:at+1], file[at:]), nil, -1)
			refused(t, fmt.Sprintf("a return before byte %d", at), join(file[:at], []byte("\r"), file[at:]), nil, -1)
			refused(t, fmt.Sprintf("cut at byte %d", at), file[:at], heads, -1)
		}
		refused(t, fmt.Sprintf("segment %d left out", n), join(file[:place], file[place+len(s):]), heads, n)
		refused(t, fmt.Sprintf("segment %d twice", n), join(file[:place+len(s)], s, file[place+len(s):]), nil, n+1)
		place += len(s)
	}
	for a := range segments {
		for b := range a {
			moved := append([][]byte{}, segments...)
			moved[a], moved[b] = moved[b], moved[a]
			refused(t, fmt.Sprintf("segments %d and %d exchanged", a, b), join(moved...), nil, b)
		}
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	for i := range lines[:len(lines)-1] {
		refused(t, fmt.Sprintf("line %d left out", i), join(join(lines[:i]...), join(lines[i+1:]...)), heads, -1)
		refused(t, fmt.Sprintf("line %d twice", i), join(join(lines[:i+1]...), join(lines[i:]...)), nil, -1)
	}
}

// TestNoMixOfTwoRecordingsVerifies has all the signed pieces that there are,
// and puts them together by chance.
func TestNoMixOfTwoRecordingsVerifies(t *testing.T) {
	one := golden(t, "v2.tgr")
	other, _ := session(t, 9, 600) // by the same recorder, without its certificate
	pieces := append(segmentsOf(one), segmentsOf(other)...)
	keys := record.NewKeys(goldenCA.Public().(ed25519.PublicKey), key.Public().(ed25519.PublicKey))
	seed := rand.Uint64()
	chance := rand.New(rand.NewPCG(seed, 1))
	for range 500 {
		var mix []byte
		for range 1 + chance.IntN(6) {
			mix = append(mix, pieces[chance.IntN(len(pieces))]...)
		}
		_, err := record.Verify(bytes.NewReader(mix), keys, nil)
		if prefix := bytes.HasPrefix(one, mix) || bytes.HasPrefix(other, mix); prefix != (err == nil) {
			t.Fatalf("seed %d: %v of\n%s", seed, err, mix)
		}
	}
}

// TestCertificatesThatDoNotCount: a stolen key, a foreign CA, another time.
func TestCertificatesThatDoNotCount(t *testing.T) {
	file := golden(t, "v2.tgr")
	mallory := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{66}, ed25519.SeedSize))
	for name, keys := range map[string]record.Keys{
		"a foreign CA":  record.NewKeys(mallory.Public().(ed25519.PublicKey)),
		"nobody at all": {},
	} {
		if _, err := record.Verify(bytes.NewReader(file), keys, nil); err == nil || !strings.Contains(err.Error(), "segment 0, byte 0: no trusted key") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	c := record.Certificate{Installation: "acme01", Gateway: "gw-1", Key: key.Public().(ed25519.PublicKey), From: noon.AddDate(0, 0, -9), Until: noon.AddDate(0, 0, -1)}
	for name, change := range map[string]func(){
		"over":        func() {},
		"another key": func() { c.Until, c.Key = noon.AddDate(0, 0, 9), mallory.Public().(ed25519.PublicKey) },
	} {
		change()
		text, err := record.Certify(goldenCA, c)
		if err != nil {
			t.Fatal(err)
		}
		old := goldenSigner(t).Certificate
		if _, err := record.Verify(bytes.NewReader(bytes.Replace(file, []byte(old), []byte(text), 1)), goldenKeys, nil); err == nil || !strings.Contains(err.Error(), "segment 0, byte 0: the certificate is") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
