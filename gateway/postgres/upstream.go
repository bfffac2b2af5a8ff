package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
	"github.com/tidegate/tidegate/gateway/postgres/poll"
)

const dialTime = 10 * time.Second

// upstream is the connection to the target, logged in.
type upstream struct {
	conn   net.Conn
	line   *poll.Conn // below conn's TLS
	out    sink
	tls    *tls.Config // nil: the benchmark's plain connection
	params map[string]string
	pid    uint32
	secret []byte
}

// dialTarget logs in with the lease. pgconn does the handshakes; then the
// connection is taken out of it.
func (r *Room) dialTarget(ctx context.Context, lease access.Lease, plan backing.Backing, settings map[string]string) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	cfg, err := targetConfig(lease, plan)
	if err != nil {
		return nil, err
	}
	if !r.plainTarget {
		if cfg.TLSConfig, err = r.roots.config(lease, cfg.Host); err != nil {
			return nil, err
		}
	}
	var line *poll.Conn
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer().DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		line = poll.New(conn)
		return line, nil
	}
	maps.Copy(cfg.RuntimeParams, settings)
	maps.Copy(cfg.RuntimeParams, fixedSettings(plan))
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to target: %w", err)
	}
	if err := pg.SyncConn(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("settle connection: %w", err), pg.Close(ctx))
	}
	h, err := pg.Hijack()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take connection: %w", err), pg.Close(ctx))
	}
	if err := h.Conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(fmt.Errorf("take connection: %w", err), h.Conn.Close())
	}
	return &upstream{conn: h.Conn, line: line, out: sink{w: h.Conn}, tls: cfg.TLSConfig, params: h.ParameterStatuses, pid: h.PID, secret: h.SecretKey}, nil
}

// fixedSettings are what the session's safety stands on: the parser here
// reads text as the target does only with these.
func fixedSettings(plan backing.Backing) map[string]string {
	s := map[string]string{"client_encoding": "UTF8", "standard_conforming_strings": "on"}
	if len(plan.SearchPath) > 0 {
		path := make([]string, len(plan.SearchPath))
		for i, p := range plan.SearchPath {
			path[i] = quote(p)
		}
		s["search_path"] = strings.Join(path, ", ")
	}
	return s
}

// targetConfig says everything itself: what ParseConfig read of the
// environment is replaced.
func targetConfig(lease access.Lease, plan backing.Backing) (*pgconn.Config, error) {
	host, port, database, err := splitAddress(lease.Address)
	if err != nil {
		return nil, err
	}
	if database != plan.Database {
		return nil, fmt.Errorf("check lease: it is for database %q, its plan for %q", database, plan.Database)
	}
	cfg, err := pgconn.ParseConfig("host=localhost port=5432 user=nobody password=none sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("make connection config: %w", err)
	}
	cfg.Host, cfg.Port, cfg.Database = host, port, database
	cfg.User, cfg.Password = lease.User, lease.Password.Reveal()
	cfg.Fallbacks, cfg.RuntimeParams = nil, map[string]string{}
	cfg.ValidateConnect, cfg.AfterConnect = nil, nil
	cfg.SSLNegotiation, cfg.SSLCertMode, cfg.ChannelBinding = "postgres", "disable", "prefer"
	cfg.MinProtocolVersion, cfg.MaxProtocolVersion = "3.0", "3.2"
	cfg.KerberosSrvName, cfg.KerberosSpn, cfg.OAuthTokenProvider = "", "", nil
	cfg.RequireAuth = "scram-sha-256"
	cfg.ConnectTimeout, cfg.MaxProtocolMessageBodyLen = dialTime, 1<<20
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&stepper{r: r}, w)
	}
	return cfg, nil
}

// roots keeps one TLS configuration for each CA and name: a parsed
// certificate is large, and sessions are many.
type roots struct{ kept recent[*tls.Config] }

func newRoots() *roots { return &roots{recent[*tls.Config]{maxEntries: 128, maxBytes: 4 << 20}} }

