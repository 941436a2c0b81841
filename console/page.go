package console

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"fmt"
	"html/template"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/syncer"
)

// pageProblems is how many problems of each kind the page lists.
const pageProblems = 3

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

// page renders the overview. It is one answer without scripts or other files.
type page struct {
	d        *Deps
	log      *slog.Logger
	template *template.Template
	policy   string
}

func newPage(d *Deps, log *slog.Logger) *page {
	sum := sha256.Sum256([]byte(pageStyle))
	return &page{
		d: d, log: log,
		template: template.Must(template.New("page").Funcs(template.FuncMap{
			"number": number, "ago": func(t, now time.Time) string { return ago(t, now) }, "seconds": seconds, "clock": clock,
			"sets":    setRows,
			"refused": refusedSenders, "vouched": vouched,
			"way":       Untrusted,
			"untrusted": func(lost string) bool { return lost == outcome.Option82Untrusted.String() },
			"percent":   func(f float64) string { return strconv.FormatFloat(f*100, 'f', 1, 64) + "%" },
		}).Parse(pageText)),
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
}

// pageData is what page.html shows.
type pageData struct {
	Status
	Now      time.Time
	Style    template.CSS
	Problems []problemGroup
	Unknown  Option82Unknowns
}

// problemGroup is one kind of problem with the first ones of it.
type problemGroup struct {
	Kind  provision.ProblemKind
	Count int
	First []provision.Problem
}

// ServeHTTP implements http.Handler.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	st := p.d.status()
	data := pageData{Status: st, Now: p.d.now(), Style: template.CSS(pageStyle), Problems: groupProblems(st.Sync), Unknown: p.d.unknownOption82(pageUnknown)}
	var body bytes.Buffer
	if err := p.template.Execute(&body, data); err != nil {
		p.log.ErrorContext(r.Context(), "overview page failed", "error", err)
		http.Error(w, "the page cannot be rendered; see the log", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(body.Bytes()) // the reader may have gone
}

func groupProblems(st syncer.Status) []problemGroup {
	first := map[provision.ProblemKind][]provision.Problem{}
	for _, p := range st.ProblemsList {
		if len(first[p.Kind]) < pageProblems {
			first[p.Kind] = append(first[p.Kind], p)
		}
	}
	var out []problemGroup
	for _, kind := range slices.Sorted(maps.Keys(st.Problems)) {
		if n := st.Problems[kind]; n > 0 {
			out = append(out, problemGroup{kind, n, first[kind]})
		}
	}
	slices.SortStableFunc(out, func(a, b problemGroup) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

// number writes 100000 as 100,000.
func number(v any) string {
	s := fmt.Sprint(v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	if t.After(now) {
		return "in " + brief(t.Sub(now))
	}
	return brief(now.Sub(t)) + " ago"
}

// seconds writes a duration given in seconds with a fitting unit.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return brief(d)
	}
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// refusedSenders returns those whose word is not taken.
func refusedSenders(st senders.Status) []senders.Sender {
	return slices.DeleteFunc(slices.Concat(st.Relays, st.Switches), func(s senders.Sender) bool { return s.State.Refused() == 0 })
}

// vouched names a voucher in a sentence.
func vouched(word string) string {
	if word == "none" {
		return "nobody"
	}
	return word
}

// setRow is one set on the page.
type setRow struct {
	Name       string
	Want, Have int
}

// setRows returns the sets that have or should have an element, but for those
// that the page shows large.
func setRows(st *access.Status) []setRow {
	var out []setRow
	for set := range access.Sets() {
		if set == access.SetStopped || set == access.SetPaused || st.Want[set]+st.Have[set] == 0 {
			continue
		}
		out = append(out, setRow{set.String(), st.Want[set], st.Have[set]})
	}
	return out
}
