package record

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxForm bounds the form of a request.
const maxForm = 8 << 20

// replayHeader says in the answer how it was found: exact, nearest or none.
const replayHeader = "X-Usher-Replay"

// request is a call without the key.
type request struct {
	category, action string
	named            string // parameter that named the action
	args             map[string]string
}

// callOf sorts the parameters: of several values of one the last counts, as in PHP.
func callOf(form url.Values) request {
	r := request{args: map[string]string{}}
	last := func(name string) string {
		v := form[name]
		if len(v) == 0 {
			return ""
		}
		return v[len(v)-1]
	}
	r.category = last("cat")
	names := []string{"action", "subcat"}
	if r.category == "module" {
		names = []string{"request", "action", "subcat"}
	}
	for _, name := range names {
		if r.named == "" && last(name) != "" {
			r.named, r.action = name, last(name)
		}
	}
	for name := range form {
		switch name {
		case "key", "api", "cat", "action", "subcat":
		case "request":
			if r.category != "module" {
				r.args[name] = last(name)
			}
		default:
			r.args[name] = last(name)
		}
	}
	return r
}

// normal returns action and arguments by today's names, and both as one text.
func normal(category, action string, args map[string]string) (label string, out map[string]string, key string) {
	if category == "abon" {
		category = "customer"
	}
	label = category + "." + action
	out = make(map[string]string, len(args))
	form := url.Values{}
	for k, v := range args {
		switch {
		case k == "skip_internal_api":
			continue
		case k == "usercode" && args["customer_id"] == "":
			k = "customer_id"
		}
		out[k] = v
		form.Set(k, v)
	}
	return label, out, label + "?" + form.Encode()
}

// ServeHTTP answers /api.php from the recording. The method and the key of a
// call do not matter. A call with arguments that were not recorded gets the
// answer of the one that is nearest to them; an action that was not recorded
// gets 404.
func (s *Set) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api.php" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "request too large or unreadable", http.StatusBadRequest)
		return
	}
	form := r.URL.Query()
	maps.Copy(form, r.PostForm)
	c := callOf(form)
	i, how := s.find(c)
	w.Header().Set(replayHeader, how)
	if i < 0 {
		s.notRecorded(w, c)
		return
	}
	s.send(w, i)
}

// find returns the index of the answer, and whether it is the exact one.
func (s *Set) find(c request) (index int, how string) {
	label, args, key := normal(c.category, c.action, c.args)
	s.mu.Lock()
	defer s.mu.Unlock()
	best, how := s.exact[key], "exact"
	if best == nil {
		how = "nearest"
		bestScore := 0.0
		for _, k := range s.byAction[label] {
			if score := likeness(k.args, args); best == nil || score > bestScore {
				best, bestScore = k, score
			}
		}
	}
	if best == nil {
		return -1, "none"
	}
	index = best.answers[min(best.next, len(best.answers)-1)]
	best.next++
	return index, how
}

// likeness counts what two sets of arguments share, less what only one has. Of
// lists the shared part counts.
func likeness(a, b map[string]string) float64 {
	score := 0.0
	for k, v := range a {
		w, ok := b[k]
		switch {
		case !ok:
			score--
		case v == w:
			score += 2
		default:
			score += 2 * overlap(v, w)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			score--
		}
	}
	return score
}

func overlap(a, b string) float64 {
	in := map[string]bool{}
	for id := range strings.SplitSeq(a, ",") {
		in[id] = true
	}
	shared, all := 0, len(in)
	for id := range strings.SplitSeq(b, ",") {
		if in[id] {
			shared++
		} else {
			all++
		}
	}
	return float64(shared) / float64(max(all, 1))
}

// notRecorded says what is there instead.
func (s *Set) notRecorded(w http.ResponseWriter, c request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	_ = json.NewEncoder(w).Encode(map[string]string{ // an error is a client that went away
		"result": "ERROR",
		"error":  fmt.Sprintf("%.40s.%.40s is not in this recording, which has: %s", c.category, c.action, strings.Join(s.labels, ", ")),
	})
}

// send sends an answer as it was received.
func (s *Set) send(w http.ResponseWriter, i int) {
	e, body := &s.exchanges[i], s.bodies[i]
	if e.Status == 0 {
		panic(http.ErrAbortHandler) // there was no answer
	}
	h := w.Header()
	h["Content-Type"] = nil // none is an answer too: nothing is guessed
	if e.ContentType != "" {
		h.Set("Content-Type", e.ContentType)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if e.Gzip != "" {
		body = pack(body)
		if e.Cut {
			body = body[:max(0, len(body)-8)] // without its check sum the stream has no end
		}
		if e.Gzip == "announced" {
			h.Set("Content-Encoding", "gzip")
		}
	}
	if e.Cut && e.Gzip == "" {
		h.Set("Content-Length", strconv.Itoa(len(body)+1))
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // an error is a client that went away
	if e.Cut && e.Gzip == "" {
		_ = http.NewResponseController(w).Flush() // what came must leave before the connection breaks
		panic(http.ErrAbortHandler)
	}
}

func pack(body []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(body) // a buffer takes everything
	_ = z.Close()
	return b.Bytes()
}
