package ssh

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// version is how the gateway names itself to both sides.
const version = "SSH-2.0-Tidegate"

// maxVersion bounds a client's first line; RFC 4253 allows 255 bytes.
const maxVersion = 255

// greeted is a connection whose first lines were exchanged already. The SSH
// library exchanges them itself, and only then asks for nothing more: so what
// it writes first is swallowed, and the client's line is read a second time.
// We need the line before, to choose the ciphers that we offer.
type greeted struct {
	net.Conn
	r       *bufio.Reader
	line    io.Reader // the client's line, once more
	swallow int       // of what is written: our own line
}

// greet exchanges the first lines.
func greet(conn net.Conn) (*greeted, string, error) {
	if _, err := io.WriteString(conn, version+"\r\n"); err != nil {
		return nil, "", fmt.Errorf("greet client: %w", err)
	}
	r := bufio.NewReaderSize(conn, 4<<10)
	line, err := readVersion(r)
	if err != nil {
		return nil, "", err
	}
	return &greeted{Conn: conn, r: r, line: bytes.NewReader(line), swallow: len(version) + 2}, strings.TrimRight(string(line), "\r\n"), nil
}

func readVersion(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for len(line) <= maxVersion {
		b, err := r.ReadByte()
		if err != nil {
			return nil, fmt.Errorf("read client's version: %w", err)
		}
		line = append(line, b)
		if b != '\n' {
			continue
		}
		if !bytes.HasPrefix(line, []byte("SSH-2.0-")) {
			return nil, errors.New("read client's version: it does not speak SSH 2.0")
		}
		return line, nil
	}
	return nil, fmt.Errorf("read client's version: more than %d bytes", maxVersion)
}

// Read implements net.Conn.
func (g *greeted) Read(p []byte) (int, error) {
	if g.line != nil {
		n, err := g.line.Read(p)
		if err == nil {
			return n, nil
		}
		g.line = nil
	}
	if g.r != nil {
		if g.r.Buffered() > 0 {
			return g.r.Read(p)
		}
		g.r = nil // the library has its own buffer
	}
	return g.Conn.Read(p)
}

// Write implements net.Conn.
func (g *greeted) Write(p []byte) (int, error) {
	n := min(g.swallow, len(p))
	g.swallow -= n
	if n == len(p) {
		return n, nil
	}
	m, err := g.Conn.Write(p[n:])
	return n + m, err
}

// The ciphers that we offer, best first. AES in GCM has an assembler
// implementation here; chacha20 has none on amd64, and OpenSSH would ask for
// it first.
var (
	withAES    = []string{gossh.CipherAES128GCM, gossh.CipherAES256GCM, gossh.CipherAES128CTR, gossh.CipherAES192CTR, gossh.CipherAES256CTR}
	gcmOnly    = withAES[:2]
	withoutAES = []string{gossh.CipherChaCha20Poly1305, gossh.CipherAES128GCM, gossh.CipherAES256GCM, gossh.CipherAES256CTR}
)

// ciphersFor chooses what a client may pick from. The client's order decides,
// and OpenSSH puts AES in counter mode, which is slower here, before GCM: it
// is offered GCM alone, which it has known since 2013.
func ciphersFor(client string) []string {
	switch {
	case !cpu.X86.HasAES && !cpu.ARM64.HasAES:
		return withoutAES
	case strings.HasPrefix(client, "SSH-2.0-OpenSSH_"):
		return gcmOnly
	}
	return withAES
}

func ciphersForTarget() []string {
	if !cpu.X86.HasAES && !cpu.ARM64.HasAES {
		return withoutAES
	}
	return withAES
}
