package userside

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxURL is the length from which a read travels by POST (API page section 1).
const maxURL = 2000

// maxRetryAfter bounds the wait that a server may ask for; a longer one ends the call,
// and no other read is sent meanwhile.
const maxRetryAfter = 2 * time.Minute

// call sends one action and decodes its answer into the sink, with retries
// where the table and the options allow them.
func (c *Client) call(ctx context.Context, act action, args url.Values, to sink) (*answer, error) {
	return c.ask(ctx, act.row(), args, to)
}

// ask makes a call under the names of the server's version. If the answer does
// not fit, and the server turns out to have another version by now, the call is
// made again under the names of that one.
func (c *Client) ask(ctx context.Context, spec *Action, args url.Values, to sink) (*answer, error) {
	lv := c.levelFor(ctx, spec)
	a, err := c.askAs(ctx, spec, args, to, lv)
	if !misfits(err) {
		return a, err
	}
	now, changed := c.levelAgain(ctx, spec, lv)
	if !changed || spec.Write && !errors.Is(err, ErrUnsupported) && (!spec.Idempotent || errors.Is(err, ErrUncertain)) {
		return a, err // a hook of the ERP may have done what the answer seems to refuse, or does not tell
	}
	return c.askAs(ctx, spec, args, to, now)
}

// askAs is ask for a version that is known.
func (c *Client) askAs(ctx context.Context, spec *Action, args url.Values, to sink, lv level) (*answer, error) {
	out, err := c.outgoing(spec, args, lv)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, out, to)
}

// outgoing is a checked call as one server wants it.
type outgoing struct {
	spec          *Action
	nameParameter string // action, subcat or request
	args          url.Values
}

// outgoing checks the arguments against the table and gives them the names that the server knows.
func (c *Client) outgoing(spec *Action, args url.Values, lv level) (*outgoing, error) {
	checked, bad := spec.check(args, lv.Version)
	if bad != nil {
		f := c.fail(spec, 0, bad.kind, bad.text, bad.detail)
		f.Param = bad.param
		return nil, &f.Error
	}
	return &outgoing{spec: spec, nameParameter: c.nameParameter(spec, lv), args: checked}, nil
}

