// Package postgres is the PostgreSQL room. It reads statements with
// PostgreSQL's own parser and says of each what rules may know; what it does
// not understand it refuses. Only the classifier stands here so far: the
// package does not serve connections yet.
package postgres
