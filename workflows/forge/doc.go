// Package forge is Tidegate's side of GitHub: it reads pull requests, trees and
// teams, and writes one comment, a few check runs, merges and the tidy commit.
//
// GitHub is where people ask, agree and look. It is not where the truth is: what
// everybody with write access may change is read as a claim, and checked again.
//
//   - Identity is a number. Logins, slugs and repository names can be renamed and
//     taken by somebody else, so users, teams and the repository are known by id,
//     and a repository name that suddenly means another id stops everything.
//   - Files are read by their git object id, and hashed again when they arrive.
//   - Comments can be edited by every writer. A check run can only be written by
//     the App. So the report and the statements that wait for an answer live in
//     check runs, and the comment is drawn from them each time: an edited comment
//     is simply drawn again. Nothing is read back from the comment.
//   - A command counts in a new, unedited comment of a person.
//   - A webhook only shortens the wait. It is checked by its SHA-256 signature and
//     handed on as a small [Event]; the reconcile finds what was never delivered.
//
// Everything that people wrote is shown so that it can't act: no mention, no link,
// no heading, no hidden character. [Forge] implements the interface of that name in
// package workflows.
package forge
