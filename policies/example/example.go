// Package example is the access repository of the demo: alice, bob and carol,
// one PostgreSQL target, and the policies that guard it. mallory has an
// identity but no person block.
//
// It speaks of two teams that the forge must have: acme/data-owners (bob and
// carol) and acme/dba. The target stands at [Address], which whoever starts
// the demo replaces in the text of the files.
package example

import "embed"

// FS holds the repository under repo/.
//
//go:embed repo
var FS embed.FS

// Root is the repository's folder in [FS].
const Root = "repo"

// Address is the target's address as the files write it.
const Address = "127.0.0.1:5432/orders"
