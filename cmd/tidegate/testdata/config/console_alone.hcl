parts        = ["control"]
installation = "acme1"
state_dir    = "/var/lib/tidegate-config-test"

github {
  repository = "acme/access"
  app {
    id               = 1234
    installation_id  = 567890
    private_key_file = "app.pem"
  }
  webhook {
    listen      = "127.0.0.1:8480"
    secret_file = "secret"
  }
}

temporal {
  address   = "127.0.0.1:7233"
  namespace = "tidegate"
}

ledger {
  url = "postgres://tidegate@ledger.internal/tidegate?sslmode=verify-full"
}

secret "orders-admin" {
  user          = "tidegate_admin"
  password_file = "secret"
  for           = ["postgres db.internal:5432/orders"]
}

rules {
  policy_owners = ["team:acme/security"]
}

control {
  listen = "10.0.0.5:7443"
}

issuer "okta" {
  url       = "https://acme.okta.com"
  audience  = "0oa1tidegate"
  client_id = "0oa2console"
}

console {
  listen           = ":8443"
  url              = "https://tidegate.acme.test"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
}
