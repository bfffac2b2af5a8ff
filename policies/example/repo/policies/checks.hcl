check "a data owner is asked" {
  given  = { to = user("alice"), on = postgres.orders-prod, role = "readonly", lasts = "60s" }
  expect = "prod-pii"
}

check "writing ends within the hour" {
  given  = { to = user("alice"), on = postgres.orders-prod, role = "operator", lasts = "2h" }
  expect = "refused"
}

check "mallory is nobody here" {
  given  = { to = user("mallory"), on = postgres.orders-prod, role = "readonly", lasts = "60s" }
  expect = "refused"
}

check "interns never own prod" {
  given  = { to = user("intern"), on = postgres.orders-prod, role = "operator", lasts = "1d" }
  expect = "refused"
}
