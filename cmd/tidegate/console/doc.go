// Package console is Tidegate's web pages: what access there is, what waits
// for an answer, what was done, and by which policies. It is HTML made here,
// one stylesheet and a few lines of script; a page works without them.
//
// # Who sees what
//
// A visitor logs in at one of the configured OpenID Connect issuers. Exactly
// one `person` block of the policies in force must name that identity, and the
// forge must know the account; everybody else sees nothing but the reason. The
// policies are asked again with each request, so a changed block ends a login
// at once. Then
//
//   - a grant is shown to whom it is for, who asked for it, and those whom its
//     approvals name, by today's teams;
//   - a session, with its recording, to the person in it and to those who see
//     its grant;
//   - a held operation to those who see its grant and those whom its rule asks;
//   - policies and the audit log to operators and policy owners, who see all
//     the rest as well, by the server's own settings and today's teams.
//
// What is not shown is "not found", whether it exists or not. What may be done
// (revoke, answer) the [Desk] decides, by the functions that commands in
// comments are judged by; a button is only shown where it would say yes.
//
// # What keeps it safe
//
// Logins are kept in memory, for an hour at most; the cookie is a random name
// for one. Each form carries a secret of its login, and what browsers say
// comes from another site is refused besides. The pages allow no inline script
// and nothing from elsewhere, and no frame. Every page passes [forge.Visible]
// on its way out, so no control or bidirectional character that somebody wrote
// reaches the browser. Sizes, counts, waits and requests in flight have bounds.
package console
