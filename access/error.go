package access

import (
	"errors"
	"fmt"
)

// Code is what kind of refusal or failure an error is, for machines.
type Code string

// The codes. A room turns each into its protocol's own (a SQLSTATE, an exit
// status, an HTTP status).
const (
	CodeUnauthenticated Code = "unauthenticated" // who is it? no, wrong or expired token
	CodeDenied          Code = "denied"          // known, and not allowed
	CodeNotFound        Code = "not_found"
	CodeInvalid         Code = "invalid"     // not understood
	CodeConflict        Code = "conflict"    // somebody else was faster; look again
	CodeTooLarge        Code = "too_large"   // over a bound
	CodeEnded           Code = "ended"       // the grant is over
	CodeCancelled       Code = "cancelled"   // the client gave up
	CodeUnavailable     Code = "unavailable" // a part is down; nothing was lost, try again
	CodeInternal        Code = "internal"    // our fault; the cause is in the log only
)

// Error is a refusal that may be shown to the person. Message says what was
// got, what was wanted and what to do; Cause is for the log alone.
type Error struct {
	Code    Code
	Message string
	Rule    string // the rule that refused, if one did
	Cause   error
}

// Error is the whole chain, for logs.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an error whose whole text may be shown.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf is the code of the first Error in the chain, or internal: an error
// that nobody classified is our fault, and is not shown.
func CodeOf(err error) Code {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// Message is what a person may read of an error.
func Message(err error) string {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Message
	}
	return "Something went wrong inside Tidegate; the operator's log has the reason."
}
