package mint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/access"
)

// Bounds of the connections to targets.
const (
	maxPools       = 512
	maxConns       = 4 // to one target
	connectTimeout = 5 * time.Second
	idleTime       = time.Minute
)

type poolKey struct{ address, admin, static string }

// pool is the connections to one target, and whether the things that all its
// grants share (the lock, the masks' owner) are known to exist.
type pool struct {
	*pgxpool.Pool
	database string
	turn     chan struct{} // of one: who has it mints or revokes
	making   chan struct{} // of one: who has it makes what all grants share
	ready    atomic.Bool
}

// forget lets the next call look again for what all grants share.
func (p *pool) forget() { p.ready.Store(false) }

// Close ends all connections.
func (m *Minter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, p := range m.pools {
		p.Pool.Close()
		delete(m.pools, key)
	}
	return nil
}

// pool answers with the target's pool, made when first asked for.
func (m *Minter) pool(t access.Target) (*pool, error) {
	if err := check(t); err != nil {
		return nil, err
	}
	addr, err := parseAddress(t.Address)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := poolKey{t.Address, t.Admin, t.Static}
	if p := m.pools[key]; p != nil {
		return p, nil
	}
	if len(m.pools) >= maxPools {
		return nil, access.Errorf(access.CodeTooLarge, "The minter serves %d targets, which is its bound.", maxPools)
	}
	cfg, err := m.poolConfig(t, addr)
	if err != nil {
		return nil, err
	}
	// The pool lives until Close, longer than any one call.
	made, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("make pool: %w", err)
	}
	p := &pool{Pool: made, database: addr.database, turn: make(chan struct{}, 1), making: make(chan struct{}, 1)}
	m.pools[key] = p
	return p, nil
}

func (m *Minter) poolConfig(t access.Target, addr address) (*pgxpool.Config, error) {
	// Everything that the environment or a service file could say is replaced below.
	cfg, err := pgxpool.ParseConfig("host=localhost user=nobody sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("make connection config: %w", err)
	}
	cfg.MaxConns, cfg.MinConns, cfg.MaxConnIdleTime = maxConns, 0, idleTime
	c := cfg.ConnConfig
	c.Host, c.Port, c.Database = addr.host, addr.port, addr.database
	c.Fallbacks, c.ConnectTimeout = nil, connectTimeout
	c.RequireAuth = "scram-sha-256"
	c.DialFunc = (&net.Dialer{Timeout: connectTimeout, Control: onlyTargets}).DialContext
	c.OnNotice = keepRefusedGrant
	c.RuntimeParams = map[string]string{
		"application_name": "tidegate-mint", "search_path": "pg_catalog", "client_encoding": "UTF8",
		"lock_timeout": "3s", "statement_timeout": "30s", "idle_in_transaction_session_timeout": "60s",
	}
	cfg.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		login, err := m.admin(ctx, t)
		if err != nil {
			return err
		}
		c.User, c.Password = login.User, login.Password.Reveal()
		c.TLSConfig, err = tlsConfig(login, addr.host)
		return err
	}
	return cfg, nil
}

func (m *Minter) admin(ctx context.Context, t access.Target) (AdminLogin, error) {
	login, err := m.cfg.Admin(ctx, t)
	if err != nil {
		return AdminLogin{}, &access.Error{Code: access.CodeUnavailable,
			Message: fmt.Sprintf("The secret %q of target %s can't be read.", t.Secret(), t.TargetRef), Cause: err}
	}
	return login, nil
}

func tlsConfig(login AdminLogin, host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: login.ServerName, MinVersion: tls.VersionTLS12}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if len(login.ServerCA) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(login.ServerCA) {
			return nil, errors.New("read server CA: no certificate in it; want PEM")
		}
	}
	return cfg, nil
}

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

const notGranted = "01007"

// keepRefusedGrant notes that a GRANT did less than it said: PostgreSQL only
// warns when the grantor may not hand a privilege on.
func keepRefusedGrant(c *pgconn.PgConn, n *pgconn.Notice) {
	if n.Code == notGranted {
		c.CustomData()[notGranted] = n.Message
	}
}

// refusedGrant tells of such a warning, once.
func refusedGrant(c *pgx.Conn) error {
	data := c.PgConn().CustomData()
	said, ok := data[notGranted]
	delete(data, notGranted)
	if !ok {
		return nil
	}
	return access.Errorf(access.CodeInvalid, "The minter's login may not hand on a privilege (%v): give it WITH GRANT OPTION, as `tidegate setup postgres` prints.", said)
}

type address struct {
	host     string
	port     uint16
	database string
}

// parseAddress reads host:port/database.
func parseAddress(s string) (address, error) {
	bad := access.Errorf(access.CodeInvalid, "Address %q is not understood: want host:port/database.", s)
	hostport, database, found := strings.Cut(s, "/")
	host, port, err := net.SplitHostPort(hostport)
	n, errPort := strconv.ParseUint(port, 10, 16)
	if !found || database == "" || len(database) > 63 || err != nil || errPort != nil || n == 0 ||
		host == "" || strings.HasPrefix(host, "/") || strings.ContainsAny(s, ",@\x00") {
		return address{}, bad
	}
	return address{host, uint16(n), database}, nil
}
