// Package postgres is the PostgreSQL room: it stands between a client that
// brings a token and a target that knows only the grant's own role.
//
// Statements are read with PostgreSQL's own parser; what is not understood is
// refused. A refused statement never leaves the room. In its place the target
// gets a text that is a syntax error, and the client gets the rule's sentence
// in place of the target's: so the target itself aborts the transaction, and
// its state and the client's idea of it never part.
//
// Two streams run at once. The client's is taken apart, judged and sent on
// under names of the room's own; the target's is only walked, message by
// message, against the list of replies that are due.
package postgres
