package ssh

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// A login exchanges a token for short certificates, over the same port as
// everything else: as a user that no target can be called, by requests.
const (
	maxReason      = 1000 // bytes of a gateway's reason
	loginUser      = "+login"
	certifyRequest = "certificate@tidegate"
	namedRequest   = "named@tidegate"
	hostCAsRequest = "host-cas@tidegate"
)

// certified answers to a certifyRequest: a certificate, or why there is none.
type certified struct {
	Certificate string
	Refusal     string
}

// named answers to a namedRequest: what the caller can name at targets of the
// kind in it.
type named struct {
	Names   []string
	Refusal string
}

// certify signs the key in the request for whom the token names.
func (b *bridge) certify(req *gossh.Request) {
	cert, err := b.door.Certify(b.ctx, b.knock(), req.Payload)
	answer := certified{Certificate: string(cert)}
	if err != nil {
		answer.Refusal = access.Message(err)
	}
	_ = req.Reply(true, gossh.Marshal(answer)) // the client may be gone
}

// tellNamed says what the caller's grants lead to.
func (b *bridge) tellNamed(req *gossh.Request) {
	names, err := b.door.Named(b.ctx, b.knock(), string(req.Payload))
	answer := named{Names: names}
	if err != nil {
		answer.Refusal = access.Message(err)
	}
	_ = req.Reply(true, gossh.Marshal(answer)) // the client may be gone
}

// trusted answers to a hostCAsRequest: the host CAs that a client should know
// now, as authorized_keys lines.
type trusted struct {
	Lines string
}

// maxHostCAs bounds what a client takes for host CAs: a rotation has two or
// three.
const maxHostCAs = 8

// tellHostCAs says which host CAs to trust from now on. Who asks has seen the
// gateway prove itself by one of those that it knew.
func (b *bridge) tellHostCAs(req *gossh.Request) {
	if b.room.cfg.HostCAs == nil {
		_ = req.Reply(false, nil)
		return
	}
	keys, err := b.room.cfg.HostCAs()
	if err != nil {
		b.log.Error("host CAs not told", "error", err)
		_ = req.Reply(false, nil)
		return
	}
	var answer trusted
	for _, key := range keys {
		answer.Lines += string(gossh.MarshalAuthorizedKey(key))
	}
	_ = req.Reply(true, gossh.Marshal(answer)) // the client may be gone
}

// Login is what a client needs to exchange a token for certificates.
type Login struct {
	Address string // the gateway's host:port
	HostCAs []gossh.PublicKey
	Token   access.Secret
	Signer  gossh.Signer    // with a certificate of an earlier login, in the token's place
	Key     gossh.PublicKey // to be certified

	ClientKey []byte // to be certified as well, for TLS, in PKIX form; nil: none
	Kind      string // of the targets whose names are wanted; "": none are
}

// Exchanged is what a token was exchanged for.
type Exchanged struct {
	Certificate *gossh.Certificate
	Client      *x509.Certificate // nil where none was asked for
	Named       []string          // what dbname, or another kind's name, can be
	HostCAs     []gossh.PublicKey // to be trusted from now on; those that were known, where a gateway tells none
}

// loginTime bounds an exchange.
const loginTime = 30 * time.Second

// Exchange asks the gateway for certificates. It must prove itself by a
// certificate of its host CA.
func (l Login) Exchange(ctx context.Context) (got Exchanged, err error) {
	err = l.talk(ctx, func(client gossh.Conn, by gossh.PublicKey) error {
		got, err = l.ask(client, by)
		return err
	})
	return got, err
}

// Trusted asks the gateway which host CAs to trust from now on.
func (l Login) Trusted(ctx context.Context) (cas []gossh.PublicKey, err error) {
	err = l.talk(ctx, func(client gossh.Conn, by gossh.PublicKey) error {
		cas, err = l.askHostCAs(client, by)
		return err
	})
	return cas, err
}

