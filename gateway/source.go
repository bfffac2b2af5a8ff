package gateway

import (
	"net"
	"net/netip"
)

// SourceOf is by whose address a caller is counted: of IPv6, where one has a
// whole network, the /64. It is a key, not for people.
func SourceOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is6() {
		network, _ := ip.Prefix(64) // fits every IPv6 address
		return network.String()
	}
	return ip.String()
}
