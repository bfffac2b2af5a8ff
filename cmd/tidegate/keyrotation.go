package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A key lies in NAME.pem. A rotation with a lead makes NAME.next.pem beside it,
// which says in its head from when it signs; the second step needs nobody. What
// signed before stands in NAME.old.pem: of most keys the public half alone, each
// with the moment until which it is trusted. So the files say everything, and
// whoever reads them anew from time to time needs no word about a rotation.
const (
	nextSuffix = ".next.pem"
	oldSuffix  = ".old.pem"
)

// Heads of PEM blocks, RFC 3339.
const (
	headMade  = "Made"
	headFrom  = "Signs-From"
	headUntil = "Trusted-Until"
)

// maxOldHalves bounds what is kept of the keys before.
const maxOldHalves = 8

// keyHalf is one key with what its file says of it. The times are zero where
// nothing is said.
type keyHalf struct {
	Key    crypto.Signer // nil where the private half is gone
	Public crypto.PublicKey
	Cert   *x509.Certificate // of a CA for TLS
	Made   time.Time
	From   time.Time // a next one's: when it begins to sign
	Until  time.Time // an old one's: when it is trusted no more; zero is already
}

func (h keyHalf) is(other keyHalf) bool {
	equal, ok := h.Public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && equal.Equal(other.Public)
}

// keySet is a key with those before and after it, as the files say.
type keySet struct {
	kind    keyKind
	current keyHalf
	next    *keyHalf
	old     []keyHalf // the latest first
}

// keyView is a set as it is at one moment.
type keyView struct {
	Signs keyHalf
	Next  *keyHalf  // nil unless a rotation is under way
	Old   []keyHalf // signed before, trusted or not; the latest first
	now   time.Time
	kind  keyKind
}

// at is the set at a moment: a next key whose time has come signs, whether or
// not somebody has moved the files.
func (s keySet) at(now time.Time) keyView {
	v := keyView{Signs: s.current, Next: s.next, Old: s.old, now: now, kind: s.kind}
	if v.Next != nil && !now.Before(v.Next.From) {
		last := s.current
		last.Until = s.kind.trustedUntil(v.Next.From)
		v.Old = append([]keyHalf{last}, v.Old...)
		v.Signs, v.Next = *v.Next, nil
	}
	// Whoever moved the files may have been killed in between: then some say the same.
	seen := []keyHalf{v.Signs}
	v.Old = slices.DeleteFunc(slices.Clone(v.Old), func(h keyHalf) bool {
		known := slices.ContainsFunc(seen, h.is)
		seen = append(seen, h)
		return known
	})
	if v.Next != nil && v.Next.is(v.Signs) {
		v.Next = nil
	}
	return v
}

// trusts reports whether what an old half signed is still taken.
func (v keyView) trusts(old keyHalf) bool { return v.kind.forever || v.now.Before(old.Until) }

// trustedOld are those before that are trusted still.
func (v keyView) trustedOld() []keyHalf {
	return slices.DeleteFunc(slices.Clone(v.Old), func(h keyHalf) bool { return !v.trusts(h) })
}

// trusted are all whose public halves others should have now, the one that
// signs first. One that is gone is not among them: it may be why the key was
// rotated.
func (v keyView) trusted() []keyHalf {
	all := []keyHalf{v.Signs}
	if v.Next != nil {
		all = append(all, *v.Next)
	}
	return append(all, v.trustedOld()...)
}

func besideKey(path, suffix string) string { return strings.TrimSuffix(path, ".pem") + suffix }

