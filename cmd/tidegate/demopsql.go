package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// psql is a command line for somebody, made ready by files alone: the token
// stands in a password file, never in an argument or the environment.
func (d *demo) psql(ctx context.Context, who, database string, extra ...string) (*exec.Cmd, error) {
	host, port, err := net.SplitHostPort(d.house.Postgres)
	if err != nil {
		return nil, fmt.Errorf("read gateway address: %w", err)
	}
	return d.psqlAt(ctx, who, fmt.Sprintf("host=%s port=%s dbname=%s user=%s sslmode=verify-full sslrootcert=%s",
		host, port, database, who, d.house.CA), extra...)
}

func (d *demo) psqlAt(ctx context.Context, who, conninfo string, extra ...string) (*exec.Cmd, error) {
	pass := filepath.Join(d.work, who+".pgpass")
	if err := os.WriteFile(pass, []byte("*:*:*:*:"+d.house.Tokens[who]+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write password file: %w", err)
	}
	args := append([]string{"-X", "-v", "ON_ERROR_STOP=0", "-v", "VERBOSITY=verbose", "-At", conninfo + " passfile=" + pass}, extra...)
	return exec.CommandContext(ctx, "psql", args...), nil
}

// query runs statements in one session and answers with all that psql said.
func (d *demo) query(ctx context.Context, who, database string, statements ...string) (string, error) {
	cmd, err := d.psql(ctx, who, database)
	if err != nil {
		return "", err
	}
	return feed(cmd, statements)
}

func feed(cmd *exec.Cmd, statements []string) (string, error) {
	cmd.Stdin = strings.NewReader(strings.Join(statements, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), nil // psql's own complaint is in out
	}
	return string(out), err
}

// tap listens in plain text, speaks TLS to the gateway and keeps every byte
// that comes back: what the client receives, after TLS.
type tap struct {
	listener net.Listener
	gateway  string
	config   *tls.Config

	wg  sync.WaitGroup
	mu  sync.Mutex
	got bytes.Buffer
}

func (d *demo) tap() (*tap, error) {
	pem, err := os.ReadFile(d.house.CA)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	t := &tap{listener: l, gateway: d.house.Postgres, config: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"postgresql"}}}
	t.wg.Add(1)
	go t.accept()
	return t, nil
}

// Close ends the tap and answers with the bytes.
func (t *tap) Close() []byte {
	t.listener.Close()
	t.wg.Wait()
	return t.got.Bytes()
}

func (t *tap) accept() {
	defer t.wg.Done()
	for {
		client, err := t.listener.Accept()
		if err != nil {
			return
		}
		t.wg.Add(1)
		go t.relay(client)
	}
}

func (t *tap) relay(client net.Conn) {
	defer t.wg.Done()
	defer client.Close()
	raw, err := net.Dial("tcp", t.gateway)
	if err != nil {
		return
	}
	defer raw.Close()
	if _, err := raw.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
		return
	}
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		return
	}
	server := tls.Client(raw, t.config)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(server, client) // ends with either side
		_ = server.CloseWrite()
	}()
	_, _ = io.Copy(io.MultiWriter(client, t), server) // likewise
	client.Close()
	<-done
}

// Write keeps what came from the gateway.
func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.got.Write(b)
}
