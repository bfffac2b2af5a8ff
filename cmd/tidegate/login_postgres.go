package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/gateway/ssh"
)

// postgresDoor is what a login knows of the gateway's PostgreSQL port.
type postgresDoor struct {
	Address string `json:"address"`
	CA      string `json:"ca"` // PEM, of the gateway's certificate
}

// Files of a PostgreSQL login. With the first, any libpq client connects by a
// target's name: PGSERVICEFILE=… psql service=orders-prod.
const (
	serviceFile    = "pg_service.conf"
	clientKeyFile  = "postgres.key"
	clientCertFile = "postgres.crt"
	postgresCAFile = "postgres-ca.pem"
)

// readPostgres takes the flags over an earlier login's.
func (l *login) readPostgres(address, caFile string) error {
	if address == "" && caFile == "" {
		return nil
	}
	door := postgresDoor{}
	if l.Postgres != nil {
		door = *l.Postgres
	}
	if address != "" {
		host, port, err := net.SplitHostPort(address)
		if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 1 || n > 65535 || !hostWord.MatchString(host) {
			return fmt.Errorf("%w: got --postgres %q, want host:port", errUsage, address)
		}
		door.Address = address
	}
	if caFile != "" {
		ca, err := readBounded(caFile, maxSecret)
		if err != nil {
			return fmt.Errorf("read the gateway's CA: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(ca) {
			return fmt.Errorf("read the gateway's CA: no certificate in %s, want PEM", caFile)
		}
		door.CA = string(ca)
	}
	if door.Address == "" || door.CA == "" {
		return fmt.Errorf("%w: for psql the first time, want --postgres and --postgres-ca together", errUsage)
	}
	l.Postgres = &door
	return nil
}

// clientKey is a new key for one client certificate.
type clientKey struct {
	public  []byte // PKIX
	private []byte // PEM
}

func newClientKey() (k clientKey, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return k, fmt.Errorf("make key: %w", err)
	}
	if k.public, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return k, fmt.Errorf("encode key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return k, fmt.Errorf("encode key: %w", err)
	}
	k.private = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return k, nil
}

// write makes the files. The service file comes last: what it names is there.
func (d *postgresDoor) write(dir string, key clientKey, got ssh.Exchanged) error {
	services, err := d.services(dir, got.Named)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{
		{clientKeyFile, key.private},
		{clientCertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: got.Client.Raw})},
		{postgresCAFile, []byte(d.CA)}, {serviceFile, services},
	} {
		if err := writeNew(filepath.Join(dir, f.name), f.text); err != nil {
			return err
		}
	}
	return nil
}

// serviceName is what may become a line of the service file: what the gateway
// says is no more than a name, or could be another setting.
var serviceName = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}(?:\+[A-Za-z0-9_][A-Za-z0-9_.-]{0,62})?\z`)

// services is the service file: a section for each name.
func (d *postgresDoor) services(dir string, names []string) ([]byte, error) {
	host, port, err := net.SplitHostPort(d.Address)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's address: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("find login folder: %w", err)
	}
	var out bytes.Buffer
	for _, name := range names {
		if !serviceName.MatchString(name) {
			return nil, fmt.Errorf("write %s: the gateway named the target %q, which is no name", serviceFile, name)
		}
		fmt.Fprintf(&out, "[%s]\nhost=%s\nport=%s\ndbname=%s\nuser=%s\nsslmode=verify-full\nsslrootcert=%s\nsslcert=%s\nsslkey=%s\n\n",
			name, host, port, name, dialName, filepath.Join(dir, postgresCAFile), filepath.Join(dir, clientCertFile), filepath.Join(dir, clientKeyFile))
	}
	return out.Bytes(), nil
}

// howTo says how to connect.
func (d *postgresDoor) howTo(dir string, services []string) string {
	if len(services) == 0 {
		return "No grant of yours opens a PostgreSQL target at the moment; log in again when one does."
	}
	return fmt.Sprintf("PGSERVICEFILE=%s psql service=%s", filepath.Join(dir, serviceFile), strings.Join(services, " | "))
}
