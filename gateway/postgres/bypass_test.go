package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/tools/txtar"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

const (
	canary     = "zq7canary"
	bypassRows = "insert into public.users values (1, 'ann', '" + canary + "@acme.test'), (2, 'bo', 'q" + canary + "@acme.test')"

	memberRows = "insert into public.members select email from public.users where id = 1" // refers to a masked value
)

// bypass is one way around masks that somebody thought of.
type bypass struct {
	name, verdict, shows, second string
	since                        string // the first version of PostgreSQL that has it; "": all
	statements                   []string
}

func readBypasses(t testing.TB) []bypass {
	files, err := fs.Glob(os.DirFS("testdata/bypass"), "*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	var all []bypass
	for _, f := range files {
		a, err := txtar.ParseFile(filepath.Join("testdata/bypass", f))
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range a.Files {
			all = append(all, readBypass(t, f, one))
		}
	}
	return all
}

func readBypass(t testing.TB, file string, f txtar.File) bypass {
	b := bypass{name: strings.TrimSuffix(file, ".txtar") + "/" + f.Name}
	head, sql, ok := strings.Cut(string(f.Data), "\n\n")
	for line := range strings.Lines(head + "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		field := map[string]*string{"verdict": &b.verdict, "shows": &b.shows, "second": &b.second, "since": &b.since}[key]
		if field == nil {
			t.Fatalf("%s: %q is not understood", b.name, line)
		}
		*field = value
	}
	b.statements = strings.Split(strings.TrimSpace(sql), "\n")
	if !ok || b.verdict != "allow" && b.verdict != "deny" {
		t.Fatalf("%s: want a verdict, an empty line and statements", b.name)
	}
	return b
}

// seen is everything that reached a client.
type seen struct{ bytes.Buffer }

func (s *seen) leaks() bool {
	for _, form := range []string{canary, hex.EncodeToString([]byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary)), "yranac7qz"} {
		if bytes.Contains(bytes.ToLower(s.Bytes()), bytes.ToLower([]byte(form))) {
			return true
		}
	}
	return false
}

func (s *seen) report(e *pgconn.PgError) { fmt.Fprintf(s, "%+v\n", *e) }

// refused reports whether the room, not PostgreSQL, said no.
func refused(err error) bool {
	e := (*pgconn.PgError)(nil)
	return errors.As(err, &e) && e.Routine == "" && (e.Code == stateDenied || e.Code == stateSyntax)
}

// ways are four clients. Each answers whether the room refused something.
var bypassWays = map[string]func(*rig, string, []string, *seen) bool{
	"simple": func(r *rig, dsn string, sql []string, s *seen) (no bool) {
		c := r.listen(dsn, s)
		for _, q := range sql {
			var out bytes.Buffer
			if strings.HasPrefix(q, "copy") {
				_, err := c.PgConn().CopyTo(r.t.Context(), &out, q)
				no = no || r.keep(s, err)
				s.Write(out.Bytes())
				continue
			}
			results, err := c.PgConn().Exec(r.t.Context(), q).ReadAll()
			for _, res := range results {
				s.rows(res)
			}
			no = r.keep(s, err) || no
		}
		return no
	},
	"extended": func(r *rig, dsn string, sql []string, s *seen) (no bool) {
		c := r.listen(dsn, s)
		for _, q := range sql {
			for _, one := range strings.Split(q, "; ") {
				res := c.PgConn().ExecParams(r.t.Context(), one, nil, nil, nil, []int16{0}).Read()
				s.rows(res)
				no = r.keep(s, res.Err) || no
			}
		}
		return no
	},
	"pgx": func(r *rig, dsn string, sql []string, s *seen) (no bool) {
		c := r.listen(dsn, s)
		for _, q := range sql {
			for _, one := range strings.Split(q, "; ") {
				rows, _ := c.Query(r.t.Context(), one)
				for rows.Next() {
					for _, v := range rows.RawValues() {
						s.Write(append(v, '\n'))
					}
				}
				no = r.keep(s, rows.Err()) || no
			}
		}
		return no
	},
	"psql": func(r *rig, dsn string, sql []string, s *seen) bool {
		out, _ := r.psql(dsn, strings.Join(sql, ";\n")+";\n")
		s.WriteString(out)
		return slices.ContainsFunc(strings.Split(out, "ERROR:  ")[1:], func(e string) bool {
			return !strings.Contains(e, "LOCATION:") && (strings.HasPrefix(e, stateDenied) || strings.HasPrefix(e, stateSyntax))
		})
	},
}

