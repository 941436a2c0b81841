package userside

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of failure, to be asked with errors.Is. They say what the caller may do.
var (
	// ErrPermission means that the key, the source address or the section is not
	// allowed (HTTP 401 or 403; API page section 1.1).
	ErrPermission = errors.New("permission denied")
	// ErrNotFound means that no such customer exists (API page section 2.2).
	ErrNotFound = errors.New("not found")
	// ErrRefused means that the ERP understood the call and said no: another 4xx
	// with a JSON answer, or an answer whose marker is not OK. The same call will
	// be refused again.
	ErrRefused = errors.New("refused")
	// ErrMalformed means that what came is not an answer of the API: no JSON, cut
	// off, too large, or a redirect.
	ErrMalformed = errors.New("malformed answer")
	// ErrTooLarge is ErrMalformed, too: an answer, or one text in it, is beyond a limit
	// of the Options. Error.Text says which, and where.
	ErrTooLarge = errors.New("too large")
	// ErrUnknownShape means that the answer is sound JSON and OK, but holds
	// nothing that the decoder knows; Error.Fingerprint describes it. Of a change also
	// that the answer is a hook's in place of the ERP's, and says neither yes nor no.
	ErrUnknownShape = errors.New("unknown shape")
	// ErrUnavailable means that the ERP could not be asked: connection, time-out,
	// 5xx, 429. Trying later makes sense.
	ErrUnavailable = errors.New("unavailable")
	// ErrUncertain stands beside the Kind of a change that the ERP may have made or
	// not: the request was sent, and no answer came, or one that says neither.
	ErrUncertain = errors.New("it is not known whether the ERP did it")
	// ErrArgument means that the call was not sent, for its arguments cannot be right.
	ErrArgument = errors.New("bad argument")
	// ErrUnsupported means that the call was not sent, for the server's version
	// lacks the action or one of the parameters. It is ErrRefused, too.
	ErrUnsupported error = unsupportedError{}
)

type unsupportedError struct{}

func (unsupportedError) Error() string { return "not supported by the server's version" }

// Is makes it a refusal, too, for who does not care who refused.
func (unsupportedError) Is(target error) bool { return target == ErrRefused }

// What is wrong with an argument, to be asked with errors.Is beside ErrArgument;
// Error.Param names it.
var (
	ErrMissing       = errors.New("obligatory parameter is missing")
	ErrUnknown       = errors.New("no such parameter")
	ErrFormat        = errors.New("value has the wrong form")
	ErrUnknownAction = errors.New("no such action")
)

// Outcome says how one request ended. A closed set: it is a metric label.
type Outcome string

// The outcomes of a request.
const (
	OutcomeOK           Outcome = "ok"
	OutcomePermission   Outcome = "permission"
	OutcomeNotFound     Outcome = "not_found"
	OutcomeRefused      Outcome = "refused"
	OutcomeMalformed    Outcome = "malformed"
	OutcomeUnknownShape Outcome = "unknown_shape"
	OutcomeUnavailable  Outcome = "unavailable"
	OutcomeTimeout      Outcome = "timeout"
	OutcomeCanceled     Outcome = "canceled"
)

// Outcomes lists every Outcome, for metrics that start at zero.
func Outcomes() []Outcome {
	return []Outcome{OutcomeOK, OutcomePermission, OutcomeNotFound, OutcomeRefused, OutcomeMalformed,
		OutcomeUnknownShape, OutcomeUnavailable, OutcomeTimeout, OutcomeCanceled}
}

// Error is what every failed call returns. It never holds the key.
type Error struct {
	Action string // category and name, such as customer.get_data
	Status int    // HTTP status; 0 when no answer came
	Kind   error  // one of the Err values of this package
	Param  string // the parameter that ErrArgument or ErrUnsupported is about; may be empty
	Text   string // what the server or the network said: redacted, printable, at most 300 bytes

	Uncertain bool // it is ErrUncertain, too

	// Fingerprint is set with ErrUnknownShape: the key paths and types of the
	// payload, without values, so that an operator can report it.
	Fingerprint string

	cause error // context.Canceled, context.DeadlineExceeded, what is wrong with an argument, or nil: nothing that could print a URL
}

// Error returns one line: action, kind, status and text.
func (e *Error) Error() string { return "userside: " + e.Action + ": " + e.reason() }

// reason is Error without the action.
func (e *Error) reason() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	if e.Status != 0 && e.Status != 200 {
		fmt.Fprintf(&b, ": http status %d", e.Status)
	}
	if e.Text != "" {
		b.WriteString(": ")
		b.WriteString(e.Text)
	}
	if e.Fingerprint != "" {
		b.WriteString(": ")
		b.WriteString(e.Fingerprint)
	}
	return b.String()
}

// Unwrap makes errors.Is true for the kind, for ErrUncertain where it is that, and,
// where one is behind it, for context.Canceled, context.DeadlineExceeded, or what is
// wrong with an argument.
func (e *Error) Unwrap() []error {
	all := []error{e.Kind}
	if e.Uncertain {
		all = append(all, ErrUncertain)
	}
	if e.cause != nil {
		all = append(all, e.cause)
	}
	return all
}

// RowError describes one row, or one field of a row, that could not be read;
// the rest of the answer was used.
type RowError struct {
	Where string // path in the payload, such as data[17].ip
	What  string // what is wrong, with the offending text (bounded)
}

// Error returns "where: what".
func (e RowError) Error() string { return e.Where + ": " + e.What }

// maxRowErrors bounds how many RowErrors are kept; all are counted.
const maxRowErrors = 1000

// Defects are the rows and fields of one answer that could not be read.
type Defects struct {
	Count int        // all of them
	First []RowError // the first 1000
}

func (d *Defects) add(where, what string) {
	d.Count++
	if len(d.First) < maxRowErrors {
		d.First = append(d.First, RowError{Where: where, What: what})
	}
}
