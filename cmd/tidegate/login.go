package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/oauth2"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
	"github.com/tidegate/tidegate/gateway/ssh"
)

// login is what `tidegate login` keeps, in a file that only its owner reads:
// where to log in, and with what to do it again.
type login struct {
	oidcIssuer
	Gateway string `json:"gateway"` // the SSH port
	HostCA  string `json:"host_ca"` // its host CA, as authorized_keys lines
	Refresh string `json:"refresh_token,omitempty"`

	Postgres *postgresDoor `json:"postgres,omitempty"`
}

const loginFile = "login.json"

// clientDir is where the client verbs keep their files.
func clientDir(flags *flag.FlagSet) *string {
	dir := ""
	if base, err := os.UserConfigDir(); err == nil {
		dir = filepath.Join(base, "tidegate")
	}
	flags.StringVar(&dir, "login-dir", dir, "`folder` of the login")
	return &dir
}

// runLogin logs in at the identity provider and gets short certificates.
// Neither is an authorization: grants are asked for with each connection.
func runLogin(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("login", flag.ContinueOnError)
	dir := clientDir(flags)
	issuer := flags.String("issuer", "", "`URL` of the identity provider")
	client := flags.String("client-id", "", "our client `id` there")
	ca := flags.String("issuer-ca", "", "PEM `file` of the identity provider's CA (default: the system's)")
	gateway := flags.String("gateway", "", "`host:port` of the gateway's SSH")
	hostCA := flags.String("host-ca", "", "`file` of the gateway's host CA, as its operator published it")
	postgres := flags.String("postgres", "", "`host:port` of the gateway's PostgreSQL")
	postgresCA := flags.String("postgres-ca", "", "PEM `file` of the CA of the gateway's certificate there")
	device := flags.Bool("device", false, "log in with a code in a browser elsewhere")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	l, err := readLogin(*dir)
	if err != nil {
		return err
	}
	again := *issuer == "" && *client == ""
	l.goTo(*issuer, *client)
	l.Gateway = cmp.Or(*gateway, l.Gateway)
	if err := l.readFiles(*ca, *hostCA); err != nil {
		return err
	}
	if err := l.readPostgres(*postgres, *postgresCA); err != nil {
		return err
	}
	if l.URL == "" || l.ClientID == "" || l.Gateway == "" || l.HostCA == "" {
		return fmt.Errorf("%w: the first time, want --issuer, --client-id, --gateway and --host-ca", errUsage)
	}
	say := func(text string) { fmt.Fprintln(io.err, text) }
	token, err := l.token(ctx, again, *device, say)
	if err != nil {
		return err
	}
	return l.keep(ctx, *dir, token, say)
}

// readLogin reads what an earlier login kept; nothing is nothing.
func readLogin(dir string) (login, error) {
	var l login
	text, err := os.ReadFile(filepath.Join(dir, loginFile))
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return l, fmt.Errorf("read login: %w; remove the file to start afresh", err)
	}
	return l, nil
}

// goTo sets where to log in, as far as that is said. What one identity provider
// gave to one client is shown to no other.
func (l *login) goTo(issuer, client string) {
	was := l.oidcIssuer
	l.URL, l.ClientID = cmp.Or(issuer, l.URL), cmp.Or(client, l.ClientID)
	if l.URL != was.URL || l.ClientID != was.ClientID {
		l.Refresh = ""
	}
}

func (l *login) readFiles(ca, hostCA string) error {
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("read the identity provider's CA: %w", err)
		}
		l.CA = text
	}
	if hostCA != "" {
		text, err := os.ReadFile(hostCA)
		if err != nil {
			return fmt.Errorf("read the gateway's host CA: %w", err)
		}
		if _, err := parseHostCAs(text); err != nil {
			return fmt.Errorf("%s: %w", hostCA, err)
		}
		l.HostCA = string(text)
	}
	return nil
}

// token logs in: again without a person where that is possible.
func (l *login) token(ctx context.Context, again, device bool, say func(string)) (*oauth2.Token, error) {
	client, err := l.discover(ctx)
	if err != nil {
		return nil, err
	}
	if again && l.Refresh != "" {
		token, err := client.refreshed(ctx, access.NewSecret(l.Refresh))
		if err == nil && token.Extra("id_token") != nil {
			return token, nil
		}
		say("The last login can't be renewed; logging in again.")
	}
	if device {
		return client.byDevice(ctx, say)
	}
	return client.byBrowser(ctx, openBrowser(say))
}

// keep exchanges the token for certificates, and writes down what ssh and psql
// read and what the next login needs.
func (l *login) keep(ctx context.Context, dir string, token *oauth2.Token, say func(string)) error {
	id, err := idToken(token)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make login folder: %w", err)
	}
	l.Refresh = cmp.Or(token.RefreshToken, l.Refresh)
	if err := l.save(dir); err != nil {
		return err
	}
	gate := sshGateway{address: l.Gateway, hostCA: []byte(l.HostCA), token: id}
	got, err := l.certify(ctx, gate, dir)
	if err != nil {
		return err
	}
	if err := l.trust(dir, got.HostCAs); err != nil {
		return err
	}
	say(loginSays(got, dir))
	if l.Postgres != nil {
		say(l.Postgres.howTo(dir, got.Named))
	}
	return nil
}

