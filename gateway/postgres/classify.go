package postgres

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tidegate/tidegate/access"
)

// maxText bounds one Query or Parse: the parser is recursive, and an approver
// must be able to read what is asked.
const maxText = 1 << 20

// The largest texts take 100 MB while they are understood. So the larger ones
// of all sessions take turns: however many somebody sends at once, they take
// time, and no more memory.
const largeText = 16 << 10

var largeTurns = make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))

// statement is one parsed statement and what rules may know of it.
type statement struct {
	op     access.Operation
	node   *pg.Node  // only while the text is read
	names  *resolver // likewise
	copyIn bool      // COPY FROM STDIN

	copyOut, returns, explain bool // COPY TO STDOUT; it may return rows; EXPLAIN takes it
	from, to                  int  // text[from:to] is the statement
	use                       *byName

	flow    flow
	bound   string          // what EXPLAIN is asked of in its place: see estimate
	temps   map[string]bool // names of masked tables that are of temporary ones here
	secrets secrets
}

// classify parses a text into its statements. An error is a refusal that may
// be shown: a text that PostgreSQL's own parser does not take is not sent.
func classify(text string, c *catalog) ([]statement, error) {
	if len(text) > maxText {
		return nil, access.Errorf(access.CodeTooLarge, "The text has %d bytes; at most %d are allowed in one message.", len(text), maxText)
	}
	if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		return nil, access.Errorf(access.CodeInvalid, "The text is not UTF-8 without zero bytes; only that is understood here.")
	}
	if len(text) > largeText {
		largeTurns <- struct{}{}
		defer func() { <-largeTurns }()
	}
	if err := measure(text); err != nil {
		return nil, err
	}
	tree, err := pg.Parse(text)
	if err != nil {
		return nil, access.Errorf(access.CodeInvalid, "The statement was not understood and not sent: %v.", err)
	}
	out, w := make([]statement, 0, len(tree.Stmts)), workFor(text)
	for _, raw := range tree.Stmts {
		end := len(text)
		if raw.StmtLen > 0 {
			end = int(raw.StmtLocation + raw.StmtLen)
		}
		from := int(raw.StmtLocation)
		from += len(text[from:end]) - len(strings.TrimLeftFunc(text[from:end], unicode.IsSpace))
		s := describe(raw.Stmt, strings.TrimSpace(text[from:end]), c, w)
		if w.done() {
			return nil, access.Errorf(access.CodeTooLarge, "The text has too many names that may be of too many tables to find out what each means; split it, or write each column with its table.")
		}
		s.from, s.to = from, from+len(s.op.Text)
		s.secrets = secretsOf(text, &s)
		if s.use, err = namesOf(text[:end], int(raw.StmtLocation), &s); err != nil {
			return nil, err
		}
		if s.use != nil {
			s.use.secrets, s.use.args = s.secrets, s.secrets.args
		}
		if s.use != nil && s.use.prepared != nil { // it happens when that is executed
			s.use.flow, s.flow = s.flow, flow{}
		}
		out = append(out, s)
	}
	return out, nil
}

func describe(n *pg.Node, text string, c *catalog, w *work) statement {
	f := &facts{names: resolve(n, c, w)}
	f.kind = kindOf(n)
	walk(n.ProtoReflect(), f.visit)
	f.choose()
	copying, into := n.GetCopyStmt(), flowOf(n)
	into.calls = f.calls
	return statement{node: n, names: f.names, flow: into, explain: explainable(n, f), returns: returning(n), copyOut: copying != nil && !copying.IsFrom, op: access.Operation{
		Kind: "query", Subject: "statement", Text: text, Facts: f.facts(), Guard: f.guard, Ends: onlyEnds(n),
	}}
}

// onlyEnds reports whether a statement does nothing but end a transaction.
func onlyEnds(n *pg.Node) bool {
	t := n.GetTransactionStmt()
	if t.GetChain() {
		return false
	}
	return t.GetKind() == pg.TransactionStmtKind_TRANS_STMT_COMMIT || t.GetKind() == pg.TransactionStmtKind_TRANS_STMT_ROLLBACK
}

