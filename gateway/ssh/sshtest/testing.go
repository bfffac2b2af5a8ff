package sshtest

import (
	"errors"
	"os"
	"testing"
)

// Start runs a host for the length of a test. Without sshd it skips, or fails
// where TIDEGATE_REQUIRE_PARTS=1.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Run(t.Context(), o)
	if errors.Is(err, ErrMissing) && os.Getenv("TIDEGATE_REQUIRE_PARTS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
