package userside

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The tolerant scalars of API page section 8. Each comes from a value of any
// JSON type; empty spellings (null, "", false, [], absent) give the zero value.

// Int is a whole number that the server may have left out.
type Int struct {
	Value int64
	Set   bool // false: absent or an empty spelling
}

// Float is a number that the server may have left out.
type Float struct {
	Value float64
	Set   bool
}

// Bool is a flag that the server may have left out.
type Bool struct {
	Value bool
	Set   bool
}

// String is a text as the server stores it: HTML-escaped (API page section 2.3).
type String string

var breaks = strings.NewReplacer("<br>", "\n", "<br/>", "\n", "<br />", "\n", "<BR>", "\n")

// Text returns the text for people: entities resolved, <br> as line break.
func (s String) Text() string { return html.UnescapeString(breaks.Replace(string(s))) }

// MAC is an Ethernet address; zero when not known.
type MAC [6]byte

// String returns the form 00:00:5e:00:53:01, which the ERP documents for set_mac_by_ip.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 17)
	for i, v := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[v>>4], digits[v&15])
	}
	return string(b)
}

// IDs are the ids of one answer. 0 and unreadable ones are left out.
type IDs []int64

// Map is a PHP array with keys, in the order of the numeric keys.
type Map[T any] []Entry[T]

// Entry is one member of a Map.
type Entry[T any] struct {
	Key   string
	Value T
}

// Get finds the member with this key.
func (m Map[T]) Get(key string) (T, bool) {
	for _, e := range m {
		if e.Key == key {
			return e.Value, true
		}
	}
	var zero T
	return zero, false
}

// maxQuote bounds how much of an offending text an error repeats.
const maxQuote = 40

// quote shows an offending text. It comes from a row, so it may be personal
// data, but never the key, which only error texts of the server could echo.
func quote(b []byte) string {
	if len(b) > maxQuote {
		return strconv.Quote(strings.ToValidUTF8(string(b[:maxQuote]), "\uFFFD")) + "..."
	}
	return strconv.Quote(strings.ToValidUTF8(string(b), "\uFFFD"))
}

func (v value) mismatch(want string) error {
	if v.composite() {
		return fmt.Errorf("%s where %s is wanted", v.kind(), want)
	}
	return fmt.Errorf("%s is not %s", quote(v.bytes()), want)
}

// int reads "0", 0, true, "", null, "0.00", 1e3.
func (v value) int() (Int, error) {
	b := trimSpace(v.bytes())
	if len(b) == 0 {
		if v.composite() && !v.empty() {
			return Int{}, v.mismatch("a whole number")
		}
		return Int{}, nil
	}
	if v.kind() == kindBool {
		return Int{Value: int64(b[0] - '0'), Set: true}, nil
	}
	if n, ok := parseInt(b); ok {
		return Int{Value: n, Set: true}, nil
	}
	return Int{}, v.mismatch("a whole number")
}

// parseInt reads a whole number, also when it is written as a decimal fraction or with an exponent.
func parseInt(b []byte) (int64, bool) {
	if n, ok := parseDigits(b); ok {
		return n, true
	}
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return n, true
	}
	if !isNumber(bytes.TrimPrefix(b, []byte("+"))) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// parseDigits reads what nearly all numbers are: up to 18 digits.
func parseDigits(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c -= '0'; c > 9 {
			return 0, false
		}
		n = 10*n + int64(c)
	}
	return n, len(b) > 0 && len(b) <= 18
}

// float reads numbers and numeric text, also with a decimal comma.
func (v value) float() (Float, error) {
	b := trimSpace(v.bytes())
	if len(b) == 0 {
		if v.composite() && !v.empty() {
			return Float{}, v.mismatch("a number")
		}
		return Float{}, nil
	}
	if v.kind() == kindString && bytes.Count(b, []byte(",")) == 1 && !bytes.Contains(b, []byte(".")) {
		b = bytes.Replace(b, []byte(","), []byte("."), 1)
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return Float{}, v.mismatch("a number")
	}
	return Float{Value: f, Set: true}, nil
}