// facts gathers what a walk over the whole tree finds.
type facts struct {
	kind           string
	kinds          []string // data-changing statements anywhere, inside CTEs too
	functions      []string
	names          *resolver
	noWhere, locks bool
	calls          bool // a function that may change something
	restricts      *pg.FuncCall
	guard          *access.Decision
}

func (f *facts) facts() access.Facts {
	writes := len(f.kinds) > 0 || f.locks || f.calls || ddl[f.kind] || f.kind == "truncate"
	return access.Facts{
		"kind": f.kind, "writes": writes, "ddl": ddl[f.kind], "has_where": !f.noWhere,
		"tables": f.names.tableNames(), "columns": f.names.columnNames(), "functions": uniq(f.functions),
	}
}

// choose names a statement by the most destructive thing inside it, so that
// wrapping a DELETE in a CTE, EXPLAIN or PREPARE does not rename it.
func (f *facts) choose() {
	if ddl[f.kind] {
		return
	}
	for _, k := range []string{"delete", "update", "merge", "insert"} {
		if slices.Contains(f.kinds, k) {
			f.kind = k
			return
		}
	}
}

func (f *facts) deny(rule, say string) {
	if f.guard == nil {
		f.guard = &access.Decision{Verdict: access.Deny, Rule: rule, Say: say}
	}
}

func (f *facts) visit(m proto.Message) {
	for _, name := range f.names.dotted(m) {
		f.mayBeCalled(name)
	}
	switch n := m.(type) {
	case *pg.FuncCall:
		name := lastName(n.Funcname)
		if name == "set_config" && n != f.restricts && !harmlessConfig(n) {
			f.denyFunction(name)
		}
		f.called(name, !f.names.catalog.mayChange(n))
	case *pg.SelectStmt:
		f.locks = f.locks || len(n.LockingClause) > 0
		if call, _ := restriction(n); call != nil {
			f.restricts = call
		}
		if n.IntoClause != nil {
			f.kind = "create"
		}
	case *pg.DeleteStmt:
		f.change("delete", n.WhereClause)
	case *pg.UpdateStmt:
		f.change("update", n.WhereClause)
		if n.Relation.GetRelname() == "pg_settings" {
			f.deny("settings", "Settings are changed with SET, not through pg_settings.")
		}
	case *pg.ViewStmt: // what changes such a view changes settings: pg_settings has rules for that
		if reads(n.Query, "pg_settings") {
			f.deny("settings", "A view of pg_settings is not allowed: settings could be changed through it.")
		}
	case *pg.InsertStmt:
		f.kinds = append(f.kinds, "insert")
	case *pg.MergeStmt:
		f.merge(n)
	case *pg.CopyStmt:
		f.copy(n)
	case *pg.VariableSetStmt:
		f.set(n)
	case *pg.TransactionStmt:
		switch n.Kind {
		case pg.TransactionStmtKind_TRANS_STMT_PREPARE, pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED, pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
			f.deny("two-phase", "Prepared transactions are not allowed: they would outlive the session, and its grant.")
		}
	case *pg.CreateTableAsStmt:
		if n.GetQuery().GetExecuteStmt() != nil {
			f.deny("statement-kind", "CREATE TABLE AS EXECUTE is not allowed through Tidegate; write the statement itself.")
		}
	case *pg.Node:
		if isStatement(n) && kindOf(n) == "" {
			f.deny("statement-kind", fmt.Sprintf("Statements of this kind (%s) are not allowed through Tidegate.", nodeName(n)))
		}
	}
}

func (f *facts) change(kind string, where *pg.Node) {
	f.kinds = append(f.kinds, kind)
	f.noWhere = f.noWhere || trivial(where)
}

// merge is also what its arms do: one that deletes is a DELETE, restricted by
// the join's condition and by its own.
func (f *facts) merge(n *pg.MergeStmt) {
	f.kinds = append(f.kinds, "merge")
	for _, arm := range n.MergeWhenClauses {
		kind := map[pg.CmdType]string{pg.CmdType_CMD_DELETE: "delete", pg.CmdType_CMD_UPDATE: "update"}[arm.GetMergeWhenClause().GetCommandType()]
		if kind == "" {
			continue
		}
		where := n.JoinCondition
		if trivial(where) {
			where = arm.GetMergeWhenClause().Condition
		}
		f.change(kind, where)
	}
}

