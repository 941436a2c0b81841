package userside

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxArgument bounds one value.
const maxArgument = 1 << 20

// argumentProblem says why a call cannot be sent.
type argumentProblem struct {
	kind   error // ErrArgument or ErrUnsupported
	detail error // ErrMissing, ErrUnknown, ErrFormat; nil
	param  string
	text   string
}

func badArgument(detail error, param, format string, args ...any) *argumentProblem {
	return &argumentProblem{kind: ErrArgument, detail: detail, param: param, text: param + ": " + fmt.Sprintf(format, args...)}
}

// unsupported tells what a server of level v lacks.
func unsupported(param string, v Version, since, until Version) *argumentProblem {
	text := "the server is " + v.String()
	if v.IsZero() {
		text = "the version of the server is not known"
	}
	if !since.IsZero() {
		text = "since " + since.String() + "; " + text
	}
	if !until.IsZero() {
		text = "removed in " + until.String() + "; " + text
	}
	if param != "" {
		text = param + ": " + text
	}
	return &argumentProblem{kind: ErrUnsupported, param: param, text: text}
}

// check tests arguments against the row and gives them as a server of level v
// wants them: normalised, under the names it knows.
func (a *Action) check(args url.Values, v Version) (url.Values, *argumentProblem) {
	if !v.Has(a.Since, a.Until) {
		return nil, unsupported("", v, a.Since, a.Until)
	}
	given := make(map[string]string, len(args))
	out := make(url.Values, len(args))
	for _, name := range sortedKeys(args) {
		p, ok := a.Param(name)
		if !ok {
			return nil, badArgument(ErrUnknown, name, "%s", a.takes())
		}
		if len(args[name]) != 1 {
			return nil, badArgument(ErrFormat, p.Name, "%d values where one is wanted", len(args[name]))
		}
		if _, twice := given[p.Name]; twice {
			return nil, badArgument(ErrFormat, p.Name, "given as %s, too", p.Was)
		}
		text, bad := p.check(args[name][0], v)
		if bad != nil {
			return nil, bad
		}
		given[p.Name] = text
		out.Set(p.WireName(v), text)
	}
	if bad := a.complete(given, v); bad != nil {
		return nil, bad
	}
	for i := range a.Params {
		p := &a.Params[i]
		if _, ok := given[p.Name]; !ok && p.Default != "" && v.Has(p.Since, p.Until) {
			out.Set(p.WireName(v), p.Default)
		}
	}
	return out, nil
}

// complete tests that everything obligatory is there.
func (a *Action) complete(given map[string]string, v Version) *argumentProblem {
	groups := make(map[string][]string)
	for i := range a.Params {
		p := &a.Params[i]
		text, ok := given[p.Name]
		switch {
		case text == "" && p.RequiredOn(v):
			return badArgument(ErrMissing, p.Name, "is obligatory")
		case ok && p.Needs != "" && given[p.Needs] == "":
			return badArgument(ErrMissing, p.Needs, "is obligatory beside %s", p.Name)
		case ok && p.Differs != "" && strings.TrimLeft(text, "0") == strings.TrimLeft(given[p.Differs], "0"):
			return badArgument(ErrFormat, p.Name, "is the same as %s", p.Differs)
		}
		if p.OneOf != "" {
			groups[p.OneOf] = append(groups[p.OneOf], p.Name)
		}
	}
	for i := range a.Params {
		group := a.Params[i].OneOf
		if group != "" && !slices.ContainsFunc(groups[group], func(name string) bool { return given[name] != "" }) {
			return badArgument(ErrMissing, group, "one of %s is obligatory", strings.Join(groups[group], ", "))
		}
	}
	return nil
}

func (a *Action) takes() string {
	if len(a.Params) == 0 {
		return a.Label() + " has no parameters"
	}
	names := make([]string, len(a.Params))
	for i := range a.Params {
		names[i] = a.Params[i].Name
	}
	return "not among " + strings.Join(names, ", ")
}

