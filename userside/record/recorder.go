package record

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// indexName is the file that lists the exchanges of a recording.
const indexName = "index.jsonl"

// formatName and formatVersion are in the first line of the index.
const (
	formatName    = "usher-erp-recording"
	formatVersion = 1
)

// header is the first line of the index.
type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Agent   string `json:"agent,omitempty"` // what recorded it
}

// Exchange is one call and its answer, as in a line of the index.
type Exchange struct {
	Number   int               `json:"number"` // from 1
	Method   string            `json:"method"` // GET or POST
	Category string            `json:"category"`
	Action   string            `json:"action"`
	Named    string            `json:"named"` // parameter that named the action: action, subcat or request
	Args     map[string]string `json:"args"`  // masked; without the key

	Status      int     `json:"status"`                 // 0: no answer came
	ContentType string  `json:"content_type,omitempty"` // empty: none, or one that is not known
	RetryAfter  int     `json:"retry_after_seconds,omitempty"`
	Gzip        string  `json:"gzip,omitempty"`    // announced, unannounced; empty: not compressed
	Cut         bool    `json:"cut,omitempty"`     // the connection, or the gzip stream, ended before the answer did
	Failure     string  `json:"failure,omitempty"` // with status 0: timeout or connection
	Body        string  `json:"body,omitempty"`    // file beside the index; empty: no body
	Bytes       int64   `json:"bytes"`             // of the file: unpacked and masked
	TookSeconds float64 `json:"took_seconds"`
}

// Label returns category and action with a dot between.
func (e *Exchange) Label() string { return e.Category + "." + e.Action }

// mostBody bounds an answer whatever the options say: it is held whole, packed, unpacked and masked.
const mostBody = 128 << 20

// Options say where a Recorder writes.
type Options struct {
	Dir     string            // made if it is not there; must be empty
	Next    http.RoundTripper // carries the requests
	Agent   string            // named in the recording, such as usher/1.2
	MaxBody int64             // bytes of one unpacked answer; 128 MiB, and no more
	// Saved is called after each exchange has been written; nil: nobody.
	Saved func(Exchange)
}

// Recorder is an http.RoundTripper that saves a masked copy of every exchange.
// It is safe for concurrent use. When an exchange cannot be saved, that and
// every later call fails.
type Recorder struct {
	opts Options
	mask *masker

	mu    sync.Mutex // guards what follows; one exchange is saved at a time
	index *os.File
	next  int
	bytes int64
	err   error
}

// NewRecorder makes the directory and begins its index. What names a customer is
// masked with a key that is drawn here and never written.
func NewRecorder(o Options) (*Recorder, error) {
	if o.Next == nil {
		return nil, errors.New("record: no transport")
	}
	if o.MaxBody == 0 || o.MaxBody > mostBody {
		o.MaxBody = mostBody
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	found, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if len(found) > 0 {
		return nil, fmt.Errorf("record: %s is not empty", o.Dir)
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	r := &Recorder{opts: o, mask: newMasker(secret), next: 1}
	r.index, err = os.OpenFile(filepath.Join(o.Dir, indexName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if err := r.line(header{formatName, formatVersion, o.Agent}); err != nil {
		return nil, errors.Join(fmt.Errorf("record: %w", err), r.index.Close())
	}
	return r, nil
}

func (r *Recorder) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	n, err := r.index.Write(append(b, '\n'))
	r.bytes += int64(n)
	return err
}

// Size returns how many exchanges were saved and the bytes of all files.
func (r *Recorder) Size() (exchanges int, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next - 1, r.bytes
}

// Close ends the recording. It reports an exchange that could not be saved.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.index == nil {
		return r.err
	}
	err := errors.Join(r.err, r.index.Sync(), r.index.Close())
	r.index, r.err = nil, errors.Join(r.err, os.ErrClosed)
	return err
}

// RoundTrip sends the request on, saves the exchange and gives the answer as it came.
func (r *Recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	broken := r.err
	r.mu.Unlock()
	if broken != nil {
		return nil, fmt.Errorf("recording has ended: %w", broken)
	}
	form, err := formOf(req)
	if err != nil {
		return nil, err
	}
	e := r.describe(req, form)
	begin := time.Now()
	resp, err := r.opts.Next.RoundTrip(req)
	if err != nil {
		e.TookSeconds = time.Since(begin).Seconds()
		e.Failure = "connection"
		var timeout net.Error
		if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
			e.Failure = "timeout"
		}
		if saveErr := r.save(e, nil); saveErr != nil {
			return nil, saveErr
		}
		return nil, err
	}
	wire, readErr := io.ReadAll(io.LimitReader(resp.Body, r.opts.MaxBody+1))
	closeErr := resp.Body.Close()
	e.TookSeconds = time.Since(begin).Seconds()
	e.Status = resp.StatusCode
	e.ContentType = contentType(resp.Header.Get("Content-Type"))
	e.RetryAfter, _ = strconv.Atoi(resp.Header.Get("Retry-After")) // 0 for a date
	e.Cut = readErr != nil || closeErr != nil
	body, err := r.unpack(e, resp.Header.Get("Content-Encoding"), wire)
	if err == nil {
		err = r.save(e, body)
	}
	if err != nil {
		return nil, r.fail(err)
	}
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(wire), failing{readErr}))
	return resp, nil
}