// send does the attempts of one call.
func (c *Client) send(ctx context.Context, out *outgoing, to sink) (*answer, error) {
	spec := out.spec
	to.bare = spec.Answer == AnswerBare
	retries := c.opts.Retries
	if spec.Write && (!spec.Idempotent || !c.opts.RetryIdempotentWrites) {
		retries = 0
	}
	defer c.pending.begin(ctx, out)()
	for attempt := 0; ; attempt++ {
		if to.reset != nil {
			to.reset()
		}
		a, err := c.gated(ctx, out, to)
		if err == nil {
			return a, nil
		}
		if attempt >= retries || !err.retry || ctx.Err() != nil {
			return a, &err.Error
		}
		if err.retryAfter > maxRetryAfter {
			return a, &err.Error
		}
		wait := c.backoff(attempt, err.retryAfter)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return a, &err.Error
		}
		c.log.WarnContext(ctx, "erp call failed, retrying", "action", spec.Label(), "attempt", attempt+1,
			"wait_seconds", wait.Seconds(), "error", err.Error.Error())
		c.pending.note(out, func(p *Pending) {
			p.SentAt, p.RetryAt, p.Error = time.Time{}, time.Now().Add(wait), err.Error.reason()
			p.Told = err.retryAfter > 0
		})
		if !pause(ctx, wait) {
			return a, &err.Error
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// backoff doubles from BackoffBase to BackoffMax, of which between a half and
// all is waited, so that several agents do not come back at once. The server's
// Retry-After is a lower bound.
func (c *Client) backoff(attempt int, retryAfter time.Duration) time.Duration {
	d := c.opts.BackoffMax
	if attempt < 30 && c.opts.BackoffBase<<attempt>>attempt == c.opts.BackoffBase {
		d = min(d, c.opts.BackoffBase<<attempt)
	}
	d = d/2 + rand.N(d/2+1)
	return max(d, retryAfter)
}

// failure is an Error with what the retry loop wants to know.
type failure struct {
	Error
	retry      bool
	retryAfter time.Duration
}

// gated waits for its turn, then does one attempt of a call that is pending and
// reports it.
func (c *Client) gated(ctx context.Context, out *outgoing, to sink) (*answer, *failure) {
	spec, lane := out.spec, out.spec.lane(ctx)
	c.pending.note(out, func(p *Pending) { p.Attempt, p.RetryAt = p.Attempt+1, time.Time{} })
	leave, f := c.enter(ctx, spec, lane)
	if f != nil {
		return nil, f
	}
	defer leave()
	if err := c.budget.take(ctx, lane); err != nil {
		return nil, c.fail(spec, 0, ErrUnavailable, "waiting for the request budget: "+err.Error(), ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return nil, c.fail(spec, 0, ErrUnavailable, "call ended by its caller", err)
	}
	if f := c.resting(spec); f != nil {
		return nil, f
	}
	begin := time.Now()
	c.pending.note(out, func(p *Pending) { p.SentAt = begin })
	var conn connection
	a, err := c.attempt(conn.follow(ctx, spec), out, to)
	if err != nil {
		err.Uncertain = spec.Write && conn.mayHaveSent() && err.undecided()
		if err.retryAfter > maxRetryAfter && !spec.Write {
			c.rest.begin(spec, lane, err, time.Now())
		}
	}
	if o := c.opts.Observer; o != nil {
		o.Call(spec.Label(), time.Since(begin), outcomeOf(err))
	}
	return a, err
}

func outcomeOf(err *failure) Outcome {
	switch {
	case err == nil:
		return OutcomeOK
	case errors.Is(err.cause, context.Canceled):
		return OutcomeCanceled
	case errors.Is(err.cause, context.DeadlineExceeded):
		return OutcomeTimeout
	case errors.Is(err.Kind, ErrPermission):
		return OutcomePermission
	case errors.Is(err.Kind, ErrNotFound):
		return OutcomeNotFound
	case errors.Is(err.Kind, ErrRefused):
		return OutcomeRefused
	case errors.Is(err.Kind, ErrMalformed):
		return OutcomeMalformed
	case errors.Is(err.Kind, ErrUnknownShape):
		return OutcomeUnknownShape
	}
	return OutcomeUnavailable
}

// fail makes a failure. text is redacted here, so callers pass it as it came.
func (c *Client) fail(spec *Action, status int, kind error, text string, cause error) *failure {
	return &failure{
		Error: Error{Action: spec.Label(), Status: status, Kind: kind, Text: c.redactor.text(text), cause: cause},
		retry: errors.Is(kind, ErrUnavailable),
	}
}

// address says how a call travels: key, cat and action in the query string;
// arguments there too, or in the form body of a write and of a long read. Writes
// are POSTed to every version: 3.21 takes nothing else, and the older ones take both.
func (c *Client) address(out *outgoing, key string) (method string, u url.URL, form string) {
	q := url.Values{"key": {key}, "cat": {out.spec.Category}, out.nameParameter: {out.spec.Name}}
	u = c.endpoint
	u.RawQuery = q.Encode()
	encoded := out.args.Encode()
	if out.spec.Write && c.opts.SkipInternalAPI {
		encoded = strings.TrimPrefix(encoded+"&skip_internal_api=1", "&")
	}
	switch {
	case out.spec.Write || len(u.String())+1+len(encoded) > maxURL:
		return http.MethodPost, u, encoded
	case encoded != "":
		u.RawQuery += "&" + encoded
	}
	return http.MethodGet, u, ""
}

// request builds the HTTP request.
func (c *Client) request(ctx context.Context, out *outgoing) (*http.Request, error) {
	method, u, form := c.address(out, string(c.opts.Key))
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("User-Agent", c.opts.UserAgent)
	return req, nil
}

// attempt is one request and its answer.
func (c *Client) attempt(parent context.Context, out *outgoing, to sink) (*answer, *failure) {
	spec := out.spec
	ctx, cancel := context.WithTimeout(parent, c.timeout(spec.lane(parent)))
	defer cancel()
	req, err := c.request(ctx, out)
	if err != nil {
		return nil, c.fail(spec, 0, ErrArgument, bareError(err), nil)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.network(parent, ctx, spec, 0, err)
	}
	defer resp.Body.Close()

	body := newBody(resp.Body, resp.Header, c.opts.MaxBody, c.opts.MaxText<<10)
	if raw := rawFrom(parent); raw != nil {
		*raw = Raw{Status: resp.StatusCode}
		body.raw = raw
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.errorAnswer(spec, resp, body, to)
	}
	a, err := body.decode(to)
	switch {
	case body.wire.err != nil: // the connection broke, or the time was over
		return a, c.network(parent, ctx, spec, resp.StatusCode, body.wire.err)
	case err != nil:
		return a, c.malformed(spec, resp.StatusCode, body, err)
	}
	return a, c.judge(spec, resp.StatusCode, a, to)
}

// judge turns a decoded 2xx answer into a failure unless it is OK. Only OK and
// true are success; everything else is not, whatever it says (API page section 2.3).
// Of a change, what says neither yes nor no is no refusal either.
func (c *Client) judge(spec *Action, status int, a *answer, to sink) *failure {
	switch {
	case to.bare && !a.marked && a.failure == "":
		return nil
	case !a.marked && a.failure == "" && a.message == "":
		f := c.fail(spec, status, ErrUnknownShape, "no result in the answer", nil)
		f.Fingerprint = c.redactor.redact(a.print.String())
		return f
	case a.ok && a.failure == "":
		return nil
	case to.missing != nil && to.missing(a):
		return c.fail(spec, status, ErrNotFound, a.text(), nil)
	case spec.Write && a.undecided():
		return c.fail(spec, status, ErrUnknownShape, a.text(), nil)
	}
	return c.fail(spec, status, ErrRefused, a.text(), nil)
}

// maxErrorAnswer bounds an answer with another status than 2xx, in bytes.
const maxErrorAnswer = 1 << 20

// errorAnswer turns an answer with another status than 2xx into a failure.
func (c *Client) errorAnswer(spec *Action, resp *http.Response, body *body, to sink) (*answer, *failure) {
	status := resp.StatusCode
	body.left = min(body.left, maxErrorAnswer)
	// The payload of a failure is no payload, but whether there was one matters for 404.
	a, err := body.decode(sink{})
	text := a.text()
	switch {
	case status >= 300 && status <= 399:
		where := "an unreadable place"
		if u, err := resp.Location(); err == nil {
			where = u.Scheme + "://" + u.Host
		}
		return a, c.fail(spec, status, ErrMalformed, "redirected to "+where+"; the url must name the API itself", nil)
	case err != nil:
		text = c.redactor.excerpt(body.head())
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return a, c.fail(spec, status, ErrPermission, text, nil)
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		wait := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		if wait > maxRetryAfter {
			text = fmt.Sprintf("asks to be left alone for %s: %s", wait.Round(time.Second), text)
		}
		f := c.fail(spec, status, ErrUnavailable, text, nil)
		f.retryAfter = wait
		return a, f
	case err != nil:
		return a, c.malformed(spec, status, body, err)
	case status == http.StatusNotFound && to.missing != nil && to.missing(a):
		return a, c.fail(spec, status, ErrNotFound, text, nil)
	}
	return a, c.fail(spec, status, ErrRefused, text, nil)
}

// retryAfter reads seconds or an HTTP date; 0 when there is none.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return time.Duration(min(n, 1<<20)) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// malformed describes a body that is no answer. Its beginning is shown when
// that is where the trouble is; deeper in, it is rows of customers.
func (c *Client) malformed(spec *Action, status int, body *body, err error) *failure {
	var syntax *syntaxError
	switch {
	case errors.As(err, &syntax):
		text := syntax.Error()
		if head, cut := body.head(); syntax.offset < 64 && len(head) > 0 {
			text += ": " + c.redactor.excerpt(head, cut)
		}
		return c.fail(spec, status, ErrMalformed, text, nil)
	case errors.Is(err, errTruncated):
		if body.read == 0 {
			return c.fail(spec, status, ErrMalformed, "empty answer", nil)
		}
		return c.fail(spec, status, ErrMalformed, fmt.Sprintf("truncated after %d bytes", body.read), nil)
	case errors.Is(err, errBodyLimit) && (status < 200 || status > 299) && c.opts.MaxBody > maxErrorAnswer:
		return c.fail(spec, status, ErrMalformed, fmt.Sprintf("answer is larger than %d bytes, which is the limit for one that refuses", maxErrorAnswer), ErrTooLarge)
	case errors.Is(err, errBodyLimit):
		return c.fail(spec, status, ErrMalformed, fmt.Sprintf("answer is larger than %d bytes (the limit is userside.max_answer_mib)", c.opts.MaxBody), ErrTooLarge)
	case errors.As(err, new(*limitError)):
		return c.fail(spec, status, ErrMalformed, err.Error(), ErrTooLarge)
	}
	return c.fail(spec, status, ErrMalformed, err.Error(), nil)
}

// network turns an error of the transport into a failure that no longer holds the URL.
func (c *Client) network(parent, ctx context.Context, spec *Action, status int, err error) *failure {
	var timeout net.Error
	switch {
	case parent.Err() != nil:
		return c.fail(spec, status, ErrUnavailable, "call ended by its caller", parent.Err())
	case ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout():
		return c.fail(spec, status, ErrUnavailable, fmt.Sprintf("no answer within %s", c.timeout(spec.lane(parent))), context.DeadlineExceeded)
	}
	return c.fail(spec, status, ErrUnavailable, bareError(err), nil)
}

// bareError returns the text of an error without the URL that package http puts around it.
func bareError(err error) string {
	for {
		var u *url.Error
		if !errors.As(err, &u) {
			return err.Error()
		}
		err = u.Err
	}
}

var errBodyLimit = errors.New("answer is too large")

// wireReader remembers why the connection ended, if it did not end well.
type wireReader struct {
	r   io.Reader
	err error
}

func (w *wireReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// body is the text of one answer: unpacked, in UTF-8, without byte order mark,
// bounded, and with its head kept for an excerpt.
type body struct {
	wire   wireReader
	header http.Header
	r      io.Reader
	left   int64
	read   int64
	start  []byte
	ended  bool
	max    struct{ text, tree int }
	raw    *Raw // nil: nobody wants it
}

// newBody bounds an answer: all of it, and each text in it.
func newBody(r io.Reader, header http.Header, limit int64, text int) *body {
	b := &body{wire: wireReader{r: r}, header: header, left: limit}
	b.max.text, b.max.tree = text, int(limit)
	return b
}

// decode reads the whole answer.
func (b *body) decode(to sink) (*answer, error) {
	var err error
	if b.r, err = unpacked(bufio.NewReader(&b.wire), b.header); err != nil {
		return &answer{}, err
	}
	text := bufio.NewReader(readerFunc(b.readText))
	if mark, _ := text.Peek(3); bytes.Equal(mark, []byte{0xef, 0xbb, 0xbf}) {
		_, _ = text.Discard(3)
	}
	s := newScanner(text)
	s.maxText, s.maxTree = b.max.text, b.max.tree
	a, err := readAnswer(s, to)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errTruncated // of the gzip stream; of the wire it is seen there
	}
	return a, err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (b *body) readText(p []byte) (int, error) {
	if b.left <= 0 {
		// One byte more tells an answer of exactly the limit from a longer one.
		var one [1]byte
		if n, err := io.ReadFull(b.r, one[:]); n == 0 {
			return 0, err
		}
		return 0, errBodyLimit
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	b.read += int64(n)
	b.ended = err != nil
	if b.raw != nil {
		b.raw.add(p[:n])
	}
	if keep := excerptWindow - len(b.start); keep > 0 {
		b.start = append(b.start, p[:min(n, keep)]...)
	}
	return n, err
}

// head returns the beginning of the body and whether there may be more. It reads
// on as far as an excerpt reaches.
func (b *body) head() ([]byte, bool) {
	var p [1024]byte
	for b.r != nil && !b.ended && len(b.start) < excerptWindow {
		if n, _ := b.readText(p[:]); n == 0 {
			break
		}
	}
	return b.start, !b.ended || b.read > int64(len(b.start))
}

// unknownShape is for an answer that is OK and says nothing we know.
func (c *Client) unknownShape(act action, a *answer, text string) error {
	f := c.fail(act.row(), http.StatusOK, ErrUnknownShape, text, nil)
	f.Fingerprint = c.redactor.redact(a.print.String())
	return &f.Error
}

// argument is for a call that cannot be right and is not sent.
func (c *Client) argument(act action, text string) error {
	return &c.fail(act.row(), 0, ErrArgument, text, nil).Error
}
