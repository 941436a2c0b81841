package portal

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page, its style and its script
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/provision"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string
	//go:embed page.js
	pageScript string
)

// maxPage bounds what a template may make.
const maxPage = 1 << 20

// Data is what a template sees; docs/portal.md describes it for operators.
type Data struct {
	State    string        // paused, stopped, guest, active or unknown
	Language string        // chosen of the offered ones
	Text     Texts         // in that language, or in English where it is not shipped
	Customer int64         // the subscriber's id; 0: none
	Address  string        // the address of the one who asks
	Provider string        // as configured; may be empty
	PayURL   string        // as configured, with the customer in it; empty where paying does not help
	Contact  string        // as configured; may be empty
	Portal   string        // address of this page
	Style    template.HTML // the shipped <style>
	Script   template.HTML // the shipped <script>, which looks every second whether access is back
}

// page renders one template.
type page struct {
	template  *template.Template
	languages []string
	opts      Options
	policy    string // Content-Security-Policy
}

// newPage parses the template and tries it with every state and language.
func newPage(o Options) (*page, error) {
	p := &page{opts: o, languages: o.Languages}
	if len(p.languages) == 0 {
		p.languages = []string{"en"}
	}
	text, style := o.Template, "'unsafe-inline'"
	if text == "" {
		text, style = pageText, hashOf(pageStyle)
	}
	t, err := template.New("template").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, tidy(err)
	}
	p.template = t
	// An operator's page may have its own style and pictures as data: URLs, but
	// no script of its own and nothing from elsewhere, which could not load.
	p.policy = "default-src 'none'; style-src " + style + "; script-src " + hashOf(pageScript) +
		"; img-src data:; connect-src 'self'; base-uri 'none'; form-action https:; frame-ancestors 'none'"
	for _, lang := range p.languages {
		for _, st := range States() {
			q := request{visitor: Visitor{State: st, Subscriber: 1001}, addr: netip.AddrFrom4([4]byte{192, 0, 2, 1}), url: "http://192.0.2.2/"}
			if _, err := p.render(lang, q); err != nil {
				return nil, tidy(err)
			}
		}
	}
	return p, nil
}

// CheckTemplate says what is wrong with the text of a template, with its line:
// it must parse and render for every state.
func CheckTemplate(text string, languages []string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("the template is empty")
	}
	_, err := newPage(Options{Template: text, Languages: languages, Provider: "x", PayURL: "https://pay.example.net/", Contact: "x"})
	return err
}

// tidy takes the words of the library off that say nothing to an operator.
func tidy(err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "html/template:"), "template: ")
	if rest, ok := strings.CutPrefix(text, "template:"); ok {
		text = "line " + rest
	}
	return errors.New(text)
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (p *page) language(header string) string { return chooseLanguage(header, p.languages) }

func (p *page) render(lang string, q request) ([]byte, error) {
	d := Data{
		State: string(q.visitor.State), Language: lang, Text: textsFor(lang, q.visitor.State),
		Customer: int64(q.visitor.Subscriber), Address: q.addr.String(), Portal: q.url,
		Provider: p.opts.Provider, Contact: p.opts.Contact,
		Style:  template.HTML("<style>" + pageStyle + "</style>"),
		Script: template.HTML("<script>" + pageScript + "</script>"),
	}
	if q.visitor.State == StatePaused { // who is stopped reaches no payment site
		d.PayURL = payURL(p.opts.PayURL, q.visitor.Subscriber)
	}
	var b bounded
	if err := p.template.Execute(&b, d); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// payURL puts the subscriber's id where the configuration has {customer}.
func payURL(pattern string, id provision.SubscriberID) string {
	text := ""
	if id != 0 {
		text = url.QueryEscape(strconv.FormatInt(int64(id), 10))
	}
	return strings.ReplaceAll(pattern, "{customer}", text)
}

// bounded is a buffer that a template with a wild loop cannot fill for ever.
type bounded struct{ bytes.Buffer }

var _ io.Writer = (*bounded)(nil)

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxPage {
		return 0, fmt.Errorf("the page is larger than %d bytes", maxPage)
	}
	return b.Buffer.Write(p)
}

// shortPage is what a program gets that asks again and again.
func shortPage(portal string) []byte {
	link := template.HTMLEscapeString(portal)
	return []byte("<!doctype html><title>511</title><a href=\"" + link + "\">" + link + "</a>\n")
}