func (r *roots) config(lease access.Lease, host string) (*tls.Config, error) {
	key := slices.Concat([]byte(lease.ServerName+"\x00"+host+"\x00"), lease.ServerCA)
	if cfg, ok := r.kept.get(key); ok {
		return cfg, nil
	}
	cfg, err := targetTLS(lease, host)
	if err == nil {
		r.kept.put(string(key), cfg)
	}
	return cfg, err
}

func targetTLS(lease access.Lease, host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: lease.ServerName, MinVersion: tls.VersionTLS12, DynamicRecordSizingDisabled: true}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if len(lease.ServerCA) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(lease.ServerCA) {
			return nil, errors.New("read server CA: no certificate in it; want PEM")
		}
	}
	return cfg, nil
}

func splitAddress(s string) (host string, port uint16, database string, err error) {
	hostport, database, _ := strings.Cut(s, "/")
	host, p, err := net.SplitHostPort(hostport)
	n, perr := strconv.ParseUint(p, 10, 16)
	if err != nil || perr != nil || host == "" || n == 0 || database == "" || strings.ContainsAny(host, "/,@") {
		return "", 0, "", fmt.Errorf("read target address %q: want host:port/database", s)
	}
	return host, uint16(n), database, nil
}

func dialer() *net.Dialer { return &net.Dialer{Timeout: dialTime, Control: onlyTargets} }

// onlyTargets looks at the address after the name was resolved.
func onlyTargets(_, hostport string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return fmt.Errorf("dial target: %w", err)
	}
	if !access.Dialable(ap.Addr()) {
		return fmt.Errorf("dial target: no target is at %s, a link-local, multicast, unspecified or cloud's own address; want the server's", ap.Addr())
	}
	return nil
}

// stepper never reads past the end of a message, so that pgconn has nothing
// buffered when the connection is taken out of it.
type stepper struct {
	r    io.Reader
	head []byte
	body int
}

func (s *stepper) Read(p []byte) (int, error) {
	if s.body > 0 {
		n, err := s.r.Read(p[:min(len(p), s.body)])
		s.body -= n
		return n, err
	}
	n, err := s.r.Read(p[:min(len(p), 5-len(s.head))])
	s.head = append(s.head, p[:n]...)
	if len(s.head) == 5 {
		s.body, s.head = max(0, int(int32(binary.BigEndian.Uint32(s.head[1:])))-4), s.head[:0]
	}
	return n, err
}

// cancel asks the target to give up what it does for this connection. The
// request travels on a connection of its own, with TLS as the first one.
func (u *upstream) cancel(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	addr := u.conn.RemoteAddr()
	conn, err := dialer().DialContext(ctx, addr.Network(), addr.String())
	if err != nil {
		return fmt.Errorf("cancel at target: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	t := conn
	if u.tls != nil {
		if t, err = u.encrypt(conn); err != nil {
			return err
		}
	}
	req := binary.BigEndian.AppendUint32(nil, uint32(12+len(u.secret)))
	req = binary.BigEndian.AppendUint32(req, codeCancel)
	req = append(binary.BigEndian.AppendUint32(req, u.pid), u.secret...)
	if _, err := t.Write(req); err != nil {
		return fmt.Errorf("cancel at target: %w", err)
	}
	_, _ = io.CopyN(io.Discard, t, 1) // the target closes when it has done it
	return nil
}

// encrypt asks the target for TLS on a new connection.
func (u *upstream) encrypt(conn net.Conn) (net.Conn, error) {
	var yes [1]byte
	_, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47})
	if err == nil {
		_, err = io.ReadFull(conn, yes[:])
	}
	if err != nil || yes[0] != 'S' {
		return nil, fmt.Errorf("cancel at target: TLS was not accepted: %w", errors.Join(err, errors.New("want 'S'")))
	}
	return tls.Client(conn, u.tls), nil
}
