parts     = []
state_dir = "/var/lib/tidegate-config-test"

gateway {
  listen           = ":5432"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
  control {
    address   = "control.internal:7443"
    enrolment = "nowhere"
  }
}
