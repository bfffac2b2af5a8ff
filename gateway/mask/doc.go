// Package mask finds values in text and writes asterisks over them: e-mail
// addresses, card numbers, national ids, private keys, tokens, passwords.
//
// A [Set] is a choice of detectors. It is made once and shared by all
// sessions; nothing is compiled for a session or a message. [Set.Mask] masks
// one whole value. A [Stream] masks text that comes in pieces: it holds back
// the end of a piece as long as a value may have begun there, and no longer
// than a bound, so a value is found wherever it is split.
//
// Masking keeps lengths: each byte of a value becomes one asterisk. So what
// stands around it (a message's length, the columns of a terminal, the quotes
// of JSON) stays what it was.
//
// What is looked for costs little where it is not: one pass over the text
// with a table finds the words by which each rule's values are known, and only
// around such a word a regular expression runs.
//
// It is a courtesy and no lock. Whoever may run programs or functions can
// write a value in another way (backwards, in hexadecimal, a word a line), and
// is then shown it.
package mask