// talk logs in and has something asked; by is the host CA that vouched for the
// gateway.
func (l Login) talk(ctx context.Context, ask func(client gossh.Conn, by gossh.PublicKey) error) error {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Address)
	if err != nil {
		return fmt.Errorf("reach gateway: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var by gossh.PublicKey
	checker := &gossh.CertChecker{IsHostAuthority: func(key gossh.PublicKey, _ string) bool { return among(l.HostCAs, key) }}
	verify := func(host string, remote net.Addr, key gossh.PublicKey) error {
		if cert, ok := key.(*gossh.Certificate); ok {
			if by = cert.SignatureKey; !among(l.HostCAs, by) {
				return fmt.Errorf("the gateway proves itself by the host CA %s, which is not known here; if it was rotated since the last login, get it from your operators and log in with --host-ca FILE", gossh.FingerprintSHA256(by))
			}
		}
		return checker.CheckHostKey(host, remote, key)
	}
	login := gossh.Password(l.Token.Reveal())
	if l.Signer != nil {
		login = gossh.PublicKeys(l.Signer)
	}
	said := ""
	client, channels, requests, err := gossh.NewClientConn(conn, l.Address, &gossh.ClientConfig{
		BannerCallback: func(text string) error { said = text; return nil },
		User:           loginUser, Auth: []gossh.AuthMethod{login}, ClientVersion: version,
		HostKeyCallback: verify, HostKeyAlgorithms: []string{gossh.CertAlgoED25519v01},
	})
	if err != nil {
		return fmt.Errorf("log in at gateway: %w", because(said, err))
	}
	defer client.Close()
	go gossh.DiscardRequests(requests) // both end with the connection
	go func() {
		for in := range channels {
			_ = in.Reject(gossh.Prohibited, "not here")
		}
	}()
	return ask(client, by)
}

func (l Login) ask(client gossh.Conn, by gossh.PublicKey) (got Exchanged, err error) {
	if got.Certificate, err = ask(client, l.Key); err != nil {
		return got, err
	}
	if l.ClientKey != nil {
		if got.Client, err = askClient(client, l.ClientKey); err != nil {
			return got, err
		}
	}
	if l.Kind != "" {
		if got.Named, err = askNamed(client, l.Kind); err != nil {
			return got, err
		}
	}
	got.HostCAs, err = l.askHostCAs(client, by)
	return got, err
}

// askHostCAs takes the gateway's word, which has proved itself, as long as it
// is among them: otherwise the next login would not believe it.
func (l Login) askHostCAs(client gossh.Conn, by gossh.PublicKey) ([]gossh.PublicKey, error) {
	ok, answer, err := client.SendRequest(hostCAsRequest, true, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the host CAs: %w", err)
	}
	if !ok {
		return l.HostCAs, nil
	}
	var told trusted
	if err := gossh.Unmarshal(answer, &told); err != nil {
		return nil, fmt.Errorf("read the gateway's host CAs: %w", err)
	}
	var lines []string
	for line := range strings.Lines(told.Lines) {
		lines = append(lines, line)
	}
	if len(lines) > maxHostCAs {
		return nil, fmt.Errorf("read the gateway's host CAs: got %d, want at most %d", len(lines), maxHostCAs)
	}
	keys, _, err := publicKeys(lines)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's host CAs: %w", err)
	}
	if !among(keys, by) {
		return nil, errors.New("read the gateway's host CAs: the one by which it proves itself is not among them")
	}
	return keys, nil
}

func ask(client gossh.Conn, key gossh.PublicKey) (*gossh.Certificate, error) {
	wire, err := askCertificate(client, key.Marshal())
	if err != nil {
		return nil, err
	}
	pub, err := gossh.ParsePublicKey(wire)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's certificate: %w", err)
	}
	cert, isCert := pub.(*gossh.Certificate)
	if !isCert || string(cert.Key.Marshal()) != string(key.Marshal()) {
		return nil, errors.New("read the gateway's certificate: it is not for our key")
	}
	return cert, nil
}

func askClient(client gossh.Conn, key []byte) (*x509.Certificate, error) {
	der, err := askCertificate(client, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's client certificate: %w", err)
	}
	if !bytes.Equal(cert.RawSubjectPublicKeyInfo, key) {
		return nil, errors.New("read the gateway's client certificate: it is not for our key")
	}
	return cert, nil
}

func askCertificate(client gossh.Conn, key []byte) ([]byte, error) {
	var answer certified
	if err := request(client, certifyRequest, key, &answer); err != nil {
		return nil, fmt.Errorf("ask for a certificate: %w", err)
	}
	if answer.Refusal != "" {
		return nil, access.Errorf(access.CodeDenied, "%s", answer.Refusal)
	}
	return []byte(answer.Certificate), nil
}

func askNamed(client gossh.Conn, kind string) ([]string, error) {
	var answer named
	if err := request(client, namedRequest, []byte(kind), &answer); err != nil {
		return nil, fmt.Errorf("ask for the targets of your grants: %w", err)
	}
	if answer.Refusal != "" {
		return nil, access.Errorf(access.CodeDenied, "%s", answer.Refusal)
	}
	return answer.Names, nil
}

// request sends one and reads its answer.
func request(client gossh.Conn, kind string, payload []byte, answer any) error {
	ok, got, err := client.SendRequest(kind, true, payload)
	if err != nil || !ok {
		return errors.Join(errors.New("the gateway gives none"), err)
	}
	if err := gossh.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}

// because is the gateway's own reason for a refusal, where it told one: SSH's
// failure has no place for it, so it comes as a banner.
func because(banner string, err error) error {
	reason := strings.TrimPrefix(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, banner), "tidegate: ")
	if reason == "" || len(reason) > maxReason {
		return err
	}
	return errors.New(reason)
}
