package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// maxSecret bounds a file with a secret, a key or certificates.
const maxSecret = 256 << 10

// readSecret reads a file that only its owner may read. Its error says what to
// do, and never what is in the file.
func readSecret(path string) (access.Secret, error) {
	f, err := openQuick(path)
	if err != nil {
		return access.Secret{}, errors.New(plainly(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return access.Secret{}, errors.New(plainly(err))
	}
	if err := onlyOurs(path, info); err != nil {
		return access.Secret{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return access.Secret{}, errors.New(plainly(err))
	case len(text) > maxSecret:
		return access.Secret{}, fmt.Errorf("it has more than %d bytes", maxSecret)
	case strings.TrimSpace(string(text)) == "":
		return access.Secret{}, errors.New("it is empty")
	}
	return access.NewSecret(strings.TrimRight(string(text), "\r\n")), nil
}

// onlyOurs refuses what others could have read or put there.
func onlyOurs(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	return private(path, info, "600")
}

// private refuses a file or folder of somebody else, or open to others.
func private(path string, info fs.FileInfo, mode string) error {
	if uid, ok := owner(info); ok && uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("it belongs to user %d and tidegate runs as %d; run: chown %d %s", uid, os.Geteuid(), os.Geteuid(), path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("others may use it (mode %04o, want 0%s); run: chmod %s %s", perm, mode, mode, path)
	}
	return nil
}

// plainly is an error without the path, which the message has already.
func plainly(err error) string {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// secretFile is the secret in a file that an attribute names.
func (d *decoder) secretFile(v value) access.Secret {
	if !v.ok() {
		return access.Secret{}
	}
	d.keepFromDev(v)
	s, err := readSecret(d.path(v.text))
	if err != nil {
		d.errorf(v.at, "Secret file refused", "Can't take %s: %v.", v.text, err)
	}
	return s
}

// pemCertificates is a file of certificates that an attribute names.
func (d *decoder) pemCertificates(v value) []byte {
	if !v.ok() {
		return nil
	}
	text, err := readBounded(d.path(v.text), maxSecret)
	if err != nil {
		d.errorf(v.at, "File not read", "Can't read %s: %s.", v.text, plainly(err))
		return nil
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		d.errorf(v.at, "No certificate", "Got no certificate in %s, want PEM.", v.text)
		return nil
	}
	d.certs = append(d.certs, certFile{path: d.path(v.text)})
	return text
}

// keyPair is a certificate and its key, both or neither.
func (b *block) keyPair() tlsFiles {
	cert, key := b.text("certificate_file"), b.text("key_file")
	if cert.ok() != key.ok() {
		if !b.has("certificate_file") || !b.has("key_file") {
			b.errorf(b.at, "Half a certificate", "Got one of certificate_file and key_file in %s, want both.", b.name)
		}
		b.secretFile(key)
		return tlsFiles{}
	}
	if !cert.ok() {
		return tlsFiles{}
	}
	files := tlsFiles{b.path(cert.text), b.path(key.text)}
	chain, secret := b.pemCertificates(cert), b.secretFile(key)
	if chain != nil {
		b.certs[len(b.certs)-1].shown = true
	}
	if chain != nil && !secret.IsZero() {
		if _, err := files.load(); err != nil {
			b.errorf(cert.at, "Certificate refused", "Can't use %s with %s: %v.", cert.text, key.text, err)
		}
	}
	return files
}

// load reads the pair as it is now.
func (f tlsFiles) load() (*tls.Certificate, error) {
	chain, err := readBounded(f.Certificate, maxSecret)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	key, err := readSecret(f.Key)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", f.Key, err)
	}
	pair, err := tls.X509KeyPair(chain, []byte(key.Reveal()))
	if err == nil && time.Now().After(pair.Leaf.NotAfter) {
		err = fmt.Errorf("it ended on %s", pair.Leaf.NotAfter.UTC().Format(time.DateTime))
	}
	return &pair, err
}

// keepFromDev refuses what lies in a folder of `tidegate dev`: its keys and
// people are for everybody on the machine to see.
func (d *decoder) keepFromDev(v value) {
	abs, err := filepath.Abs(d.path(v.text))
	if err != nil {
		return // the file's own check says so
	}
	for dir := abs; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, devFile)); err == nil {
			d.errorf(v.at, "Made by dev", "Can't use %s: its folder is one of `tidegate dev` (it holds %s); choose another.", v.text, devFile)
			return
		}
		if dir == filepath.Dir(dir) {
			return
		}
	}
}

