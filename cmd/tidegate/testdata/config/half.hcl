installation = "acme1"
state_dir    = "relative"

github {
  repository = "acme/access"
  token_file = "secret"
  webhook {
    listen           = ":8480"
    secret_file      = "empty"
    certificate_file = "gateway.crt"
  }
}

temporal {
  address   = "10.0.0.7:7233"
  namespace = "tidegate"
}

ledger {
  url_file = "ledger-url"
}

issuer "okta" {
  url        = "https://acme.okta.com"
  audience   = "tidegate"
  algorithms = ["HS256"]
}

rules {
  policy_owners = ["team:acme/security"]
}

gateway {
  listen           = ":5432"
  certificate_file = "gateway.crt"
  key_file         = "app.pem"
}

recordings {
  dir = "@DIR@/dev/recordings"
}
