package mint

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// A view keeps its table from being altered: PostgreSQL refuses to change the
// type of a column that a view reads, or to drop it or the table. A target that
// yields to a migration gets no views until a moment that is kept at the target
// itself, behind the lock that each mint takes: whatever becomes of who asked
// for it, it ends by itself.

// MaxYield bounds how long a target yields.
const MaxYield = 4 * time.Hour

// Yield lets no view be made at the target for that long; 0 ends it. Views
// that are there are not touched: their grants are revoked one by one.
func (m *Minter) Yield(ctx context.Context, t access.Target, most time.Duration) error {
	if most < 0 || most > MaxYield {
		return access.Errorf(access.CodeInvalid, "A target yields for at most %s; got %s.", MaxYield, most)
	}
	if t.Static != "" {
		return access.Errorf(access.CodeInvalid, "Nothing is minted at target %s, so nothing is in a migration's way.", t.TargetRef)
	}
	p, err := m.pool(t)
	if err == nil {
		err = m.prepare(ctx, p)
	}
	if err == nil {
		name := m.names.yield()
		statements := []string{
			fmt.Sprintf("create table if not exists %s (until timestamptz not null)", name),
			fmt.Sprintf("delete from %s", name),
		}
		if most > 0 {
			statements = append(statements, fmt.Sprintf("insert into %s values (clock_timestamp() + interval '%d milliseconds')", name, most.Milliseconds()))
		}
		err = m.locked(ctx, p, func(ctx context.Context, c *pgx.Conn) error { return execute(ctx, c, statements) })
	}
	if err != nil {
		return explain("yield", t, err)
	}
	return nil
}

// yields refuses to make views where the target yields.
func (m *Minter) yields(ctx context.Context, c *pgx.Conn) error {
	var until *time.Time
	if err := c.QueryRow(ctx, "select max(until) from "+m.names.yield()+" where until > clock_timestamp()").Scan(&until); err != nil || until == nil {
		return err
	}
	return Yielding(*until)
}

// Yielding says that a target makes room for a migration.
func Yielding(until time.Time) error {
	return access.Errorf(access.CodeUnavailable, "The target makes room for a migration, until %s at most; access comes back by itself: try again.", until.UTC().Format(time.RFC3339))
}

// HasViews reports whether a grant's access is by views.
func HasViews(g access.Grant) bool {
	b, err := backing.Parse(g.Backing)
	return err == nil && len(b.Masked) > 0
}

// viewsSummary names the tables that a migration must not meet unprepared.
func (b body) viewsSummary() []string {
	var names []string
	for _, t := range b.Tables {
		if viewed(t) {
			names = append(names, t.String())
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("its views hinder ALTER TYPE, DROP COLUMN and DROP TABLE, unless under `tidegate yield`, of %s", some(names, maxReports))}
}
