package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
)

// connectLasts is how long the token of one connect is good.
const connectLasts = time.Hour

// exitCode is what another program ended with: it has said its words itself.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("the command ended with %d", int(c)) }

// dial is whom connect connects to what.
type dial struct {
	target, choice string
	command        []string

	dir, who string // on a running dev

	gateway, ca, tokenFile string // of a running serve
}

// endpoint is a gateway, and with what to log in there.
type endpoint struct {
	host, port, user string
	ca               []byte
	token            access.Secret
}

// runConnect makes a PostgreSQL or SSH client ready and runs it.
func runConnect(ctx context.Context, args []string, std stdio) error {
	if toSSH(args) {
		return connectSSH(ctx, args, std)
	}
	d, err := parseDial(args, std)
	if err != nil {
		return err
	}
	find := d.onDev
	if d.gateway != "" {
		find = d.onServe
	}
	to, err := find(std)
	if err != nil {
		return err
	}
	files, err := os.MkdirTemp("", "tidegate-connect-") // 0700
	if err != nil {
		return fmt.Errorf("make folder for the connection: %w", err)
	}
	defer os.RemoveAll(files)
	if err := d.write(files, to); err != nil {
		return err
	}
	return runClient(d.command, clientEnv(os.Environ(), files), std)
}

var nameWord = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\z`)

// parseDial reads TARGET, flags in any place, and behind -- the command.
func parseDial(args []string, io stdio) (dial, error) {
	var d dial
	d.command = []string{"psql"}
	if i := slices.Index(args, "--"); i >= 0 {
		if args, d.command = args[:i], args[i+1:]; len(d.command) == 0 {
			return d, fmt.Errorf("%w: want a command behind --", errUsage)
		}
	}
	flags := flag.NewFlagSet("connect", flag.ContinueOnError)
	dir := dirFlag(flags)
	flags.StringVar(&d.choice, "choice", "", "id of the `grant` to use, if several open the target")
	flags.StringVar(&d.who, "as", "", "on a dev: `login` of who connects: "+strings.Join(devPeople, ", "))
	flags.StringVar(&d.gateway, "gateway", "", "on a serve: `host:port` of the gateway")
	flags.StringVar(&d.ca, "ca", "", "on a serve: `file` of the CA of the gateway's certificate (PEM), or for SSH of its host keys (authorized_keys lines)")
	flags.StringVar(&d.tokenFile, "token-file", "", "on a serve: `file` with the identity provider's token, or - for the first line of standard input")
	target, err := one(flags, args, io, "one target, such as orders-prod or ssh.web-1")
	if err != nil {
		return d, err
	}
	d.target, d.dir = strings.TrimPrefix(target, "postgres."), *dir
	return d, d.check()
}

func (d dial) check() error {
	// Both become lines of a file: what is no name could be another setting.
	if !nameWord.MatchString(d.target) || d.choice != "" && !nameWord.MatchString(d.choice) {
		return fmt.Errorf("%w: target %q or choice %q is no name", errUsage, d.target, d.choice)
	}
	if d.gateway == "" && d.ca == "" && d.tokenFile == "" {
		if !slices.Contains(devPeople, d.who) {
			return fmt.Errorf("%w: got --as %q, want on a dev one of %s; on a serve --gateway, --ca and --token-file", errUsage, d.who, strings.Join(devPeople, ", "))
		}
		return nil
	}
	if d.gateway == "" || d.ca == "" || d.tokenFile == "" || d.who != "" {
		return fmt.Errorf("%w: want --gateway, --ca and --token-file together, and no --as", errUsage)
	}
	host, port, err := net.SplitHostPort(d.gateway)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 1 || n > 65535 || !hostWord.MatchString(host) {
		return fmt.Errorf("%w: got --gateway %q, want host:port", errUsage, d.gateway)
	}
	return nil
}

func (d dial) database() string {
	if d.choice == "" {
		return d.target
	}
	return d.target + "+" + d.choice
}

// onDev logs a person of the play in.
func (d dial) onDev(stdio) (endpoint, error) {
	if !isFile(filepath.Join(d.dir, devFile)) {
		return endpoint{}, fmt.Errorf("find the gateway: no dev.json in %s; is `tidegate dev` running there?", d.dir)
	}
	state, err := openDevState(d.dir)
	if err != nil {
		return endpoint{}, err
	}
	to := endpoint{user: d.who}
	if to.ca, err = os.ReadFile(filepath.Join(d.dir, keysDir, "gateway-ca.pem")); err != nil {
		return to, fmt.Errorf("read the gateway's CA: %w", err)
	}
	if to.token, err = d.token(state); err != nil {
		return to, err
	}
	to.host, to.port, err = net.SplitHostPort(state.addr("gateway"))
	return to, err
}

var hostWord = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9.:-]{0,252}\z`)

