package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestPercentiles(t *testing.T) {
	ms := func(n ...int) (all []time.Duration) {
		for _, v := range n {
			all = append(all, time.Duration(v)*time.Millisecond)
		}
		return all
	}
	for _, c := range []struct {
		name string
		in   []time.Duration
		want measure
	}{
		{"none", nil, measure{}},
		{"one", ms(7), measure{7, 7}},
		{"two", ms(9, 1), measure{1, 9}},
		{"five", ms(5, 4, 3, 2, 1), measure{3, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := percentiles(c.in); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestBenchIsHiddenAndBounded(t *testing.T) {
	if _, out := call(t, "", "help"); strings.Contains(out, "bench") {
		t.Errorf("want bench not listed:\n%s", out)
	}
	if code, out := call(t, "", "bench", "--grants", "501"); code != exitUsage {
		t.Errorf("code %d, want %d: %s", code, exitUsage, out)
	}
}

// TestBench measures two grants each on a whole house.
func TestBench(t *testing.T) {
	needParts(t)
	code, out := call(t, "", "bench", "--grants", "1", "--due", "2", "--json")
	if code != exitOK {
		t.Fatalf("code %d: %s", code, out)
	}
	var got benched
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &got); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*spread{"one by one": got.OneByOne, "together": got.Together} {
		if s == nil || s.Usable.P50 <= 0 || s.Cut.P50 < 0 || s.Gone.P50 < 0 || s.Gone.P99 > 60_000 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
