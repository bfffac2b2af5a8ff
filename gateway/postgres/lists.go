package postgres

import "strings"

// kinds are the statements that the room understands, by parser node. What is
// not listed is refused.
var kinds = map[string]string{
	"select_stmt": "select", "insert_stmt": "insert", "update_stmt": "update", "delete_stmt": "delete",
	"merge_stmt": "merge", "copy_stmt": "copy", "explain_stmt": "explain", "transaction_stmt": "transaction",
	"variable_set_stmt": "set", "variable_show_stmt": "show", "declare_cursor_stmt": "declare",
	"listen_stmt": "listen", "unlisten_stmt": "unlisten", "notify_stmt": "notify", "discard_stmt": "discard",
	"lock_stmt": "lock", "truncate_stmt": "truncate", "vacuum_stmt": "vacuum", "constraints_set_stmt": "set",
	"create_stmt": "create", "create_table_as_stmt": "create", "view_stmt": "create", "index_stmt": "create",
	"create_schema_stmt": "create", "create_seq_stmt": "create", "create_enum_stmt": "create",
	"alter_table_stmt": "alter", "rename_stmt": "alter", "alter_seq_stmt": "alter", "comment_stmt": "alter",
	"drop_stmt": "drop", "refresh_mat_view_stmt": "refresh",
	"prepare_stmt": "prepare", "execute_stmt": "execute", "deallocate_stmt": "deallocate",
	"fetch_stmt": "fetch", "close_portal_stmt": "close", "call_stmt": "call",
}

var ddl = map[string]bool{"create": true, "alter": true, "drop": true, "refresh": true}

// settable are the settings that change neither who the session is nor how
// its text is read. standard_conforming_strings is not one of them: with it
// off, the server would end a string elsewhere than the parser here does.
var settable = map[string]bool{
	"application_name": true, "datestyle": true, "timezone": true, "intervalstyle": true,
	"extra_float_digits": true, "bytea_output": true, "statement_timeout": true, "lock_timeout": true,
	"idle_in_transaction_session_timeout": true, "client_min_messages": true, "work_mem": true,
	"row_security": true, "synchronize_seqscans": true, "transaction_timeout": true, "jit": true,
	"transaction": true, "session characteristics": true, "transaction_isolation": true,
	"default_transaction_isolation": true, "default_transaction_read_only": true, "transaction_read_only": true,
}

// refusedFunction names functions that take SQL as text, read the server's
// files, reach another server or act on other sessions.
func refusedFunction(name string) bool {
	for _, p := range []string{"lo_", "dblink", "pg_read_", "pg_ls_", "pg_stat_file", "pg_file_", "pg_terminate_", "pg_cancel_", "pg_reload_", "pg_rotate_", "pg_logical_", "pg_replication_", "pg_create_", "query_to_", "crosstab"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	switch name {
	case "ts_stat", "ts_rewrite", "connectby", "xpath_table", "loread", "lowrite":
		return true
	}
	return strings.Contains(name, "_to_xml")
}
