// Package workflows drives a grant's life, from pull request to proven end.
//
// Three workflows run on Temporal. [Request] follows a pull request from open to
// closed, [Grant] mints, waits for the end, revokes and proves it, [Hold] waits
// for the answer to one held operation. They hold no truth: inputs are ids, each
// of the [Activities] reads again what it acts on, and each transition is a
// compare-and-set on the grant's row in the ledger.
//
// Beside them run loops that need no Temporal; Control.startLoops lists them.
// The sweeper takes away what should be gone and makes git, the ledger and the
// targets agree again: with Temporal's store lost, access still ends on time.
//
// [Control] starts it all; [Desk] is what the console may ask and do. What is
// needed of the forge, the policies, the ledger and the minters stands in
// ports.go.
//
// To read it: request.go and grant.go are the two lives; then evaluate.go (who
// agreed to what), land.go (from main into the ledger), opening.go and ending.go
// (the mint and the end), hear.go and command.go (what people say), sweep.go.
package workflows
