// Package lease carries the credential of one session from the control side
// to a gateway that runs in another process.
//
// The control side mints; a gateway, which parses what strangers send, holds
// no key to make a credential of its own. When a session opens, the gateway
// asks for that session's credential with [Client], over TLS that proves both
// ends; [Handler] answers after the control side has looked at the grant's
// signed row again. Nothing that a gateway says of a grant is believed: it
// names one, and that is all.
//
// On the wire a question is one POST of {"grant", "session"} to /v1/lease.
// The answer is the credential, or {"code", "message"} with a code and a
// sentence of package access. The password crosses because [Handler] reveals
// it by name, in one line; no log and no error holds it.
//
// At /v1/recorder the control side vouches for the key with which the gateway
// signs recordings: {"key"}, answered with {"certificate", "ca"}.
package lease
