package access

import (
	"net/netip"
	"testing"
)

func TestDialable(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.0.0.7": true, "127.0.0.1": true, "::1": true, "fd00::7": true, "203.0.113.9": true, "::ffff:10.0.0.7": true,
		"169.254.169.254": false, "::ffff:169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false,
		"224.0.0.1": false, "ff02::1": false, "0.0.0.0": false, "::": false,
		"fd00:ec2::254": false, "fd00:ec2::254%eth0": false, "100.100.100.200": false, "::ffff:168.63.129.16": false, "192.0.0.192": false,
		"64:ff9b::10.0.0.7": true, "64:ff9b::169.254.169.254": false, "64:ff9b::100.100.100.200": false, "64:ff9b::": false, "64:ff9b:1::a9fe:a9fe": true,
	} {
		if got := Dialable(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
	if Dialable(netip.Addr{}) {
		t.Error("no address at all was one to dial")
	}
}
