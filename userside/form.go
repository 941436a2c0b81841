package userside

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Envelope is what stands around the payload of an answer (API page section 2.1).
type Envelope string

// The envelopes.
const (
	EnvelopeLegacy Envelope = "legacy" // Result, ErrorText
	EnvelopeModern Envelope = "modern" // result, error
	EnvelopeBare   Envelope = "bare"   // none: cat=module
)

// Form is the outer form of one answer: all that can be told without its values.
type Form struct {
	Envelope Envelope `json:"envelope,omitempty"` // empty: no JSON
	Bytes    int64    `json:"bytes"`              // unpacked
	Gzip     bool     `json:"gzip,omitempty"`
	BOM      bool     `json:"bom,omitempty"`
	// Shape is the letter of API page section 3.4 that the payload looks like if
	// it is the answer of get_ip_port_device_commutation; "unknown" if it is like none.
	Shape string `json:"shape,omitempty"`
	// Fingerprint are the key paths and types of the payload.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// formText is the longest text in an answer whose form is read, in bytes, unless somebody
// says another.
const formText = 1 << 20

// ReadForm reads the form of an answer. With an error, what was read before it stands.
func ReadForm(answer []byte) (Form, error) { return readForm(answer, formText) }

func readForm(answer []byte, maxText int) (Form, error) {
	var f Form
	var r io.Reader = bytes.NewReader(answer)
	if bytes.HasPrefix(answer, []byte{0x1f, 0x8b}) {
		f.Gzip = true
		z, err := gzip.NewReader(r)
		if err != nil {
			return f, err
		}
		r = z
	}
	count := &countingReader{r: r}
	text := bufio.NewReader(count)
	if mark, _ := text.Peek(3); bytes.Equal(mark, []byte{0xef, 0xbb, 0xbf}) {
		f.BOM = true
		_, _ = text.Discard(3)
	}
	s := newScanner(text)
	s.maxText, s.maxTree = maxText, 256<<20
	fr := formReader{s: s, votes: map[string]int{}}
	c, err := s.peek()
	switch {
	case err != nil:
	case c == '{':
		err = s.members(fr.member)
	case c == '[':
		err = fr.payload()
	default:
		err = s.bad("no JSON document")
	}
	if err == nil {
		err = s.finish()
	}
	f.Bytes, f.Envelope, f.Fingerprint = count.n, fr.envelope, fr.print.String()
	if f.Envelope == "" && err == nil {
		f.Envelope = EnvelopeBare
	}
	if err == nil {
		f.Shape = fr.shape()
	}
	return f, err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

type formReader struct {
	s        *scanner
	tree     tree
	envelope Envelope
	print    fingerprint
	members  int
	votes    map[string]int
}

func (r *formReader) member(key []byte, _ int) error {
	switch name := string(key); {
	case strings.EqualFold(name, "result") && r.envelope == "":
		r.envelope = EnvelopeModern
		if name != "result" {
			r.envelope = EnvelopeLegacy
		}
	case name == "ErrorText":
		r.envelope = EnvelopeLegacy
	}
	c, err := r.s.peek()
	if err != nil {
		return err
	}
	if c == '{' || c == '[' {
		return r.payload()
	}
	_, err = r.tree.read(r.s)
	return err
}

// maxVotes bounds how many members are looked at for the shape.
const maxVotes = 2000

func (r *formReader) payload() error {
	return r.s.members(func(key []byte, index int) error {
		v, err := r.tree.read(r.s)
		if err != nil {
			return err
		}
		r.members++
		if index < 50 {
			name := "[]"
			if key != nil {
				name = "." + maskKey(key)
			}
			r.print.add("data"+name, v)
		}
		if index < maxVotes {
			r.votes[shapeOf(key, v)]++
		}
		return nil
	})
}

// shape is what most members look like.
func (r *formReader) shape() string {
	best, most := "unknown", 0
	for _, letter := range []string{"A", "B", "C", "D", "E"} {
		if r.votes[letter] > most {
			best, most = letter, r.votes[letter]
		}
	}
	if r.members == 0 {
		return "F"
	}
	return best
}

// shapeOf says which shape one member of the payload speaks for; "" when it
// could be several or is none.
func shapeOf(key []byte, v value) string {
	if key == nil {
		switch {
		case v.kind() != kindObject || !isRow(v):
			return ""
		case v.get("usercode").kind() != kindAbsent || v.get("userip").kind() != kindAbsent || v.get("devcode").kind() != kindAbsent:
			return "E"
		}
		return "A"
	}
	if !meaningful(key) {
		return ""
	}
	around := keys{}.with(key)
	switch v.kind() {
	case kindArray:
		for m := range v.all {
			if isRow(m) && around.ipText {
				return "B"
			}
			if isRow(m) {
				return "C"
			}
		}
	case kindObject:
		switch {
		case around.ipText:
			return "B"
		case v.get("ip_mac").kind() != kindAbsent || v.get("commutation").kind() != kindAbsent:
			return "C"
		case isRow(v) && v.first("customer_id", "usercode", "customer").kind() == kindAbsent:
			return "C"
		case isRow(v):
			return ""
		}
		for m := range v.all {
			if !m.composite() || !isDecimal(m.key()) || isInet(m.key()) {
				return ""
			}
		}
		if v.len() > 0 {
			return "D"
		}
	}
	return ""
}

// isRow reports an object with a field of an address, a MAC or a port of its own.
func isRow(v value) bool {
	if v.kind() != kindObject {
		return false
	}
	for m := range v.all {
		if m.composite() {
			continue
		}
		switch f, _ := fieldOf(m.key()); f {
		case fieldIP, fieldMAC, fieldDevice, fieldPort, fieldCustomer:
			return true
		}
	}
	return false
}

// Heard is one exchange as a Tap heard it.
type Heard struct {
	Category, Action string
	Method           string
	Status           int   // 0: no answer came
	Form             Form  // of the answer, as far as it could be read
	Err              error // why the form could not be read; nil otherwise
	Took             time.Duration
}

// Tap is an http.RoundTripper that reads the form of every answer on its way.
type Tap struct {
	Next    http.RoundTripper
	Heard   func(Heard) // may be called concurrently
	MaxText int         // the longest text in an answer, in bytes; zero: 1 MiB
	most    int         // of tests: in place of maxTapped
}

// maxTapped bounds how much of an answer a Tap holds, as it came.
const maxTapped = 128 << 20

// RoundTrip sends the request on and hands out the answer as it came.
func (t *Tap) RoundTrip(req *http.Request) (*http.Response, error) {
	q := req.URL.Query()
	h := Heard{Category: q.Get("cat"), Action: q.Get("action"), Method: req.Method}
	for _, name := range []string{"subcat", "request"} {
		if v := q.Get(name); v != "" && (h.Action == "" || name == "request" && h.Category == "module") {
			h.Action = v
		}
	}
	begin := time.Now()
	resp, err := t.Next.RoundTrip(req)
	if err != nil {
		h.Took = time.Since(begin)
		h.Err = errors.New("no answer")
		t.Heard(h)
		return nil, err
	}
	most := cmp.Or(t.most, maxTapped)
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	h.Took = time.Since(begin)
	h.Status = resp.StatusCode
	if len(body) > most { // its form stays unknown, and the client has bounds of its own
		h.Err = errBodyLimit
		t.Heard(h)
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
		return resp, nil
	}
	h.Form, h.Err = readForm(body, cmp.Or(t.MaxText, formText))
	closeErr := resp.Body.Close()
	t.Heard(h)
	if err := errors.Join(readErr, closeErr); err != nil {
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), readerFunc(func([]byte) (int, error) { return 0, err })))
		return resp, nil
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// NewTransport returns the transport that New makes of these options, for a
// caller that puts something between it and the client. Options.Transport,
// CAFile and InsecureSkipVerify are then to be set to the result and to nothing.
func NewTransport(o Options) (*http.Transport, error) {
	setDefault(&o.MaxConcurrent, 1)
	return newTransport(o)
}

// Try sends one call whatever the table says of it, once, by GET or by POST,
// and drops the payload. It is for learning what a server offers; never use it
// for an action that changes data.
func (c *Client) Try(ctx context.Context, category, name string, args url.Values, post bool) error {
	spec := &Action{Category: category, Name: name, Bulk: true} // whatever comes
	leave, f := c.enter(ctx, spec, LaneBulk)
	if f != nil {
		return &f.Error
	}
	defer leave()
	timed, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	req, err := c.trial(timed, spec, args, post)
	if err != nil {
		return &c.fail(spec, 0, ErrArgument, bareError(err), nil).Error
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return &c.network(ctx, timed, spec, 0, err).Error
	}
	defer resp.Body.Close()
	body := newBody(resp.Body, resp.Header, c.opts.MaxBody, c.opts.MaxText<<10)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		_, f := c.errorAnswer(spec, resp, body, sink{})
		return &f.Error
	}
	a, err := body.decode(sink{})
	switch {
	case body.wire.err != nil:
		return &c.network(ctx, timed, spec, resp.StatusCode, body.wire.err).Error
	case err != nil:
		return &c.malformed(spec, resp.StatusCode, body, err).Error
	case category == "module" && a.failure == "":
		return nil // it has no envelope
	}
	if f := c.judge(spec, resp.StatusCode, a, sink{}); f != nil {
		return &f.Error
	}
	return nil
}

// trial names the action in both ways where nobody has set one: a server that
// knows one overlooks the other.
func (c *Client) trial(ctx context.Context, spec *Action, args url.Values, post bool) (*http.Request, error) {
	q := url.Values{"key": {string(c.opts.Key)}, "cat": {spec.Category}}
	switch {
	case spec.Category == "module":
		q.Set("request", spec.Name)
	case c.opts.ActionParameter != "":
		q.Set(c.opts.ActionParameter, spec.Name)
	default:
		q.Set("action", spec.Name)
		q.Set("subcat", spec.Name)
	}
	u := c.endpoint
	method := http.MethodGet
	var form io.Reader
	if post {
		method, form = http.MethodPost, strings.NewReader(args.Encode())
	} else {
		for k, v := range args {
			q[k] = v
		}
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), form)
	if err != nil {
		return nil, err
	}
	if post {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("User-Agent", c.opts.UserAgent)
	return req, nil
}
