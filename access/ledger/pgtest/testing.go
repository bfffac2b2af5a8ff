package pgtest

import (
	"errors"
	"os"
	"testing"
)

// Start runs a cluster for the length of a test. Without PostgreSQL it skips,
// or fails where TIDEGATE_REQUIRE_PARTS=1.
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

// NewDatabase makes an empty database and answers with the superuser's DSN for it.
func (s *Server) NewDatabase(t testing.TB) string {
	t.Helper()
	dsn, err := s.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}
