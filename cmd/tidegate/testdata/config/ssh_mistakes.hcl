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
    proxies     = ["127.0.0.1/32", "localhost"]
  }
}

temporal {
  address      = "temporal.internal:7233"
  namespace    = "tidegate"
  api_key_file = "secret"
  tls {
    ca_file = "ca.crt"
  }
}

ledger {
  url = "postgres://tidegate@ledger.internal/tidegate?sslmode=verify-full"
}

issuer "okta" {
  url      = "https://acme.okta.com"
  audience = "0oa1tidegate"
}

secret "orders-admin" {
  user           = "tidegate_admin"
  password_file  = "secret"
  server_ca_file = "ca.crt"
  for            = ["postgres db.internal:5432/orders"]
}

rules {
  policy_owners = ["team:acme/security"]
  operators     = ["user:alice"]
  reminder      = "5m"
}

gateway {
  listen           = ":5432"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
  name             = "gateway-1"
  max_sessions     = 500
}

recordings {
  dir          = "/var/lib/tidegate-config-test/recordings"
  min_free_mib = 1024
}

metrics {
  listen = "127.0.0.1:9464"
}

log {
  level  = "info"
  format = "json"
}

ssh {
  listen           = "gate"
  source_addresses = ["10.0.0.5"]
  device_issuer    = "nobody"
  host_key         = "none"
}
