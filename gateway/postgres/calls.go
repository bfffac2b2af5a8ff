package postgres

import (
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// callable is what a plan says of functions, by name: the server chooses among
// those of one name by their arguments, which nobody here knows.
type callable struct {
	named    map[backing.Routine]bool // that the role's `call` names
	short    map[string]bool          // the same, without their schemas
	builtins map[string]bool          // the server's own beyond those that are known here
	shadows  map[string]bool          // by which a function that is not named may be met
	vouches  map[string]bool          // tables with a column of such a name
}

func newCallable(b backing.Backing) *callable {
	c := &callable{named: map[backing.Routine]bool{}, short: map[string]bool{}, builtins: setOf(b.Builtins), shadows: setOf(b.Shadows), vouches: map[string]bool{}}
	for _, t := range b.Tables {
		if slices.ContainsFunc(t.Columns, func(name string) bool { return c.shadows[name] }) {
			c.vouches[t.Name] = true
		}
	}
	for _, r := range b.Calls {
		c.named[r] = true
		if len(b.SearchPath) == 0 || slices.Contains(b.SearchPath, r.Schema) {
			c.short[r.Name] = true
		}
	}
	return c
}

func setOf(list []string) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, s := range list {
		m[s] = true
	}
	return m
}

// guardCalls refuses calls of functions that are neither PostgreSQL's own nor
// named by the role.
func guardCalls(stmts []statement, c *callable) {
	for i := range stmts {
		say := ""
		walk(stmts[i].node.ProtoReflect(), func(m proto.Message) {
			if why := c.refuse(m, stmts[i].names); why != "" && say == "" {
				say = why
			}
		})
		if say == "" && len(c.vouches) > 0 {
			say = c.stands(flowOf(stmts[i].node))
		}
		if say != "" && stmts[i].op.Guard == nil {
			stmts[i].op.Guard = &access.Decision{Verdict: access.Deny, Rule: "call", Say: say}
		}
	}
}

func (c *callable) refuse(m proto.Message, names *resolver) string {
	if n, ok := m.(*pg.FuncCall); ok {
		return c.call(n.Funcname)
	}
	for _, name := range names.dotted(m) { // see there
		if c.shadows[name] {
			return fmt.Sprintf("%q may be a function here that your role's `call` does not name. If it is a column, name the columns of what stands before the dot, as in x(a, b).", name)
		}
	}
	return ""
}

// stands refuses a temporary relation that would be met in the place of a table
// whose columns make a name behind a dot none of a function: it has others.
func (c *callable) stands(f flow) string {
	for _, name := range f.temps {
		if c.vouches[name] {
			return fmt.Sprintf("What this session makes can't be named %q: a column of that table is named as a function that your role's `call` does not name. Give it another name.", name)
		}
	}
	return ""
}

func (c *callable) call(names []*pg.Node) string {
	if len(names) == 0 || len(names) > 2 {
		return "The name of a function is not understood; write schema.function."
	}
	name := names[len(names)-1].GetString_().GetSval()
	if len(names) == 2 {
		schema := names[0].GetString_().GetSval()
		if schema == "pg_catalog" || schema == "information_schema" || c.named[backing.Routine{Schema: schema, Name: name}] {
			return ""
		}
		return notNamed(qualified(schema, name))
	}
	switch _, own := builtins[name]; {
	case c.shadows[name]:
		return fmt.Sprintf("The function %q may be one that your role's `call` does not name; write its schema before it (pg_catalog is that of PostgreSQL's own).", name)
	case own, c.builtins[name], c.short[name]:
		return ""
	}
	return notNamed(name)
}

func notNamed(name string) string {
	return fmt.Sprintf("The function %q is not PostgreSQL's own, and your role's `call` does not name it.", name)
}

// guardActing refuses to end the role as which a session acts: what followed
// would be refused by the target, without a word of why.
func guardActing(stmts []statement, plan backing.Backing) {
	for i := range stmts {
		discards := stmts[i].node.GetDiscardStmt()
		if plan.Acts != "" && discards.GetTarget() == pg.DiscardMode_DISCARD_ALL && stmts[i].op.Guard == nil {
			stmts[i].op.Guard = &access.Decision{Verdict: access.Deny, Rule: "acting",
				Say: fmt.Sprintf("DISCARD ALL would end that this session acts as %q; connect again in its place.", plan.Acts)}
		}
	}
}
