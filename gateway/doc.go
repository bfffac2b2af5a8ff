// Package gateway is the second lock: it stands between people's own tools
// and the targets, and lets through what an active grant allows.
//
// A connection walks one road: accept, identify, authorize, inspect, hold,
// record, forward, mask, record, reply. The [Server] owns everything that is
// the same for each protocol. What differs is a [Room]: a folder that speaks
// one protocol. A room is handed a [Door] to knock on, and behind it a
// [Session] with two verbs: [Session.Admit] asks whether one operation may
// run, and the open operation's Tap shows it the bytes that flow. A room
// never holds a recorder or a policy.
//
// To read it: room.go is what a room sees, ports.go what the gateway needs of
// others. Then along the road: server.go accepts, door.go lets in, session.go
// is the stay and its end, admit.go one operation, judge.go what is decided,
// hold.go the wait for a person. snapshot.go keeps who has what.
package gateway
