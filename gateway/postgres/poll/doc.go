// Package poll waits for many connections with one goroutine.
//
// A connection that carries one short question and one short answer after
// another costs a goroutine mostly its waking up: with two of them for each
// session that is more than everything else that a gateway does. So one
// goroutine, the leader, waits for all connections and deals with each itself,
// in a turn: a function that reads what is there, acts on it, and returns.
//
// A turn may block, for a person's answer or for a peer that does not read.
// Then it gives the leadership away: another goroutine goes on with the other
// connections, and the one that blocked becomes a goroutine like any other,
// until its turn is over. What blocks and does not say so is found out after
// some milliseconds. A turn that reads more and more goes on alone, too.
//
// Where the kernel is not Linux, or a connection is not a socket, each one has
// a goroutine of its own instead, and reads as usual.
package poll