func sortedKeys(args url.Values) []string {
	keys := make([]string, 0, len(args))
	for k := range args {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// check tests one value and gives it in the form that the contract documents.
func (p *Param) check(text string, v Version) (string, *argumentProblem) {
	if !v.Has(p.Since, p.Until) {
		return "", unsupported(p.Name, v, p.Since, p.Until)
	}
	if len(text) > maxArgument {
		return "", badArgument(ErrFormat, p.Name, "longer than %d bytes", maxArgument)
	}
	if p.Kind != KindText {
		text = strings.TrimSpace(text)
		if text == "" {
			return "", badArgument(ErrFormat, p.Name, "is empty")
		}
	}
	if word, ok := p.word(text); ok {
		if from := p.EnumSince[word]; !v.Has(from, Version{}) {
			return "", unsupported(p.Name+"="+word, v, from, Version{})
		}
		return text, nil
	}
	out, want := p.Kind.normalise(text)
	if want == "" {
		return out, nil
	}
	switch words := strings.Join(p.Enum, ", "); {
	case p.Kind == KindEnum:
		want = "one of " + words
	case len(p.Enum) > 0:
		want += " or one of " + words
	}
	return "", badArgument(ErrFormat, p.Name, "%s is not %s", quote([]byte(text)), want)
}

// word finds the word of Enum that text is; a final N stands for digits.
func (p *Param) word(text string) (string, bool) {
	for _, w := range p.Enum {
		if stem, ok := strings.CutSuffix(w, "_N"); ok {
			if n, ok := strings.CutPrefix(text, stem+"_"); ok && isDecimal([]byte(n)) {
				return w, true
			}
		}
		if w == text {
			return w, true
		}
	}
	return "", false
}

// normalise returns text in the documented form, or what it should have been. The
// words of a parameter were looked at before.
func (k Kind) normalise(text string) (out, want string) {
	switch k {
	case KindText:
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' && c != '\r' }) {
			return "", "a text without control characters"
		}
		return text, ""
	case KindInt, KindID:
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case k == KindID && (err != nil || n <= 0):
			return "", "a whole number above 0"
		case err != nil || n < 0:
			return "", "a whole number, 0 or more"
		}
		return strconv.FormatInt(n, 10), ""
	case KindFlag:
		switch strings.ToLower(text) {
		case "1", "true", "yes", "on":
			return "1", ""
		case "0", "false", "no", "off":
			return "0", ""
		}
		return "", "a flag: 1 or 0"
	case KindIP:
		ip, err := netip.ParseAddr(text)
		if err != nil || !ip.Is4() || ip.IsUnspecified() {
			return "", "an IPv4 address"
		}
		return ip.String(), ""
	case KindMAC:
		mac, err := ParseMAC(text)
		if err != nil || mac == (MAC{}) {
			return "", "a MAC"
		}
		return mac.String(), ""
	case KindDate, KindDateTime:
		return normaliseDate(text, k)
	case KindMoney:
		if !isMoney(text) {
			return "", "an amount such as -12.50"
		}
		return text, ""
	case KindIDs:
		return normaliseIDs(text)
	case KindPrefixLen:
		n, err := strconv.Atoi(strings.TrimPrefix(text, "/"))
		if err != nil || n < 0 || n > 32 {
			return "", "a prefix length from 0 to 32"
		}
		return strconv.Itoa(n), ""
	}
	return "", "known"
}

func normaliseDate(text string, k Kind) (out, want string) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t.Format(time.DateOnly), ""
	}
	if k == KindDate {
		return "", "a date such as 2006-01-02"
	}
	for _, layout := range []string{time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.Format(time.DateTime), ""
		}
	}
	return "", "a time such as 2006-01-02 15:04:05, or a date"
}

func isMoney(text string) bool {
	text = strings.TrimPrefix(strings.TrimPrefix(text, "+"), "-")
	whole, cents, dotted := strings.Cut(text, ".")
	return len(text) <= 20 && isDecimal([]byte(whole)) && (!dotted || isDecimal([]byte(cents)))
}

func normaliseIDs(text string) (out, want string) {
	list := make([]byte, 0, len(text))
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(strings.TrimSpace(part), 10, 64)
		if err != nil || n <= 0 {
			return "", "a list of ids with commas between"
		}
		if len(list) > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, n, 10)
	}
	return string(list), ""
}
