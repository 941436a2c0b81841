package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Bounds of a recording that is read. A line of the index holds a list of ids at most.
const (
	maxLine      = 8 << 20
	maxExchanges = 100_000
	maxTotal     = 4 << 30
)

// Set is a recording. It is an http.Handler of /api.php, safe for concurrent use.
type Set struct {
	exchanges []Exchange
	bodies    [][]byte
	byAction  map[string][]*call // in the order of the recording
	exact     map[string]*call   // by label and arguments
	labels    []string           // sorted

	mu sync.Mutex // guards next of every call
}

// call is a recorded call with its answers in order.
type call struct {
	args    map[string]string
	answers []int // into exchanges
	next    int
}

// Load reads a recording. An error says which file and line is wrong.
func Load(dir string) (*Set, error) {
	root, err := os.OpenRoot(dir) // a recording comes from somebody else: nothing outside of it is read
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	defer root.Close()
	index, err := root.Open(indexName)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	defer index.Close()
	s := &Set{byAction: map[string][]*call{}, exact: map[string]*call{}}
	if err := s.read(index, root); err != nil {
		return nil, fmt.Errorf("recording: %s%w", filepath.Join(dir, indexName), err)
	}
	return s, nil
}

// read reads the index; its errors begin with the line.
func (s *Set) read(index io.Reader, root *os.Root) error {
	lines := bufio.NewScanner(index)
	lines.Buffer(nil, maxLine)
	total := int64(0)
	number := 0
	for lines.Scan() {
		number++
		var err error
		switch {
		case number == 1:
			err = checkHeader(lines.Bytes())
		case len(bytes.TrimSpace(lines.Bytes())) == 0:
		default:
			err = s.add(lines.Bytes(), root, &total)
		}
		if err != nil {
			return fmt.Errorf(":%d: %w", number, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf(":%d: line is longer than %d bytes", number+1, maxLine)
	case err != nil:
		return fmt.Errorf(":%d: %w", number+1, err)
	case number == 0:
		return errors.New(":1: empty; want the first line of a recording")
	case len(s.exchanges) == 0:
		return fmt.Errorf(":%d: no exchange is recorded", number)
	}
	for label := range s.byAction {
		s.labels = append(s.labels, label)
	}
	slices.Sort(s.labels)
	return nil
}

func checkHeader(line []byte) error {
	var h header
	if err := strict(line, &h); err != nil {
		return fmt.Errorf("no header of a recording: %w", err)
	}
	if h.Format != formatName {
		return fmt.Errorf("format %q: want %s", h.Format, formatName)
	}
	if h.Version != formatVersion {
		return fmt.Errorf("version %d of the format: this program reads %d", h.Version, formatVersion)
	}
	return nil
}

func strict(line []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("text after the object")
	}
	return nil
}

func (s *Set) add(line []byte, root *os.Root, total *int64) error {
	var e Exchange
	if err := strict(line, &e); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return err
	}
	if len(s.exchanges) == maxExchanges {
		return fmt.Errorf("more than %d exchanges", maxExchanges)
	}
	if *total += e.Bytes; *total > maxTotal {
		return fmt.Errorf("answers are larger than %d bytes together", int64(maxTotal))
	}
	body, err := readBody(root, &e)
	if err != nil {
		return err
	}
	i := len(s.exchanges)
	s.exchanges, s.bodies = append(s.exchanges, e), append(s.bodies, body)
	label, args, key := normal(e.Category, e.Action, e.Args)
	c := s.exact[key]
	if c == nil {
		c = &call{args: args}
		s.exact[key] = c
		s.byAction[label] = append(s.byAction[label], c)
	}
	c.answers = append(c.answers, i)
	return nil
}

func (e *Exchange) check() error {
	switch {
	case e.Category == "" || e.Action == "":
		return errors.New("category or action is missing")
	case e.Method != http.MethodGet && e.Method != http.MethodPost:
		return fmt.Errorf("method %q: want GET or POST", e.Method)
	case e.Status == 0 && e.Failure != "timeout" && e.Failure != "connection":
		return fmt.Errorf("failure %q: want timeout or connection, for there is no status", e.Failure)
	case e.Status != 0 && (e.Status < 200 || e.Status > 599):
		return fmt.Errorf("status %d: want 200 to 599", e.Status)
	case e.Gzip != "" && e.Gzip != "announced" && e.Gzip != "unannounced":
		return fmt.Errorf("gzip %q: want announced or unannounced", e.Gzip)
	case e.ContentType != contentType(e.ContentType):
		return fmt.Errorf("content_type %q: not one that is recorded", e.ContentType)
	case e.Bytes < 0 || e.RetryAfter < 0 || !(e.TookSeconds >= 0):
		return errors.New("a size or time is negative")
	case e.Body == "" && e.Bytes != 0:
		return errors.New("bytes without a body")
	case e.Body != "" && (path.Base(e.Body) != e.Body || !filepath.IsLocal(e.Body) || strings.ContainsAny(e.Body, `/\`)):
		return fmt.Errorf("body %q: want the name of a file beside the index", e.Body)
	}
	return nil
}

func readBody(root *os.Root, e *Exchange) ([]byte, error) {
	if e.Body == "" {
		return nil, nil
	}
	f, err := root.Open(e.Body)
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("body: %s is no regular file", e.Body)
	}
	b, err := io.ReadAll(io.LimitReader(f, e.Bytes+1))
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if int64(len(b)) != e.Bytes {
		return nil, fmt.Errorf("body: %s does not have the %d bytes that the index says", e.Body, e.Bytes)
	}
	return b, nil
}

// Exchanges returns what is recorded, in order.
func (s *Set) Exchanges() []Exchange { return slices.Clone(s.exchanges) }

// Actions returns the recorded actions as category.action, sorted.
func (s *Set) Actions() []string { return slices.Clone(s.labels) }
