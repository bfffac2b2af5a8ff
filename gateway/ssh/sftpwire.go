package ssh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The packets of the SSH File Transfer Protocol, version 3: the one that
// OpenSSH speaks.
const (
	fxInit     = 1
	fxVersion  = 2
	fxOpen     = 3
	fxClose    = 4
	fxRead     = 5
	fxWrite    = 6
	fxLstat    = 7
	fxFstat    = 8
	fxSetstat  = 9
	fxFsetstat = 10
	fxOpendir  = 11
	fxReaddir  = 12
	fxRemove   = 13
	fxMkdir    = 14
	fxRmdir    = 15
	fxRealpath = 16
	fxStat     = 17
	fxRename   = 18
	fxReadlink = 19
	fxSymlink  = 20
	fxStatus   = 101
	fxHandle   = 102
	fxData     = 103
	fxName     = 104
	fxAttrs    = 105
	fxExtended = 200
)

// Status codes, and the flags of an open that writes.
const (
	fxOK          = 0
	fxEOF         = 1
	fxDenied      = 3
	fxFailure     = 4
	fxUnsupported = 8

	openRead     = 0x01
	openChange   = 0x02
	openAppend   = 0x04
	openTruncate = 0x10
	openWrite    = openChange | openAppend | 0x08 | openTruncate | 0x20 // write, append, create, truncate, exclusive
)

// What attributes of a file hold, and the part of its mode that is its type.
const (
	attrSize  = 0x01
	attrOwner = 0x02
	attrMode  = 0x04
	attrTimes = 0x08

	modeType   = 0o170000
	modeFolder = 0o040000
	modeFile   = 0o100000
	modeLink   = 0o120000
)

// maxFilePacket bounds a packet in both directions, as OpenSSH does.
const maxFilePacket = 256 << 10

const fileVersion = 3

// maxHandle bounds a handle, as the protocol does.
const maxHandle = 256

// packet is one packet: its type, and what follows the type.
type packet struct {
	kind byte
	body []byte
}

// readPacket reads one packet into buf, which it grows; the packet is valid
// until the next call.
func readPacket(r io.Reader, buf *[]byte) (packet, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return packet{}, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || n > maxFilePacket {
		return packet{}, fmt.Errorf("read sftp packet: %d bytes, want 1 to %d", n, maxFilePacket)
	}
	if cap(*buf) < int(n) {
		*buf = make([]byte, max(int(n), 36<<10))
	}
	body := (*buf)[:n-1]
	if _, err := io.ReadFull(r, body); err != nil {
		return packet{}, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return packet{head[4], body}, nil
}

// fields takes a body apart from its front. After a mistake it answers with
// zero values, and bad stays set.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) uint32() uint32 {
	if len(f.rest) < 4 {
		f.bad, f.rest = true, nil
		return 0
	}
	v := binary.BigEndian.Uint32(f.rest)
	f.rest = f.rest[4:]
	return v
}

func (f *fields) uint64() uint64 {
	high := f.uint32()
	return uint64(high)<<32 | uint64(f.uint32())
}

func (f *fields) bytes() []byte {
	n := f.uint32()
	if uint64(n) > uint64(len(f.rest)) {
		f.bad, f.rest = true, nil
		return nil
	}
	v := f.rest[:n]
	f.rest = f.rest[n:]
	return v
}

func (f *fields) text() string { return string(f.bytes()) }

// message builds a packet with its length in front.
type message []byte

func newMessage(kind byte, id uint32) message {
	m := message{0, 0, 0, 0, kind}
	return m.uint32(id)
}

func (m message) uint32(v uint32) message { return binary.BigEndian.AppendUint32(m, v) }

func (m message) text(s string) message { return append(m.uint32(uint32(len(s))), s...) }

func (m message) raw(b []byte) message { return append(m, b...) }

// as is the packet under an id.
func (m message) as(id uint32) []byte {
	binary.BigEndian.PutUint32(m[5:], id)
	return m.sealed()
}

// sealed fills in the length.
func (m message) sealed() []byte {
	binary.BigEndian.PutUint32(m, uint32(len(m)-4))
	return m
}

func status(id, code uint32, text string) []byte {
	return newMessage(fxStatus, id).uint32(code).text(text).text("").sealed()
}
