package postgres

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/access"
)

// The parser writes its tree out by recursion in C and checks no stack: some
// 20 000 levels, 80 KB of "1+1+1", kill the whole process, all sessions with
// it. So a text is measured before it is parsed, by its flat list of tokens.
// The bound is for a stack of 2 MB, which threads get where the limit of the
// stack is that small, or where there is none (LimitSTACK=infinity).
const (
	maxDepth  = 4_000
	maxTokens = 300_000 // a tree needs some 400 bytes for each
)

// level is what is open between two brackets.
type level struct {
	run, longest int // tokens since the last comma that may nest, and the most of them
	sets         int // UNION and its like: a comma does not end them
}

func (l level) depth() int { return l.sets + max(l.run, l.longest) }

// measure refuses a text whose tree could be too deep or too large. It counts
// more than the tree will have: each token is taken to nest, up to a comma.
func measure(text string) error {
	scan, err := pg.Scan(text)
	if err != nil {
		return access.Errorf(access.CodeInvalid, "The statement was not understood and not sent: %v.", err)
	}
	if len(scan.Tokens) > maxTokens {
		return access.Errorf(access.CodeTooLarge, "The text has %d words and signs; at most %d are allowed in one message.", len(scan.Tokens), maxTokens)
	}
	open := []level{{}}
	for _, t := range scan.Tokens {
		open = count(open, t.Token)
		if d := open[len(open)-1].depth() + len(open); d > maxDepth {
			return access.Errorf(access.CodeTooLarge, "The statement nests or chains more than %d terms; split it, or use a list such as IN (…).", maxDepth)
		}
	}
	return nil
}

func count(open []level, t pg.Token) []level {
	top := &open[len(open)-1]
	switch t {
	case pg.Token_ASCII_40, pg.Token_ASCII_91: // ( [
		top.run++
		return append(open, level{})
	case pg.Token_ASCII_41, pg.Token_ASCII_93: // ) ]
		if len(open) > 1 {
			inner := top.depth()
			open = open[:len(open)-1]
			open[len(open)-1].run += inner
		}
	case pg.Token_ASCII_44: // ,
		top.longest, top.run = max(top.longest, top.run), 0
	case pg.Token_ASCII_59: // ; ends a statement, inside brackets it does not
		if len(open) == 1 {
			*top = level{}
		}
	case pg.Token_UNION, pg.Token_INTERSECT, pg.Token_EXCEPT:
		top.sets++
	case pg.Token_SELECT:
		if top.run++; len(open) > 1 {
			top.run++ // a subquery takes the stack of two terms
		}
	case pg.Token_IDENT, pg.Token_ICONST, pg.Token_FCONST, pg.Token_SCONST, pg.Token_SQL_COMMENT, pg.Token_C_COMMENT:
	default:
		top.run++
	}
	return open
}
