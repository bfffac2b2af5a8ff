package main

import (
	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/cmd/tidegate/console"
	"github.com/tidegate/tidegate/gateway/identify"
)

// consoleConfig is the web pages' door. Without an address there are none.
type consoleConfig struct {
	Listen, URL string
	TLS         tlsFiles
	Logins      []console.Provider // the issuers with a client_id
}

// loginClient is who the console is at an issuer.
type loginClient struct {
	id     string
	secret access.Secret
}

func (b *block) loginClient() loginClient {
	id, secret := b.text("client_id"), b.text("client_secret_file")
	if secret.ok() && !b.has("client_id") {
		b.errorf(secret.at, "Half a client", "Got client_secret_file without client_id in %s, want both, or neither.", b.name)
	}
	return loginClient{id.text, b.secretFile(secret)}
}

// logIn lets the console's visitors log in at an issuer that knows the console.
func (c *serveConfig) logIn(i identify.Issuer, client loginClient) {
	if client.id != "" {
		c.Console.Logins = append(c.Console.Logins, console.Provider{Issuer: i, ClientID: client.id, ClientSecret: client.secret})
	}
}

// hasConsole reports whether the configuration has the block, its mistakes aside.
func (b *block) hasConsole() bool {
	for _, in := range b.body.Blocks {
		if in.Type == "console" {
			return true
		}
	}
	return false
}

func (c *serveConfig) readConsole(top *block) {
	b := top.block("console")
	if b == nil {
		return
	}
	listen, url := b.need("listen", "the address for browsers"), b.need("url", "where browsers reach it")
	b.listenAddress(listen)
	b.httpsURL(url)
	if url.ok() && !b.failedIn() {
		if err := console.CheckURL(url.text); err != nil {
			b.errorf(url.at, "Wrong URL", "Got %q, want https://host or https://host:port, without a path: issuers send people back there.", url.text)
		}
	}
	if !b.has("certificate_file") && !b.has("key_file") {
		b.errorf(b.at, "Plain text", "Got no certificate_file and key_file in the block console, want both: logins travel here.")
	}
	if !top.knowsClient() {
		b.errorf(b.at, "Nobody can log in", "Got no issuer with client_id, want one: the console is a client there, with the redirect URI <url>/login/callback.")
	}
	c.Console.Listen, c.Console.URL, c.Console.TLS = listen.text, url.text, b.keyPair()
	b.done()
}

// knowsClient reports whether an issuer is one to log in at, its mistakes aside.
func (b *block) knowsClient() bool {
	for _, in := range b.body.Blocks {
		if in.Type == "issuer" && in.Body.Attributes["client_id"] != nil {
			return true
		}
	}
	return false
}
