package access

import (
	"net/netip"
	"slices"
)

// clouds answer their machines here, with credentials among other things,
// beside 169.254.169.254: AWS and Google by IPv6, Alibaba, Oracle, Azure.
var clouds = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"), netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16"),
}

// Dialable reports whether a connection to a target may go to an address. It
// is asked after a name was resolved: no policy may make a gateway or a minter
// talk to what a cloud tells its machines.
func Dialable(ip netip.Addr) bool {
	ip = Translated(ip)
	return ip.IsValid() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified() && !slices.Contains(clouds, ip)
}

// translating is the prefix behind which a network of IPv6 alone reaches IPv4
// (RFC 6052): what stands in the last four bytes is where a connection goes.
var translating = netip.MustParsePrefix("64:ff9b::/96")

// Translated is the address to which a connection to ip goes in the end,
// without its zone.
func Translated(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if !translating.Contains(ip) {
		return ip
	}
	all := ip.As16()
	return netip.AddrFrom4([4]byte(all[12:]))
}
