package main

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
)

// ports are where the four services listen. Only the frontend is for clients;
// the others are how the services speak to one another.
type ports struct {
	frontend, history, matching, worker int
}

// pickPorts takes the frontend's port as given, or a free one, and free ones
// for the rest. A port in use is said here: inside the server it would be a
// stack trace.
func pickPorts(host string, frontend int) (ports, error) {
	p := ports{frontend: frontend}
	if frontend != 0 {
		if err := checkFree(host, frontend); err != nil {
			return ports{}, err
		}
	}
	for _, port := range []*int{&p.frontend, &p.history, &p.matching, &p.worker} {
		if *port != 0 {
			continue
		}
		var err error
		if *port, err = freePort(host); err != nil {
			return ports{}, fmt.Errorf("find free port on %s: %w", host, err)
		}
	}
	return p, nil
}

func checkFree(host string, port int) error {
	l, err := net.Listen("tcp", joinPort(host, port))
	if err != nil {
		return fmt.Errorf("port %d on %s cannot be used (%w): stop what listens there, or give another --port (0 takes a free one)", port, host, err)
	}
	return l.Close()
}

// freePort finds a port that stays free until the server binds it. Linux and
// the BSDs hand out ephemeral ports at random, so another process could get the
// same one in between; a connection left in TIME_WAIT keeps them from it, and
// does not keep us from binding it by number.
func freePort(host string) (int, error) {
	l, err := net.Listen("tcp", joinPort(host, 0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr)
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		return addr.Port, nil
	}
	client, err := net.DialTCP("tcp", nil, addr)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return 0, err
	}
	// The side that closes first is the one that waits: it must be ours.
	return addr.Port, server.Close()
}

// joinPort writes host and port with one spelling of the address: the server
// compares addresses as text to find itself.
func joinPort(host string, port int) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}
