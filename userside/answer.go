package userside

import (
	"bytes"
	"strconv"
	"strings"
)

// answer is the envelope of one response, both generations (API page section
// 2.1). Keys are matched without case; the first non-empty one wins.
type answer struct {
	bare    bool // the document is no object, so there is no envelope
	marked  bool // there was a result
	ok      bool // and it said OK
	no      bool // and it was false
	marker  string
	failure string // error, ErrorText
	message string // msg
	ids     IDs    // Id
	payload bool   // data held something

	list    string // scalar under data or list
	scalars []Entry[String]
	print   fingerprint
}

// sink takes the payload of an answer. The zero sink drops it.
type sink struct {
	// member is called for each member of the payload. key is nil in a list; both
	// are good during the call only.
	member func(key []byte, index int, v value)
	// ids tells how many ids of the members are kept, which are not to be too many.
	ids func() int
	// whole is called instead of member, with the payload as one value.
	whole func(v value)
	// reset forgets what came, before another attempt.
	reset func()
	// descend makes members with a wrapper's name (rows, list...) part of the payload.
	descend bool
	// bare says that there is no envelope: what is no failure is payload, member by member.
	bare bool
	// missing says that a refusal with this answer means "not found".
	missing func(a *answer) bool
}

const maxScalars = 64

// readAnswer decodes one response from s while it arrives.
func readAnswer(s *scanner, to sink) (*answer, error) {
	a := &answer{}
	c, err := s.peek()
	if err != nil {
		return a, err
	}
	if c != '{' && c != '[' {
		return a, s.bad("no JSON document")
	}
	r := answerReader{answer: a, s: s, to: to}
	if c == '[' {
		a.bare = true
		err = r.readPayload()
	} else if to.bare {
		err = s.members(r.bareMember)
	} else {
		err = s.members(r.member)
	}
	if err != nil {
		return a, err
	}
	return a, s.finish()
}

type answerReader struct {
	*answer
	s    *scanner
	to   sink
	tree tree
}

func (r *answerReader) member(key []byte, _ int) error {
	c, err := r.s.peek()
	if err != nil {
		return err
	}
	composite := c == '{' || c == '['
	name := strings.ToLower(string(key))
	switch name {
	case "data", "list":
		if composite {
			return r.readPayload()
		}
	case "result", "error", "errortext", "error_text", "msg", "message", "id":
	default:
		if composite {
			return r.readPayload() // an own key in place of data
		}
	}
	v, err := r.tree.read(r.s)
	if err != nil {
		return err
	}
	switch name {
	case "data", "list":
		if r.list == "" && !v.empty() {
			r.list = v.text()
			r.payload = true
		}
	case "result":
		if r.marker == "" {
			r.marked = true
			r.ok = v.kind() == kindBool && !v.empty() || v.kind() == kindString && strings.EqualFold(v.text(), "ok")
			r.no = v.kind() == kindBool && v.empty()
			r.marker = v.text()
		}
	case "error", "errortext", "error_text":
		keepFirst(&r.failure, errorText(v))
	case "msg", "message":
		keepFirst(&r.message, errorText(v))
	case "id":
		if len(r.ids) == 0 {
			r.ids, _ = v.ids() // what is no id is as good as absent
		}
	default:
		if len(r.scalars) < maxScalars {
			text, _ := v.string()
			r.scalars = append(r.scalars, Entry[String]{Key: string(key), Value: text})
		}
	}
	return nil
}

// bareMember reads a member of an answer of cat=module, which has no envelope
// unless it failed. A payload in an envelope is taken all the same.
func (r *answerReader) bareMember(key []byte, index int) error {
	c, err := r.s.peek()
	if err != nil {
		return err
	}
	composite := c == '{' || c == '['
	switch strings.ToLower(string(key)) {
	case "data":
		if composite {
			return r.readPayload()
		}
	case "result", "error", "errortext", "error_text":
		if !composite {
			return r.member(key, index)
		}
	}
	v, err := r.tree.read(r.s)
	if err != nil {
		return err
	}
	r.payload = true
	if index < 50 {
		r.print.add("data."+maskKey(key), v)
	}
	if r.to.member != nil {
		r.to.member(key, index, v)
	}
	return nil
}

