package erpcmd

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside"
)

// What is drawn of a list of objects: more columns than maxColumns are no table
// any more, and a cell beyond maxCell hides its neighbours.
const (
	maxColumns = 12
	maxCell    = 60
)

// object is what an answer has for an object.
type object = userside.Map[any]

// readable resolves the entities of all texts in an answer.
func readable(v any) any {
	switch v := v.(type) {
	case string:
		return userside.String(v).Text()
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = readable(v[i])
		}
		return out
	case object:
		out := make(object, len(v))
		for i, e := range v {
			out[i] = userside.Entry[any]{Key: e.Key, Value: readable(e.Value)}
		}
		return out
	default:
		return v
	}
}

// printDecoded prints an answer as JSON, with what an engineer reads rather
// than what HTML needs.
func printDecoded(w io.Writer, data any) error {
	var b bytes.Buffer
	if err := encodeDecoded(&b, readable(data), "\n"); err != nil {
		return err
	}
	b.WriteByte('\n')
	return cli.WriteJSON(w, b.Bytes())
}

// encodeDecoded keeps the order of objects, and letters that package json would
// escape for HTML inside of them. indent is a line break with the present margin.
func encodeDecoded(b *bytes.Buffer, v any, indent string) error {
	inner := indent + "  "
	switch v := v.(type) {
	case object:
		for i, e := range v {
			b.WriteString(opening(i, '{') + inner)
			if err := encodeScalar(b, e.Key); err != nil {
				return err
			}
			b.WriteString(": ")
			if err := encodeDecoded(b, e.Value, inner); err != nil {
				return err
			}
		}
		b.WriteString(closing(len(v), "{", indent, "}"))
	case []any:
		for i, x := range v {
			b.WriteString(opening(i, '[') + inner)
			if err := encodeDecoded(b, x, inner); err != nil {
				return err
			}
		}
		b.WriteString(closing(len(v), "[", indent, "]"))
	default:
		return encodeScalar(b, v)
	}
	return nil
}

func encodeScalar(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the line break of Encode
	return nil
}

func opening(i int, bracket rune) string {
	if i == 0 {
		return string(bracket)
	}
	return ","
}

func closing(n int, open, indent, end string) string {
	if n == 0 {
		return open + end
	}
	return indent + end
}

// sheet is an answer as lines of cells.
type sheet struct {
	head  []string // nil: no heading
	rows  [][]string
	total int // columns there would be
}

// layOut finds the form that fits the data; key is the name that it came under,
// if that is known.
func layOut(key string, data any) sheet {
	switch v := readable(data).(type) {
	case nil:
		return sheet{}
	case []any:
		if !slices.ContainsFunc(v, isObject) {
			var s sheet
			for _, x := range v {
				s.rows = append(s.rows, []string{compact(key, x)})
			}
			return s
		}
		var rows []object
		for _, x := range v {
			rows = append(rows, rowsOf(nil, x)...)
		}
		return columns(rows)
	case object:
		if len(v) > 0 && !slices.ContainsFunc(v, func(e userside.Entry[any]) bool { return !holdsObjects(e.Value) }) {
			return columns(keyed(v))
		}
		var s sheet
		for _, e := range v {
			if text := compact(e.Key, e.Value); text != "" {
				s.rows = append(s.rows, []string{clean(e.Key), text})
			}
		}
		return s
	default:
		return sheet{rows: [][]string{{compact(key, v)}}}
	}
}

func isObject(v any) bool { _, ok := v.(object); return ok }

// holdsObjects reports whether v is an object, or a list of objects.
func holdsObjects(v any) bool {
	if list, ok := v.([]any); ok {
		return !slices.ContainsFunc(list, func(x any) bool { return !isObject(x) })
	}
	return isObject(v)
}

// keyed makes rows of an object of objects, or of lists of them. The key is a
// column of its own where the rows do not say it under id.
func keyed(v object) []object {
	same := true
	for _, e := range v {
		for _, row := range rowsOf(nil, e.Value) {
			id, ok := row.Get("id")
			same = same && ok && plain(id) == e.Key
		}
	}
	var out []object
	for _, e := range v {
		var first object
		if !same {
			first = object{{Key: "key", Value: e.Key}}
		}
		out = append(out, rowsOf(first, e.Value)...)
	}
	return out
}

func rowsOf(first object, v any) []object {
	switch v := v.(type) {
	case object:
		return []object{slices.Concat(first, v)}
	case []any:
		var out []object
		for _, x := range v {
			out = append(out, rowsOf(first, x)...)
		}
		return out
	default:
		return []object{append(slices.Clone(first), userside.Entry[any]{Key: "value", Value: v})}
	}
}