func (s *seen) rows(res *pgconn.Result) {
	for _, f := range res.FieldDescriptions {
		fmt.Fprintln(s, f.Name)
	}
	for _, row := range res.Rows {
		for _, v := range row {
			s.Write(append(v, '\n'))
		}
	}
}

// listen finds a connection, as new, and keeps what comes unasked.
func (r *rig) listen(dsn string, s *seen) *pgx.Conn {
	r.t.Helper()
	key := dsn + r.door.lease.User
	if r.kept == nil {
		r.kept = map[string]*keptConn{}
	}
	k := r.kept[key]
	if k == nil {
		k = &keptConn{Conn: r.open(dsn, func(e *pgconn.PgError) { r.kept[key].to.report(e) })}
		r.kept[key] = k
	}
	k.to = new(seen)
	for _, q := range []string{"rollback", "discard all"} {
		if _, err := k.PgConn().Exec(context.Background(), q).ReadAll(); err != nil {
			r.t.Fatalf("%s: %v", q, err)
		}
	}
	_ = k.DeallocateAll(context.Background()) // pgx's own memory of them
	k.to = s
	return k.Conn
}

// keptConn is a connection that several cases use, one after another.
type keptConn struct {
	*pgx.Conn
	to *seen
}

func (r *rig) open(dsn string, notice func(*pgconn.PgError)) *pgx.Conn {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice((*pgconn.PgError)(n)) }
	c, err := pgx.ConnectConfig(context.Background(), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) keep(s *seen, err error) bool {
	if err == nil {
		return false
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		s.report(e)
	}
	return refused(err)
}

// newBypassRig has a masked table, and things beside it that would show it to
// who has rights on them.
func newBypassRig(t *testing.T, version string) *rig {
	r := newRigOn(t, Config{}, version)
	r.exec(`create table public.users (id int primary key, name text check (name <> ''), email text unique);
		` + bypassRows + `;
		create table public.members (email text references public.users (email)); ` + memberRows + `;
		create table public.orders (id int, user_id int); insert into public.orders values (1, 1);
		create table public.notes (v text);
		create table public.users_old () inherits (public.users); insert into public.users_old values (3, 'old', 'o` + canary + `@acme.test');
		create view public.user_list as select * from public.users;
		create function public.leak() returns text language sql security definer as 'select email from public.users limit 1';
		revoke execute on function public.leak() from public;
		create function public.leak_of(int) returns text language sql security definer as 'select email from public.users limit 1';
		revoke execute on function public.leak_of(int) from public;
		create schema m; create view m.users with (security_barrier) as select id, name, '****'||right(email, 4) as email from public.users;
		grant usage on schema m to dev; grant select on m.users, public.orders to dev;
		grant select (id, name), insert, update, delete on public.users to dev; grant insert on public.notes to dev;
		alter role dev set search_path = m, public; analyze`)
	r.door.judge = func(op access.Operation) access.Verdict { return access.Allow }
	b := backing.Backing{Role: "dev", Database: r.admin.Config().Database, SearchPath: []string{"m", "public"}, Shadows: []string{"leak_of"},
		Tables: []backing.Table{{Schema: "public", Name: "users", Columns: []string{"id", "name", "email"}}},
		Masked: []backing.MaskedTable{{Schema: "public", Table: "users", MaskSchema: "m", Columns: []backing.MaskedColumn{{Name: "email"}}}}}
	enc, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r.door.lease.Backing = enc
	return r
}

// TestBypass runs the corpus four ways with both locks, with the room before a
// role that may do everything, and with the role alone and no room.
func TestBypass(t *testing.T) { testBypass(t, "") }

