package postgres

import (
	"math/rand/v2"
	"testing"
)

// Whatever comes and goes, replies are taken off in the order in which they
// were put on, and an idle list keeps little.
func TestRepliesKeepTheirOrder(t *testing.T) {
	l := newReplies()
	var want []int64
	next := int64(0)
	add := func(n int) {
		for range n {
			next++
			r := shortReply('B')
			if r.rows != 0 || r.undo != nil || r.hidden {
				t.Fatalf("a reply that was used before still has what it had: %+v", r)
			}
			r.rows, r.hidden, r.undo = next, true, func() {}
			if !l.push(r) {
				t.Fatal("not taken")
			}
			want = append(want, next)
		}
	}
	take := func(n int) {
		for range min(n, len(want)) {
			if h := l.head(); h == nil || h.rows != want[0] {
				t.Fatalf("the first is %+v, want %d", h, want[0])
			}
			want = want[1:]
			if after := l.pop(); (after == nil) != (len(want) == 0) || after != nil && after.rows != want[0] {
				t.Fatalf("after it comes %+v, want %v", after, want)
			}
		}
	}
	for range 2000 {
		add(rand.IntN(100))
		take(rand.IntN(100))
		if len(want) > maxReplies-100 { // push would wait
			take(len(want))
		}
	}
	take(len(want))
	if !l.empty() || l.head() != nil || cap(l.list) > 4*keptReplies {
		t.Errorf("an idle list has room for %d, and is empty: %v", cap(l.list), l.empty())
	}
}

// An error drops what comes before the next Sync, and nothing behind it.
func TestRepliesFailUpToTheSync(t *testing.T) {
	l := newReplies()
	var undone []byte
	for _, kind := range []byte("BDESBE") {
		l.push(&reply{kind: kind, undo: func() { undone = append(undone, kind) }})
	}
	l.pop() // the Bind that failed has its own end
	l.fail()
	if string(undone) != "ED" {
		t.Errorf("undone is %q, want the last first", undone)
	}
	if h := l.head(); h == nil || h.kind != 'S' || len(l.owed()) != 3 {
		t.Errorf("%+v comes next", h)
	}
	l.pop()
	l.fail()
	if !l.isSkipping() || !l.empty() || string(undone) != "EDEB" {
		t.Errorf("skipping %v, empty %v, undone %q", l.isSkipping(), l.empty(), undone)
	}
}