// onServe takes everything from the command line, and the token from a file or
// standard input: arguments are for everybody to see.
func (d dial) onServe(std stdio) (endpoint, error) {
	to := endpoint{user: "tidegate"} // recorded, not believed: the token says who it is
	var err error
	to.host, to.port, _ = net.SplitHostPort(d.gateway) // checked
	if to.ca, err = readBounded(d.ca, maxSecret); err != nil {
		return to, fmt.Errorf("read the gateway's CA: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(to.ca) {
		return to, fmt.Errorf("read the gateway's CA: no certificate in %s, want PEM", d.ca)
	}
	to.token, err = d.readToken(std)
	return to, err
}

// readToken takes the token from a file that only we can read, or from
// standard input.
func (d dial) readToken(std stdio) (token access.Secret, err error) {
	if d.tokenFile == "-" {
		token, err = tokenLine(std.in)
	} else if token, err = readSecret(d.tokenFile); err != nil {
		err = fmt.Errorf("read token %s: %w", d.tokenFile, err)
	}
	if err == nil && strings.ContainsAny(token.Reveal(), " \t\r\n\x00") {
		err = errors.New("read token: want one word; is it the token alone?")
	}
	return token, err
}

// tokenLine reads no further than the line: the rest is the command's.
func tokenLine(in io.Reader) (access.Secret, error) {
	var line []byte
	for one := make([]byte, 1); len(line) <= maxSecret; {
		n, err := in.Read(one)
		switch {
		case n == 1 && one[0] == '\n', n == 0 && errors.Is(err, io.EOF):
			if len(line) == 0 {
				return access.Secret{}, errors.New("read token: standard input has none in its first line")
			}
			return access.NewSecret(strings.TrimRight(string(line), "\r")), nil
		case n == 1:
			line = append(line, one[0])
		case err != nil:
			return access.Secret{}, fmt.Errorf("read token: %w", err)
		}
	}
	return access.Secret{}, fmt.Errorf("read token: the first line has more than %d bytes", maxSecret)
}

// Files in the folder of one connection.
const (
	dialService = "service.conf"
	dialPass    = "pgpass"
	dialCA      = "ca.pem"
	dialName    = "tidegate" // the service's
)

// write makes the three files that libpq reads. The folder is ours alone, so
// no other user of this machine can ride on the connection.
func (d dial) write(folder string, to endpoint) error {
	service := fmt.Sprintf("[%s]\nhost=%s\nport=%s\ndbname=%s\nuser=%s\nsslmode=verify-full\nsslrootcert=%s\n",
		dialName, to.host, to.port, d.database(), to.user, filepath.Join(folder, dialCA))
	// For this gateway alone: a command that goes elsewhere gets no token.
	pass := fmt.Sprintf("%s:%s:%s:%s:%s\n", pgpassEscape.Replace(to.host), to.port, d.database(), to.user, pgpassEscape.Replace(to.token.Reveal()))
	for name, text := range map[string]string{dialService: service, dialPass: pass, dialCA: string(to.ca)} {
		if err := writeNew(filepath.Join(folder, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

var pgpassEscape = strings.NewReplacer(`\`, `\\`, `:`, `\:`)

// token logs the person in at the development issuer.
func (d dial) token(state *devState) (access.Secret, error) {
	issuer, err := devissuer.Open(filepath.Join(d.dir, "issuer"))
	if err != nil {
		return access.Secret{}, err
	}
	issuer.SetURL(state.url("issuer"))
	token, err := issuer.Mint(devissuer.Claims{
		Subject: "dev-" + d.who, Email: d.who + "@acme.test", EmailVerified: true,
		Audience: devAudience, Lifetime: connectLasts,
	})
	return access.NewSecret(token), err
}

// harmless are settings of libpq that do not say where to or as whom.
var harmless = []string{"PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGDATESTYLE", "PGTZ"}

// clientEnv is the environment with our files in the place of whatever else
// would lead libpq elsewhere. It holds paths, no secret.
func clientEnv(environ []string, files string) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return strings.HasPrefix(name, "PG") && !slices.Contains(harmless, name)
	})
	return append(env, "PGSERVICE="+dialName,
		"PGSERVICEFILE="+filepath.Join(files, dialService), "PGPASSFILE="+filepath.Join(files, dialPass))
}

// runClient runs the command to its end. Ctrl-C goes to the whole terminal
// group, and to psql it means "cancel the statement": so it is not for us.
// Other signals are handed on, and the files are removed afterwards.
func runClient(command, env []string, io stdio) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, io.in, io.out, io.err
	signals, done, ended := make(chan os.Signal, 4), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", command[0], err)
	}
	go func() {
		defer close(done)
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended by itself
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	<-done
	return clientEnded(command[0], err)
}

func clientEnded(name string, err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			err = fmt.Errorf("run %s: %w", name, err)
		}
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitCode(128 + int(status.Signal())) // as shells write it
	}
	return exitCode(exit.ExitCode())
}
