package ssh

import (
	"io"
	"sync"

	gossh "golang.org/x/crypto/ssh"
)

// clientChannel is a channel of the client's to which a program writes, and
// beside it whoever warns or ends the session. One that writes while another
// one ends the output is a data race in x/crypto's channel: here the end
// waits for who writes.
type clientChannel struct {
	gossh.Channel
	end sync.RWMutex // held for reading by who writes
}

func (c *clientChannel) Write(p []byte) (int, error) { return c.write(c.Channel, p) }

func (c *clientChannel) write(to io.Writer, p []byte) (int, error) {
	c.end.RLock()
	defer c.end.RUnlock()
	return to.Write(p)
}

// CloseWrite ends what is written.
func (c *clientChannel) CloseWrite() error {
	c.end.Lock()
	defer c.end.Unlock()
	return c.Channel.CloseWrite()
}

// Stderr is the channel's other output.
func (c *clientChannel) Stderr() io.ReadWriter {
	return &clientStderr{c.Channel.Stderr(), c}
}

type clientStderr struct {
	io.ReadWriter
	of *clientChannel
}

func (e *clientStderr) Write(p []byte) (int, error) { return e.of.write(e.ReadWriter, p) }