func testBypass(t *testing.T, version string) {
	r := newBypassRig(t, version)
	t.Cleanup(func() {
		for _, c := range r.kept {
			_ = c.Close(context.Background())
		}
	})
	direct := fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=dev password=secret sslmode=require", r.pg.Port, r.admin.Config().Database)
	r.exec("create role almighty superuser login password 'secret'; alter role almighty set search_path = m, public")
	for _, b := range readBypasses(t) {
		if b.since > cmp.Or(version, "15") {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			r.t = t
			r.asUser("dev")
			for name, way := range bypassWays {
				b.both(t, name, way, r)
			}
			for _, name := range slices.Sorted(maps.Keys(bypassWays)) { // no gateway: nothing inspects
				s := new(seen)
				if run(r, bypassWays[name], direct, b, s); s.leaks() {
					t.Errorf("the first lock alone, %s, shows:\n%s", name, s)
				}
			}
			b.secondAlone(t, r)
		})
	}
}

// TestLogIsNotShown: what a trigger says for the log passes no view, and comes
// to whoever asks for it.
func TestLogIsNotShown(t *testing.T) {
	r := newBypassRig(t, "")
	r.exec(`create function public.tell() returns trigger language plpgsql as 'begin
			raise debug ''%'', old; raise log ''%'', old; raise log ''%'', repeat(old::text, 10000); raise notice ''said''; raise info ''told''; return new; end';
		create trigger tell after update on public.users for each row execute function public.tell()`)
	for _, level := range []string{"log", "debug5", "notice"} {
		for name, way := range bypassWays {
			s := new(seen)
			way(r, r.dsn(), []string{"set client_min_messages = " + level, "update public.users set name = 'x' where id = 1"}, s)
			if s.leaks() || !strings.Contains(s.String(), "said") || !strings.Contains(s.String(), "told") {
				t.Errorf("%s, %s: want what is for the client, and nothing of the row:\n%s", level, name, s)
			}
		}
	}
}

// secondAlone has the room before a role that may do everything.
func (b bypass) secondAlone(t *testing.T, r *rig) {
	r.asUser("almighty")
	leaks := 0
	for _, name := range slices.Sorted(maps.Keys(bypassWays)) {
		s := new(seen)
		run(r, bypassWays[name], r.dsn(), b, s)
		if s.leaks() {
			leaks++
		}
		if s.leaks() && b.second == "" {
			t.Errorf("the second lock alone, %s, shows:\n%s", name, s)
		}
	}
	if b.second != "" && leaks == 0 {
		t.Error("the second lock alone holds: take the line \"second\" out")
	}
}

func run(r *rig, way func(*rig, string, []string, *seen) bool, dsn string, b bypass, s *seen) bool {
	if strings.HasPrefix(b.name, "writes/") || strings.HasPrefix(b.name, "ddl/") {
		defer r.restore()
	}
	return way(r, dsn, b.statements, s)
}

func (b bypass) both(t *testing.T, name string, way func(*rig, string, []string, *seen) bool, r *rig) {
	s := new(seen)
	no := run(r, way, r.dsn(), b, s)
	switch {
	case s.leaks():
		t.Errorf("both locks, %s, show:\n%s", name, s)
	case no != (b.verdict == "deny"):
		t.Errorf("%s: the room refused: %v, want verdict %s:\n%s", name, no, b.verdict, s)
	case !strings.Contains(s.String(), b.shows):
		t.Errorf("%s: %q is not in what is shown:\n%s", name, b.shows, s)
	}
}

func (r *rig) asUser(name string) {
	r.door.mu.Lock()
	defer r.door.mu.Unlock()
	r.door.lease.User = name
	plan, _ := backing.Parse(r.door.lease.Backing)
	plan.Role = name
	r.door.lease.Backing, _ = plan.Encode()
}

// restore undoes what a case wrote.
func (r *rig) restore() {
	r.t.Helper()
	r.exec("drop schema if exists around cascade; truncate public.notes, public.members; delete from only public.users; " + bypassRows + ";" + memberRows)
}
