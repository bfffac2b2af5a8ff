// Package workflows drives a grant's life on Temporal: [Request] follows a
// pull request from open to closed, [Grant] mints, waits for the end, revokes
// and proves it, [Hold] waits for the answer to one paused operation, and
// Sweep makes git, the ledger and the targets agree again.
//
// Workflows hold no truth. Inputs are ids; each activity reads again what it
// acts on, and each transition is a compare-and-set on the grant's row in the
// ledger. With Temporal's store lost, the sweeper still revokes on time.
package workflows
