package console

import (
	"slices"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestTerms: what an SSH role gives stands in its settings alone; a page that
// left them out would show a shell as nothing at all.
func TestTerms(t *testing.T) {
	got := terms(access.Role{
		Rows:     []access.RowScope{{Where: "region = 'eu'"}, {Tables: "public.stops", Where: "open"}},
		Record:   "results",
		Settings: map[string]string{"shell": "true", "accounts": "deploy\nroot"},
	})
	want := []string{
		"of each table rows where region = 'eu'", "of public.stops rows where open", "record = results",
		"accounts = deploy, root", "shell = true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
