package postgres

import (
	"encoding/binary"

	"github.com/tidegate/tidegate/access"
)

// Bounds of one message from a client.
const (
	maxStatement = maxText + 1024 // Query and Parse
	maxData      = 16 << 20       // Bind and CopyData
	maxSmall     = 64 << 10       // everything else
	headSize     = 5              // a message's type and length
)

// frame is one message: its type, and its body without type and length. The
// body lies in the reader's buffer: it is gone with the next message.
type frame struct {
	kind byte
	body []byte
}

// takeFrame cuts one client message off. It is not ok when more bytes are
// needed. The length is checked as soon as it is there; a type that is not
// known is an error that ends the connection, for nobody can say where the
// next message would start to matter.
func takeFrame(p []byte) (f frame, size int, ok bool, err error) {
	if len(p) == 0 {
		return frame{}, 0, false, nil
	}
	limit := frameLimit(p[0])
	if limit == 0 {
		return frame{}, 0, false, access.Errorf(access.CodeInvalid, "Message type %q is not understood.", p[0])
	}
	if len(p) < headSize {
		return frame{}, 0, false, nil
	}
	body := int64(binary.BigEndian.Uint32(p[1:])) - 4
	if body < 0 || body > limit {
		return frame{}, 0, false, access.Errorf(access.CodeTooLarge, "Message %q claims %d bytes; 0 to %d are allowed.", p[0], body, limit)
	}
	size = headSize + int(body)
	if len(p) < size {
		return frame{}, 0, false, nil
	}
	return frame{kind: p[0], body: p[headSize:size]}, size, true, nil
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

// message puts type and length before a body.
func message(kind byte, body []byte) []byte {
	out := make([]byte, headSize, headSize+len(body))
	out[0] = kind
	binary.BigEndian.PutUint32(out[1:], uint32(len(body)+4))
	return append(out, body...)
}
