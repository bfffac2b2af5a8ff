// Package ssh is the SSH room: it stands between any SSH client, which says by
// a short certificate or a token who it is, and a host that knows only the
// certificates of the gateway's user CA.
//
// Both connections end here. What a client asks for on a channel (a shell, a
// command, a file, a forward) is judged as an operation of its own before
// anything of it reaches the host; a refusal is a sentence on stderr and exit
// status 1. The user part of the client's address names the target:
//
//	ssh web-1@gate            the only grant there, its role's first account
//	ssh deploy%web-1@gate     another account of the role
//	ssh web-1+inc-4821@gate   under this grant, or this role
//
// Who somebody is comes from the certificate or token alone.
package ssh
