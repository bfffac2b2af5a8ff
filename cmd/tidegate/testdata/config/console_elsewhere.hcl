parts        = ["gateway"]
installation = "acme1"
state_dir    = "/var/lib/tidegate-config-test"

ledger {
  url = "postgres://tidegate_gateway@ledger.internal/tidegate?sslmode=verify-full"
}

issuer "okta" {
  url      = "https://acme.okta.com"
  audience = "0oa1tidegate"
}

gateway {
  listen           = ":5432"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
  control {
    address   = "control.internal:7443"
    enrolment = "gateway-1"
  }
}

recordings {
  dir = "/var/lib/tidegate-config-test/recordings"
}

console {
  listen           = ":8443"
  url              = "https://tidegate.acme.test"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
}
