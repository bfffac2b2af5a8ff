module github.com/tidegate/tidegate/cmd/tidegate-temporal

go 1.26.0

require go.temporal.io/server v1.32.1
