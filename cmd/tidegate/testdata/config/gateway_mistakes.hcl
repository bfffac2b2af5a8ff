parts        = ["gateway"]
installation = "acme1"
state_dir    = "@DIR@/control-state"

github {
  repository = "acme"
}

ledger {
  url_file = "sqlite-url"
}

issuer "okta" {
  url      = "https://acme.okta.com"
  audience = "0oa1tidegate"
}

secret "orders-admin" {
  user = "tidegate_admin"
}

gateway {
  listen           = ":5432"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
  name             = "gateway-1"
  control {
    address          = ":7443"
    enrolment        = "open-enrolment"
    certificate_file = "gateway.crt"
  }
}

recordings {
  dir = "/var/lib/tidegate-config-test/recordings"
}

control {
  listen = ":7443"
}
