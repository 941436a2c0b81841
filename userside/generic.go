package userside

import (
	"context"
	"net/url"
)

// Answer is the answer of any action, as it came.
type Answer struct {
	raw       []byte
	truncated bool
	data      any
	ids       IDs
}

// Raw gives the text of the answer, unpacked and without byte order mark, up to
// 64 MiB; RawTruncated tells when that was not all.
func (a *Answer) Raw() []byte { return a.raw }

// RawTruncated reports whether Raw was cut off.
func (a *Answer) RawTruncated() bool { return a.truncated }

// IDs gives what the envelope has under Id; nil when there is none.
func (a *Answer) IDs() IDs { return a.ids }

// Data gives the payload for printing: what is under data, or the answer's own
// key, or the Id, or nil. It is made of Map[any] for objects (in the order of
// the answer), []any, string, json.Number, bool and nil. Texts are as the
// server has them; String.Text resolves their entities.
func (a *Answer) Data() any { return a.data }

// Prepared is what a call would send.
type Prepared struct {
	Method string     // GET or POST
	URL    string     // with the key redacted
	Form   url.Values // body of a POST; nil otherwise
	Level  Level      // whose rules were used
}

// Call calls any action of the table. The arguments are checked against it
// before anything is sent: a missing, unknown or malformed one is ErrArgument,
// one that the server's version lacks is ErrUnsupported. Parameters have their
// newest names (former ones are taken too); each has one value.
func (c *Client) Call(ctx context.Context, category, name string, args url.Values) (*Answer, error) {
	return nil, ErrUnsupported
}

// Prepare checks the arguments as Call does and gives what would be sent, with
// the key redacted. It sends nothing: the rules are those of the version that
// is set or was detected so far, else the newest; Level detects it.
func (c *Client) Prepare(category, name string, args url.Values) (*Prepared, error) {
	return nil, ErrUnsupported
}
