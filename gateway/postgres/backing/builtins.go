package backing

import (
	_ "embed"
	"strings"
)

// builtinList are the names of PostgreSQL 15's own functions: SELECT DISTINCT
// proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace. A plan
// names those that its server has besides.
//
//go:embed builtins.txt
var builtinList string

// Builtins are the names of PostgreSQL 15's own functions.
func Builtins() []string { return strings.Fields(builtinList) }