// failing is the end of an answer that broke off.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

func (r *Recorder) fail(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	return r.err
}

// formOf returns the parameters of query and body, the body's last.
func formOf(req *http.Request) (url.Values, error) {
	form := req.URL.Query()
	if req.GetBody == nil {
		return form, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	more, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, errors.New("request body is no form")
	}
	for k, v := range more {
		form[k] = v
	}
	return form, nil
}

// describe returns the masked call.
func (r *Recorder) describe(req *http.Request, form url.Values) *Exchange {
	c := callOf(form)
	e := &Exchange{Method: req.Method, Category: c.category, Action: c.action, Named: c.named, Args: make(map[string]string, len(c.args))}
	r.mask.mu.Lock()
	defer r.mask.mu.Unlock()
	r.mask.key = form.Get("key")
	if !isName(e.Category) {
		e.Category = r.mask.argument(e.Category, plain)
	}
	if !isName(e.Action) {
		e.Action = r.mask.argument(e.Action, plain)
	}
	for k, v := range c.args {
		class, known := classOf(strings.ToLower(k))
		if !known && !r.mask.isVocabulary(k) {
			k = r.mask.text(units(k, false), false)
		}
		e.Args[k] = r.mask.argument(v, class)
	}
	return e
}

// argument masks the value of a parameter, which is text without escapes.
func (m *masker) argument(v string, c class) string {
	if c == plain || c == message {
		return m.text(units(v, false), c == message)
	}
	return m.value(v, c, true)
}

// contentType keeps the media types that say what an answer is, and their charset.
func contentType(s string) string {
	media, params, err := mime.ParseMediaType(s)
	known := []string{"application/json", "text/html", "text/plain", "text/json", "text/javascript", "application/javascript", "application/octet-stream", "application/xml", "text/xml"}
	if err != nil || !slices.Contains(known, media) {
		return ""
	}
	if c := strings.ToLower(params["charset"]); slices.Contains([]string{"utf-8", "windows-1251", "koi8-r", "koi8-u", "iso-8859-1", "us-ascii"}, c) {
		return media + "; charset=" + c
	}
	return media
}

// unpack returns the text of an answer: unpacked if it is gzip, announced or not.
func (r *Recorder) unpack(e *Exchange, encoding string, wire []byte) ([]byte, error) {
	tooLarge := fmt.Errorf("answer of %s is larger than %d bytes (the limit is userside.max_answer_mib, and at most %d bytes for a recording)", e.Label(), r.opts.MaxBody, mostBody)
	if int64(len(wire)) > r.opts.MaxBody {
		return nil, tooLarge
	}
	if !bytes.HasPrefix(wire, []byte{0x1f, 0x8b}) {
		return wire, nil
	}
	e.Gzip = "unannounced"
	if encoding != "" {
		e.Gzip = "announced"
	}
	z, err := gzip.NewReader(bytes.NewReader(wire))
	if err != nil {
		e.Cut = true
		return nil, nil // only a beginning of its header came
	}
	text, err := io.ReadAll(io.LimitReader(z, r.opts.MaxBody+1))
	e.Cut = e.Cut || err != nil
	if int64(len(text)) > r.opts.MaxBody {
		return nil, tooLarge
	}
	return text, nil
}

// save masks and writes one exchange.
func (r *Recorder) save(e *Exchange, body []byte) error {
	masked := r.mask.body(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	e.Number = r.next
	if err := r.write(e, masked); err != nil {
		r.err = fmt.Errorf("record: %w", err)
		return r.err
	}
	r.next++
	if r.opts.Saved != nil {
		r.opts.Saved(*e)
	}
	return nil
}

func (r *Recorder) write(e *Exchange, body []byte) error {
	e.Bytes = int64(len(body))
	if len(body) > 0 {
		ext := "txt"
		if b := bytes.TrimLeft(body, "\xef\xbb\xbf \t\r\n"); len(b) > 0 && (b[0] == '{' || b[0] == '[') {
			ext = "json"
		}
		name := "answer"
		if isName(e.Category) && isName(e.Action) {
			name = e.Label()
		}
		e.Body = fmt.Sprintf("%04d-%s.%s", e.Number, name, ext)
		f, err := os.OpenFile(filepath.Join(r.opts.Dir, e.Body), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(body)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		r.bytes += e.Bytes
	}
	return r.line(e)
}
