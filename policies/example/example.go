// Package example is the access repository of the demo: alice, bob and carol,
// a PostgreSQL and an SSH target, and the policies that guard them. mallory has an
// identity but no person block.
//
// It speaks of two teams that the forge must have: acme/data-owners (bob and
// carol) and acme/dba. The targets stand at [Address] and [SSHAddress], which
// whoever starts the demo replaces in the text of the files, with [HostKey] and
// [Account].
package example

import "embed"

// FS holds the repository under repo/.
//
//go:embed repo
var FS embed.FS

// Root is the repository's folder in [FS].
const Root = "repo"

// What the files write, each for whoever starts the demo to replace.
const (
	Address    = "127.0.0.1:5432/orders"
	SSHAddress = "127.0.0.1:2222"
	HostKey    = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII8xtrGsJ6SW+ZNc+3zqfuDXm99OYlU8PTPubRuLwwrL" // of nobody: its private half was thrown away
	Account    = `"deploy"`
)
