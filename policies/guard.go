package policies

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tidegate/tidegate/access"
)

// The bounds on text. HCL's parser recurses: without them a small file can
// overflow the stack, which Go cannot recover from.
const (
	MaxFileBytes = 64 << 10
	maxTokens    = 8192
	maxDepth     = 16
	MaxFiles     = 4096 // in one tree
	maxDiags     = 100  // from one file
)

// parse guards one file and parses it. The body is nil if anything is wrong.
func parse(f access.File, diags *diagnostics) *hclsyntax.Body {
	if !guard(f.Path, f.Content, hclsyntax.LexConfig, diags) {
		return nil
	}
	file, ds := hclsyntax.ParseConfig(f.Content, f.Path, hcl.InitialPos)
	if ds.HasErrors() {
		diags.addHCL(ds)
		return nil
	}
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	return body
}

type lexer func(src []byte, filename string, start hcl.Pos) (hclsyntax.Tokens, hcl.Diagnostics)

// guard refuses text that the parser must not see. It does not recurse.
func guard(path string, src []byte, lex lexer, diags *diagnostics) bool {
	whole := hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}
	if len(src) > MaxFileBytes {
		diags.errorf(whole, "The file is too large", "It has %d bytes and may have %d; split it.", len(src), MaxFileBytes)
		return false
	}
	before := len(*diags)
	guardAlphabet(path, src, diags)
	if len(*diags) > before {
		return false
	}
	tokens, ds := lex(src, path, hcl.InitialPos)
	if len(tokens) > maxTokens {
		diags.errorf(whole, "The file has too many tokens", "It has %d and may have %d; split it.", len(tokens), maxTokens)
		return false
	}
	diags.addHCL(ds)
	guardTokens(tokens, diags)
	return len(*diags) == before
}

// guardAlphabet refuses bytes that people do not see, or see wrongly.
func guardAlphabet(path string, src []byte, diags *diagnostics) {
	pos, found := hcl.InitialPos, 0
	for i := 0; i < len(src) && found < maxDiags; {
		r, n := utf8.DecodeRune(src[i:])
		if why := unreadable(r, n); why != "" {
			end := pos
			end.Column++
			diags.errorf(hcl.Range{Filename: path, Start: pos, End: end}, "A character is not allowed", "%s; remove it.", why)
			found++
		}
		i += n
		pos.Byte, pos.Column = i, pos.Column+1
		if r == '\n' {
			pos.Line, pos.Column = pos.Line+1, 1
		}
	}
}

// unreadable says why a rune may not stand in a file, or nothing.
func unreadable(r rune, size int) string {
	switch {
	case r == utf8.RuneError && size <= 1:
		return "The bytes here are not UTF-8"
	case r == '\n' || r == '\t' || r == '\r':
		return ""
	case unicode.In(r, unicode.Cc):
		return fmt.Sprintf("U+%04X is a control character", r)
	case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs, unicode.Variation_Selector),
		r == 0x115F, r == 0x1160, r == 0x3164, r == 0xFFA0, r == 0x034F: // letters and marks that show nothing
		return fmt.Sprintf("U+%04X is invisible or changes the direction of the text", r)
	}
	return ""
}

// guardTokens refuses deep nesting and the syntax that no file here needs and
// that makes the parser slow: for, templates and heredocs.
func guardTokens(tokens hclsyntax.Tokens, diags *diagnostics) {
	depth := 0
	for i, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen:
			if depth++; depth > maxDepth {
				diags.errorf(t.Range, "The nesting is too deep", "Brackets may be nested %d deep; write it flatter.", maxDepth)
				return
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen:
			depth--
		case hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl, hclsyntax.TokenOHeredoc:
			diags.errorf(t.Range, "Templates are not allowed", "Write a plain quoted string.")
			return
		case hclsyntax.TokenIdent:
			if !ascii(string(t.Bytes)) {
				diags.errorf(t.Range, "A name is not ASCII", "Letters of other alphabets look like Latin ones; use a-z, 0-9, - and _.")
			} else if string(t.Bytes) == "for" && i > 0 && opens(tokens, i) {
				diags.errorf(t.Range, "A for expression is not allowed", "Use contains, any or all.")
				return
			}
		}
	}
}

// opens reports whether the token before i, newlines and comments aside, is an opening bracket or brace.
func opens(tokens hclsyntax.Tokens, i int) bool {
	for i--; i >= 0; i-- {
		switch tokens[i].Type {
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
			continue
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack:
			return true
		default:
			return false
		}
	}
	return false
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
