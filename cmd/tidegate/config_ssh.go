package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/ssh"
	sshmint "github.com/tidegate/tidegate/gateway/ssh/mint"
)

// sshConfig is the block ssh. Without it there is no SSH.
type sshConfig struct {
	Listen  string         // the gateway's
	Names   []string       // what clients call the gateway
	Device  string         // the issuer at which a bare client logs in; none if empty
	Sources []netip.Prefix // control's: the gateway's addresses as hosts see them
}

func (c *serveConfig) readSSH(b *block) {
	if b == nil {
		return
	}
	c.SSH = &sshConfig{}
	if c.Parts.Gateway {
		listen := b.need("listen", "the address for SSH clients")
		b.listenAddress(listen)
		c.SSH.Listen, c.SSH.Names = listen.text, texts(b.texts("names"))
		if len(c.SSH.Names) == 0 {
			b.errorf(b.at, "Missing attribute", `Got no names in %s, want what clients call the gateway: names = ["gate.acme.test"].`, b.name)
		}
		c.readSSHDevice(b)
	}
	if c.Parts.Control {
		c.SSH.Sources = b.prefixes("source_addresses")
		if !b.has("source_addresses") {
			b.warnf(b.at, "certificates for any address", `Got no source_addresses: a host would take a stolen certificate from anywhere for its 45 seconds. Want the gateway's addresses.`)
		}
	}
	b.done()
}

func (c *serveConfig) readSSHDevice(b *block) {
	v := b.text("device_issuer")
	if !v.ok() {
		return
	}
	for _, i := range c.Issuers {
		if i.Name == v.text {
			c.SSH.Device = v.text
			return
		}
	}
	b.errorf(v.at, "Unknown issuer", "Got %q, want the name of a block issuer.", v.text)
}

// sshMinters are the control side's, for SSH.
func (h *serveHouse) sshMinters() ([]leaser, error) {
	if h.cfg.SSH == nil {
		return nil, nil
	}
	ca, err := openUserCA(h.keysDir(), time.Now, h.log.With("part", "keys"))
	if err != nil {
		return nil, err
	}
	h.keepLive(ca.keys)
	m, err := sshmint.New(sshmint.Config{Installation: h.cfg.Installation, CA: ca.signer, Sources: h.cfg.SSH.Sources, Static: logins(h.cfg.Secrets).session})
	if err != nil {
		return nil, err
	}
	return []leaser{m}, nil
}

// sshDoor is the gateway's door for SSH.
func (h *serveHouse) sshDoor() (sshDoor, error) {
	if h.cfg.SSH == nil {
		return sshDoor{}, nil
	}
	keys, err := openSSHKeys(h.keysDir(), h.cfg.SSH.Names, time.Now, h.log.With("part", "keys"))
	if err != nil {
		return sshDoor{}, err
	}
	h.keepLive(keys.keys)
	d := sshDoor{Listen: h.cfg.SSH.Listen, Keys: keys}
	for _, i := range h.cfg.Issuers {
		if i.Name == h.cfg.SSH.Device {
			d.Device = deviceLogin(i)
		}
	}
	return d, nil
}

// deviceLogin lets bare clients log in at an issuer with a device code.
func deviceLogin(i identify.Issuer) ssh.DeviceLogin {
	from := oidcIssuer{URL: i.URL, ClientID: i.Audience, CA: i.CA}
	return func(ctx context.Context) (string, func(context.Context) (access.Secret, error), error) {
		client, err := from.discover(ctx)
		if err != nil {
			return "", nil, err
		}
		answer, err := client.oauth.DeviceAuth(client.context(ctx))
		if err != nil {
			return "", nil, plainOAuth(err)
		}
		wait := func(ctx context.Context) (access.Secret, error) {
			ctx, cancel := context.WithTimeout(client.context(ctx), loginTime)
			defer cancel()
			token, err := client.oauth.DeviceAccessToken(ctx, answer)
			if err != nil {
				return access.Secret{}, plainOAuth(err)
			}
			return idToken(token)
		}
		return devicePrompt(answer), wait, nil
	}
}

// session is the login that every session of a target has.
func (l logins) session(ctx context.Context, t access.Target) (sshmint.Login, error) {
	found, err := l.find(ctx, t)
	return sshmint.Login{User: found.User, Secret: found.Password}, err
}
