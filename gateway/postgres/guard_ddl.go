package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// definition refuses to change what a masked table or its view is: under
// another name it would be met past the view, and a rewrite of the table says
// in errors what is in it. The grant's role owns neither, so PostgreSQL refuses
// the same; this is the second lock.
func (g *guarded) definition(m proto.Message) {
	switch n := m.(type) {
	case *pg.AlterTableStmt:
		g.defines(n.Relation)
	case *pg.IndexStmt:
		g.defines(n.Relation)
	case *pg.ViewStmt:
		g.defines(n.View)
	case *pg.IntoClause:
		g.defines(n.Rel)
	case *pg.CreateStmt:
		g.defines(n.Relation)
		for _, parent := range n.InhRelations {
			g.defines(parent.GetRangeVar())
		}
	case *pg.RenameStmt:
		g.defines(n.Relation)
		if n.RenameType == pg.ObjectType_OBJECT_SCHEMA {
			g.definesSchema(n.Subname)
		}
	case *pg.DropStmt:
		for _, o := range n.Objects {
			g.drops(n.RemoveType, o)
		}
	}
}

// defines refuses a table or view that is masked, or stands among the views. A
// temporary one is neither.
func (g *guarded) defines(r *pg.RangeVar) {
	if r != nil && r.Relpersistence != "t" && r.Schemaname != "pg_temp" {
		g.definesName(r.Schemaname, r.Relname)
	}
}

func (g *guarded) definesName(schema, name string) {
	for _, t := range g.plan.Masked {
		if schema == t.MaskSchema || t.Table == name && (schema == "" || schema == t.Schema) {
			g.deny("masked-ddl", "What a masked table is, and the view that masks it, can't be changed under a grant with masks.")
		}
	}
}

func (g *guarded) definesSchema(name string) {
	for _, t := range g.plan.Masked {
		if name == t.Schema || name == t.MaskSchema {
			g.deny("masked-ddl", "A schema with masked tables, and the one with their views, can't be changed under a grant with masks.")
		}
	}
}

// drops looks at one object of a DROP: a name, or a list of its parts.
func (g *guarded) drops(kind pg.ObjectType, o *pg.Node) {
	if kind == pg.ObjectType_OBJECT_SCHEMA {
		g.definesSchema(o.GetString_().GetSval())
		return
	}
	var parts []string
	for _, p := range o.GetList().GetItems() {
		parts = append(parts, p.GetString_().GetSval())
	}
	slices.Reverse(parts)
	switch len(parts) {
	case 0:
	case 1:
		g.definesName("", parts[0])
	default:
		g.definesName(parts[1], parts[0])
	}
}
