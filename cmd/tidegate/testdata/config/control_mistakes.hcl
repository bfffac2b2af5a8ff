parts        = ["control", "control"]
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
  url = "sqlite:/var/lib/tidegate-config-test/ledger.db"
}

issuer "okta" {
  url      = "https://acme.okta.com"
  audience = "0oa1tidegate"
}

issuer "google" {
  url = 7
}

rules {
  policy_owners = ["team:acme/security"]
}

gateway {
  listen = ":5432"
}

recordings {
  dir = "relative"
}

control {
  address = "control.internal:7443"
}
