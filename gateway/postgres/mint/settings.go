package mint

import (
	"strconv"
	"time"

	"github.com/tidegate/tidegate/access"
)

const (
	defaultConnections = 16
	maxConnections     = 1000
	maxTimeout         = 24 * time.Hour
)

// settings are what a role block can pin on a PostgreSQL role.
type settings struct {
	connections      int
	statementTimeout time.Duration // 0: the server's own
	lockTimeout      time.Duration
}

// roleSettings reads a role's settings. One that is not known is refused: it
// might be one that narrows, such as a condition on rows.
func roleSettings(role access.Role) (settings, error) {
	s := settings{connections: defaultConnections}
	for key, value := range role.Settings {
		var err error
		switch key {
		case "connection_limit":
			if s.connections, err = strconv.Atoi(value); err != nil || s.connections < 1 || s.connections > maxConnections {
				return s, access.Errorf(access.CodeInvalid, "Role %q: connection_limit is %q; want 1 to %d.", role.Name, value, maxConnections)
			}
		case "statement_timeout":
			s.statementTimeout, err = timeout(role.Name, key, value)
		case "lock_timeout":
			s.lockTimeout, err = timeout(role.Name, key, value)
		case "limit_time", "drain": // the gateway's
			_, err = timeout(role.Name, key, value)
		case "limit_rows":
			if n, bad := strconv.ParseInt(value, 10, 32); bad != nil || n < 1 {
				return s, access.Errorf(access.CodeInvalid, "Role %q: limit_rows is %q; want a number from 1.", role.Name, value)
			}
		case "trust_functions", "call", "owner": // the expander's
		default:
			return s, access.Errorf(access.CodeInvalid, "Role %q: PostgreSQL targets don't know the setting %q; they know call, connection_limit, drain, limit_rows, limit_time, lock_timeout, owner, statement_timeout and trust_functions.", role.Name, key)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

func timeout(role, key, value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < time.Millisecond || d > maxTimeout {
		return 0, access.Errorf(access.CodeInvalid, "Role %q: %s is %q; want a length of time such as \"30s\", at most %s.", role, key, value, maxTimeout)
	}
	return d, nil
}
