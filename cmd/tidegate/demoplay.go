package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// comment waits until the one bot comment holds all the words.
func (d *demo) comment(ctx context.Context, number int, words ...string) (string, error) {
	var last []string
	err := eventually(ctx, 20*time.Second, func() (bool, error) {
		var err error
		if last, err = d.comments(ctx, number); err != nil || len(last) == 0 {
			return false, err
		}
		for _, w := range words {
			if !strings.Contains(last[0], w) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return "", fmt.Errorf("want a bot comment with %q, got %q: %w", words, last, err)
	}
	if len(last) != 1 {
		return "", fmt.Errorf("want one bot comment, got %d", len(last))
	}
	return last[0], nil
}

// checkRun is what the story reads of a check run.
type checkRun struct {
	ID         int64  `json:"id"`
	Name       string `json:"name"`
	Conclusion string `json:"conclusion"`
	Output     struct {
		Annotations int `json:"annotations_count"`
	} `json:"output"`
}

// check waits until a check run of the head has the conclusion.
func (d *demo) check(ctx context.Context, number int, name, conclusion string) (checkRun, error) {
	var runs struct {
		CheckRuns []checkRun `json:"check_runs"`
	}
	var found checkRun
	err := eventually(ctx, 20*time.Second, func() (bool, error) {
		head, err := d.head(ctx, number)
		if err != nil {
			return false, err
		}
		if err := d.api(ctx, "bob", "GET", "/commits/"+head+"/check-runs", nil, &runs); err != nil {
			return false, err
		}
		for _, r := range runs.CheckRuns {
			if r.Name == name && r.Conclusion == conclusion {
				found = r
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return found, fmt.Errorf("want check run %s to conclude %q, got %+v: %w", name, conclusion, runs.CheckRuns, err)
	}
	return found, nil
}

// eventually asks again until it is so. What it asks are other processes, so
// there is nothing to wait on but the clock.
func eventually(ctx context.Context, limit time.Duration, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := so()
		if err != nil || ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s", limit)
		}
	}
}