// address is the host of host:port to connect to.
func (d *decoder) address(v value) (host string) {
	host, ok := d.hostPort(v)
	if ok && host == "" {
		d.wrongAddress(v)
	}
	return host
}

// listenAddress is the host of host:port to listen at; none is every address
// of this machine.
func (d *decoder) listenAddress(v value) (host string) {
	host, ok := d.hostPort(v)
	if ok && host != "" && host != "localhost" && net.ParseIP(host) == nil {
		d.errorf(v.at, "Wrong address", "Got %q, want an IP address of this machine to listen on, or none for all.", v.text)
	}
	return host
}

func (d *decoder) hostPort(v value) (host string, ok bool) {
	if !v.ok() {
		return "", false
	}
	host, port, err := net.SplitHostPort(v.text)
	n, numErr := strconv.Atoi(port)
	if err != nil || numErr != nil || n < 1 || n > 65535 {
		d.wrongAddress(v)
		return "", false
	}
	return host, true
}

func (d *decoder) wrongAddress(v value) {
	d.errorf(v.at, "Wrong address", `Got %q, want host:port such as "127.0.0.1:5432", with a port from 1 to 65535.`, v.text)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// httpsURL refuses a URL that is not one, and one over which tokens or keys
// would travel readable.
func (d *decoder) httpsURL(v value) {
	if !v.ok() {
		return
	}
	u, err := url.Parse(v.text)
	switch {
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		d.errorf(v.at, "Wrong URL", "Got text that is no URL of a server, want https://host/path.")
	case u.User != nil:
		d.errorf(v.at, "Wrong URL", "Got a URL with a login in it, want https://host/path: secrets stand in files.")
	case u.Scheme != "https":
		d.errorf(v.at, "Plain text", "Got %q, want https: over %s what is sent can be read and changed on its way.", v.text, u.Scheme)
	}
}

// ledgerURL judges where the ledger is. The text may hold a password, so no
// message repeats it.
func ledgerURL(text string) error {
	if path, ok := strings.CutPrefix(text, "sqlite:"); ok {
		if !filepath.IsAbs(path) {
			return errors.New("got a sqlite ledger with a relative path, want sqlite:/absolute/path")
		}
		return nil
	}
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return errors.New("got a scheme of another kind, want postgres://user@host/database or sqlite:/absolute/path")
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return errors.New("got a URL that PostgreSQL's clients do not understand, or that names a file they can't read; want postgres://user@host/database?sslmode=verify-full")
	}
	if !verifiedTLS(config) {
		return errors.New("got a connection that can be read or redirected, want sslmode=verify-full in the URL (sslrootcert names the CA)")
	}
	return nil
}

// verifiedTLS reports whether every way that a client may try checks who
// answers. A socket in the file system is guarded by its folder.
func verifiedTLS(c *pgx.ConnConfig) bool {
	safe := func(host string, t *tls.Config) bool {
		return filepath.IsAbs(host) || t != nil && !t.InsecureSkipVerify && t.ServerName != ""
	}
	for _, f := range c.Fallbacks {
		if !safe(f.Host, f.TLSConfig) {
			return false
		}
	}
	return safe(c.Host, c.TLSConfig)
}

// hasPassword reports whether a URL carries one.
func hasPassword(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return true // who knows
	}
	_, set := u.User.Password()
	return set || u.Query().Has("password")
}
