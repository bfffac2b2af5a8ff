package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// installation is the Tidegate that an operator's verb is about: the folder of
// a `tidegate dev`, or a `tidegate serve` by its configuration.
type installation struct {
	Config     string // the configuration's path; "" for dev
	Name       string // as minted roles carry it; "" if it is not known
	Dir        string // the state folder
	Ledger     access.Secret
	Recordings string
	Bucket     string // where copies of them lie; none if empty
}

// which is how every verb is told which installation it is about.
type which struct{ dir, config string }

// addFlags adds --dir and --config to a verb.
func (w *which) addFlags(flags *flag.FlagSet) {
	into := func(to *string) func(string) error {
		return func(s string) (err error) {
			*to, err = filepath.Abs(s)
			return err
		}
	}
	flags.Func("dir", "state `folder` of tidegate dev (or $TIDEGATE_DIR; default "+defaultDir()+")", into(&w.dir))
	flags.Func("config", "configuration `file` of tidegate serve (or $TIDEGATE_CONFIG)", into(&w.config))
}

// choose is the configuration's path, or else the folder of a dev.
func (w which) choose() (config, dir string, err error) {
	switch {
	case w.dir != "" && w.config != "":
		return "", "", fmt.Errorf("%w: got --dir and --config, want one of them: --dir for a tidegate dev, --config for a tidegate serve", errUsage)
	case w.dir == "" && w.config == "":
		config = os.Getenv("TIDEGATE_CONFIG")
	default:
		config = w.config
	}
	return config, cmp.Or(w.dir, defaultDir()), nil
}

// find reads no more than it needs: who may read the ledger and the recordings
// need not be able to read the other secrets of the configuration.
func (w which) find() (installation, error) {
	config, dir, err := w.choose()
	if err != nil || config == "" {
		return ofDev(dir), err
	}
	return ofConfig(config)
}

func ofDev(dir string) installation {
	i := installation{
		Dir: dir, Ledger: access.NewSecret("sqlite:" + filepath.Join(dir, ledgerFile)),
		Recordings: filepath.Join(dir, recordingsDir),
	}
	if isFile(filepath.Join(dir, devFile)) {
		if state, err := openDevState(dir); err == nil {
			i.Name = state.Installation
		}
	}
	return i
}

// ofConfig takes from a configuration what verbs need that read. The rest of
// it may be wrong: serve and doctor say so.
func ofConfig(path string) (installation, error) {
	text, err := readBounded(path, maxConfig)
	if err != nil {
		return installation{}, fmt.Errorf("read configuration: %w; --config names that of `tidegate serve`", err)
	}
	d := &decoder{dir: filepath.Dir(path)}
	file, diags := hclsyntax.ParseConfig(text, path, hcl.InitialPos)
	d.addHCL(diags)
	var c serveConfig
	if body, ok := file.Body.(*hclsyntax.Body); ok && !diags.HasErrors() {
		b := &block{decoder: d, name: "the configuration", at: fileStart(path), body: body}
		c.Installation, c.StateDir = b.text("installation").text, b.need("state_dir", "the keys lie there").text // a gateway apart has no installation
		c.readLedger(b.needBlock("ledger", "it is where the truth is"))
		c.readRecordings(b.block("recordings"))
	}
	var errs []error
	for _, one := range d.sorted() {
		if one.Severity == access.SeverityError {
			errs = append(errs, errors.New(one.String()))
		}
	}
	if len(errs) > 0 {
		return installation{}, fmt.Errorf("read configuration %s: %w", path, errors.Join(errs...))
	}
	return installation{
		Config: path, Name: c.Installation, Dir: c.StateDir, Ledger: c.Ledger, Recordings: c.Recordings.Dir, Bucket: c.Recordings.Bucket,
	}, nil
}

// key is the path of one of the installation's keys.
func (i installation) key(name string) string { return filepath.Join(i.Dir, keysDir, name) }

// withLedger opens the ledger as it is, to read.
func (i installation) withLedger(ctx context.Context, read func(*ledger.Ledger) error) error {
	return i.openLedger(ctx, ledger.Config{}, read)
}

// openLedger opens the ledger that there is: a wrong folder must not become a
// new installation, nor a look bring the schema of a running serve forward.
func (i installation) openLedger(ctx context.Context, c ledger.Config, use func(*ledger.Ledger) error) error {
	c.URL, c.Installation, c.Existing = i.Ledger.Reveal(), i.Name, true
	l, err := ledger.Open(ctx, c)
	if access.CodeOf(err) == access.CodeNotFound && i.Config == "" {
		return fmt.Errorf("open ledger: there is none in %s; --dir names the folder of a `tidegate dev`, --config the configuration of a `tidegate serve`", i.Dir)
	}
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	return errors.Join(use(l), l.Close())
}

// withLedger reads the ledger of a folder of dev.
func withLedger(ctx context.Context, dir string, read func(*ledger.Ledger) error) error {
	return ofDev(dir).withLedger(ctx, read)
}
