package emulator

import (
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/userside"
)

// maxBody bounds the form of a request.
const maxBody = 8 << 20

// request is one call: query and form merged, as PHP does.
type request struct {
	params  map[string]string
	cat     string // category by today's name
	act     *action
	profile Profile
	version userside.Version
	quirks  *Quirks
	style   style
	loc     *time.Location
	now     time.Time
}

// param returns a parameter, empty when it is not there.
func (r *request) param(name string) string { return r.params[name] }

// has reports whether a parameter is there and not empty.
func (r *request) has(name string) bool { return r.params[name] != "" }

// flag reads a parameter of the kind is_...: 1 is true.
func (r *request) flag(name string) bool { return r.params[name] == "1" }

// int reads a whole number.
func (r *request) int(name string) (int64, error) {
	n, err := strconv.ParseInt(r.params[name], 10, 64)
	if err != nil {
		return 0, badRequest("parameter %s: not a number", r.wire(name))
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
			return nil, badRequest("parameter %s: not a list of numbers", r.wire(name))
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
	p := e.Profile()
	r := &request{params: params, profile: p, version: p.Version(), quirks: q, style: styleOf(p, q), loc: now.Location(), now: now}
	began := time.Now()
	out := &countingWriter{ResponseWriter: w}
	status := e.respond(out, hr, r)
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

// respond sends the answer to w and gives its HTTP status.
func (e *Emulator) respond(w http.ResponseWriter, hr *http.Request, r *request) int {
	q := r.quirks
	if q.HTMLPage != 0 {
		webPage(w, q.HTMLPage)
		return q.HTMLPage
	}
	fault := q.faultOf(r)
	if status, done := e.failed(w, hr, r, fault); done {
		return status
	}
	act, ans, err := e.call(hr, r)
	if q.LostAnswers && err == nil && act.write {
		panic(http.ErrAbortHandler) // the server closes the connection and says nothing of it
	}
	status := e.status(r, &err)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	// An error here is a client that went away.
	_ = dress(w, r, fault.spoil(func(w io.Writer) error {
		enc := newEncoder(w, r.style)
		switch {
		case err != nil:
			enc.refusal(r.profile, err)
		case fault == FaultEmpty, fault == FaultGarbage:
			enc.success(r.profile, fault.payload)
		case q.HookAnswer && act.write:
			enc.object(func() { enc.strField("result", "0"); enc.strField("msg", "done by hook") })
		case ans.bare != nil:
			ans.bare(enc)
		default:
			enc.success(r.profile, ans.body)
		}
		return enc.flush()
	}))
	return status
}

// status returns the HTTP status of the outcome of an action, and replaces an
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
	if r.profile.old() {
		return http.StatusOK
	}
	return status
}

// call finds and runs the action.
func (e *Emulator) call(hr *http.Request, r *request) (*action, answer, error) {
	cat, name := r.category()
	r.cat = cat
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
	if act == nil || !r.version.Has(act.since, act.until) || slices.Contains(r.quirks.MissingActions, cat+"."+name) {
		return nil, answer{}, badRequest("unknown action")
	}
	if act.write && r.profile == ProfileV321 && hr.Method != http.MethodPost {
		return nil, answer{}, &apiError{http.StatusMethodNotAllowed, "requests that change data must be sent by POST"}
	}
	r.act = act
	r.rename()
	for _, p := range act.need {
		if !r.has(p) {
			return nil, answer{}, badRequest("parameter %s is missing", r.wire(p))
		}
	}
	ans, err := act.run(e, r)
	return act, ans, err
}

// rename gives the parameters of cat=customer the names they have today.
func (r *request) rename() {
	if r.cat != "customer" {
		return
	}
	for _, p := range renamings() {
		if !r.version.Before(p.until) || !r.strict(p) && r.has(p.name) {
			continue
		}
		delete(r.params, p.name)
		if v, ok := r.params[p.was]; ok {
			r.params[p.name] = v
		}
	}
}

// renaming is a parameter that had another name before the version until.
type renaming struct {
	name, was string
	until     userside.Version
}

// strict reports whether the emulated server knows the old name alone.
func (r *request) strict(p renaming) bool {
	return r.profile == Profile316 && (p.was != "usercode" || r.act != nil && r.act.usercode())
}

// renamings are those of cat=customer. The API page notes usercode at some
// actions only: the others take both names, for nothing is known of them.
func renamings() []renaming {
	return []renaming{
		{"customer_id", "usercode", level("3.17")},
		{"employee_id", "operator_id", level("3.16dev2")},
	}
}

// wire returns the name that the emulated server has for a parameter, or for a
// field of that name.
func (r *request) wire(name string) string {
	if r.cat == "customer" {
		for _, p := range renamings() {
			if p.name == name && r.strict(p) {
				return p.was
			}
		}
	}
	return name
}

// before reports whether the emulated server is older than a version.
func (r *request) before(version string) bool { return r.version.Before(level(version)) }

// category returns cat and action by today's names: abon is customer, and the
// action may come as subcat, in cat=module as request. Profile316 has subcat
// alone in cat=customer; other categories had action early.
func (r *request) category() (cat, name string) {
	cat = r.param("cat")
	if cat == "abon" {
		cat = "customer"
	}
	if cat == "module" {
		return cat, r.param("request")
	}
	if name = r.param("action"); name == "" || cat == "customer" && r.profile == Profile316 {
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
