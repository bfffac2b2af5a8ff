package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Bounds and codes of what comes before a session.
const (
	maxStartup = 10 << 10 // PostgreSQL's own bound
	maxToken   = 16 << 10

	codeCancel  = 80877102
	codeTLS     = 80877103
	codeGSS     = 80877104
	protocol3   = 3
	greetRounds = 3 // at most: GSS refused, TLS, startup
)

// hello is what a client says first.
type hello struct {
	target, choice string
	user, program  string            // what it says of itself
	settings       map[string]string // for the target
	minor          uint16
	unknown        []string // protocol options that are not known here
	cancel         *cancelKey
}

func (h hello) client() string {
	return strings.TrimSpace(fmt.Sprintf("%s (user %s)", h.program, h.user))
}

// greet negotiates TLS and reads the startup message. The connection that it
// returns is the one to go on with, also after an error.
func (r *Room) greet(ctx context.Context, conn net.Conn) (net.Conn, hello, error) {
	secure := false
	if r.tls != nil {
		var err error
		if conn, secure, err = r.secureAtOnce(ctx, conn); err != nil {
			return conn, hello{}, err
		}
	}
	for range greetRounds {
		p, err := readPacket(conn)
		if err != nil {
			return conn, hello{}, err
		}
		if b, ok := conn.(*begun); ok {
			conn = b.Conn // its first byte was of this packet
		}
		switch code := binary.BigEndian.Uint32(p); {
		case code == codeTLS && len(p) == 4 && !secure && r.tls != nil:
			if conn, err = r.secure(ctx, conn); err != nil {
				return conn, hello{}, err
			}
			secure = true
		case code == codeTLS && len(p) == 4 && !secure, code == codeGSS && len(p) == 4 && !secure:
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return conn, hello{}, fmt.Errorf("refuse encryption: %w", err)
			}
		case code == codeCancel && (len(p) == 4+shortKey || len(p) == 4+longKey):
			key := cancelKey(p[4:])
			return conn, hello{cancel: &key}, nil
		case !secure && !r.plainAllowed(conn):
			return conn, hello{}, &fatal{code: stateAuthorization, message: "This gateway takes connections with TLS only; connect with sslmode=verify-full."}
		default:
			h, err := parseStartup(p)
			return conn, h, err
		}
	}
	return conn, hello{}, violation("%d requests for encryption and no startup message.", greetRounds)
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	first []byte
}

func (c *begun) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// tlsHandshake is the first byte of a TLS connection; of a startup message it
// would mean 352 MB.
const tlsHandshake = 0x16

// secureAtOnce takes a client that begins with TLS, without asking. Such a one
// must name the protocol (ALPN), so that nobody can lead a browser here.
func (r *Room) secureAtOnce(ctx context.Context, conn net.Conn) (net.Conn, bool, error) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil {
		return conn, false, fmt.Errorf("read startup: %w", err)
	}
	again := &begun{Conn: conn, first: first}
	if first[0] != tlsHandshake {
		return again, false, nil
	}
	t := tls.Server(again, r.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return conn, false, fmt.Errorf("shake hands: %w", err)
	}
	if got := t.ConnectionState().NegotiatedProtocol; got != alpn {
		return t, false, &fatal{code: stateAuthorization, message: fmt.Sprintf("A connection that begins with TLS must name the protocol %q by ALPN; got %q.", alpn, got)}
	}
	return t, true, nil
}

// secure answers yes and does the handshake. Nothing was read ahead, so bytes
// that somebody put before the handshake become part of it, and break it.
func (r *Room) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if _, err := conn.Write([]byte{'S'}); err != nil {
		return conn, fmt.Errorf("accept TLS: %w", err)
	}
	t := tls.Server(conn, r.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return conn, fmt.Errorf("shake hands: %w", err)
	}
	return t, nil
}

func (r *Room) plainAllowed(conn net.Conn) bool {
	a, ok := conn.RemoteAddr().(*net.TCPAddr)
	return ok && r.cfg.AllowPlainLoopback && a.IP.IsLoopback()
}

// readPacket reads a message without a type, as they come before the session.
func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read startup: %w", err)
	}
	size := int64(binary.BigEndian.Uint32(head[:])) - 4
	if size < 4 || size > maxStartup {
		return nil, violation("The startup message claims %d bytes; 4 to %d are allowed.", size, maxStartup)
	}
	p := make([]byte, size)
	if _, err := io.ReadFull(r, p); err != nil {
		return nil, fmt.Errorf("read startup: %w", err)
	}
	return p, nil
}

