package postgres

import (
	"regexp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// Values that a recording, and an approver, must not see stand as literals in
// texts and as parameters: those for masked columns or held against one, and
// passwords. See gateway.Withholder for what stands in their place.

// secrets are where a statement has such values.
type secrets struct {
	params []int    // in order; 1 is $1
	spans  [][2]int // of the statement's text, in order
	args   [][2]int // every literal in an EXECUTE: which of them are secret, its statement says
}

// secretsOf finds the values in a statement, which is text[s.from:s.to].
func secretsOf(text string, s *statement) secrets {
	out := secrets{params: uniq(slices.Clone(s.names.params))}
	execute := s.node.GetExecuteStmt() != nil || s.node.GetExplainStmt().GetQuery().GetExecuteStmt() != nil
	named := namesPassword(text[s.from:s.to]) || strings.Contains(text[s.from:s.to], "://")
	if len(s.names.literals) == 0 && !execute && !named {
		return out
	}
	tokens, literals := scan(text[s.from:s.to]), uniq(s.names.literals)
	value := len(tokens)
	if namesPassword(s.node.GetVariableSetStmt().GetName()) {
		value = assigned(tokens)
	}
	for i, t := range tokens {
		_, held := slices.BinarySearch(literals, int(t.Start)+s.from)
		span := literalAt(tokens, i)
		switch {
		case held, named && isPassword(text[s.from:s.to], tokens, i):
			out.spans = append(out.spans, span)
		case i > value:
			out.spans = append(out.spans, [2]int{int(t.Start), int(t.End)})
		case execute && isLiteral(t.Token):
			out.args = append(out.args, span)
		}
	}
	return out
}

func scan(text string) []*pg.ScanToken {
	r, err := pg.Scan(text)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(r.Tokens, func(t *pg.ScanToken) bool {
		return t.Token == pg.Token_SQL_COMMENT || t.Token == pg.Token_C_COMMENT
	})
}

// assigned is where a SET begins to say the value, which needs no quotes.
func assigned(tokens []*pg.ScanToken) int {
	if i := slices.IndexFunc(tokens, func(t *pg.ScanToken) bool { return t.Token == pg.Token_ASCII_61 || t.Token == pg.Token_TO }); i >= 0 {
		return i
	}
	return len(tokens)
}

func isLiteral(t pg.Token) bool {
	switch t {
	case pg.Token_SCONST, pg.Token_USCONST, pg.Token_BCONST, pg.Token_XCONST, pg.Token_ICONST, pg.Token_FCONST:
		return true
	}
	return false
}

// literalAt is a literal with its sign.
func literalAt(tokens []*pg.ScanToken, i int) [2]int {
	end := int(tokens[i].End)
	if !isLiteral(tokens[i].Token) && i+1 < len(tokens) {
		end = int(tokens[i+1].End)
	}
	return [2]int{int(tokens[i].Start), end}
}

// credential is a text that carries a password: of libpq or ODBC, or a URL.
var credential = regexp.MustCompile(`(?i)(passw(or)?d|pwd)\s*=|://[^\s@]*:[^\s@]+@`)

// passwordWords are within the names of passwords. mayHoldPassword looks for
// the same.
var passwordWords = []string{"passw", "pwd"}

func namesPassword(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(passwordWords, func(w string) bool { return strings.Contains(text, w) })
}

// takesPassword reports whether a function of pgcrypto's takes a password or a
// key, wherever among its arguments.
func takesPassword(function string) bool {
	switch function {
	case "crypt", "hmac", "encrypt", "encrypt_iv", "decrypt", "decrypt_iv":
		return true
	}
	return strings.HasPrefix(function, "pgp_sym_") || strings.HasPrefix(function, "pgp_pub_decrypt")
}

// isPassword reports whether the literal is a password: a word before it says
// so, or another literal that it is joined to or listed after, or it has one
// within.
func isPassword(text string, tokens []*pg.ScanToken, i int) bool {
	if !isLiteral(tokens[i].Token) {
		return false
	}
	if credential.MatchString(text[tokens[i].Start:tokens[i].End]) {
		return true
	}
	return slices.ContainsFunc(tokens[max(0, i-2):i], func(t *pg.ScanToken) bool { return namesPassword(text[t.Start:t.End]) })
}

// quoted is how a string is written, for texts that nothing else understands.
var quoted = regexp.MustCompile(`'(?:[^']|'')*'?`)

// refusedText is what is recorded of a text of which nothing else is known, and
// of why it was refused. If it has a password anywhere, or columns are masked,
// none of its strings is shown; nor the parser's words, which repeat one. Of a
// text that could not be read and has a password, nothing is.
func (p *planned) refusedText(text, why string, unread bool, withhold func([]byte) string) (shown, say string) {
	masks := slices.ContainsFunc(p.Masked, func(t backing.MaskedTable) bool { return len(t.Columns) > 0 })
	named := namesPassword(text) || credential.MatchString(text) || identified.MatchString(text)
	if !masks && !named {
		return text, why
	}
	if unread && named { // it may stand anywhere, and without quotes
		return withhold([]byte(text)), notUnderstood
	}
	return quoted.ReplaceAllStringFunc(text, func(s string) string { return withhold(unquote(s)) }), notUnderstood
}

// identified is how other databases say it.
var identified = regexp.MustCompile(`(?i)\bidentified\s`)

const notUnderstood = "The text was not understood, or not allowed as it is."

// unquote is the value of a plain literal, so that it is the same as that of a
// parameter; of any other it is the literal itself.
func unquote(s string) []byte {
	if len(s) > 1 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return []byte(strings.ReplaceAll(s[1:len(s)-1], "''", "'"))
	}
	return []byte(s)
}

// replaceSpans puts what stands for the values in their place.
func replaceSpans(text string, spans [][2]int, withhold func([]byte) string) string {
	edits := make([]edit, len(spans))
	for i, s := range spans {
		edits[i] = edit{s[0], s[1], withhold(unquote(text[s[0]:s[1]]))}
	}
	return apply(text, edits)
}

// withhold takes the values out of what is recorded and shown. What is sent
// stays as it is.
func (r *reading) withhold(with func([]byte) string) {
	for i := range r.ops {
		s := r.stmts[i].secrets
		if len(s.spans) > 0 {
			r.ops[i].Text = replaceSpans(r.ops[i].Text, s.spans, with)
		}
	}
}
