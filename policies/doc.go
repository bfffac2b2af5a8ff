// Package policies turns the HCL of an access repository into the vocabulary
// of package access, and judges by it.
//
// The text of an access repository is written by many people and partly by
// those who ask for access, so it is hostile until it is understood. Each file
// passes a guard (size, tokens, depth, alphabet) before HCL's parser sees it,
// and afterwards an allow-list of syntax: what is not on the list is refused.
// Expressions are not given to HCL's evaluator. They are checked against a
// fixed vocabulary with types and compiled to a small three-valued evaluator,
// in which a missing fact is "unknown": an approval whose condition is unknown
// applies, and a rule whose condition is unknown bites. Each kind of block
// (grant, person, target, approval, rule, mask, check) is read in the file of
// its name; persons, and what all of them share, in policy.go and read.go.
//
// Everything is a pure function of its arguments: no I/O, no clock.
// [Evaluate] plans what a pull request asks for, [Count] counts reviews,
// [Compile] makes the judge of a session, [Check] runs a repository's own
// policy tests and [AdoptionRequirements] says who must agree to new policies.
package policies
