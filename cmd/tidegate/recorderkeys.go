package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/lease"
	"github.com/tidegate/tidegate/gateway/record"
)

// Files in keysDir, of the keys that prove recordings.
const (
	recordingCAFile = "recording-ca.pem" // control's: vouches for recorders
	recorderFile    = "recording.pem"    // a gateway's: signs recordings
	recorderCert    = "recording.crt"    // what the CA says of the present one
)

// recorderCertLasts is how long recordings may begin under one certificate. It
// is renewed in half that time.
const recorderCertLasts = 90 * 24 * time.Hour

// recordingCA vouches for recorders. It reads its key each time: it is asked
// once in some weeks, and a new key holds from the next time on.
type recordingCA struct {
	dir          string // keysDir
	installation string
	now          clock
	told         func(ctx context.Context, gateway, key string, until time.Time) error // for the audit log
}

func newRecordingCA(keys, installation string, l *ledger.Ledger) recordingCA {
	return recordingCA{dir: keys, installation: installation, now: time.Now, told: func(ctx context.Context, gateway, key string, until time.Time) error {
		return l.Audit(ctx, "gateway "+gateway, "recorder.certified", key, "until "+stamp(until))
	}}
}

func (a recordingCA) certify(ctx context.Context, gateway string, key ed25519.PublicKey) (lease.Certified, error) {
	ca, err := signingKey(filepath.Join(a.dir, recordingCAFile))
	if err != nil {
		return lease.Certified{}, err
	}
	now := a.now()
	c := record.Certificate{Installation: a.installation, Gateway: gateway, Key: key, From: now.Add(-time.Minute), Until: now.Add(recorderCertLasts)}
	text, err := record.Certify(ca, c)
	if err != nil {
		return lease.Certified{}, err
	}
	return lease.Certified{Certificate: text, CA: ca.Public().(ed25519.PublicKey)}, a.told(ctx, gateway, record.KeyID(key), c.Until)
}

// recorderKeys are those with which a gateway signs recordings. The files are
// read for each session: a rotated key signs from the next one on.
type recorderKeys struct {
	dir     string // keysDir
	certify func(ctx context.Context, key ed25519.PublicKey) (lease.Certified, error)
	before  ed25519.PrivateKey // signed before there were certificates
	now     clock
	log     *slog.Logger

	mu    sync.Mutex
	tried time.Time // when a certificate was last asked for
	fault error     // why there was none
}

// How the CA is asked. While the old certificate is good, a CA that is away
// holds up one session a minute, and not for long. Without a good one no session
// opens: those that come together are refused together, when the first one is.
const (
	certifyPause = 3 * time.Second // between two tries without a good one
	certifyAgain = time.Minute
	certifyWait  = 5 * time.Second // less than a recording's disk may take: else that would be blamed
	certifyHurry = 2 * time.Second
)

// prepare makes the first key: a copy of the folder that is made before the
// first session is whole, and doctor misses nothing.
func (k *recorderKeys) prepare() error {
	_, err := signingKey(filepath.Join(k.dir, recorderFile))
	return err
}

// signers are what record.Config wants.
func (k *recorderKeys) signers() ([]record.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.prepare(); err != nil {
		return nil, err
	}
	set, err := readKeySet(k.dir, keyKindOf(recorderKey))
	if err != nil {
		return nil, err
	}
	v := set.at(k.now())
	key, ok := v.Signs.Key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: got %T, want Ed25519", recorderFile, v.Signs.Key)
	}
	text, err := k.certificate(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	all := []record.Signer{{Key: key, Certificate: text}}
	for _, old := range v.Old {
		if key, ok := old.Key.(ed25519.PrivateKey); ok {
			all = append(all, record.Signer{Key: key})
		}
	}
	if k.before != nil {
		all = append(all, record.Signer{Key: k.before})
	}
	return all, nil
}

// certificate is the one at hand, or a new one where it is of another key, or
// half over.
func (k *recorderKeys) certificate(key ed25519.PublicKey) (string, error) {
	now, path := k.now(), filepath.Join(k.dir, recorderCert)
	text, _ := readBounded(path, maxSecret) // whatever is wrong with it: a new one takes its place
	c, err := record.ReadCertificate(string(text))
	good := err == nil && bytes.Equal(c.Key, key) && c.Covers(now)
	if good && (c.Until.Sub(now) > recorderCertLasts/2 || now.Sub(k.tried) < certifyAgain) {
		return string(text), nil
	}
	if !good && k.fault != nil && now.Sub(k.tried) < certifyPause {
		return "", k.fault
	}
	wait := certifyWait
	if good {
		wait = certifyHurry
	}
	fresh, err := k.renew(key, path, wait)
	k.tried, k.fault = k.now(), err
	if err != nil && good {
		k.log.Error("the recorder's certificate could not be renewed", "until", c.Until, "error", err)
		return string(text), nil
	}
	return fresh, err
}

func (k *recorderKeys) renew(key ed25519.PublicKey, path string, wait time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	got, err := k.certify(ctx, key)
	if err != nil {
		return "", fmt.Errorf("certify the recorder's key: %w", err)
	}
	if len(got.CA) != ed25519.PublicKeySize {
		return "", fmt.Errorf("certify the recorder's key: got a CA's key of %d bytes, want %d", len(got.CA), ed25519.PublicKeySize)
	}
	c, err := record.NewKeys(got.CA).Certified(got.Certificate)
	if err != nil || !bytes.Equal(c.Key, key) {
		return "", errors.Join(access.Errorf(access.CodeUnavailable, "The control side answered with a certificate that is not for this recorder."), err)
	}
	if now := k.now(); !c.Covers(now) { // what is recorded under it would never verify
		return "", access.Errorf(access.CodeUnavailable, "The control side's clock and this one are apart: it certified the recorder from %s until %s, and here it is %s.", stamp(c.From), stamp(c.Until), stamp(now))
	}
	if err := addPublicKey(k.dir, got.CA); err != nil {
		return "", err
	}
	return got.Certificate, writeNew(path, []byte(got.Certificate))
}

// trustedKeys reads by which keys recordings here are verified, each time anew:
// keys are rotated while the console runs.
func trustedKeys(dir string) func() (record.Keys, error) {
	return func() (record.Keys, error) {
		text, err := os.ReadFile(filepath.Join(dir, publicKeys))
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		return record.ParseKeys(text)
	}
}
