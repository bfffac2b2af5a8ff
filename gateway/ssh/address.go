package ssh

import (
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
)

var hostPattern = regexp.MustCompile(`\A[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?\.?\z`)

// plainHost is a host as it is judged and shown, however a client spells it: a
// number in its shortest form, a name in lower case without a dot at its end.
// ok is false for what is neither.
func plainHost(host string) (plain string, ok bool) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String(), ip.Zone() == ""
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), hostPattern.MatchString(host)
}

func notAHost(host string) error {
	return access.Errorf(access.CodeInvalid, "%.64q is neither a name nor a number of a host.", strings.ToValidUTF8(host, "?"))
}

// The host itself, and all of its addresses, as people write them in rules.
var (
	ownNames = []string{"localhost", "127.0.0.1", "::1"}
	anyNames = []string{"", "*", "0.0.0.0", "::"}
)

// isOwn reports whether a plain host is the loopback of where it is looked up.
func isOwn(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// alsoCalled is how else rules may call a plain host that stands at a number.
func alsoCalled(host, at string) []string {
	switch {
	case isOwn(host):
		return ownNames
	case slices.Contains(anyNames, host):
		return anyNames
	}
	if ip, err := netip.ParseAddr(at); err == nil {
		return []string{at, access.Translated(ip).String()}
	}
	return []string{at}
}

// atAddress has an operation at an address judged by whatever way rules may
// write it: the strictest counts. A name's number is told to who approves, too.
func (b *bridge) atAddress(op access.Operation, host, at string, port uint32) access.Operation {
	written := func(host string) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
	if at != host {
		op.Context = append(slices.Clip(op.Context), "at "+written(at))
	}
	strictest := b.session.Judge(op)
	for _, name := range alsoCalled(host, at) {
		other := op
		other.Text, other.Facts = written(name), maps.Clone(op.Facts)
		other.Facts["address"] = other.Text
		strictest = access.Strictest(strictest, b.session.Judge(other))
	}
	op.Guard = &strictest
	return op
}
