// Package access is the vocabulary of Tidegate: the words that policies,
// workflows and gateways use to speak to one another.
//
// The story in those words: a person opens a pull request that holds a
// [Request]. Under the policies in force it becomes a [Plan]: who, on which
// [Target], in which [Role], for how long, with which [Mask] and [Rule], and
// whose agreement is missing ([Requirement]). Reviews bind to the plan's
// digest. Once enough eligible people agreed and the request has landed on the
// main branch, the plan becomes a [Grant]: a signed row in the ledger with an
// absolute end. While a grant is active a gateway may open a session for it:
// it asks for a [Lease], the credential that never leaves the gateway. Inside
// the session each [Operation] is judged; the [Decision] carries a [Verdict]:
// Deny, Hold or Allow. A held operation becomes a [Held] that a person
// answers. Everything that happened is an [Event] in the session's recording.
//
// The package holds data and pure functions only: no I/O, no clock, no
// randomness, nothing but the standard library. Time is always a value that
// the caller passes in, so every judgement can be repeated later, and is the
// same.
package access
