// Package hub is a pocket GitHub on real git: one repository that people reach
// with `git push` over HTTP and programs reach with GitHub's REST API.
//
// `tidegate dev`, the demo and the end-to-end tests use it in GitHub's place, so
// the code that talks to GitHub is the code that runs there. Three things make
// that honest. Git is git: a bare repository behind `git http-backend`, with
// merges made by `git merge-tree`. The REST answers have GitHub's shapes: every
// answer that a test of this package sees is validated against GitHub's own
// OpenAPI description. And webhooks behave as GitHub's do: signed, sent once, in
// order, logged, never repeated unless somebody asks for a redelivery.
//
// The state is a folder: `repo.git`, and `hub.db` (SQLite) for what git does not
// hold, that is pull requests, reviews, comments, check runs and deliveries. A
// request is answered when its records are committed, so a killed hub comes back
// with everything that it has said.
//
// What it leaves out, it answers with 404: forks, line comments of reviews,
// labels, merge queues. Of GraphQL it answers two queries, for comments with
// their edits and for the last change of a base, in the shape of GitHub's schema. People and teams come from the Config and
// belong to one organization, the repository's owner.
package hub
