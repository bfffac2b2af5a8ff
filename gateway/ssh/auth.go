package ssh

import (
	"context"
	"errors"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// authenticator takes what one client shows of itself. Who that is, the door
// says: nobody gets past here whom it does not know, since an SSH connection
// can ask for a lot before it names a target.
type authenticator struct {
	room *Room
	ctx  context.Context
	late *time.Timer // cuts a client that is too slow
	door gateway.Door

	triedDevice bool
}

// shownKey is where the permissions of a connection keep what was shown.
type shownKey struct{}

// shown is what a client proved to have.
type shown struct {
	token       access.Secret
	certificate []byte
}

// permit lets somebody in whom the door knows.
func (a *authenticator) permit(c gossh.ConnMetadata, s shown) (*gossh.Permissions, error) {
	err := a.door.Vouch(a.ctx, gateway.Knock{Token: s.token, Certificate: s.certificate, Remote: c.RemoteAddr()})
	if err != nil {
		return nil, &gossh.BannerError{Err: err, Message: words(err) + "\r\n"}
	}
	return &gossh.Permissions{ExtraData: map[any]any{shownKey{}: s}}, nil
}

func (a *authenticator) config(client string, hostKeys []gossh.Signer) *gossh.ServerConfig {
	cfg := &gossh.ServerConfig{
		Config:        gossh.Config{Ciphers: ciphersFor(client)},
		ServerVersion: version, MaxAuthTries: maxAuthTries,
		PasswordCallback: a.password,
	}
	if a.room.cfg.Authority != nil {
		cfg.PublicKeyCallback = a.publicKey
	}
	if a.room.cfg.Device != nil {
		cfg.KeyboardInteractiveCallback = a.device
	}
	for _, key := range hostKeys {
		cfg.AddHostKey(key)
	}
	return cfg
}

// password takes a token in the password's place.
func (a *authenticator) password(c gossh.ConnMetadata, password []byte) (*gossh.Permissions, error) {
	if len(password) == 0 || len(password) > maxToken {
		return nil, errors.New("a password that can't be a token")
	}
	return a.permit(c, shown{token: access.NewSecret(string(password))})
}

// publicKey is called for each key that a client offers, and the last one
// offered need not be the one that it uses: so nothing is remembered here but
// in the permissions, which belong to the key that is proved in the end.
func (a *authenticator) publicKey(c gossh.ConnMetadata, key gossh.PublicKey) (*gossh.Permissions, error) {
	cert, ok := key.(*gossh.Certificate)
	if !ok {
		return nil, errors.New("a public key alone is nobody")
	}
	if cert.CertType != gossh.UserCert || !a.room.cfg.Authority(cert.SignatureKey) {
		return nil, errors.New("a certificate of somebody else")
	}
	return a.permit(c, shown{certificate: cert.Marshal()})
}
