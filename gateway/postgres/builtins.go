package postgres

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// builtins are PostgreSQL 15's own functions; true for those that change
// nothing.
var builtins = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range backing.Builtins() {
		m[name] = !changes(name)
	}
	return m
}()

// changes names the built-in functions that change something.
func changes(name string) bool {
	for _, p := range []string{"nextval", "setval", "lo_", "lowrite", "pg_stat_reset", "pg_switch_", "pg_log_", "pg_import_", "brin_", "gin_clean", "binary_upgrade_", "pg_drop_", "pg_copy_", "pg_promote", "pg_extension_config", "pg_nextoid", "pg_create_", "pg_replication_", "pg_logical_", "pg_advisory_", "pg_try_advisory_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// mayChange reports whether a call may change something. What a function that
// is not PostgreSQL's own does, nobody here knows, so it may; and so may a name
// that is of both, for the server chooses by arguments.
func (c *catalog) mayChange(n *pg.FuncCall) bool {
	parts := n.Funcname
	name := parts[len(parts)-1].GetString_().GetSval()
	if len(parts) == 2 && parts[0].GetString_().GetSval() == "pg_catalog" {
		return !builtins[name]
	}
	return len(parts) > 1 || !builtins[name] || c.called[name]
}
