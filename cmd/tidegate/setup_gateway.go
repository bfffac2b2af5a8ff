package main

import (
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// runSetupGateway enrols a gateway at the control side whose configuration is
// given, or ends its enrolment. Control need not run; it reads its gateways
// anew for each question.
func runSetupGateway(_ context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("setup gateway", flag.ContinueOnError)
	path := flags.String("config", "", "the control side's configuration `file`")
	name := flags.String("name", "", "the gateway's `name`, in recordings and logs")
	out := flags.String("out", "", "a new `folder` for the gateway's files")
	remove := flags.Bool("remove", false, "end the gateway's enrolment")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	if *path == "" || !namePattern.MatchString(*name) || (*out == "") != *remove {
		return fmt.Errorf("%w: got --config %q, --name %q, --out %q; want a configuration, a name of small letters, digits, '.', '_' and '-', and a new folder or --remove", errUsage, *path, *name, *out)
	}
	g, control, err := openOwnGateways(*path)
	if err != nil {
		return err
	}
	if *remove {
		if err := g.remove(*name); err != nil {
			return err
		}
		_, err = fmt.Fprintf(io.out, removedText, *name)
		return err
	}
	if err := g.enrol(*name, *out, control); err != nil {
		return err
	}
	_, err = fmt.Fprintf(io.out, enrolledText, *name, *out, *name)
	return err
}

const enrolledText = `%s is enrolled; its files are in %s. Move that folder to the gateway, keep no copy, and name it there:
  gateway {
    control {
      address   = "…"
      enrolment = "/etc/tidegate/%s"
    }
  }
`

const removedText = `%s gets no credential any more, and nothing that it holds is shown. Sessions that are open there go on to their end.
If somebody broke into it: revoke the grants that were used there, and take its login to the ledger away.
`

// openOwnGateways opens the gateways of a control side that has run before: a
// wrong folder must not become a new installation.
func openOwnGateways(path string) (*gateways, ed25519.PublicKey, error) {
	cfg, diags, err := loadConfig(path)
	if err != nil {
		return nil, nil, err
	}
	if uid, ok := ownerOf(cfg.StateDir); ok && uid != os.Geteuid() {
		return nil, nil, fmt.Errorf("the state_dir %s belongs to user %d and this runs as %d; run it as the user that the control side runs as, or it can't read what is written here", cfg.StateDir, uid, os.Geteuid())
	}
	if n := mistakes(diags); n > 0 {
		return nil, nil, fmt.Errorf("%s: %s; `tidegate serve --config %s --check` says what", path, several(n, "mistake"), path)
	}
	if !cfg.Parts.Control || !cfg.Parts.apart() {
		return nil, nil, fmt.Errorf(`%s: want the configuration of a control side that runs alone, with parts = ["control"]`, path)
	}
	file := filepath.Join(cfg.StateDir, keysDir, "control.pem")
	if !isFile(file) {
		return nil, nil, fmt.Errorf("there is no %s: start the control side once, which makes its keys", file)
	}
	key, err := signingKey(file)
	if err != nil {
		return nil, nil, err
	}
	g, err := openGateways(cfg.StateDir, time.Now)
	if err != nil {
		return nil, nil, err
	}
	return g, key.Public().(ed25519.PublicKey), nil
}

// ownerOf is the user whose a path is; ok is false where nobody can say.
func ownerOf(path string) (uid int, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	return owner(info)
}
