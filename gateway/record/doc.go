// Package record keeps and proves what happened in a session.
//
// A recording is one file of text lines. Each line is a letter, a space and a
// body:
//
//	H {…}            a segment begins: format version, session, number, previous hash, key
//	E {…}            an event, as package access defines it
//	C {…}            the segment ends: how many events, when, whether it is the last
//	S <hash> <sig>   SHA-256 over the lines H to C, and Ed25519 over that hash
//
// Each header carries the hash of the segment before it, so segments form a
// chain; the last one says so, which seals the file. An event is handed to the
// kernel before the operation that it records goes on, so it survives the
// gateway's death; it reaches the disk at most SyncEvery later, or before
// Append returns where the caller asks. The chain's heads are anchored outside
// by the caller: with them, a cut tail shows too.
//
// docs/reference/recording.md describes the format for other verifiers.
package record
