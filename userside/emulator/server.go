package emulator

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds the form of a request.
const maxBody = 8 << 20

// request is one call: query and form merged, as PHP does.
type request struct {
	params  map[string]string
	profile Profile
	quirks  *Quirks
	style   style
	loc     *time.Location
	now     time.Time
}

// answer is what a successful action sends.
type answer struct {
	// body writes the members that follow the marker; nil: the marker only.
	body func(*encoder)
	// bare writes the whole answer without envelope, as cat=module has it.
	bare func(*encoder)
}

// data answers with fn's value under the key data.
func data(fn func(*encoder)) answer {
	return answer{body: func(e *encoder) { e.key("data"); fn(e) }}
}

// apiError is an answer that is not OK. Its text is ours: the vendor publishes none.
type apiError struct {
	status int // HTTP status; the legacy profile sends 200
	text   string
}

func (e *apiError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &apiError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

// param gives a parameter, empty when it is not there.
func (r *request) param(name string) string { return r.params[name] }

// has reports whether a parameter is there and not empty.
func (r *request) has(name string) bool { return r.params[name] != "" }

// flag reads a parameter of the kind is_...: 1 is true.
func (r *request) flag(name string) bool { return r.params[name] == "1" }

// int reads a whole number.
func (r *request) int(name string) (int64, error) {
	n, err := strconv.ParseInt(r.params[name], 10, 64)
	if err != nil {
		return 0, badRequest("parameter %s: not a number", name)
	}
	return n, nil
}

// ids reads a list of ids separated by commas; each is given once.
func (r *request) ids(name string) ([]int64, error) {
	var out []int64
	seen := map[int64]bool{}
	for field := range strings.SplitSeq(r.params[name], ",") {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, badRequest("parameter %s: not a list of numbers", name)
		}
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out, nil
}

// date prints a time as the ERP does; day leaves out the time of day. Never is
// what a field has that was not set.
func (r *request) date(t time.Time) string {
	if t.IsZero() {
		return "1970-01-01 00:00:00"
	}
	return t.In(r.loc).Format(time.DateTime)
}

func (r *request) day(t time.Time) string {
	if t.IsZero() {
		return "1970-01-01"
	}
	return t.In(r.loc).Format(time.DateOnly)
}

// ServeHTTP answers /api.php by GET and POST; any other path is not found.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	q := e.quirks.Load()
	if !e.wait(hr.Context(), q.Delay) {
		return
	}
	switch {
	case e.isClosed():
		http.Error(w, "emulator is closed", http.StatusServiceUnavailable)
		return
	case hr.URL.Path != "/api.php":
		http.NotFound(w, hr)
		return
	case hr.Method != http.MethodGet && hr.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	params, err := parameters(w, hr)
	if err != nil {
		http.Error(w, "request too large or unreadable", http.StatusRequestEntityTooLarge)
		return
	}
	now := e.now()
	r := &request{params: params, profile: e.profile, quirks: q, style: styleOf(e.profile, q), loc: now.Location(), now: now}
	began := time.Now()
	out := &countingWriter{ResponseWriter: w}
	status := e.answer(out, hr, r)
	e.log.LogAttrs(hr.Context(), slog.LevelDebug, "api call",
		slog.String("method", hr.Method), slog.String("params", loggable(params)), slog.Int("status", status),
		slog.Int64("bytes", out.n), slog.Float64("duration_seconds", time.Since(began).Seconds()))
}

// wait lets d pass; false when the client or the emulator is gone before.
func (e *Emulator) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-e.done:
		return true // ServeHTTP says that it is closed
	}
}

