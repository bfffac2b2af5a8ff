package devissuer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	keyFile = "dev-issuer.key"
	keyType = "PRIVATE KEY"
	maxKey  = 4 << 10
)

// openKey reads the key, and makes it first if there is none.
func openKey(dir string) (ed25519.PrivateKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make dev issuer's folder: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := makeKey(path); err != nil {
		return nil, err
	}
	return readKey(path)
}

func readKey(path string) (ed25519.PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read dev issuer's key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read dev issuer's key: %w", err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("read dev issuer's key: %s has mode %04o, want 0600: others could have read it; delete it and start again", path, mode)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, fmt.Errorf("read dev issuer's key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != keyType {
		return nil, fmt.Errorf("read dev issuer's key: %s is not a private key in PEM form; delete it and start again", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("read dev issuer's key: %s is not an Ed25519 key; delete it and start again", path)
	}
	return key, nil
}

// makeKey writes a new key. The link puts the whole file there or nothing,
// and loses to a process that was faster.
func makeKey(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make dev issuer's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make dev issuer's key: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), keyFile+".*") // 0600
	if err != nil {
		return fmt.Errorf("make dev issuer's key: %w", err)
	}
	defer os.Remove(f.Name())
	err = errors.Join(pem.Encode(f, &pem.Block{Type: keyType, Bytes: der}), f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make dev issuer's key: %w", err)
	}
	return nil
}
