target "postgres" "orders-prod" {
  address = "127.0.0.1:5432/orders"
  admin   = secret("orders-admin")
  labels  = { env = "prod", data = "pii" }

  role "readonly" {
    longest = "8h"
    read    = ["public.*"]
  }
  role "operator" {
    longest = "1h"
    read    = ["public.*"]
    write   = ["public.orders"]
  }
}

approval "prod-pii" {
  when = target.labels.env == "prod"
  need = grant.seconds > seconds("1h") ? 2 : 1
  from = [team("acme/data-owners")]
  say  = "A data owner must agree to production data; longer than an hour, two."
}

mask "emails" {
  on      = [postgres.orders-prod]
  columns = ["*.email"]
  with    = partial(4)
}

mask "ssn" {
  on      = [postgres.orders-prod]
  columns = ["users.ssn"]
  with    = null()
}

rule "no-drop" {
  on   = [postgres.orders-prod]
  deny = statement.ddl
  say  = "The shape of the production database changes by migration only."
}

rule "big-delete" {
  on   = [postgres.orders-prod]
  hold = statement.kind == "delete" && !statement.has_where
  ask  = [team("acme/data-owners")]
  say  = "Deleting without WHERE needs a second pair of eyes."
}
