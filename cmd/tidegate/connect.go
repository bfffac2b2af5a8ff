package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/gateway/identify/devissuer"
)

// connectLasts is how long the token of one connect is good.
const connectLasts = time.Hour

// exitCode is what another program ended with: it has said its words itself.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("the command ended with %d", int(c)) }

// dial is whom connect connects to what.
type dial struct {
	target, choice, who, dir string
	command                  []string
}

// runConnect makes a PostgreSQL or SSH client ready and runs it.
func runConnect(ctx context.Context, args []string, io stdio) error {
	if toSSH(args) {
		return connectSSH(ctx, args, io)
	}
	d, err := parseDial(args, io)
	if err != nil {
		return err
	}
	if !isFile(filepath.Join(d.dir, "dev.json")) {
		return fmt.Errorf("find the gateway: no dev.json in %s; is `tidegate dev` running there?", d.dir)
	}
	files, err := os.MkdirTemp("", "tidegate-connect-") // 0700
	if err != nil {
		return fmt.Errorf("make folder for the connection: %w", err)
	}
	defer os.RemoveAll(files)
	if err := d.write(files); err != nil {
		return err
	}
	return runClient(d.command, clientEnv(os.Environ(), files), io)
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
	flags.StringVar(&d.who, "as", "", "`login` of who connects: "+strings.Join(devPeople, ", "))
	words, err := mixed(flags, args, io)
	if err != nil {
		return d, err
	}
	if len(words) != 1 {
		return d, fmt.Errorf("%w: got %q, want one target", errUsage, words)
	}
	d.target, d.dir = strings.TrimPrefix(words[0], "postgres."), *dir
	// Both become lines of a file: what is no name could be another setting.
	if !nameWord.MatchString(d.target) || d.choice != "" && !nameWord.MatchString(d.choice) {
		return d, fmt.Errorf("%w: target %q or choice %q is no name", errUsage, d.target, d.choice)
	}
	if !slices.Contains(devPeople, d.who) {
		return d, fmt.Errorf("%w: --as %q is nobody here; there are %s", errUsage, d.who, strings.Join(devPeople, ", "))
	}
	return d, nil
}

func (d dial) database() string {
	if d.choice == "" {
		return d.target
	}
	return d.target + "+" + d.choice
}

// Files in the folder of one connection.
const (
	dialService = "service.conf"
	dialPass    = "pgpass"
	dialCA      = "ca.pem"
	dialName    = "tidegate" // the service's
)

// write makes the three files that libpq reads.
func (d dial) write(to string) error {
	state, err := openDevState(d.dir)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(d.dir, keysDir, "gateway-ca.pem"))
	if err != nil {
		return fmt.Errorf("read the gateway's CA: %w", err)
	}
	token, err := d.token(state)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(state.addr("gateway"))
	if err != nil {
		return fmt.Errorf("read gateway address: %w", err)
	}
	service := fmt.Sprintf("[%s]\nhost=%s\nport=%s\ndbname=%s\nuser=%s\nsslmode=verify-full\nsslrootcert=%s\n",
		dialName, host, port, d.database(), d.who, filepath.Join(to, dialCA))
	pass := fmt.Sprintf("%s:%s:%s:%s:%s\n", host, port, d.database(), d.who, pgpassEscape.Replace(token))
	for name, text := range map[string]string{dialService: service, dialPass: pass, dialCA: string(ca)} {
		if err := writeNew(filepath.Join(to, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

var pgpassEscape = strings.NewReplacer(`\`, `\\`, `:`, `\:`)

// token logs the person in at the development issuer.
func (d dial) token(state *devState) (string, error) {
	issuer, err := devissuer.Open(filepath.Join(d.dir, "issuer"))
	if err != nil {
		return "", err
	}
	issuer.SetURL(state.url("issuer"))
	return issuer.Mint(devissuer.Claims{
		Subject: "dev-" + d.who, Email: d.who + "@acme.test", EmailVerified: true,
		Audience: devAudience, Lifetime: connectLasts,
	})
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
