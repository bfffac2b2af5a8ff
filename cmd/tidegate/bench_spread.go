package main

import (
	"fmt"
	"slices"
	"time"
)

// spread is how long each part of a grant's life took.
type spread struct {
	Grants int     `json:"grants"`
	Usable measure `json:"merge_to_usable"`
	Cut    measure `json:"end_to_cut"`
	Gone   measure `json:"end_to_role_gone"`
}

// measure is in milliseconds.
type measure struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

func (m measure) String() string { return fmt.Sprintf("%.0f / %.0f ms", m.P50, m.P99) }

// percentiles are by nearest rank: each is a value that was really measured.
func percentiles(all []time.Duration) measure {
	if len(all) == 0 {
		return measure{}
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(percent int) float64 {
		rank := (percent*len(sorted) + 99) / 100
		return float64(sorted[max(rank, 1)-1].Microseconds()) / 1000
	}
	return measure{at(50), at(99)}
}
