# New policies need a database administrator besides the server's policy owners.
approval "policy-change" {
  policies = true
  need     = 1
  from     = [team("acme/dba")]
  say      = "A database administrator must agree to new policies."
}
