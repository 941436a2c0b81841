package userside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strings"
)

// Answer is the answer of any action, as it came.
type Answer struct {
	raw       []byte
	truncated bool
	data      any
	ids       IDs
}

// Raw returns the text of the answer, unpacked and without byte order mark, up to
// 64 MiB; RawTruncated tells when that was not all. It may hold personal data;
// the key, should the server have echoed it, is redacted.
func (a *Answer) Raw() []byte { return a.raw }

// RawTruncated reports whether Raw was cut off. Data is nil then.
func (a *Answer) RawTruncated() bool { return a.truncated }

// IDs returns what the envelope has under Id; nil when there is none.
func (a *Answer) IDs() IDs { return a.ids }

// Data returns the payload for printing: what is under data, or the answer's own
// key, or the Id, or nil for a bare OK. It is made of Map[any] for objects (in
// the order of the answer), []any, string, json.Number, bool and nil. Texts are
// as the server has them; String.Text resolves their entities.
func (a *Answer) Data() any { return a.data }

// Prepared is what a call would send.
type Prepared struct {
	Method string     // GET or POST
	URL    string     // with the key redacted
	Form   url.Values // body of a POST; nil otherwise
	Level  Level      // whose rules were used
}

// findRow returns the row for a generic call.
func (c *Client) findRow(category, name string) (*Action, error) {
	if spec := row(category, name); spec != nil {
		return spec, nil
	}
	return nil, &c.fail(&Action{Category: category, Name: name}, 0, ErrArgument, "no such action", ErrUnknownAction).Error
}

// Call calls any action of the table. The arguments are checked against it
// before anything is sent: a missing, unknown or malformed one is ErrArgument
// (with ErrMissing, ErrUnknown or ErrFormat), one that the server's version
// lacks is ErrUnsupported. Parameters have their newest names (former ones are
// taken too); each has one value. Nothing found is ErrNotFound for the actions
// that look for one thing.
func (c *Client) Call(ctx context.Context, category, name string, args url.Values) (*Answer, error) {
	spec, err := c.findRow(category, name)
	if err != nil {
		return nil, err
	}
	outer := rawFrom(ctx)
	var raw Raw
	a, err := c.ask(WithRaw(ctx, &raw), spec, args, sink{missing: missingFor(spec)})
	if outer != nil {
		*outer = raw
	}
	if err != nil {
		return nil, err
	}
	got := &Answer{raw: raw.document(c.redactor), truncated: raw.Truncated, ids: a.ids}
	if !raw.Truncated {
		if got.data, err = payloadOf(got.raw, spec.Answer == AnswerBare, c.opts.MaxBody); err != nil {
			return nil, &c.fail(spec, http.StatusOK, ErrMalformed, err.Error(), ErrTooLarge).Error
		}
	}
	return got, nil
}

// missingFor says when a refusal means that the one thing looked for is not there.
func missingFor(spec *Action) func(*answer) bool {
	switch {
	case spec.Write:
		return nil
	case spec.Answer == AnswerIDs:
		return func(a *answer) bool { return len(a.ids) == 0 && !a.payload }
	case spec.Answer == AnswerRecord:
		return func(a *answer) bool { return !a.payload }
	}
	return nil
}

// Prepare checks the arguments as Call does and gives what would be sent, with
// the key redacted. It sends nothing: the rules are those of the version that
// is set or was detected so far, else the newest; Level detects it.
func (c *Client) Prepare(category, name string, args url.Values) (*Prepared, error) {
	spec, err := c.findRow(category, name)
	if err != nil {
		return nil, err
	}
	lv := c.knownLevel()
	out, err := c.outgoing(spec, args, lv)
	if err != nil {
		return nil, err
	}
	// The key's length decides between GET and POST, so it is replaced afterwards.
	method, u, form := c.address(out, string(c.opts.Key))
	query := u.Query()
	query.Set("key", redacted)
	u.RawQuery = strings.Replace(query.Encode(), url.QueryEscape(redacted), redacted, 1)
	p := &Prepared{Method: method, URL: u.String(), Level: lv.Level}
	if method == http.MethodPost {
		p.Form, _ = url.ParseQuery(form)
	}
	return p, nil
}

// payloadOf finds the payload of a whole answer. The error is that of one of which as a
// tree more bytes would be kept than most.
func payloadOf(doc []byte, bare bool, most int64) (any, error) {
	var t tree
	s := newScanner(bytes.NewReader(doc))
	s.maxTree = int(min(most, math.MaxInt32))
	v, err := t.read(s)
	switch {
	case errors.As(err, new(*limitError)):
		return nil, err
	case err != nil:
		return nil, nil
	}
	return payloadIn(v, bare), nil
}

func payloadIn(v value, bare bool) any {
	if v.kind() != kindObject {
		return toAny(v)
	}
	if bare {
		if data := v.get("data"); !v.get("result").empty() && data.composite() {
			return toAny(data)
		}
		return toAny(v)
	}
	var data, composite, id value
	var own Map[any]
	for m := range v.all {
		switch key := strings.ToLower(string(m.key())); {
		case key == "result" || isErrorKey(key):
		case key == "id":
			id = keepValue(id, m)
		case key == "data" || key == "list":
			data = keepValue(data, m)
		case m.composite():
			composite = keepValue(composite, m)
		default:
			own = append(own, Entry[any]{Key: string(m.key()), Value: toAny(m)})
		}
	}
	switch {
	case !data.empty():
		return toAny(data)
	case !composite.empty():
		return toAny(composite)
	case len(own) == 1:
		return own[0].Value
	case len(own) > 1:
		return own
	case !id.empty():
		return toAny(id)
	case data.composite():
		return toAny(data)
	}
	return nil
}

func isErrorKey(key string) bool {
	switch key {
	case "error", "errortext", "error_text", "msg", "message":
		return true
	}
	return false
}

func keepValue(have, next value) value {
	if have.empty() && (have.kind() == kindAbsent || !next.empty()) {
		return next
	}
	return have
}

// toAny turns a value into what package json would make of it, but for objects,
// which keep their order.
func toAny(v value) any {
	switch v.kind() {
	case kindBool:
		return v.bytes()[0] == '1'
	case kindNumber:
		return json.Number(v.text())
	case kindString:
		return strings.ToValidUTF8(string(v.bytes()), "\uFFFD")
	case kindArray:
		out := make([]any, 0, v.len())
		for m := range v.all {
			out = append(out, toAny(m))
		}
		return out
	case kindObject:
		return objectOf(v)
	}
	return nil
}

// objectOf keeps an object as it came; of a repeated key, the last value.
func objectOf(v value) Map[any] {
	out := make(Map[any], 0, v.len())
	at := make(map[string]int, v.len())
	for m := range v.all {
		e := Entry[any]{Key: strings.ToValidUTF8(string(m.key()), "\uFFFD"), Value: toAny(m)}
		if i, ok := at[e.Key]; ok {
			out[i] = e
			continue
		}
		at[e.Key] = len(out)
		out = append(out, e)
	}
	return out
}

// MarshalJSON returns a JSON object with the members in their order.
func (m Map[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, part := range []any{e.Key, e.Value} {
			text, err := json.Marshal(part)
			if err != nil {
				return nil, err
			}
			if j > 0 {
				b.WriteByte(':')
			}
			b.Write(text)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
