package access

import (
	"crypto/sha256"
	"fmt"
)

// Trace is the identity of the trace that a pull request's life is one of, and
// of that trace's root span. Neither is ever all zeros but for nobody's.
type Trace struct {
	ID   [16]byte
	Root [8]byte
}

// TraceOf derives the trace of a pull request. A life takes days and crosses
// restarts, processes and Temporal, so nothing is handed along: whoever knows
// the grant's row knows the trace. It is a name and no secret.
func TraceOf(installation string, repo int64, number int) Trace {
	sum := sha256.Sum256(fmt.Appendf(nil, "tidegate trace v1\n%q %d %d\n", installation, repo, number))
	return Trace{ID: [16]byte(sum[:16]), Root: [8]byte(sum[16:24])}
}
