//go:build !linux

package poll

import "net"

// loop does not exist here: no connection is taken.
type loop struct{}

func (*loop) yield() {}

// Take takes nothing: each connection has a goroutine.
func (c *Conn) Take() (ok bool, err error) { return false, nil }

func (c *Conn) watch() error                 { return nil }
func (c *Conn) sysRead([]byte) (int, error)  { return 0, net.ErrClosed }
func (c *Conn) sysWrite([]byte) (int, error) { return 0, net.ErrClosed }
func (c *Conn) sysCloseWrite() error         { return net.ErrClosed }
func (c *Conn) sysClose() error              { return net.ErrClosed }