func (f *facts) copy(n *pg.CopyStmt) {
	if n.IsProgram || n.Filename != "" {
		f.deny("copy-file", "COPY with a program or a file of the server is not allowed; use STDIN or STDOUT.")
	}
	if n.IsFrom {
		f.kinds = append(f.kinds, "insert")
	}
}

// called notes a call of a function.
func (f *facts) called(name string, harmless bool) {
	f.functions = append(f.functions, name)
	f.calls = f.calls || !harmless
	if refusedFunction(name) {
		f.denyFunction(name)
	}
}

func (f *facts) denyFunction(name string) {
	f.deny("function", fmt.Sprintf("The function %q is not allowed: what it does cannot be inspected.", name))
}

func (f *facts) set(n *pg.VariableSetStmt) {
	name := strings.ToLower(n.Name)
	reset := n.Kind == pg.VariableSetKind_VAR_RESET || n.Kind == pg.VariableSetKind_VAR_RESET_ALL
	if reset && name != "role" && name != "session_authorization" || settable[name] {
		return
	}
	f.deny("setting", fmt.Sprintf("The setting %q is fixed in this session and was not changed.", name))
}

// trivial reports whether a condition restricts nothing: there is none, it
// reads no column, it compares a thing with itself, or an OR has such an arm.
func trivial(n *pg.Node) bool {
	if n == nil {
		return true
	}
	if b := n.GetBoolExpr(); b != nil { // looked into once, however deep
		switch b.Boolop {
		case pg.BoolExprType_OR_EXPR:
			return slices.ContainsFunc(b.Args, trivial)
		case pg.BoolExprType_AND_EXPR:
			return !slices.ContainsFunc(b.Args, func(a *pg.Node) bool { return !trivial(a) })
		}
	}
	if !readsColumn(n) {
		return true
	}
	if e := n.GetAExpr(); e != nil && e.Lexpr != nil && e.Rexpr != nil {
		l, r := e.Lexpr.GetColumnRef(), e.Rexpr.GetColumnRef()
		return l != nil && r != nil && columnName(l) == columnName(r)
	}
	return false
}

func readsColumn(n *pg.Node) bool {
	found := false
	walk(n.ProtoReflect(), func(m proto.Message) {
		if _, ok := m.(*pg.ColumnRef); ok {
			found = true
		}
	})
	return found
}

// reads reports whether a table of that name, whatever its schema, is named.
func reads(n *pg.Node, table string) (found bool) {
	walk(n.ProtoReflect(), func(m proto.Message) {
		v, ok := m.(*pg.RangeVar)
		found = found || ok && v.Relname == table
	})
	return found
}

// walk shows visit every message of a tree, whatever its type: a node that a
// later parser adds is not skipped.
func walk(m protoreflect.Message, visit func(proto.Message)) {
	visit(m.Interface())
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil {
			return true
		}
		if !fd.IsList() {
			walk(v.Message(), visit)
			return true
		}
		for i := range v.List().Len() {
			walk(v.List().Get(i).Message(), visit)
		}
		return true
	})
}

func nodeName(n *pg.Node) string {
	m := n.ProtoReflect()
	fd := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if fd == nil {
		return ""
	}
	return string(fd.Name())
}

func isStatement(n *pg.Node) bool { return strings.HasSuffix(nodeName(n), "_stmt") }

func kindOf(n *pg.Node) string { return kinds[nodeName(n)] }

func qualified(schema, name string) string {
	if schema == "" {
		return name
	}
	return schema + "." + name
}

func columnName(c *pg.ColumnRef) string {
	parts := make([]string, 0, len(c.Fields))
	for _, p := range c.Fields {
		if p.GetAStar() != nil {
			parts = append(parts, "*")
			continue
		}
		parts = append(parts, p.GetString_().GetSval())
	}
	return strings.Join(parts, ".")
}

func lastName(names []*pg.Node) string {
	if len(names) == 0 {
		return ""
	}
	return strings.ToLower(names[len(names)-1].GetString_().GetSval())
}

// uniq sorts a list in its place, and leaves out what it has twice.
func uniq[E cmp.Ordered](s []E) []E {
	slices.Sort(s)
	return slices.Compact(s)
}
