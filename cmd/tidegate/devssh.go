package main

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	sshmint "github.com/tidegate/tidegate/gateway/ssh/mint"
	"github.com/tidegate/tidegate/gateway/ssh/sshtest"
	"github.com/tidegate/tidegate/policies/example"
)

// devSSH is the SSH side of dev: a host, its minter, and the gateway's keys.
// Where no sshd is installed there is none of it.
type devSSH struct {
	host   *sshtest.Server
	keys   *sshKeys
	minter *sshmint.Minter
}

var devSources = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

// startSSHTarget starts the host that dev gives access to, if sshd is there.
func (h *devHouse) startSSHTarget(ctx context.Context) error {
	dir := filepath.Join(h.opts.Dir, keysDir)
	ca, err := openUserCA(dir, time.Now, h.log)
	if err != nil {
		return err
	}
	signs, err := ca.signer()
	if err != nil {
		return err
	}
	h.keepLive(ca.keys)
	host, err := sshtest.Run(ctx, sshtest.Options{
		UserCA: signs.PublicKey(), Dir: filepath.Join(h.opts.Dir, "sshd"), Port: h.state.Ports["sshd"],
	})
	if errors.Is(err, sshtest.ErrMissing) {
		h.log.Warn("no SSH target", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	h.onClose(host.Close)
	h.ssh.host = host
	h.ssh.minter, err = sshmint.New(sshmint.Config{
		Installation: h.state.Installation, CA: ca.signer, Sources: devSources,
		Ahead: 10 * time.Second, // one clock, and nobody wants to wait for the proof
	})
	if err != nil {
		return err
	}
	if h.ssh.keys, err = openSSHKeys(dir, []string{"127.0.0.1", "localhost"}, time.Now, h.log); err != nil {
		return err
	}
	h.keepLive(h.ssh.keys.keys)
	h.ready.SSH, h.ready.SSHHostCA = h.state.addr("gateway-ssh"), filepath.Join(dir, hostCAFile)
	return nil
}

func (s devSSH) minters() []leaser {
	if s.minter == nil {
		return nil
	}
	return []leaser{s.minter}
}

// door is the SSH room's; closed where there is no host.
func (s devSSH) door(listen string) sshDoor {
	if s.host == nil {
		return sshDoor{}
	}
	return sshDoor{Listen: listen, Keys: s.keys}
}

// words are those of the example's, each followed by our own.
func (s devSSH) words() []string {
	if s.host == nil {
		return nil
	}
	return []string{
		example.SSHAddress, s.host.Address, example.HostKey, s.host.HostKey, example.Account, strconv.Quote(s.host.Account),
	}
}
