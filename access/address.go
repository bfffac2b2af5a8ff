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
	ip = ip.Unmap().WithZone("")
	return ip.IsValid() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified() && !slices.Contains(clouds, ip)
}
