package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"path/filepath"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/cmd/tidegate/console"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
)

// openConsole opens the web pages' door.
func (h *house) openConsole(listen string, t *tls.Config, cfg console.Config) error {
	cfg.Log = h.log.With("part", "console")
	pages, err := console.New(cfg)
	if err != nil {
		return err
	}
	return h.openDoor(httpDoor{Part: "console", Listen: listen, TLS: t, Handler: pages})
}

// startConsole opens the console if the configuration has one. It shows the
// recordings that lie in this process's folder; those of gateways in other
// processes lie with them.
func (h *serveHouse) startConsole(context.Context) error {
	if h.cfg.Console.Listen == "" {
		return nil
	}
	cfg := console.Config{URL: h.cfg.Console.URL, Providers: h.cfg.Console.Logins, Ledger: h.ledger, Desk: h.ctl.flows.Desk()}
	if h.cfg.Parts.Gateway {
		cfg.Recordings = shelf{console.Folder(h.cfg.Recordings.Dir), h.cfg.Recordings.Bucket}
		cfg.Keys = trustedKeys(h.keysDir())
	}
	return h.openConsole(h.cfg.Console.Listen, h.cfg.Console.TLS.server(), cfg)
}

// shelf is a folder of recordings, and a bucket for those that are gone from it.
type shelf struct {
	console.Folder
	bucket string
}

// Open implements console.Recordings.
func (s shelf) Open(ctx context.Context, session string) (console.Recording, error) {
	f, err := s.Folder.Open(ctx, session)
	if s.bucket == "" || err == nil || access.CodeOf(err) != access.CodeNotFound {
		return f, err
	}
	file, err := fetchRecording(ctx, s.bucket, session)
	if err != nil {
		return nil, err
	}
	return console.Opened(file)
}

// consoleClient is dev's console at dev's issuer. Its audience is not the
// gateway's: a login there opens no session.
const consoleClient = "tidegate-console"

// startConsole opens dev's console, where everybody may be anybody.
func (h *devHouse) startConsole(context.Context) error {
	h.ready.Console = h.state.url("console")
	client := devissuer.Client{ID: consoleClient, Secret: access.NewSecret(rand.Text()), RedirectURL: h.ready.Console + "/login/callback"}
	for _, who := range append(append([]string{}, devPeople...), "admin") {
		client.Accounts = append(client.Accounts, devissuer.Account{Name: who, Claims: devClaims(who)})
	}
	if err := h.issuer.AllowLogin(client); err != nil {
		return err
	}
	return h.openConsole(h.state.addr("console"), nil, console.Config{
		URL: h.ready.Console, Development: true, Ledger: h.ledger, Desk: h.ctl.flows.Desk(),
		Recordings: console.Folder(filepath.Join(h.opts.Dir, recordingsDir)), Keys: trustedKeys(filepath.Join(h.opts.Dir, keysDir)),
		Providers: []console.Provider{{
			Issuer:   identify.Issuer{Name: "dev", URL: h.issuer.URL(), AllowHTTPLoopback: true},
			ClientID: client.ID, ClientSecret: client.Secret,
		}},
	})
}

// devClaims are who somebody is in the play.
func devClaims(who string) devissuer.Claims {
	return devissuer.Claims{Subject: "dev-" + who, Email: who + "@acme.test", EmailVerified: true}
}
