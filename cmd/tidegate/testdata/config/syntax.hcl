installation = "acme1
github {