// bool reads flags: 0 and 1 as number or text, true, false, yes, no, on, off.
func (v value) bool() (Bool, error) {
	if v.kind() == kindBool {
		return Bool{Value: v.bytes()[0] == '1', Set: true}, nil
	}
	switch strings.ToLower(v.text()) {
	case "true", "yes", "on":
		return Bool{Value: true, Set: true}, nil
	case "false", "no", "off":
		return Bool{Set: true}, nil
	}
	f, err := v.float()
	if err != nil {
		return Bool{}, v.mismatch("a flag")
	}
	return Bool{Value: f.Value != 0, Set: f.Set}, nil
}

// string reads any scalar as text. A composite gives an error.
func (v value) string() (String, error) {
	switch {
	case v.composite() && !v.empty():
		return "", v.mismatch("a text")
	case v.kind() == kindBool && v.empty():
		return "", nil
	}
	return String(strings.ToValidUTF8(string(v.bytes()), "\uFFFD")), nil
}

var timeLayouts = [...]string{
	"2006-01-02 15:04:05", "2006-01-02", "2006-01-02T15:04:05", "2006-01-02 15:04", time.RFC3339,
	"02.01.2006", "02.01.2006 15:04:05", "02.01.2006 15:04", "2006.01.02 15:04:05",
}

