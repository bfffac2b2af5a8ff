installation = "Acme Incorporated"
state_dir    = "@DIR@/dev"
colour       = "blue"
parts        = ["control", "gatway", "gateway"]

github {
  repository = "acme"
  base_url   = "http://127.0.0.1:3000"
  token_file = "world-readable"
  webhook {
    listen      = "0.0.0.0:8480"
    secret_file = "nowhere"
  }
}

temporal {
  address      = "temporal.internal"
  namespace    = 7
  api_key_file = "secret"
}

ledger {
  url = "postgres://tidegate:hunter2@ledger.internal/tidegate"
}

issuer "dev" {
  url      = "https://login.acme.test/tidegate-dev"
  audience = "tidegate"
}

issuer "okta" {
  url        = "https://acme.okta.com?x=1"
  algorithms = "RS256"
}

issuer "okta" {
  url      = "https://acme.okta.com"
  audience = "tidegate"
}

secret "orders-admin" {
  user           = "tidegate_admin"
  password_file  = "dev/keys/password"
  server_ca_file = "secret"
  for            = ["mysql db.internal:3306/orders", "postgres db.internal:5432/orders", "postgres db.internal:5432/orders"]
}

rules {
  auto_merge    = "yes"
  policy_owners = []
  operators     = ["admin"]
  poll          = "soon"
}

gateway {
  listen       = "gateway.internal:99999"
  control {
    address = "control.internal:7443"
  }
  max_sessions = 0
}

gateway {
  listen = ":5433"
}

recordings {
  dir = "recordings"
}

metrics {
  listen = "0.0.0.0:9464"
}

log {
  level  = "loud"
  format = secret
}

colours {
  sky = "blue"
}

control {
  listen = ":7443"
}
