package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// A login exchanges a token for a short certificate, over the same port as
// everything else: as a user that no target can be called, by one request.
const (
	loginUser      = "+login"
	certifyRequest = "certificate@tidegate"
)

// certified answers to a certifyRequest: a certificate, or why there is none.
type certified struct {
	Certificate string
	Refusal     string
}

// certify signs the key in the request for whom the token names.
func (b *bridge) certify(req *gossh.Request) {
	if b.client.User() != loginUser {
		_ = req.Reply(false, nil)
		return
	}
	cert, err := b.door.Certify(b.ctx, b.knock(), req.Payload)
	answer := certified{Certificate: string(cert)}
	if err != nil {
		answer.Refusal = access.Message(err)
	}
	_ = req.Reply(true, gossh.Marshal(answer)) // the client may be gone
}

// Login is what a client needs to exchange a token for a certificate.
type Login struct {
	Address string // the gateway's host:port
	HostCAs []gossh.PublicKey
	Token   access.Secret
	Key     gossh.PublicKey // to be certified
}

// loginTime bounds an exchange.
const loginTime = 30 * time.Second

// Certificate asks the gateway for a certificate, which it must prove itself
// for by a certificate of its host CA.
func (l Login) Certificate(ctx context.Context) (*gossh.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Address)
	if err != nil {
		return nil, fmt.Errorf("reach gateway: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	checker := &gossh.CertChecker{IsHostAuthority: func(key gossh.PublicKey, _ string) bool { return among(l.HostCAs, key) }}
	client, channels, requests, err := gossh.NewClientConn(conn, l.Address, &gossh.ClientConfig{
		User: loginUser, Auth: []gossh.AuthMethod{gossh.Password(l.Token.Reveal())}, ClientVersion: version,
		HostKeyCallback: checker.CheckHostKey, HostKeyAlgorithms: []string{gossh.CertAlgoED25519v01},
	})
	if err != nil {
		return nil, fmt.Errorf("log in at gateway: %w", err)
	}
	defer client.Close()
	go gossh.DiscardRequests(requests) // both end with the connection
	go func() {
		for in := range channels {
			_ = in.Reject(gossh.Prohibited, "not here")
		}
	}()
	return ask(client, l.Key)
}

func ask(client gossh.Conn, key gossh.PublicKey) (*gossh.Certificate, error) {
	ok, payload, err := client.SendRequest(certifyRequest, true, key.Marshal())
	if err != nil || !ok {
		return nil, errors.Join(errors.New("ask for a certificate: the gateway gives none"), err)
	}
	var answer certified
	if err := gossh.Unmarshal(payload, &answer); err != nil {
		return nil, fmt.Errorf("read the gateway's answer: %w", err)
	}
	if answer.Refusal != "" {
		return nil, access.Errorf(access.CodeDenied, "%s", answer.Refusal)
	}
	pub, err := gossh.ParsePublicKey([]byte(answer.Certificate))
	if err != nil {
		return nil, fmt.Errorf("read the gateway's certificate: %w", err)
	}
	cert, isCert := pub.(*gossh.Certificate)
	if !isCert || string(cert.Key.Marshal()) != string(key.Marshal()) {
		return nil, errors.New("read the gateway's certificate: it is not for our key")
	}
	return cert, nil
}
