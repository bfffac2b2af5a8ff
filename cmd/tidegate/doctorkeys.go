package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// keys looks at the state folder: who may use it, and what is in it.
func (p *patient) keys(context.Context) []access.Finding {
	f := &access.Findings{Part: "keys"}
	if p.Dir == "" {
		f.Fail("Name it in the configuration.", "there is no state_dir")
		return f.List
	}
	dir := filepath.Join(p.Dir, keysDir)
	info, err := os.Lstat(dir)
	if err == nil {
		err = private(dir, info, "700")
	}
	if err != nil {
		f.Fail("The first start makes it; else run this as the user that runs tidegate.", "%s: %s", dir, plainly(err))
		return f.List
	}
	bad := 0
	for _, name := range p.keyFiles() {
		path := filepath.Join(dir, name)
		info, err := os.Lstat(path)
		if err == nil {
			err = onlyOurs(path, info)
		}
		if err != nil {
			bad++
			f.Fail("If it was lost, bring it back from your copy: a new one believes no old grant.", "%s: %s", path, plainly(err))
		}
	}
	bad += p.rotated(f)
	if bad == 0 {
		f.OK("%s holds every key, for nobody else to read", dir)
	}
	return f.List
}

// rotated reads the keys that can be rotated as a running part does: one that
// can't goes on with what it read last, and its next start fails.
func (p *patient) rotated(f *access.Findings) (bad int) {
	dir := p.key("")
	for _, k := range keyKinds() {
		wrong := func(path string, err error) {
			bad++
			f.Fail("Bring it back from your copy, or make it readable for the user that runs tidegate: what runs goes on with what it read last, and does not start again.", "%s: %s", path, plainly(err))
		}
		for _, file := range []string{k.file, besideKey(k.file, nextSuffix), besideKey(k.file, oldSuffix)} {
			if slices.Contains(p.keyFiles(), file) {
				continue // was looked at already
			}
			if info, err := os.Lstat(p.key(file)); err == nil {
				if err := onlyOurs(p.key(file), info); err != nil {
					wrong(p.key(file), err)
				}
			}
		}
		if _, err := readKeySet(dir, k); err != nil && !errors.Is(err, fs.ErrNotExist) {
			wrong(p.key(k.file), err)
		}
	}
	return bad
}

// keyFiles are what the parts that run here need of the state folder.
func (p *patient) keyFiles() (files []string) {
	if p.parts.Control { // a gateway apart has its recorder's public key from its first session on
		files = append(files, publicKeys, "control.pem", "mint.pem", recordingCAFile)
	}
	if !p.parts.apart() {
		files = append(files, "recorder.pem", recorderFile)
	}
	if p.ssh && p.parts.Control {
		files = append(files, keyKindOf(userCAKey).file)
	}
	if p.ssh && p.parts.Gateway {
		for _, name := range gatewaySSHKeys {
			files = append(files, keyKindOf(name).file)
		}
	}
	return files
}

// certificates looks at when those that we show, and those that we trust, end.
func (p *patient) certificates(context.Context) []access.Finding {
	f := &access.Findings{Part: "certificates"}
	for what, path := range p.gates {
		ends(f, what, path, firstToEnd, "Enrol the gateway again: `tidegate setup gateway`.")
	}
	for i, file := range p.files {
		switch {
		case slices.Contains(p.files[:i], file):
		case file.shown:
			ends(f, file.path, file.path, firstToEnd, "Put a renewed one in its place; no restart is needed.")
		default:
			ends(f, "the last CA in "+file.path, file.path, lastToEnd, "Put its successor in its place, and restart.")
		}
	}
	if p.enrolled != nil {
		f.Expiry("our enrolment at control", p.enrolled.Certificate.Leaf.NotAfter, time.Now(), "Enrol the gateway again: `tidegate setup gateway`.")
	}
	p.ownKeys(f)
	if len(f.List) == 0 {
		f.OK("none are configured")
	}
	slices.SortFunc(f.List, func(a, b access.Finding) int { return strings.Compare(a.Say, b.Say) })
	return f.List
}

// ownKeys looks at what our own CAs signed, at the CAs, and at rotations.
func (p *patient) ownKeys(f *access.Findings) {
	now := time.Now()
	if text, err := readBounded(p.key(recorderCert), maxSecret); err == nil {
		if c, err := record.ReadCertificate(string(text)); err != nil {
			f.Warn("Move it away: the next session gets another.", "%s: %v", p.key(recorderCert), err)
		} else {
			f.Expiry("the recorder's certificate", c.Until, now, "It renews itself in half its time: see the recorder's log, and whether control answers.")
		}
	}
	if isFile(p.key(enrolmentCACert)) {
		ends(f, "our CA "+enrolmentCACert, p.key(enrolmentCACert), firstToEnd, "Move it and its key away, restart, and enrol the gateways again.")
	}
	for _, k := range keyKinds() {
		set, err := readKeySet(p.key(""), k)
		if err != nil {
			continue // the keys' own examination says so
		}
		v := set.at(now)
		if v.Signs.Cert != nil {
			f.Expiry("our CA "+k.name, v.Signs.Cert.NotAfter, now, "Run `tidegate keys rotate "+k.name+"`.")
		}
		if v.Next != nil {
			f.OK("a rotation of %s is under way: the next one signs from %s. %s", k.name, stamp(v.Next.From), k.after)
		}
		for _, old := range v.kept() {
			if !k.forever {
				f.OK("an old %s is trusted until %s", k.name, stamp(old.Until))
			}
		}
	}
}

// ends judges a file of certificates by the one that counts.
func ends(f *access.Findings, what, path string, which func([]byte) (time.Time, error), renew string) {
	text, err := readBounded(path, maxSecret)
	if err != nil {
		f.Fail("Look at its path.", "%s can't be read: %s", what, plainly(err))
		return
	}
	end, err := which(text)
	if err != nil {
		f.Fail("Want certificates as PEM.", "%s: %v", what, err)
		return
	}
	f.Expiry(what, end, time.Now(), renew)
}

// firstToEnd is when the first certificate of a file ends: a chain holds no
// longer.
func firstToEnd(text []byte) (time.Time, error) { return outermost(text, time.Time.Before) }

// lastToEnd is when the last one ends: of several CAs one may be gone.
func lastToEnd(text []byte) (time.Time, error) { return outermost(text, time.Time.After) }

func outermost(text []byte, further func(time.Time, time.Time) bool) (end time.Time, err error) {
	for block := range pemBlocks(text) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return end, fmt.Errorf("read certificate: %w", err)
		}
		if end.IsZero() || further(c.NotAfter, end) {
			end = c.NotAfter
		}
	}
	if end.IsZero() {
		return end, errors.New("it holds no certificate")
	}
	return end, nil
}
