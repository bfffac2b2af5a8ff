package mint

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Narrow says what an approved plan still gives under today's: its tables and
// columns as far as today's role has them, masked by the masks of both. A plan
// of which nothing is lost comes back as it is.
func (m *Minter) Narrow(ctx context.Context, approved, today access.Plan) (access.Plan, error) {
	if approved.Target.Static != "" {
		return m.narrowStatic(ctx, approved, today)
	}
	was, err := parseBody(approved.Expansion.Body)
	if err != nil {
		return access.Plan{}, err
	}
	out := approved
	if out.Role, err = narrowRole(approved.Role, today.Role); err != nil {
		return access.Plan{}, err
	}
	out.Masks = bothMasks(approved.Masks, today.Masks)
	expansion, err := m.Expand(ctx, out)
	if err != nil {
		return access.Plan{}, err
	}
	is, err := parseBody(expansion.Body)
	if err != nil {
		return access.Plan{}, err
	}
	left := intersect(hide(was, is), is)
	switch {
	case was.Database != is.Database:
		return access.Plan{}, access.Errorf(access.CodeInvalid, "Database %q was approved and the target is now %q.", was.Database, is.Database)
	case left.empty(), left.Owner != was.Owner:
		return access.Plan{}, access.Errorf(access.CodeInvalid, "Role %q gives nothing any more of what was approved.", today.Role.Name)
	case reflect.DeepEqual(left.Tables, was.Tables) && sameRoutines(left.Calls, was.Calls) && maps.Equal(out.Role.Settings, approved.Role.Settings):
		approved.Masks = access.AddDetect(approved.Masks, today.Masks) // which changes nothing at the target
		return approved, nil
	}
	body, err := json.Marshal(left)
	if err != nil {
		return access.Plan{}, fmt.Errorf("encode expansion: %w", err)
	}
	out.Expansion = access.Expansion{Body: body, Summary: left.summary()}
	return out, nil
}

// hide masks what was approved as today masks it: a mask that came since only
// hides more. The masks in is are those of both plans.
func hide(was, is body) body {
	now := map[[2]string]table{}
	for _, t := range is.Tables {
		now[[2]string{t.Schema, t.Name}] = t
	}
	out := body{Database: was.Database, Tables: []table{}, Calls: was.Calls, Owner: was.Owner, Reach: was.Reach}
	for _, t := range was.Tables {
		t.Columns = slices.Clone(t.Columns)
		for i, c := range t.Columns {
			for _, n := range now[[2]string{t.Schema, t.Name}].Columns {
				if n.Name == c.Name && n.Mask != nil && (c.Mask == nil || stricter(*c.Mask, *n.Mask) == *n.Mask) {
					t.Columns[i].Mask = n.Mask
				}
			}
		}
		out.Tables = append(out.Tables, t)
	}
	return out
}

func bothMasks(approved, today []access.Mask) []access.Mask {
	out := slices.Clone(approved)
	for _, m := range today {
		if !slices.ContainsFunc(out, func(o access.Mask) bool { return reflect.DeepEqual(o, m) }) {
			out = append(out, m)
		}
	}
	return out
}

// narrowRole is today's role with the narrower of both settings. One of which
// nobody here can say which is narrower must be what it was.
func narrowRole(approved, today access.Role) (access.Role, error) {
	out := today
	out.Longest = min(approved.Longest, today.Longest)
	if out.Record == "" {
		out.Record = approved.Record
	}
	out.Rows = bothRows(approved.Rows, today.Rows)
	out.Settings = nil
	for _, key := range settingsOf(approved, today) {
		was, is := approved.Settings[key], today.Settings[key]
		value := is
		switch {
		case was == is:
		case key == "connection_limit":
			value = fewer(was, is)
		case key == "limit_rows":
			value = fewerRows(was, is)
		case key == "statement_timeout", key == "lock_timeout", key == "limit_time":
			value = sooner(was, is)
		case key == "drain": // without it there is none
			if value = ""; was != "" && is != "" {
				value = sooner(was, is)
			}
		case key == "trust_functions", key == "call": // what the target is checked by, and what the expansion has anyway
		default:
			return out, access.Errorf(access.CodeInvalid, "The setting %q of role %q changed.", key, today.Name)
		}
		if value != "" {
			if out.Settings == nil {
				out.Settings = map[string]string{}
			}
			out.Settings[key] = value
		}
	}
	return out, nil
}

func settingsOf(roles ...access.Role) []string {
	var keys []string
	for _, r := range roles {
		for key := range r.Settings {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// fewer is the smaller of two connection limits; an empty one is the default.
func fewer(a, b string) string {
	limit := func(s string) int {
		if n, err := strconv.Atoi(s); err == nil {
			return n
		}
		return defaultConnections
	}
	if limit(a) < limit(b) {
		return a
	}
	return b
}

// fewerRows is the smaller of two limits of rows; an empty one is none.
func fewerRows(a, b string) string {
	na, errA := strconv.Atoi(a)
	nb, errB := strconv.Atoi(b)
	if errA != nil || errB == nil && nb < na {
		return b
	}
	return a
}

// sooner is the shorter of two timeouts; an empty one is the server's own.
func sooner(a, b string) string {
	da, errA := time.ParseDuration(a)
	db, errB := time.ParseDuration(b)
	if errA != nil || errB == nil && db < da {
		return b
	}
	return a
}
