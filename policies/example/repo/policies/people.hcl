# Who is who: a GitHub login, and the identity that it logs in with.
person "alice" { identity = oidc("dev", "alice@acme.test") }
person "bob" { identity = oidc("dev", "bob@acme.test") }
person "admin" { identity = oidc("dev", "admin@acme.test") }
person "carol" { identity = oidc("dev", "carol@acme.test") }
