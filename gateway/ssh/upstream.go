package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// upstream is the connection to the host.
type upstream struct {
	gossh.Conn
	channels <-chan gossh.NewChannel
	requests <-chan *gossh.Request
}

// dialTarget logs in at the host with the session's certificate, or with the
// target's static credential.
func dialTarget(ctx context.Context, lease access.Lease, plan backing.Backing, account string) (*upstream, error) {
	login, err := plan.AuthMethods(lease.Password)
	if err != nil {
		return nil, err
	}
	verify, algorithms, err := hostVerifier(plan)
	if err != nil {
		return nil, err
	}
	return dialHost(ctx, lease.Address, func(net.Addr) (*gossh.ClientConfig, error) {
		return &gossh.ClientConfig{User: account, Auth: login, HostKeyCallback: verify, HostKeyAlgorithms: algorithms}, nil
	})
}

// dialHost connects to a host and logs in as is answered for our address.
func dialHost(ctx context.Context, address string, as func(local net.Addr) (*gossh.ClientConfig, error)) (*upstream, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial target: %w", err)
	}
	if err := onlyTargets(conn.RemoteAddr()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	cfg, err := as(conn.LocalAddr())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	cfg.Ciphers, cfg.ClientVersion = ciphersForTarget(), version
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	c, channels, requests, err := gossh.NewClientConn(conn, address, cfg)
	if !stop() && err == nil {
		err = context.Cause(ctx)
		_ = c.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("log in at target: %w", err), conn.Close())
	}
	return &upstream{c, channels, requests}, nil
}

// onlyTargets looks at the address after the name was resolved.
func onlyTargets(a net.Addr) error {
	if tcp, ok := a.(*net.TCPAddr); !ok || !access.Dialable(tcp.AddrPort().Addr()) {
		return fmt.Errorf("dial target: no target is at %s, a link-local, multicast, unspecified or cloud's own address; want the host's", a)
	}
	return nil
}

// hostVerifier takes a host for what it is only by a pinned key, or by a
// certificate of a pinned CA for the name in its address.
func hostVerifier(plan backing.Backing) (gossh.HostKeyCallback, []string, error) {
	pinned, algorithms, err := publicKeys(plan.HostKeys)
	if err != nil {
		return nil, nil, err
	}
	cas, _, err := publicKeys(plan.HostCAs)
	if err != nil {
		return nil, nil, err
	}
	if len(cas) > 0 {
		algorithms = append([]string{
			gossh.CertAlgoED25519v01, gossh.CertAlgoECDSA256v01, gossh.CertAlgoECDSA384v01, gossh.CertAlgoECDSA521v01,
			gossh.CertAlgoRSASHA512v01, gossh.CertAlgoRSASHA256v01,
		}, algorithms...)
	}
	checker := &gossh.CertChecker{
		IsHostAuthority: func(key gossh.PublicKey, _ string) bool { return among(cas, key) },
		HostKeyFallback: func(_ string, _ net.Addr, key gossh.PublicKey) error {
			if !among(pinned, key) {
				return fmt.Errorf("the host showed key %s, which is not the pinned one", gossh.FingerprintSHA256(key))
			}
			return nil
		},
	}
	return checker.CheckHostKey, algorithms, nil
}

func among(list []gossh.PublicKey, key gossh.PublicKey) bool {
	return slices.ContainsFunc(list, func(p gossh.PublicKey) bool { return bytes.Equal(p.Marshal(), key.Marshal()) })
}

func publicKeys(texts []string) (keys []gossh.PublicKey, algorithms []string, err error) {
	for _, text := range texts {
		key, err := backing.PublicKey(text)
		if err != nil {
			return nil, nil, err
		}
		keys = append(keys, key)
		if key.Type() == gossh.KeyAlgoRSA {
			algorithms = append(algorithms, gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSASHA256)
			continue
		}
		algorithms = append(algorithms, key.Type())
	}
	return keys, algorithms, nil
}
