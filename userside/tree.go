package userside

import (
	"bytes"
	"math"
	"strings"
	"unsafe"
)

// kind is the JSON type of a value. The zero kind is a member that is not there.
type kind uint8

const (
	kindAbsent kind = iota
	kindNull
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

func (k kind) String() string {
	return [...]string{"absent", "null", "bool", "number", "string", "array", "object"}[k]
}

// node is one value of a tree. Texts are spans of tree.text.
type node struct {
	kind             kind
	keyFrom, keyTo   uint32
	textFrom, textTo uint32
	next             int32 // index behind this value and all that is in it
}

// tree is one JSON value, all its nodes in document order. It is reused from
// row to row, so that decoding a long list allocates next to nothing.
type tree struct {
	nodes []node
	text  []byte
}

// nodeSize is what one takes.
const nodeSize = int(unsafe.Sizeof(node{}))

// room refuses a value that takes too much, of whatever it is made.
func (t *tree) room(s *scanner) error {
	limit := int64(math.MaxInt32)
	if s.maxTree > 0 {
		limit = min(limit, int64(s.maxTree))
	}
	if int64(len(t.text))+int64(len(t.nodes))*int64(nodeSize) > limit {
		return &limitError{offset: s.offset(), what: "a single value takes more than", limit: limit, key: "max_answer_mib"}
	}
	return nil
}

func (t *tree) reset() { t.nodes, t.text = t.nodes[:0], t.text[:0] }

// read replaces t by the value that comes next in s.
func (t *tree) read(s *scanner) (value, error) {
	t.reset()
	err := t.append(s, 0)
	return value{t: t}, err
}

// append adds the value that comes next in s. Its key, if any, is the text from
// keyFrom on.
func (t *tree) append(s *scanner, keyFrom int) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if err := t.room(s); err != nil {
		return err
	}
	i, from := len(t.nodes), len(t.text)
	t.nodes = append(t.nodes, node{keyFrom: uint32(keyFrom), keyTo: uint32(from), textFrom: uint32(from), textTo: uint32(from)})
	var k kind
	switch {
	case c == '"':
		k = kindString
		t.text, err = s.appendString(t.text)
	case c == '-' || c >= '0' && c <= '9':
		k = kindNumber
		t.text, err = s.appendNumber(t.text)
	case c == '{':
		k = kindObject
		err = t.appendMembers(s, '}')
	case c == '[':
		k = kindArray
		err = t.appendMembers(s, ']')
	case c == 't':
		k = kindBool
		t.text = append(t.text, '1')
		err = s.literal("true")
	case c == 'f':
		k = kindBool
		t.text = append(t.text, '0')
		err = s.literal("false")
	case c == 'n':
		k = kindNull
		err = s.literal("null")
	default:
		err = s.bad("no value")
	}
	n := &t.nodes[i]
	n.kind, n.next = k, int32(len(t.nodes))
	if k != kindArray && k != kindObject {
		n.textTo = uint32(len(t.text))
	}
	return err
}

func (t *tree) appendMembers(s *scanner, closing byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		ok, err := s.more(closing, i)
		if err != nil || !ok {
			return err
		}
		keyFrom, isKey := len(t.text), closing == '}'
		if isKey {
			if t.text, err = s.appendKey(t.text); err != nil {
				return err
			}
		}
		keyTo := len(t.text)
		if err := t.append(s, keyFrom); err != nil {
			var key []byte
			if isKey {
				key = t.text[keyFrom:keyTo:keyTo]
			}
			return within(err, key, i)
		}
	}
}

// value is one value of a tree; the zero value is absent. It is good until the
// tree reads the next one.
type value struct {
	t *tree
	i int32
}

func (v value) node() *node { return &v.t.nodes[v.i] }

func (v value) kind() kind {
	if v.t == nil {
		return kindAbsent
	}
	return v.node().kind
}

// bytes returns the text of a scalar: true is 1, false is 0, null is empty.
func (v value) bytes() []byte {
	if v.t == nil {
		return nil
	}
	n := v.node()
	return v.t.text[n.textFrom:n.textTo]
}

// text returns the trimmed text of a scalar as an own string of valid UTF-8.
func (v value) text() string {
	return strings.ToValidUTF8(string(trimSpace(v.bytes())), "\uFFFD")
}

func (v value) key() []byte {
	n := v.node()
	return v.t.text[n.keyFrom:n.keyTo]
}

func (v value) composite() bool { k := v.kind(); return k == kindArray || k == kindObject }

// all walks the members of an array or object, and nothing for anything else.
func (v value) all(yield func(value) bool) {
	if !v.composite() {
		return
	}
	for i := v.i + 1; i < v.node().next; i = v.t.nodes[i].next {
		if !yield(value{v.t, i}) {
			return
		}
	}
}

// get finds the member with exactly this key. The last one wins, as in PHP.
func (v value) get(key string) value {
	var found value
	if v.kind() != kindObject {
		return found
	}
	for m := range v.all {
		if string(m.key()) == key {
			found = m
		}
	}
	return found
}

// first finds the first of the keys whose value is not empty.
func (v value) first(keys ...string) value {
	for _, k := range keys {
		if m := v.get(k); !m.empty() {
			return m
		}
	}
	return value{}
}

// len counts the members.
func (v value) len() int {
	n := 0
	for range v.all {
		n++
	}
	return n
}

// empty reports what PHP spells as nothing: absent, null, "", false, [] and {}.
// Zero is a value.
func (v value) empty() bool {
	switch v.kind() {
	case kindAbsent, kindNull:
		return true
	case kindBool:
		return v.bytes()[0] == '0'
	case kindString:
		return len(trimSpace(v.bytes())) == 0
	case kindArray, kindObject:
		return v.node().next == v.i+1
	default:
		return false
	}
}

// trimSpace is bytes.TrimSpace, quick for what has nothing to trim.
func trimSpace(b []byte) []byte {
	if n := len(b); n > 0 && b[0]-'!' < 0x5e && b[n-1]-'!' < 0x5e {
		return b
	}
	return bytes.TrimSpace(b)
}

// clone copies a scalar out of its tree, which will be reused.
func (v value) clone() value {
	n := *v.node()
	text := append([]byte(nil), v.bytes()...)
	return value{t: &tree{nodes: []node{{kind: n.kind, textTo: uint32(len(text)), next: 1}}, text: text}}
}
