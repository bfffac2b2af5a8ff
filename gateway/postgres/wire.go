package postgres

import (
	"encoding/binary"
	"io"

	"github.com/tidegate/tidegate/access"
)

// Bounds of one message from a client.
const (
	maxStatement = maxText + 1024 // Query and Parse
	maxData      = 16 << 20       // Bind and CopyData
	maxSmall     = 64 << 10       // everything else
)

// frame is one message: its type, and its body without type and length.
type frame struct {
	kind byte
	body []byte
}

// readFrame reads one client message. The length is checked before anything
// is allocated for it; a type that is not known is an error that ends the
// connection, for nobody can say where the next message would start to matter.
func readFrame(r io.Reader) (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := int64(binary.BigEndian.Uint32(head[1:])) - 4
	limit := frameLimit(head[0])
	if limit == 0 {
		return frame{}, access.Errorf(access.CodeInvalid, "Message type %q is not understood.", head[0])
	}
	if size < 0 || size > limit {
		return frame{}, access.Errorf(access.CodeTooLarge, "Message %q claims %d bytes; 0 to %d are allowed.", head[0], size, limit)
	}
	f := frame{kind: head[0], body: make([]byte, size)}
	_, err := io.ReadFull(r, f.body)
	return f, err
}

func frameLimit(kind byte) int64 {
	switch kind {
	case 'Q', 'P':
		return maxStatement
	case 'B', 'd':
		return maxData
	case 'C', 'D', 'E', 'F', 'H', 'S', 'X', 'c', 'f', 'p':
		return maxSmall
	}
	return 0
}
