package main

import (
	"bytes"
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
	"slices"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// A key that others must learn of before it signs is rotated in two steps, of
// which the second needs nobody: NAME.next.pem is made beside NAME.pem and says
// in its head when it takes over. From the first moment both are trusted where
// public halves are printed; the old one until a day after that.
const (
	nextSuffix = ".next.pem"
	oldSuffix  = ".old.pem"
	signsFrom  = "Signs-From" // of a PEM block, RFC 3339
)

// keySet is a key with those before and after it.
type keySet struct {
	Signs ed25519.PrivateKey   // now
	Next  ed25519.PrivateKey   // nil unless a rotation is under way
	From  time.Time            // when Next signs
	Old   []ed25519.PrivateKey // signed before; the latest first
	Grace bool                 // the first of Old was at work until a moment ago
}

// rotationGrace is how long the key before is trusted where others take over
// public halves: a part that has not turned yet still signs with it.
const rotationGrace = 24 * time.Hour

// trusted are all, the one that signs first.
func (s keySet) trusted() []ed25519.PrivateKey {
	all := []ed25519.PrivateKey{s.Signs}
	if s.Next != nil {
		all = append(all, s.Next)
	}
	return append(all, s.Old...)
}

func besideKey(path, suffix string) string { return strings.TrimSuffix(path, ".pem") + suffix }

// readKeySet reads what lies at path and beside it, as it is at that time. It
// makes nothing.
func readKeySet(path string, now time.Time) (s keySet, err error) {
	current, err := readSigners(path)
	if err != nil {
		return s, err
	}
	if len(current) != 1 {
		return s, fmt.Errorf("read key %s: %w", path, fs.ErrNotExist)
	}
	s.Signs = current[0]
	if s.Old, err = readSigners(besideKey(path, oldSuffix)); err != nil {
		return s, err
	}
	slices.Reverse(s.Old)
	text, err := readBounded(besideKey(path, nextSuffix), maxSecret)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read key: %w", err)
	}
	return s.with(text, besideKey(path, nextSuffix), now)
}

// with takes the next key in: it signs if its time has come.
func (s keySet) with(text []byte, path string, now time.Time) (keySet, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return s, fmt.Errorf("read key %s: no PEM in it", path)
	}
	next, err := parseSigner(block)
	if err != nil {
		return s, fmt.Errorf("read key %s: %w", path, err)
	}
	from, err := time.Parse(time.RFC3339, block.Headers[signsFrom])
	if err != nil {
		return s, fmt.Errorf("read key %s: want %s in its head", path, signsFrom)
	}
	if now.Before(from) {
		s.Next, s.From = next, from
		return s, nil
	}
	s.Old = append([]ed25519.PrivateKey{s.Signs}, s.Old...)
	s.Signs, s.Grace = next, now.Before(from.Add(rotationGrace))
	return s, nil
}

// rotateKey makes a new key for path that signs after the lead, or at once.
// Each step leaves files with which everything goes on.
func rotateKey(path string, lead time.Duration, now time.Time) (keySet, error) {
	s, err := readKeySet(path, now)
	if err != nil {
		return s, err
	}
	if s.Next != nil {
		return s, fmt.Errorf("rotate %s: a rotation is under way; the next key signs from %s", filepath.Base(path), stamp(s.From))
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return s, fmt.Errorf("make key: %w", err)
	}
	if err := s.settle(path, lead > 0); err != nil {
		return s, err
	}
	if lead <= 0 {
		text, err := encodeKey(key, time.Time{})
		if err != nil {
			return s, err
		}
		if err := writeNew(path, text); err != nil {
			return s, err
		}
		return readKeySet(path, now)
	}
	text, err := encodeKey(key, now.Add(lead))
	if err != nil {
		return s, err
	}
	if err := writeNew(besideKey(path, nextSuffix), text); err != nil {
		return s, err
	}
	return readKeySet(path, now)
}

// settle writes the files as they are meant now: a next key whose time has come
// becomes the key, and what signed before is kept. Where the present key stays,
// it is not among the old.
func (s keySet) settle(path string, stays bool) error {
	old := s.Old
	if !stays {
		old = append([]ed25519.PrivateKey{s.Signs}, old...)
	}
	var all []byte
	for _, key := range slices.Backward(old[:min(len(old), maxOldSigners)]) {
		text, err := encodeKey(key, time.Time{})
		if err != nil {
			return err
		}
		all = append(all, text...)
	}
	if len(all) > 0 {
		if err := writeNew(besideKey(path, oldSuffix), all); err != nil {
			return err
		}
	}
	text, err := encodeKey(s.Signs, time.Time{})
	if err != nil {
		return err
	}
	if err := writeNew(path, text); err != nil {
		return err
	}
	if err := os.Remove(besideKey(path, nextSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate key: %w", err)
	}
	return nil
}

func encodeKey(key ed25519.PrivateKey, from time.Time) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if !from.IsZero() {
		block.Headers = map[string]string{signsFrom: from.UTC().Format(time.RFC3339)}
	}
	return pem.EncodeToMemory(block), nil
}

// turningSigner is an SSH CA whose key changes while it is used. Its files are
// read for each certificate.
type turningSigner struct {
	path string
	now  clock
	last gossh.Signer // as it was opened: files that can't be read stop nothing that goes on
}

func (t turningSigner) all() []gossh.Signer {
	set, err := readKeySet(t.path, t.now())
	if err != nil {
		return []gossh.Signer{t.last}
	}
	var out []gossh.Signer
	for _, key := range set.trusted() {
		if s, err := gossh.NewSignerFromKey(key); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// PublicKey implements ssh.Signer.
func (t turningSigner) PublicKey() gossh.PublicKey { return t.all()[0].PublicKey() }

// Sign implements ssh.Signer. A certificate names whose it is in what is
// signed: that key signs, even where another took over meanwhile.
func (t turningSigner) Sign(random io.Reader, data []byte) (*gossh.Signature, error) {
	all := t.all()
	for _, s := range all {
		if bytes.Contains(data, s.PublicKey().Marshal()) {
			return s.Sign(random, data)
		}
	}
	return all[0].Sign(random, data)
}

// authorizedKeys are the public halves that SSH should trust now, one a line.
// A CA that is gone is not among them: it may be why the key was rotated.
func (s keySet) authorizedKeys() ([]byte, error) {
	keys := []ed25519.PrivateKey{s.Signs}
	if s.Next != nil {
		keys = append(keys, s.Next)
	}
	if s.Grace {
		keys = append(keys, s.Old[0])
	}
	var out []byte
	for _, key := range keys {
		signer, err := gossh.NewSignerFromKey(key)
		if err != nil {
			return nil, fmt.Errorf("read SSH key: %w", err)
		}
		out = append(out, gossh.MarshalAuthorizedKey(signer.PublicKey())...)
	}
	return out, nil
}
