package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
)

// maxConfig bounds the configuration file.
const maxConfig = 1 << 20

// serveConfig is a configuration of `tidegate serve` that was found right.
type serveConfig struct {
	Parts        parts
	Installation string
	StateDir     string
	Forge        forge.Config
	Webhook      webhookConfig
	Temporal     client.Options
	Ledger       access.Secret // its URL
	Issuers      []identify.Issuer
	Secrets      []targetSecret
	Rules        workflows.Rules
	Door         string // control's listen address for gateways of other processes
	Gateway      gatewayConfig
	SSH          *sshConfig // nil: no SSH
	Console      consoleConfig
	Recordings   recordingsConfig
	Metrics      string // listen address; none if empty
	Traces       tracesConfig
	Log          logConfig

	certs []certFile // all that it names
}

// webhookConfig is the door for GitHub's events.
type webhookConfig struct {
	Listen  string
	Secret  access.Secret
	TLS     tlsFiles       // both empty: plain HTTP behind a proxy on this machine
	Proxies []netip.Prefix // believed what they say of whence a request comes
}

// tlsFiles name a certificate with its key, read anew for new connections.
type tlsFiles struct{ Certificate, Key string }

// targetSecret is a login for targets: for those in For, and no others.
type targetSecret struct {
	Name, User   string
	PasswordFile string
	ServerCA     []byte
	ServerName   string
	For          []string // "postgres host:port/database"
	Static       bool     // the login of sessions, where a policy says so; else it is the minter's
}

type gatewayConfig struct {
	Listen    string
	TLS       tlsFiles
	Base      gateway.Config // name and bounds
	Control   string         // address of the control side's door, if that is another process
	Enrolment *enrolment     // what makes us known there
}

type recordingsConfig struct {
	Dir     string
	MinFree uint64
	Bucket  string // the URL of where sealed recordings are copied to; none if empty
}

type logConfig struct {
	Level slog.Level
	JSON  bool
}

// logger writes what the configuration asks for.
func (c logConfig) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.Level}
	if c.JSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// loadConfig reads a configuration and says everything that is wrong with it
// at once. The config counts only if no diagnostic is an error.
func loadConfig(path string) (*serveConfig, access.Diagnostics, error) {
	text, err := readBounded(path, maxConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	d := &decoder{dir: filepath.Dir(path)}
	file, diags := hclsyntax.ParseConfig(text, path, hcl.InitialPos)
	d.addHCL(diags)
	cfg := &serveConfig{}
	if body, ok := file.Body.(*hclsyntax.Body); ok && understood(diags) {
		cfg.read(&block{decoder: d, name: "the configuration", at: fileStart(path), body: body})
	}
	cfg.certs = d.certs
	return cfg, d.sorted(), nil
}

// understood reports whether a file could be taken apart, so that what it
// lacks is really lacking.
func understood(diags hcl.Diagnostics) bool {
	return !slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary != "Attribute redefined" })
}

func fileStart(path string) hcl.Range {
	return hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}
}

// readBounded reads a whole file of at most max bytes.
func readBounded(path string, max int64) ([]byte, error) {
	f, err := openQuick(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(text)) > max {
		err = fmt.Errorf("%s: more than %d bytes", path, max)
	}
	return text, err
}

// sorted puts the complaints in reading order, each once.
func (d *decoder) sorted() access.Diagnostics {
	slices.SortStableFunc(d.diags, func(a, b access.Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Summary, b.Summary))
	})
	return slices.Compact(d.diags)
}
