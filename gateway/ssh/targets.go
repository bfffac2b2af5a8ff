package ssh

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// usualPort is where a target is looked for by its name alone.
const usualPort = 22

// findTarget is the configured target that is called so, or whose address is
// written so.
func (b *bridge) findTarget(host string, port int) (access.Target, bool) {
	for _, t := range b.door.Targets("ssh") {
		if strings.EqualFold(host, t.Name) && port == usualPort || strings.EqualFold(t.Address, net.JoinHostPort(host, strconv.Itoa(port))) {
			return t, true
		}
	}
	return access.Target{}, false
}

// isTarget reports whether a configured target stands at the number, whatever
// name its address is written by. Where that can't be found out, it does.
func (b *bridge) isTarget(ctx context.Context, ip netip.Addr, port int) bool {
	for _, t := range b.door.Targets("ssh") {
		host, number, err := net.SplitHostPort(t.Address)
		if err != nil || number != strconv.Itoa(port) {
			continue
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return true
		}
		for _, at := range ips {
			if access.Translated(at) == access.Translated(ip) {
				return true
			}
		}
	}
	return false
}