// readKeySet reads what lies in dir of a key. It makes nothing.
func readKeySet(dir string, kind keyKind) (s keySet, err error) {
	path := filepath.Join(dir, kind.file)
	s.kind = kind
	current, err := readHalves(path)
	if err != nil {
		return s, err
	}
	if len(current) != 1 || current[0].Key == nil {
		return s, fmt.Errorf("read key %s: want one private key; bring the file back from your copy", path)
	}
	s.current = current[0]
	if err := s.complete(dir, path); err != nil {
		return s, err
	}
	if s.old, err = readHalves(besideKey(path, oldSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	slices.Reverse(s.old)
	next, err := readHalves(besideKey(path, nextSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil && (len(next) != 1 || next[0].Key == nil || next[0].From.IsZero()) {
		err = fmt.Errorf("read key %s: want one private key, and %s in its head", besideKey(path, nextSuffix), headFrom)
	}
	if err != nil {
		return s, err
	}
	s.next = &next[0]
	return s, nil
}

// complete adds what files of before there were rotations do not say.
func (s *keySet) complete(dir, path string) error {
	if s.current.Made.IsZero() {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		s.current.Made = info.ModTime()
	}
	if s.kind.form != formX509 || s.current.Cert != nil {
		return nil
	}
	certs, err := readHalves(besideKey(filepath.Join(dir, s.kind.file), ".crt"))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(certs, func(c keyHalf) bool { return c.Cert != nil && c.is(s.current) })
	if i < 0 {
		return fmt.Errorf("read key %s: there is no certificate of it, neither in it nor in the .crt beside it", path)
	}
	s.current.Cert = certs[i].Cert
	return nil
}

// readHalves reads a file of keys, each with its certificate behind it.
func readHalves(path string) (out []keyHalf, err error) {
	text, err := readBounded(path, maxSecret)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	for block := range pemBlocks(text) {
		h, err := readHalf(block)
		if err != nil {
			return nil, fmt.Errorf("read key %s: %w", path, err)
		}
		if n := len(out); h.Cert != nil && n > 0 && out[n-1].Cert == nil && out[n-1].is(h) {
			out[n-1].Cert = h.Cert
			continue
		}
		out = append(out, h)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read key %s: no PEM in it; bring the file back from your copy", path)
	}
	return out, nil
}

func readHalf(block *pem.Block) (h keyHalf, err error) {
	switch block.Type {
	case "PRIVATE KEY":
		h.Key, err = parseSigner(block.Bytes)
		if err == nil {
			h.Public = h.Key.Public()
		}
	case "PUBLIC KEY":
		h.Public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "CERTIFICATE":
		h.Cert, err = x509.ParseCertificate(block.Bytes)
		if err == nil {
			h.Public = h.Cert.PublicKey
		}
	default:
		err = fmt.Errorf("got a PEM block %q, want a key or a certificate", block.Type)
	}
	for head, to := range map[string]*time.Time{headMade: &h.Made, headFrom: &h.From, headUntil: &h.Until} {
		text, said := block.Headers[head]
		if !said || err != nil {
			continue
		}
		if *to, err = time.Parse(time.RFC3339, text); err != nil {
			err = fmt.Errorf("got %s: %.40q, want a time", head, text)
		}
	}
	return h, err
}

// encode is a half as a file has it: its private half, if that is there, and
// the certificate behind it; else the public half, in the certificate if there
// is one.
func (h keyHalf) encode() ([]byte, error) {
	heads := map[string]string{}
	for head, at := range map[string]time.Time{headMade: h.Made, headFrom: h.From, headUntil: h.Until} {
		if !at.IsZero() {
			heads[head] = at.UTC().Format(time.RFC3339)
		}
	}
	block := &pem.Block{Headers: heads}
	var err error
	switch {
	case h.Key != nil:
		block.Type = "PRIVATE KEY"
		block.Bytes, err = x509.MarshalPKCS8PrivateKey(h.Key)
	case h.Cert != nil:
		block.Type, block.Bytes = "CERTIFICATE", h.Cert.Raw
	default:
		block.Type = "PUBLIC KEY"
		block.Bytes, err = x509.MarshalPKIXPublicKey(h.Public)
	}
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	text := pem.EncodeToMemory(block)
	if h.Key != nil && h.Cert != nil {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Cert.Raw})...)
	}
	return text, nil
}

// rotation is what is asked of a key.
type rotation struct {
	lead time.Duration // until the new one signs; 0 is at once

	// compromised: somebody else may have the present key, and so the next,
	// which lies beside it. What either signed is taken no more.
	compromised bool
}

// rotateKey makes a new key. Each step leaves files with which everything goes
// on. The caller holds the lock of the folder.
func rotateKey(dir string, kind keyKind, r rotation, now time.Time) (keyView, error) {
	set, err := readKeySet(dir, kind)
	if err != nil {
		return keyView{}, err
	}
	v := set.at(now)
	if v.Next != nil && !r.compromised {
		return v, fmt.Errorf("rotate %s: a rotation is under way; the next key signs from %s", kind.name, stamp(v.Next.From))
	}
	fresh, err := kind.make(now)
	if err != nil {
		return v, err
	}
	if r.lead > 0 && !r.compromised {
		fresh.From = now.Add(r.lead)
		if err = v.settle(dir); err == nil {
			err = writeHalf(besideKey(filepath.Join(dir, kind.file), nextSuffix), fresh)
		}
	} else {
		err = v.replace(dir, fresh, r.compromised)
	}
	if err != nil {
		return v, err
	}
	if set, err = readKeySet(dir, kind); err != nil {
		return v, err
	}
	return set.at(now), nil
}

// replace puts a key in the place of the one that signs.
func (v keyView) replace(dir string, fresh keyHalf, compromised bool) error {
	last := v.Signs
	last.From, last.Until = time.Time{}, v.kind.trustedUntil(v.now)
	v.Old = append([]keyHalf{last}, v.Old...)
	if compromised {
		v.Next = nil
		for i := range v.Old {
			v.Old[i].Until = time.Time{}
		}
	}
	path := filepath.Join(dir, v.kind.file)
	if err := v.writeOld(path); err != nil {
		return err
	}
	if err := removeNext(path); err != nil {
		return err
	}
	return writeHalf(path, fresh)
}

// unsettled reports whether the files say more than they need to.
func (s keySet) unsettled(now time.Time) bool {
	v := s.at(now)
	return (s.next != nil && v.Next == nil) || len(v.kept()) != len(s.old)
}

// settle writes the files as they are meant now: a next key whose time has come
// becomes the key, and what is trusted no more is forgotten.
func (v keyView) settle(dir string) error {
	path := filepath.Join(dir, v.kind.file)
	if err := v.writeOld(path); err != nil {
		return err
	}
	v.Signs.From = time.Time{}
	if err := writeHalf(path, v.Signs); err != nil {
		return err
	}
	if v.Next != nil {
		return nil
	}
	return removeNext(path)
}

// kept are the old halves that files hold.
func (v keyView) kept() []keyHalf {
	old := v.trustedOld()
	return old[:min(len(old), maxOldHalves)]
}

// writeOld writes the file of old halves. They lose their private ones, unless
// something that these began is ended with them.
func (v keyView) writeOld(path string) error {
	old := v.kept()
	if len(old) == 0 {
		return removeFile(besideKey(path, oldSuffix))
	}
	var all []byte
	for _, h := range slices.Backward(old) {
		if !v.kind.keepsPrivate {
			h.Key = nil
		}
		text, err := h.encode()
		if err != nil {
			return err
		}
		all = append(all, text...)
	}
	return writeNew(besideKey(path, oldSuffix), all)
}

func writeHalf(path string, h keyHalf) error {
	if h.Key == nil {
		return fmt.Errorf("write key %s: there is no private half to write", path)
	}
	text, err := h.encode()
	if err != nil {
		return err
	}
	return writeNew(path, text)
}

func removeNext(path string) error { return removeFile(besideKey(path, nextSuffix)) }

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate key: %w", err)
	}
	return nil
}

// Whoever changes the files of keys holds this lock.
const (
	keysLock     = "keys.lock"
	keysLockWait = 5 * time.Second
)

// lockKeys waits for whoever changes files at the moment.
func lockKeys(dir string) (unlock func(), err error) {
	path, until := filepath.Join(dir, keysLock), time.Now().Add(keysLockWait)
	for {
		f, err := lockFile(path)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil
		case !errors.Is(err, errLocked) || time.Now().After(until):
			return nil, fmt.Errorf("lock keys: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