func (e *Emulator) isClosed() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// parameters merges query and form; the form wins, and of several values the
// last, as in PHP. What cannot be decoded is left out.
func parameters(w http.ResponseWriter, hr *http.Request) (map[string]string, error) {
	query, _ := url.ParseQuery(hr.URL.RawQuery) // keeps the pairs that it could read
	out := map[string]string{}
	merge := func(v url.Values) {
		for k, vs := range v {
			out[k] = vs[len(vs)-1]
		}
	}
	merge(query)
	if hr.Method != http.MethodPost {
		return out, nil
	}
	hr.Body = http.MaxBytesReader(w, hr.Body, maxBody)
	// The first knows of a form that is too large, the second of other kinds of
	// form; all their other complaints are PHP's to overlook.
	err := errors.Join(hr.ParseForm(), hr.ParseMultipartForm(maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, err
	}
	merge(hr.PostForm)
	return out, nil
}

// loggable prints parameters without secrets, in a fixed order.
func loggable(params map[string]string) string {
	v := url.Values{}
	for k, val := range params {
		switch {
		case k == "key" || k == "api" || strings.HasPrefix(k, "pass"):
			val = "[redacted]"
		case len(val) > 100:
			val = val[:100] + "..."
		}
		v.Set(k, val)
	}
	s, err := url.QueryUnescape(v.Encode())
	if err != nil {
		return v.Encode()
	}
	return s
}

// answer sends the answer to w and gives its HTTP status.
func (e *Emulator) answer(w http.ResponseWriter, hr *http.Request, r *request) int {
	q := r.quirks
	if q.HTMLPage != 0 {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(q.HTMLPage)
		_, _ = io.WriteString(w, htmlPage(q.HTMLPage)) // the client's loss
		return q.HTMLPage
	}
	act, ans, err := e.call(hr, r)
	status := e.status(r, &err)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	// An error here is a client that went away.
	_ = dress(w, r, func(w io.Writer) error {
		enc := newEncoder(w, r.style)
		switch {
		case err != nil:
			enc.refusal(r.profile, err)
		case q.HookAnswer && act.write:
			enc.object(func() { enc.strField("result", "0"); enc.strField("msg", "done by hook") })
		case ans.bare != nil:
			ans.bare(enc)
		default:
			enc.success(r.profile, ans.body)
		}
		return enc.flush()
	})
	return status
}

// status gives the HTTP status of the outcome of an action, and replaces an
// error that is not for the client.
func (e *Emulator) status(r *request, err *error) int {
	status := http.StatusOK
	var refused *apiError
	switch {
	case errors.As(*err, &refused):
		status = refused.status
	case errors.Is(*err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(*err, ErrClosed):
		status = http.StatusServiceUnavailable
	case *err != nil:
		e.log.Error("api call failed", "err", *err)
		status, *err = http.StatusInternalServerError, errors.New("internal error")
	}
	if r.profile == ProfileLegacy {
		return http.StatusOK
	}
	return status
}

// dress sends what write writes, with the quirks that work on bytes.
func dress(w io.Writer, r *request, write func(io.Writer) error) error {
	q := r.quirks
	plain := write
	write = func(w io.Writer) error {
		if q.BOM {
			if _, err := io.WriteString(w, "\ufeff"); err != nil {
				return err
			}
		}
		if q.PHPWarning {
			if _, err := io.WriteString(w, phpWarning); err != nil {
				return err
			}
		}
		return plain(w)
	}
	if q.Truncated {
		whole := write
		write = func(w io.Writer) error {
			var b bytes.Buffer
			if err := whole(&b); err != nil {
				return err
			}
			_, err := w.Write(b.Bytes()[:b.Len()/2])
			return err
		}
	}
	if q.GzipNoHeader && r.param("gz") != "disable" {
		z := gzip.NewWriter(w)
		if err := write(z); err != nil {
			return err
		}
		return z.Close()
	}
	return write(w)
}

const phpWarning = "<br />\n<b>Warning</b>:  Undefined array key &quot;comment&quot; in <b>/var/www/erp/api.php</b> on line <b>214</b><br />\n"

func htmlPage(status int) string {
	if status == http.StatusOK {
		return "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><form method=\"post\" action=\"/oper/\">" +
			"<input name=\"login\"><input name=\"password\" type=\"password\"></form></body></html>\n"
	}
	return fmt.Sprintf("<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n<center><h1>%[1]d %[2]s</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
		status, http.StatusText(status))
}

// success writes the envelope of an OK answer.
func (e *encoder) success(p Profile, body func(*encoder)) {
	e.object(func() {
		e.strField(envelope(p, "result"), "OK")
		if body != nil {
			body(e)
		}
	})
}

// refusal writes the envelope of an error.
func (e *encoder) refusal(p Profile, err error) {
	e.object(func() {
		e.strField(envelope(p, "result"), "ERROR")
		e.strField(envelope(p, "error"), err.Error())
	})
}

// envelope gives the name of an envelope key in a profile (API page, section 2.1).
func envelope(p Profile, key string) string {
	if p != ProfileLegacy {
		return key
	}
	switch key {
	case "result":
		return "Result"
	case "error":
		return "ErrorText"
	default:
		return key
	}
}

// call finds and runs the action.
func (e *Emulator) call(hr *http.Request, r *request) (*action, answer, error) {
	cat, name := category(r)
	act := e.actions[cat+"."+name]
	if act == nil {
		e.calls.add("unknown")
	} else {
		e.calls.add(act.name())
	}
	if err := e.authorize(hr, r, cat); err != nil {
		e.calls.add("refused")
		return nil, answer{}, err
	}
	if act == nil || slices.Contains(r.quirks.MissingActions, cat+"."+name) {
		return nil, answer{}, badRequest("unknown action")
	}
	if act.write && r.profile == ProfileV321 && hr.Method != http.MethodPost {
		return nil, answer{}, &apiError{http.StatusMethodNotAllowed, "requests that change data must be sent by POST"}
	}
	if _, old := r.params["usercode"]; old && r.profile == ProfileLegacy && !r.has("customer_id") {
		r.params["customer_id"] = r.params["usercode"]
	}
	for _, p := range act.need {
		if !r.has(p) {
			return nil, answer{}, badRequest("parameter %s is missing", p)
		}
	}
	ans, err := act.run(e, r)
	return act, ans, err
}

// category gives cat and action by today's names: abon is customer, and the
// action may come as subcat, in cat=module as request.
func category(r *request) (cat, name string) {
	cat = r.param("cat")
	if cat == "abon" {
		cat = "customer"
	}
	if cat == "module" {
		return cat, r.param("request")
	}
	if name = r.param("action"); name == "" {
		name = r.param("subcat")
	}
	return cat, name
}

// authorize checks the key, where it comes from and what it may see (API page,
// section 1.1).
func (e *Emulator) authorize(hr *http.Request, r *request, cat string) error {
	refuse := func(text string) error { return &apiError{http.StatusForbidden, text} }
	if r.quirks.Forbidden {
		return refuse("access denied")
	}
	from, err := netip.ParseAddrPort(hr.RemoteAddr)
	if err != nil {
		from = netip.AddrPort{} // a test without a network: passes for "*" only
	}
	known, here := false, false
	for _, k := range e.keys {
		if subtle.ConstantTimeCompare([]byte(k.Key), []byte(r.param("key"))) != 1 {
			continue
		}
		known = true
		if !k.from(from.Addr()) {
			continue
		}
		here = true
		if k.section(cat) {
			return nil
		}
	}
	switch {
	case !known:
		return refuse("unknown key")
	case !here:
		return refuse("this key may not be used from your address")
	default:
		return refuse("this key may not use the section")
	}
}

// countingWriter counts the bytes of an answer.
type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}
