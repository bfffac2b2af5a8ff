package mint

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// Probe is a credential that only shows whether a host trusts a CA: it opens a
// connection for the account, in which nothing runs. It is bound to the
// gateway's addresses where ours is one of them; else the host's answer says
// nothing of the gateway's, and bound is false.
func (m *Minter) Probe(ca ssh.Signer, account string, local net.Addr) (secret access.Secret, bound bool, err error) {
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // never fails: the runtime ends the process instead
	now, options := m.cfg.Now(), m.options(backing.Backing{})
	if bound = m.ours(local); !bound {
		delete(options, "source-address")
	}
	cert := &ssh.Certificate{
		Serial: binary.BigEndian.Uint64(serial[:]), KeyId: strings.Join([]string{"tidegate", m.cfg.Installation, "doctor"}, "/"),
		ValidPrincipals: []string{account}, ValidAfter: uint64(now.Add(-behind).Unix()), ValidBefore: uint64(now.Add(m.cfg.Ahead).Unix()),
		Permissions: ssh.Permissions{CriticalOptions: options},
	}
	secret, err = credential(ca, cert)
	return secret, bound, err
}

// ours reports whether an address is one of the gateway's, as far as it is
// known; where none is, every one is as good.
func (m *Minter) ours(local net.Addr) bool {
	tcp, ok := local.(*net.TCPAddr)
	if !ok || len(m.cfg.Sources) == 0 {
		return ok
	}
	addr := tcp.AddrPort().Addr().Unmap()
	return slices.ContainsFunc(m.cfg.Sources, func(p netip.Prefix) bool { return p.Contains(addr) })
}
