package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The parts that a process may run.
const (
	partControl = "control"
	partGateway = "gateway"
)

// parts says which of the two this process runs.
type parts struct{ Control, Gateway bool }

func (p parts) apart() bool { return p.Control != p.Gateway }

// String names the parts for the log: "control and gateway".
func (p parts) String() string {
	switch {
	case p.Control && p.Gateway:
		return partControl + " and " + partGateway
	case p.Control:
		return partControl
	}
	return partGateway
}

// parts reads which parts run here: both, if nothing is said.
func (b *block) parts() (p parts) {
	list := b.texts("parts")
	if b.has("parts") && len(list) == 0 && !b.failedAt("parts") {
		b.errorf(b.body.Attributes["parts"].Expr.Range(), "No part", `Got an empty list, want ["control"], ["gateway"] or both.`)
	}
	for _, v := range list {
		was := p
		switch v.text {
		case partControl:
			p.Control = true
		case partGateway:
			p.Gateway = true
		default:
			b.errorf(v.at, "Unknown part", `Got %q, want "control" or "gateway".`, v.text)
			continue
		}
		if was == p {
			b.errorf(v.at, "Duplicate part", "Got %q twice, want it once.", v.text)
		}
	}
	if p == (parts{}) {
		return parts{Control: true, Gateway: true}
	}
	return p
}

// failedAt reports whether an attribute was complained about already.
func (b *block) failedAt(name string) bool {
	at := b.body.Attributes[name].Expr.Range()
	for _, d := range b.diags {
		if d.File == at.Filename && d.Line >= at.Start.Line && d.Line <= at.End.Line {
			return true
		}
	}
	return false
}

// elsewhere complains about what belongs to a part that runs in another
// process, once for each, and looks no further into it.
func (b *block) elsewhere(part string, names ...string) {
	for _, name := range names {
		b.use(name)
		b.use(name + " {")
		if a := b.body.Attributes[name]; a != nil {
			b.errorf(a.NameRange, "Part elsewhere", "Got %s, which belongs to the part %s; move it to the configuration of that process, or add %q to parts.", name, part, part)
		}
		for _, in := range b.body.Blocks {
			if in.Type == name {
				b.errorf(in.TypeRange, "Part elsewhere", "Got the block %s, which belongs to the part %s; move it to the configuration of that process, or add %q to parts.", name, part, part)
			}
		}
	}
}

// readDoor reads where control waits for gateways of other processes. There
// are none where both parts run in one.
func (c *serveConfig) readDoor(b *block) {
	if !c.Parts.apart() {
		for _, in := range b.blocks(partControl, 0) {
			b.errorf(in.at, "No other process", `Got the block control, which is the door for gateways in other processes; take it out, or run this part alone with parts = ["control"].`)
		}
		return
	}
	in := b.needBlock(partControl, "gateways ask there for the credentials of their sessions")
	if in == nil {
		return
	}
	listen := in.need("listen", "the address for gateways")
	in.listenAddress(listen)
	c.Door = listen.text
	in.done()
}

// readLink reads how a gateway reaches a control side in another process.
func (c *serveConfig) readLink(b *block, name value) {
	if !c.Parts.apart() {
		for _, in := range b.blocks(partControl, 0) {
			b.errorf(in.at, "No other process", `Got the block control in the block gateway, which says where a control side in another process is; take it out, or run this part alone with parts = ["gateway"].`)
		}
		return
	}
	if name.ok() {
		b.errorf(name.at, "Two names", "Got a name for the gateway, which has one in its enrolment; leave name out.")
	}
	in := b.needBlock(partControl, "the control side in another process, which hands out the credentials of sessions")
	if in == nil {
		return
	}
	address := in.need("address", "the control side's door")
	in.address(address)
	c.Gateway.Control = address.text
	c.Gateway.Enrolment = in.enrolment(in.need("enrolment", "the folder that `tidegate setup gateway` wrote"))
	if c.Gateway.Enrolment != nil {
		c.Gateway.Base.Name = c.Gateway.Enrolment.Name
	}
	in.done()
}

// renewBefore is how long before its end an enrolment is complained about.
const renewBefore = 30 * 24 * time.Hour

func (b *block) enrolment(dir value) *enrolment {
	if !dir.ok() {
		return nil
	}
	b.keepFromDev(dir)
	e, err := openEnrolment(b.path(dir.text), time.Now())
	if err != nil {
		b.errorf(dir.at, "Enrolment refused", "Can't use %s: %v.", dir.text, err)
		return nil
	}
	if left := time.Until(e.Certificate.Leaf.NotAfter); left < renewBefore {
		b.warnf(dir.at, "enrolment ends soon", "It ends on %s; enrol the gateway again before.", stamp(e.Certificate.Leaf.NotAfter))
	}
	return e
}

// keysApart refuses keys of the control side where a gateway runs alone: who
// breaks into a gateway must find none.
func (p parts) keysApart(stateDir string) error {
	if p.Control {
		return nil
	}
	for _, name := range []string{"control.pem", "mint.pem", "ssh-user-ca.pem", enrolmentCAKey} {
		path := filepath.Join(stateDir, keysDir, name)
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("found %s, a key of the control side; a gateway must not have it: choose a state_dir of its own", path)
		}
	}
	return nil
}

// ledgerApart refuses a file as the ledger of parts apart. PostgreSQL gives a
// gateway a login that can write no grant and no policy; whoever can write a
// file can write everything in it.
func (p parts) ledgerApart(url string) error {
	if p.apart() && strings.HasPrefix(url, "sqlite:") {
		return errors.New("got a file for parts in separate processes, where each would need to write all of it, policies included; want postgres://…, with a login for each part")
	}
	return nil
}