func keepFirst(dst *string, s string) {
	if *dst == "" {
		*dst = s
	}
}

// errorText returns what an error member says; 0, false and empty ones say nothing.
func errorText(v value) string {
	switch v.kind() {
	case kindBool, kindNumber, kindString:
		s := v.text()
		if v.empty() || s == "0" {
			return ""
		}
		if v.kind() == kindBool {
			return "error without text"
		}
		return String(s).Text()
	case kindArray, kindObject:
		var parts []string
		for m := range v.all {
			if s := errorText(m); s != "" && len(parts) < 8 {
				parts = append(parts, s)
			}
		}
		return strings.Join(parts, ", ")
	default:
		return ""
	}
}

// readPayload hands the array or object that comes next to the sink. Once a
// payload has held something, further ones are dropped: first non-empty wins.
func (r *answerReader) readPayload() error {
	dropped := r.payload && !r.to.descend
	if r.to.whole != nil {
		v, err := r.tree.read(r.s)
		if err != nil || dropped || v.empty() {
			return err
		}
		r.payload = true
		r.print.add("data", v)
		r.to.whole(v)
		return nil
	}
	return r.stream("data", dropped, 0)
}

// stream reads member by member, each into the one tree.
func (r *answerReader) stream(path string, dropped bool, depth int) error {
	return r.s.members(func(key []byte, index int) error {
		if r.to.descend && depth < 3 && isWrapper(key) {
			c, err := r.s.peek()
			if err != nil {
				return err
			}
			if c == '{' || c == '[' {
				return r.stream(path+"."+string(key), dropped, depth+1)
			}
		}
		isList := key == nil
		v, err := r.tree.read(r.s)
		if err != nil || dropped {
			return err
		}
		r.payload = true
		if index < 50 {
			if isList {
				r.print.add(path+"[]", v)
			} else {
				r.print.add(path+"."+maskKey(key), v)
			}
		}
		if r.to.member != nil {
			r.to.member(key, index, v)
		}
		return r.roomForIDs()
	})
}

// idsShare is which part of the limit of an answer the ids of a list may take: one of two
// bytes takes eight.
const idsShare = 4

// roomForIDs refuses a list of too many ids.
func (r *answerReader) roomForIDs() error {
	most := max(r.s.maxTree/idsShare, 64<<10)
	if r.to.ids == nil || r.s.maxTree == 0 || 8*r.to.ids() <= most {
		return nil
	}
	return &limitError{offset: r.s.offset(), what: "the ids together take more than", limit: int64(most), key: "max_answer_mib, a quarter of it"}
}

// isWrapper knows keys that stand around the rows and say nothing about them.
func isWrapper(key []byte) bool {
	switch string(bytes.ToLower(key)) {
	case "data", "list", "rows", "items", "result":
		return true
	}
	return false
}

// undecided reports whether an answer says neither yes nor no: it has no error, and
// no marker or a number in its place. That is what a hook in the ERP prints that
// answers by itself, to which 0 and 1 mean what it likes (API page section 2.3).
func (a *answer) undecided() bool {
	return !a.ok && !a.no && a.failure == "" && strings.Trim(a.marker, "0123456789-") == ""
}

// text is what the server said about a failure.
func (a *answer) text() string {
	switch {
	case a.failure != "":
		return a.failure
	case a.message != "":
		return a.message
	case a.marker != "" && !a.ok:
		return "result is " + strconv.Quote(a.marker) // whole: what is cut cannot be redacted
	}
	return ""
}

// scalar finds a scalar beside the envelope's own keys.
func (a *answer) scalar(key string) String {
	for _, e := range a.scalars {
		if strings.EqualFold(e.Key, key) {
			return e.Value
		}
	}
	return ""
}
