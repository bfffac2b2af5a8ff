package ssh

import (
	"errors"
	"io"
	"sync"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// An idle channel waits with a small buffer; one that is busy borrows a large
// one.
const (
	smallBuffer = 512
	largeBuffer = 64 << 10
)

var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// tap shows bytes to the session before they go on.
func tap(open gateway.Open, dir access.Direction) func([]byte) ([]byte, error) {
	return func(p []byte) ([]byte, error) { return open.Tap(dir, p) }
}

// move passes bytes on until the end of src, which is no error. see answers
// with what may be written.
func move(dst io.Writer, src io.Reader, see func([]byte) ([]byte, error)) error {
	small := make([]byte, smallBuffer)
	buf := small
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p, serr := see(buf[:n])
			if serr != nil {
				return serr
			}
			if _, werr := dst.Write(p); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == len(buf) && large == nil:
			large = buffers.Get().(*[largeBuffer]byte)
			buf = large[:]
		case n <= smallBuffer && large != nil:
			buffers.Put(large)
			large, buf = nil, small
		}
	}
}
