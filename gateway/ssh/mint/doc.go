// Package mint is the first lock of an SSH target: the host's own sshd refuses
// what a grant does not say.
//
// Nothing is made at the host. It trusts the minter's user CA by two lines of
// sshd_config, and each session gets a key of its own with a certificate of
// that CA: good for less than a minute from now, for the role's accounts, from
// the gateway's addresses, and with only those permissions that the role
// gives. A role that only moves files is forced into sshd's own sftp server,
// read-only where it may not write. Serial and key id of the certificate stand
// in sshd's log and lead back to the grant and the session.
//
// A certificate opens connections and closes none: the gateway does that. What
// a session left running at the host goes on there, unless the host's own
// settings end it.
package mint
