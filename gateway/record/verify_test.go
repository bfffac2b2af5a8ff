package record

import "testing"

// TestVerifyKeepsLittleMemory whatever order segments of what size come in.
func TestVerifyKeepsLittleMemory(t *testing.T) {
	var spare [][]byte
	for range batchPieces {
		spare = reuse(spare, []*segment{{raw: make([]byte, 10)}, {raw: make([]byte, 0, maxLine)}})
	}
	total := 0
	for _, buf := range spare {
		total += cap(buf)
	}
	if len(spare) != batchPieces || total > batchPieces*keptSegment {
		t.Errorf("%d bytes are kept in %d pieces", total, len(spare))
	}
}