// trust keeps the host CAs of the moment, so that a rotation of them locks
// nobody out who has logged in meanwhile.
func (l *login) trust(dir string, cas []gossh.PublicKey) error {
	lines := string(hostCALines(cas))
	if lines == l.HostCA {
		return nil
	}
	l.HostCA = lines
	return l.save(dir)
}

func (l *login) save(dir string) error {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode login: %w", err)
	}
	return writeNew(filepath.Join(dir, loginFile), text)
}

// certify gets what ssh needs, and psql where its port is known.
func (l *login) certify(ctx context.Context, gate sshGateway, dir string) (got ssh.Exchanged, err error) {
	if l.Postgres == nil {
		return gate.exchange(ctx, dir, ssh.Login{})
	}
	key, err := newClientKey()
	if err != nil {
		return got, err
	}
	if got, err = gate.exchange(ctx, dir, ssh.Login{ClientKey: key.public, Kind: "postgres"}); err != nil {
		return got, err
	}
	return got, l.Postgres.write(dir, key, got)
}

// loginSays says as whom, too: who reads along on this machine could lead the
// browser back here with a login of their own.
func loginSays(got ssh.Exchanged, dir string) string {
	who := record.Visible(strings.TrimPrefix(got.Certificate.KeyId, "tidegate login "))
	return fmt.Sprintf("Logged in until %s as %s. Connect with: ssh -F %s TARGET@gate",
		loginEnds(got).UTC().Format(time.RFC3339), who, filepath.Join(dir, sshConfigFile))
}

// loginEnds is when the first certificate of a login ends.
func loginEnds(got ssh.Exchanged) time.Time {
	until := time.Unix(int64(got.Certificate.ValidBefore), 0)
	if got.Client != nil && got.Client.NotAfter.Before(until) {
		until = got.Client.NotAfter
	}
	return until
}

// refreshWait bounds what ssh-config waits for the gateway.
const refreshWait = 5 * time.Second

// refreshTrust brings known_hosts up to date with the certificate of the last
// login. Where it has ended there is nothing to ask with: a login brings both.
func (l *login) refreshTrust(ctx context.Context, dir string) error {
	signer, err := loginSigner(dir)
	if err != nil || signer == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	ask := ssh.Login{Address: l.Gateway, Signer: signer}
	if ask.HostCAs, err = parseHostCAs([]byte(l.HostCA)); err != nil {
		return err
	}
	cas, err := ask.Trusted(ctx)
	if err != nil {
		return err
	}
	if err := l.trust(dir, cas); err != nil {
		return err
	}
	return writeNew(filepath.Join(dir, sshKnownHosts), sshGateway{hostCA: []byte(l.HostCA)}.knownHosts())
}

// loginSigner is the key of the last login with its certificate; nil where
// there is none, or it has ended.
func loginSigner(dir string) (gossh.Signer, error) {
	text, err := readBounded(filepath.Join(dir, sshKeyFile), maxSecret)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := gossh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", sshKeyFile, err)
	}
	if text, err = readBounded(filepath.Join(dir, sshKeyFile+"-cert.pub"), maxSecret); err != nil {
		return nil, err
	}
	public, _, _, _, err := gossh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", sshKeyFile, err)
	}
	cert, ok := public.(*gossh.Certificate)
	if !ok || time.Now().After(time.Unix(int64(cert.ValidBefore), 0)) {
		return nil, nil
	}
	return gossh.NewCertSigner(cert, key)
}

// runSSHConfig prints what leads every SSH program to the targets by the name
// that each has, for ~/.ssh/config, and brings known_hosts up to date.
func runSSHConfig(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("ssh-config", flag.ContinueOnError)
	dir := clientDir(flags)
	targets, err := mixed(flags, args, io)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("%w: got nothing, want the targets, such as web-1 or web-1+inc-4821", errUsage)
	}
	l, err := readLogin(*dir)
	if err != nil {
		return err
	}
	if l.Gateway == "" {
		return errors.New("find the gateway: nobody has logged in here; run `tidegate login` first")
	}
	for _, target := range targets {
		if !sshTarget.MatchString(target) {
			return fmt.Errorf("%w: %q is no target", errUsage, target)
		}
		text, err := sshGateway{address: l.Gateway}.options(target, target, *dir)
		if err != nil {
			return err
		}
		if _, err := io.out.Write(text); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	if err := l.refreshTrust(ctx, *dir); err != nil {
		fmt.Fprintln(io.err, "known_hosts stays as it is:", record.Visible(err.Error()))
	}
	return nil
}

var sshTarget = regexp.MustCompile(`\A(?:[a-z_][a-z0-9_.-]{0,31}%)?[A-Za-z0-9_][A-Za-z0-9_-]{0,47}(?:\+[A-Za-z0-9_][A-Za-z0-9_-]{0,47})?\z`)
