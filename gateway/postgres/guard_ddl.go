package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
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
		g.creates(n.View)
		g.names(n.View.GetRelname())
	case *pg.IntoClause:
		g.creates(n.Rel)
	case *pg.CreateStmt:
		g.creates(n.Relation)
		for _, parent := range n.InhRelations {
			g.defines(parent.GetRangeVar())
		}
	case *pg.PartitionCmd:
		g.defines(n.Name)
	case *pg.AlterTableCmd:
		g.defines(n.GetDef().GetRangeVar())
	case *pg.Constraint: // a foreign key would tell which values there are
		g.defines(n.Pktable)
	case *pg.CommentStmt:
		if n.Objtype == pg.ObjectType_OBJECT_COLUMN {
			g.dropsNamed(n.Object.GetList().GetItems(), 1)
			break
		}
		g.drops(n.Objtype, n.Object)
	case *pg.RenameStmt:
		g.defines(n.Relation)
		if n.RenameType == pg.ObjectType_OBJECT_TABLE || n.RenameType == pg.ObjectType_OBJECT_VIEW { // ALTER TABLE renames views as well
			g.names(n.Newname)
		}
		if n.RenameType == pg.ObjectType_OBJECT_SCHEMA {
			g.definesSchema(n.Subname)
		}
	case *pg.DropStmt:
		for _, o := range n.Objects {
			g.drops(n.RemoveType, o)
		}
	}
}

// creates refuses to make a table or view that is masked, or stands among the
// views. A temporary one is neither.
func (g *guarded) creates(r *pg.RangeVar) {
	if r.GetRelpersistence() != "t" && r.GetSchemaname() != "pg_temp" && g.masked(r.GetSchemaname(), r.GetRelname()) {
		g.denyDefinition()
	}
}

// defines refuses to change one.
func (g *guarded) defines(r *pg.RangeVar) {
	if r != nil {
		g.definesName(r.Schemaname, r.Relname)
	}
}

func (g *guarded) definesName(schema, name string) {
	if g.masked(schema, name) && !g.temporary(schema, name) {
		g.denyDefinition()
	}
}

func (g *guarded) denyDefinition() {
	g.deny("masked-ddl", "What a masked table is, and the view that masks it, can't be changed under a grant with masks.")
}

// masked reports whether a table is masked, or stands among the views.
func (g *guarded) masked(schema, name string) bool {
	return slices.ContainsFunc(g.plan.Masked, func(t backing.MaskedTable) bool {
		return schema == t.MaskSchema || t.Table == name && (schema == "" || schema == t.Schema)
	})
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
	g.dropsNamed(o.GetList().GetItems(), 0)
}

// dropsNamed looks at a name with its schema, and so many parts behind it.
func (g *guarded) dropsNamed(items []*pg.Node, behind int) {
	var parts []string
	for _, p := range items[:max(0, len(items)-behind)] {
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