// ParseTime reads a date of the server, which tells no zone: loc is the
// server's. "", "-", 0000-00-00 and 1970-01-01 mean "none" and give the zero time.
func ParseTime(s string, loc *time.Location) (time.Time, error) {
	s = strings.TrimSpace(s)
	if s == "" || s == "-" || s == "0" || strings.HasPrefix(s, "0000-00-00") || strings.HasPrefix(s, "1970-01-01") ||
		strings.HasPrefix(s, "00.00.0000") || strings.HasPrefix(s, "01.01.1970") {
		return time.Time{}, nil
	}
	for _, layout := range timeLayouts {
		if len(s) != len(layout) && layout != time.RFC3339 {
			continue
		}
		if t, err := time.ParseInLocation(layout, s, loc); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is not a date", quote([]byte(s)))
}

func (v value) time(loc *time.Location) (time.Time, error) {
	if v.empty() {
		return time.Time{}, nil
	}
	if v.composite() {
		return time.Time{}, v.mismatch("a date")
	}
	return ParseTime(v.text(), loc)
}

// ParseIP reads an IPv4 address as the ERP writes it: dotted, or the inet_aton
// number in decimal, which old PHP writes as a negative signed 32-bit number.
// Empty, 0, 0.0.0.0 and - mean "none" and give the invalid address.
func ParseIP(s string) (netip.Addr, error) { return parseIP([]byte(s)) }

var errWide = errors.New("is no 32-bit number")

func parseIP(b []byte) (netip.Addr, error) {
	b = trimSpace(b)
	if len(b) == 0 || len(b) == 1 && (b[0] == '-' || b[0] == '0') {
		return netip.Addr{}, nil
	}
	if a, ok := parseDotted(b); ok {
		if a.IsUnspecified() {
			return netip.Addr{}, nil
		}
		return a, nil
	}
	if bytes.Count(b, []byte(".")) == 3 {
		return netip.Addr{}, fmt.Errorf("%s is not an IPv4 address", quote(b))
	}
	n, ok := parseInt(b)
	switch {
	case !ok:
		return netip.Addr{}, fmt.Errorf("%s is not an IPv4 address", quote(b))
	case n < math.MinInt32 || n > math.MaxUint32:
		return netip.Addr{}, fmt.Errorf("%s %w", quote(b), errWide)
	case n == 0:
		return netip.Addr{}, nil
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(n))
	return netip.AddrFrom4(a), nil
}

// parseDotted is netip.ParseAddr for IPv4 without making a string.
func parseDotted(b []byte) (netip.Addr, bool) {
	var a [4]byte
	octet, digits, n := 0, 0, 0
	for _, c := range b {
		switch {
		case c == '.' && digits > 0 && octet < 3:
			octet, digits, n = octet+1, 0, 0
		case c >= '0' && c <= '9' && (digits == 0 || n > 0):
			digits++
			if n = 10*n + int(c-'0'); n > 255 {
				return netip.Addr{}, false
			}
			a[octet] = byte(n)
		default:
			return netip.Addr{}, false
		}
	}
	return netip.AddrFrom4(a), octet == 3 && digits > 0
}

func (v value) ip() (netip.Addr, error) {
	if v.empty() {
		return netip.Addr{}, nil
	}
	if v.composite() || v.kind() == kindBool {
		return netip.Addr{}, v.mismatch("an IPv4 address")
	}
	return parseIP(v.bytes())
}

// ParseMAC reads a hardware address in any case, with :, -, . or no separator.
// Empty, all zeros and broadcast mean "none" and give the zero MAC.
func ParseMAC(s string) (MAC, error) { return parseMAC([]byte(s)) }

func parseMAC(b []byte) (MAC, error) {
	var digits [12]byte
	n := 0
	for _, c := range b {
		switch {
		case c == ':' || c == '-' || c == '.' || c == ' ':
		case n == len(digits):
			return MAC{}, fmt.Errorf("%s is not a MAC: more than 12 hex digits", quote(b))
		default:
			digits[n] = c
			n++
		}
	}
	var m MAC
	if n == 0 {
		return m, nil
	}
	if n != len(digits) {
		return MAC{}, fmt.Errorf("%s is not a MAC: %d hex digits, not 12", quote(b), n)
	}
	if _, err := hex.Decode(m[:], digits[:]); err != nil {
		return MAC{}, fmt.Errorf("%s is not a MAC: not hexadecimal", quote(b))
	}
	if m == (MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) {
		return MAC{}, nil
	}
	return m, nil
}

func (v value) mac() (MAC, error) {
	if v.empty() {
		return MAC{}, nil
	}
	if v.composite() || v.kind() == kindBool {
		return MAC{}, v.mismatch("a MAC")
	}
	b := v.bytes()
	if v.kind() == kindNumber && len(b) < 12 {
		// A MAC of decimal digits only, which PHP made a number: its leading zeros are gone.
		b = append(bytes.Repeat([]byte("0"), 12-len(b)), b...)
	}
	return parseMAC(b)
}

// ids reads 5, "5", "1,2,3", [1,"2"], {"0":1,"1":2}, [{"id":1}].
func (v value) ids() (IDs, error) { return v.appendIDs(nil) }

func (v value) appendIDs(out IDs) (IDs, error) {
	var bad error
	one := func(b []byte) {
		b = trimSpace(b)
		if len(b) == 0 {
			return
		}
		n, ok := parseInt(b)
		switch {
		case !ok || n < 0:
			bad = fmt.Errorf("%s is not an id", quote(b))
		case n > 0:
			out = append(out, n)
		}
	}
	switch v.kind() {
	case kindNumber, kindString:
		for part := range bytes.SplitSeq(v.bytes(), []byte(",")) {
			one(part)
		}
	case kindArray, kindObject:
		for m := range v.all {
			if m.kind() == kindObject {
				m = m.first("id", "Id", "customer_id")
			}
			if m.composite() || m.kind() == kindBool {
				bad = m.mismatch("an id")
				continue
			}
			one(m.bytes())
		}
	}
	return out, bad
}

// mapOf reads an object, or a list as keys 0..n, or nothing at all.
func mapOf[T any](v value, read func(value) T) Map[T] {
	if v.len() == 0 {
		return nil
	}
	out := make(Map[T], 0, v.len())
	i := 0
	sorted := true
	for m := range v.all {
		key := strconv.Itoa(i)
		if v.kind() == kindObject {
			key = strings.ToValidUTF8(string(m.key()), "\uFFFD")
		}
		sorted = sorted && v.kind() == kindArray
		out = append(out, Entry[T]{Key: key, Value: read(m)})
		i++
	}
	if !sorted {
		slices.SortStableFunc(out, func(a, b Entry[T]) int { return compareKeys(a.Key, b.Key) })
	}
	return out
}

// compareKeys puts numeric keys in numeric order, before all others, which keep theirs.
func compareKeys(a, b string) int {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	switch {
	case errX == nil && errY == nil:
		return cmp.Compare(x, y)
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	}
	return 0
}

// isDecimal reports whether a key is made of digits only.
func isDecimal(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}