// preferred are the columns that people look for first, in this order.
var preferred = []string{
	"key", "id", "customer_id", "usercode", "name", "full_name", "login", "account_number", "state_id", "balance", "ip", "userip", "ip_mac", "mac",
	"host", "device_id", "object_type", "object_id", "interface", "port", "vlan_id", "is_online", "finish", "date", "datedo", "datemsg", "date_last", "typer", "msgtyper", "amount", "text", "comment",
}

// columns makes a table of rows: columns with a value in any row, the looked
// for ones first.
func columns(rows []object) sheet {
	var names []string
	seen := map[string]bool{}
	for _, r := range rows {
		for _, e := range r {
			if !seen[e.Key] && compact(e.Key, e.Value) != "" {
				seen[e.Key] = true
				names = append(names, e.Key)
			}
		}
	}
	rank := func(name string) int {
		if i := slices.Index(preferred, strings.ToLower(name)); i >= 0 {
			return i
		}
		return len(preferred)
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	s := sheet{total: len(names)}
	names = names[:min(len(names), maxColumns)]
	for _, n := range names {
		s.head = append(s.head, clean(n))
	}
	for _, r := range rows {
		cells := make([]string, len(names))
		for i, n := range names {
			v, _ := r.Get(n)
			cells[i] = shorten(compact(n, v), maxCell)
		}
		s.rows = append(s.rows, cells)
	}
	return s
}

// write draws the sheet. On a terminal of a known width, lines are cut there.
func (s sheet) write(w io.Writer, width int) error {
	rows := s.rows
	if s.head != nil {
		rows = slices.Insert(slices.Clone(rows), 0, s.head)
	}
	var wide []int
	for _, r := range rows {
		for i, cell := range r[:max(0, len(r)-1)] {
			if i == len(wide) {
				wide = append(wide, 0)
			}
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	p := cli.NewPaint(w)
	for n, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		line := strings.TrimRight(b.String(), " ")
		if width > 0 {
			line = shorten(line, width)
		}
		if n == 0 && s.head != nil {
			line = p.Bold(line)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// terminalWidth returns the width of w, or 0 if it is no terminal.
func terminalWidth(w io.Writer) int {
	if f, ok := cli.Terminal(w); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// compact returns any value as one line. What is empty is "".
func compact(key string, v any) string {
	switch v := v.(type) {
	case []any:
		parts := make([]string, 0, len(v))
		for _, x := range v {
			if s := compact(key, x); s != "" {
				parts = append(parts, s)
			}
		}
		return strings.Join(parts, separator(v))
	case object:
		return compactObject(key, v)
	default:
		return known(key, plain(v))
	}
}

func separator(list []any) string {
	if slices.ContainsFunc(list, isObject) {
		return "; "
	}
	return ", "
}

// compactObject leaves out keys that only number the members.
func compactObject(key string, v object) string {
	numbered := !slices.ContainsFunc(v, func(e userside.Entry[any]) bool { return !isNumber(e.Key) })
	parts := make([]string, 0, len(v))
	for _, e := range v {
		member := e.Key
		if numbered {
			member = key
		}
		s := compact(member, e.Value)
		switch {
		case s == "":
		case numbered || key == "ip_mac":
			parts = append(parts, s)
		case isObject(e.Value):
			parts = append(parts, clean(e.Key)+" ("+s+")")
		default:
			parts = append(parts, clean(e.Key)+" "+s)
		}
	}
	if numbered {
		return strings.Join(parts, "; ")
	}
	if key == "ip_mac" {
		return strings.Join(parts, " ")
	}
	return strings.Join(parts, ", ")
}

func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// plain returns a scalar as text.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return clean(v)
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	default:
		return clean(fmt.Sprint(v))
	}
}

// known writes what the ERP stores as a number or as bare digits the way people
// read it (API page sections 3.3 and 4).
func known(key, text string) string {
	switch strings.ToLower(key) {
	case "ip", "userip", "device_ip", "devip", "switch_ip":
		// Old PHP knows signed numbers of 32 bits alone: addresses from 128.0.0.0 on are negative.
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && (n >= 1<<24 && n <= math.MaxUint32 || n < 0 && n >= math.MinInt32) {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], uint32(n))
			return netip.AddrFrom4(b).String()
		}
	case "mac", "usermac", "device_mac", "devmac", "switch_mac":
		if mac, err := userside.ParseMAC(text); err == nil && mac != (userside.MAC{}) {
			return mac.String()
		}
	case "state_id":
		if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(states) {
			return text + " " + states[n]
		}
	}
	return text
}

// clean keeps a text of the ERP from steering the terminal: one line, printable.
func clean(s string) string {
	return cli.Line(strings.Join(strings.Fields(s), " "))
}

// shorten cuts a line to n characters, the last of which tells that it was cut.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n || n < 1 {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