// parseStartup reads the version and the parameters.
func parseStartup(p []byte) (hello, error) {
	h := hello{settings: map[string]string{}}
	if major := binary.BigEndian.Uint16(p); major != protocol3 {
		return h, violation("Protocol version %d is not spoken here; connect with version 3.", major)
	}
	h.minor = binary.BigEndian.Uint16(p[2:])
	params, err := parseParams(p[4:])
	if err != nil {
		return h, err
	}
	seen := map[string]bool{}
	for _, kv := range params {
		name := strings.ToLower(kv[0])
		if seen[name] {
			return h, violation("The startup parameter %q comes twice.", name)
		}
		seen[name] = true
		if err := h.take(name, kv[1]); err != nil {
			return h, err
		}
	}
	if h.target == "" {
		return h, &fatal{code: stateNoDatabase, message: "No database was named; name a target, as in: psql \"host=... dbname=orders-prod\"."}
	}
	return h, nil
}

func parseParams(p []byte) ([][2]string, error) {
	var out [][2]string
	for {
		name, rest, ok := cutString(p)
		if !ok {
			return nil, violation("The startup message does not end as it must.")
		}
		if name == "" {
			if len(rest) > 0 {
				return nil, violation("%d bytes follow the startup message's end.", len(rest))
			}
			return out, nil
		}
		value, rest, ok := cutString(rest)
		if !ok {
			return nil, violation("The startup parameter %q has no value.", name)
		}
		out, p = append(out, [2]string{name, value}), rest
	}
}

// cutString cuts a zero-terminated string off.
func cutString(p []byte) (string, []byte, bool) {
	s, rest, ok := cutBytes(p)
	return string(s), rest, ok
}

func cutBytes(p []byte) (s, rest []byte, ok bool) { return bytes.Cut(p, []byte{0}) }

func (h *hello) take(name, value string) error {
	switch {
	case name == "user":
		h.user = value
	case name == "database":
		h.target, h.choice, _ = strings.Cut(value, "+")
	case name == "application_name":
		h.program, h.settings[name] = value, value
	case name == "client_encoding":
		if e := strings.ToLower(strings.Trim(value, `'" `)); e != "utf8" && e != "utf-8" {
			return &fatal{code: stateAuthorization, message: fmt.Sprintf("The client encoding %q is not understood here; connect with PGCLIENTENCODING=UTF8.", value)}
		}
	case strings.HasPrefix(name, "_pq_."):
		h.unknown = append(h.unknown, name)
	case settable[name]:
		h.settings[name] = value
	default: // options and replication among them
		return &fatal{code: stateAuthorization, message: fmt.Sprintf("The startup parameter %q is not allowed through Tidegate; connect without it.", name)}
	}
	return nil
}

// askToken asks for a password, which is the token. The connection is TLS, or
// does not leave this machine.
func askToken(conn net.Conn) (access.Secret, error) {
	if _, err := conn.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}); err != nil {
		return access.Secret{}, fmt.Errorf("ask for token: %w", err)
	}
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return access.Secret{}, fmt.Errorf("read token: %w", err)
	}
	size := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if head[0] != 'p' || size < 1 || size > maxToken {
		return access.Secret{}, violation("Message %q with %d bytes came in place of a password of at most %d.", head[0], size, maxToken)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return access.Secret{}, fmt.Errorf("read token: %w", err)
	}
	token, rest, ok := cutString(body)
	if !ok || len(rest) > 0 {
		return access.Secret{}, violation("The password message does not end as it must.")
	}
	return access.NewSecret(token), nil
}

// spoken is the minor version of protocol 3 that is spoken: 0 or 2.
func (h hello) spoken() uint16 {
	if h.minor >= 2 {
		return 2
	}
	return 0
}

// keySize is how long the client's key for cancel requests is.
func (h hello) keySize() int {
	if h.spoken() == 2 {
		return longKey
	}
	return shortKey
}

// negotiate tells a client that asks for another version, or for options that
// are not known here, what it gets.
func (h hello) negotiate() []byte {
	if h.minor == h.spoken() && len(h.unknown) == 0 {
		return nil
	}
	body := binary.BigEndian.AppendUint32(nil, protocol3<<16|uint32(h.spoken()))
	body = binary.BigEndian.AppendUint32(body, uint32(len(h.unknown)))
	slices.Sort(h.unknown)
	for _, u := range h.unknown {
		body = append(append(body, u...), 0)
	}
	return message('v', body)
}
