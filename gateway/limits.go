package gateway

import (
	"strconv"
	"time"

	"github.com/tidegate/tidegate/access"
)

// roleLimits are what a role keeps everything to that runs under it. One that
// is not understood opens no session.
func roleLimits(r access.Role) (access.Limits, error) {
	l := access.Limits{Results: r.Record == access.RecordResults}
	if text := r.Settings["limit_rows"]; text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return l, access.Errorf(access.CodeInvalid, "Role %q: limit_rows is %q; want a number from 1.", r.Name, text)
		}
		l.Rows = n
	}
	if text := r.Settings["limit_time"]; text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second {
			return l, access.Errorf(access.CodeInvalid, "Role %q: limit_time is %q; want a length of time such as \"30s\".", r.Name, text)
		}
		l.Time = access.Seconds(d / time.Second)
	}
	if l.Rows > 0 || l.Time > 0 {
		l.Rule, l.Say = "role "+r.Name, "The role "+r.Name+" limits what one statement may do."
	}
	return l, nil
}
