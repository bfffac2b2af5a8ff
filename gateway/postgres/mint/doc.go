// Package mint is the first lock of a PostgreSQL target: the server itself
// refuses what a grant does not say.
//
// A grant becomes a role of its own. The role may log in until the grant ends,
// is a member of nothing, and holds exactly the privileges that the approved
// [access.Expansion] and today's catalog both contain, all of them by column:
// a column that is added while a grant lives is refused until it is minted.
//
// A masked column exists for the role only in a view. Each source schema with
// masked tables gets a mask schema beside it, that stands before it in the
// role's search_path; the views in it belong to a role that cannot log in and
// that may read the masked tables. The minted role has no right on the raw
// masked column, so whoever gets around the gateway's inspection meets
// "permission denied", not the value. What could show the value by another way
// (a customer's view over the table, a function with its owner's rights, a
// right of PUBLIC) is refused when the grant is planned.
//
// The password is derived from the minter's key, the grant and its generation.
// It is stored nowhere: the server gets a SCRAM verifier that is computed
// here, because a server logs statements.
//
// Everything is idempotent. A mint is one transaction, or several where it
// makes many views, serialised per database on a row that only the minter can
// reach; what it waits for of the target's own traffic it waits for briefly. A
// revoke first takes the login away and ends the sessions, which waits for
// nobody, and then removes the rest. The same call continues a mint or a revoke
// that broke off.
//
// Rights follow a table and not its name, so that a migration can break a
// grant, never widen it: [Minter.Broken] says what must be minted again.
//
// The minter's own login needs CREATEROLE, CREATE on the database, and the
// rights that it hands on WITH GRANT OPTION: [SetupSQL] writes that down. Up to
// PostgreSQL 15 a role with CREATEROLE can make itself a member of every role
// that is no superuser, and of those that run programs on the server: guard
// its password as you guard a superuser's.
//
// Not guarded by this lock: which other databases PUBLIC may connect to,
// functions open to PUBLIC that run with the caller's rights, temporary tables
// and large objects, SET of the role's own settings. Somebody who may write a
// masked column with a unique index can learn by trying whether a value exists.
package mint
