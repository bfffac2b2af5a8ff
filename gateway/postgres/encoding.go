package postgres

import (
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/access"
)

// A server lowers the letters of an unquoted name, and cuts a name at 63
// bytes, in its own encoding: where a letter has one byte it lowers É, too. The
// parser here does both in UTF-8, and would take such a name for another one
// than the server does. Quoted names are nobody's to lower.

// maxNameBytes is PostgreSQL's NAMEDATALEN - 1.
const maxNameBytes = 63

// utf8Encoding is how a server calls UTF-8.
const utf8Encoding = "UTF8"

// asServer refuses a text with names that a database of another encoding than
// UTF-8 would read otherwise. The text was parsed.
func asServer(text, encoding string) error {
	if isASCII(text) {
		return nil
	}
	scan, err := pg.Scan(text)
	if err != nil {
		return access.Errorf(access.CodeInvalid, "The statement was not understood and not sent: %v.", err)
	}
	for _, t := range scan.Tokens {
		name := text[t.Start:t.End]
		switch quoted := strings.HasSuffix(name, `"`); {
		case isASCII(name), t.Token == pg.Token_SCONST, t.Token == pg.Token_USCONST, t.Token == pg.Token_SQL_COMMENT, t.Token == pg.Token_C_COMMENT:
		case quoted && len(name) <= maxNameBytes+len(`""`):
		case quoted:
			return access.Errorf(access.CodeInvalid, "The name %.200s has over %d bytes in UTF-8, and this database has the encoding %s, in which it may be cut elsewhere. Nothing ran.", name, maxNameBytes, encoding)
		default:
			return access.Errorf(access.CodeInvalid, "The name %.200s has letters other than a to z, and this database has the encoding %s, in which it may be lowered otherwise than here. Nothing ran; write it in double quotes.", name, encoding)
		}
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
