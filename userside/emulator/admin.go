package emulator

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

//go:embed admin.html
var adminPage string

// adminLimit is how many customers an answer of the admin API holds at most.
const adminLimit = 1000

// pageCustomers is how many customers the page shows.
const pageCustomers = 20

// AdminHandler returns the handler for a second listener: for people and tests,
// not for clients of the ERP. It asks for no key, so it belongs on loopback; it
// shows none either. Requests of foreign web pages are refused.
//
//	GET  /admin/                      the page
//	GET  /admin/status                profile, shape, counts, calls
//	GET  /admin/quirks                all quirks
//	POST /admin/quirks                JSON object of the quirks to change; answers with all
//	GET  /admin/customers             ?state=stop|pause|active &q= &limit= &offset=
//	POST /admin/customers/{id}/state  {"state":"pause"}
//	POST /admin/profile               {"profile":"v316"}; answers with the status
//	POST /admin/shape                 {"shape":"B"}; answers with the status
//
// All POSTs also take the forms of the page and then lead back to it. Errors are
// {"error": text} with a status of 4xx.
func (e *Emulator) AdminHandler() http.Handler {
	tmpl := template.Must(template.New("admin").Parse(adminPage))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin/{$}", func(w http.ResponseWriter, r *http.Request) { e.servePage(w, r, tmpl) })
	mux.HandleFunc("GET /admin/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, e.adminStatus()) })
	mux.HandleFunc("GET /admin/quirks", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, e.Quirks()) })
	mux.HandleFunc("POST /admin/quirks", e.serveSetQuirks)
	mux.HandleFunc("GET /admin/customers", e.serveCustomers)
	mux.HandleFunc("POST /admin/customers/{id}/state", e.serveSetState)
	mux.HandleFunc("POST /admin/profile", e.serveSwitch("profile", func(s string) error {
		p, err := ParseProfile(s)
		if err != nil {
			return err
		}
		return e.SetProfile(p)
	}))
	mux.HandleFunc("POST /admin/shape", e.serveSwitch("shape", func(s string) error {
		sh, err := ParseShape(s)
		if err != nil {
			return err
		}
		return e.SetShape(sh)
	}))
	return http.NewCrossOriginProtection().Handler(mux)
}

// adminStatus is what /admin/status and the page tell.
type adminStatus struct {
	Profile       Profile        `json:"profile"`
	Version       string         `json:"version"`
	Shape         Shape          `json:"shape"`
	Customers     int            `json:"customers"`
	States        map[string]int `json:"customers_by_state"`
	Addresses     int            `json:"addresses"`
	Devices       int            `json:"devices"`
	Subnets       []netip.Prefix `json:"subnets"`
	Calls         map[string]int `json:"calls"`
	UptimeSeconds float64        `json:"uptime_seconds"`
	Persistent    bool           `json:"persistent"`
	Hook          *HookStatus    `json:"hook,omitempty"`
}

func (e *Emulator) adminStatus() adminStatus {
	p := e.Profile()
	s := adminStatus{
		Profile: p, Version: p.Version().String(), Shape: e.Shape(), Devices: len(e.deviceList()), Subnets: e.Subnets(),
		Calls: e.Calls(), UptimeSeconds: e.now().Sub(e.started).Seconds(), Persistent: e.store != nil,
		States: map[string]int{StateStop.String(): 0, StatePause.String(): 0, StateActive.String(): 0},
	}
	if h, ok := e.Hook(); ok {
		s.Hook = &h
	}
	for _, c := range e.customerList() {
		s.Customers++
		s.States[c.State.String()]++
		for _, a := range c.Addresses {
			if a.IP.IsValid() {
				s.Addresses++
			}
		}
	}
	return s
}

// adminCustomer is a customer in the admin API.
type adminCustomer struct {
	ID        int64          `json:"id"`
	Login     string         `json:"login"`
	Name      string         `json:"name"`
	State     string         `json:"state"`
	Disabled  bool           `json:"disabled,omitempty"`
	Potential bool           `json:"potential,omitempty"`
	Former    bool           `json:"former,omitempty"`
	Addresses []adminAddress `json:"addresses"`
	Device    int64          `json:"device,omitempty"`
	Port      uint32         `json:"port,omitempty"`
	PortName  string         `json:"port_name,omitempty"`
	Balance   string         `json:"balance"`
	Tariff    string         `json:"tariff,omitempty"`
	Marks     []int64        `json:"marks,omitempty"`
	Services  []int64        `json:"services,omitempty"`
	Messages  int            `json:"messages"`
	Coords    string         `json:"coordinates,omitempty"` // no action of the API tells them
	Password  bool           `json:"password_set"`
}

type adminAddress struct {
	IP  string `json:"ip,omitempty"`
	MAC string `json:"mac,omitempty"`
	Net string `json:"net,omitempty"`
}

func (e *Emulator) adminCustomer(c *Customer) adminCustomer {
	a := adminCustomer{
		ID: c.ID, Login: c.Login, Name: c.FullName, State: c.State.String(),
		Disabled: c.Disabled, Potential: c.Potential, Former: c.Former, Addresses: []adminAddress{},
		Balance: money(c.BalanceCents), Tariff: c.Tariff, Marks: c.Marks, Messages: len(c.Messages),
		Coords: c.Coordinates, Password: c.PasswordHash != "",
	}
	for _, s := range c.Services {
		a.Services = append(a.Services, s.ID)
	}
	for _, addr := range c.Addresses {
		var x adminAddress
		if addr.IP.IsValid() {
			x.IP = addr.IP.String()
		}
		if !addr.MAC.IsZero() {
			x.MAC = addr.MAC.String()
		}
		if addr.Net.IsValid() {
			x.Net = addr.Net.String()
		}
		a.Addresses = append(a.Addresses, x)
	}
	if len(c.Links) > 0 {
		l := c.Links[0]
		a.Device, a.Port, a.PortName = l.Device, l.Port, e.device(l.Device).portName(l.Port)
	}
	return a
}

// find returns the customers of a state that match q: an id, a login, an address
// or a part of the name.
func (e *Emulator) find(state, q string, offset, limit int) (found []adminCustomer, total int, err error) {
	found = []adminCustomer{}
	want := State(-1)
	if state != "" {
		if want, err = ParseState(state); err != nil {
			return nil, 0, err
		}
	}
	ip, _ := netip.ParseAddr(q) // not an address: matches nobody
	for _, c := range e.customerList() {
		if want >= 0 && c.State != want || q != "" && !c.matches(q, ip) {
			continue
		}
		if total++; total > offset && len(found) < limit {
			found = append(found, e.adminCustomer(c))
		}
	}
	return found, total, nil
}

func (c *Customer) matches(q string, ip netip.Addr) bool {
	return strconv.FormatInt(c.ID, 10) == q || c.Login == q || strings.Contains(c.FullName, q) ||
		ip.IsValid() && slices.ContainsFunc(c.Addresses, func(a Address) bool { return a.IP == ip })
}

func (e *Emulator) serveCustomers(w http.ResponseWriter, r *http.Request) {
	offset, err1 := number(r.FormValue("offset"), 0)
	limit, err2 := number(r.FormValue("limit"), 100)
	if err := errors.Join(err1, err2); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	found, total, err := e.find(r.FormValue("state"), r.FormValue("q"), offset, min(limit, adminLimit))
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	writeJSON(w, map[string]any{"total": total, "customers": found})
}

func number(s string, otherwise int) (int, error) {
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("limit and offset: want a number from 0, got %q", s)
	}
	return n, nil
}

func (e *Emulator) serveSetState(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("customer %q: not a number", r.PathValue("id")))
		return
	}
	body, form, err := adminBody(w, r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	req := struct {
		State string `json:"state"`
	}{form.Get("state")}
	if form == nil {
		if err := json.Unmarshal(body, &req); err != nil {
			writeError(w, http.StatusBadRequest, fmt.Errorf("body: %w", err))
			return
		}
	}
	s, err := ParseState(req.State)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	switch err := e.SetState(id, s); {
	case errors.Is(err, ErrNotFound):
		writeError(w, http.StatusNotFound, err)
	case err != nil:
		writeError(w, http.StatusInternalServerError, err)
	case form != nil:
		http.Redirect(w, r, "/admin/?"+url.Values{"q": {form.Get("q")}}.Encode(), http.StatusSeeOther)
	default:
		writeJSON(w, e.adminCustomer(e.customer(id)))
	}
}

// serveSwitch serves a POST of one word, as the member name of a JSON object or
// as a field of the page's form.
func (e *Emulator) serveSwitch(name string, set func(string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, form, err := adminBody(w, r)
		word := form.Get(name)
		if err == nil && form == nil {
			var req map[string]string
			if err = json.Unmarshal(body, &req); err != nil {
				err = fmt.Errorf("body: %w", err)
			}
			word = req[name]
		}
		if err == nil {
			err = set(word)
		}
		switch {
		case err != nil:
			writeError(w, http.StatusBadRequest, err)
		case form != nil:
			http.Redirect(w, r, "/admin/", http.StatusSeeOther)
		default:
			e.log.Info("emulator switched", "what", name, "to", word)
			writeJSON(w, e.adminStatus())
		}
	}
}

func (e *Emulator) serveSetQuirks(w http.ResponseWriter, r *http.Request) {
	body, form, err := adminBody(w, r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	if form != nil {
		// The page sends the name of one quirk and its value as JSON.
		body, err = json.Marshal(map[string]json.RawMessage{form.Get("quirk"): json.RawMessage(form.Get("value"))})
		if err != nil {
			writeError(w, http.StatusBadRequest, fmt.Errorf("value %q: not JSON", form.Get("value")))
			return
		}
	}
	q, err := e.mergeQuirks(body)
	switch {
	case err != nil:
		writeError(w, http.StatusBadRequest, err)
	case form != nil:
		http.Redirect(w, r, "/admin/", http.StatusSeeOther)
	default:
		writeJSON(w, q)
	}
}

// mergeQuirks changes the quirks that the JSON object names.
func (e *Emulator) mergeQuirks(body []byte) (Quirks, error) {
	for {
		old := e.quirks.Load()
		q := *old
		if err := json.Unmarshal(body, &q); err != nil {
			return Quirks{}, err
		}
		if e.quirks.CompareAndSwap(old, &q) {
			e.log.Info("emulator quirks changed")
			return q, nil
		}
	}
}

// adminBody reads a request: form is nil when the body is JSON.
func adminBody(w http.ResponseWriter, r *http.Request) (body []byte, form url.Values, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // none: JSON
	if kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data" {
		// curl -d sends JSON as a form unless told otherwise.
		if body, err = io.ReadAll(r.Body); err != nil || bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
			return body, nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err := r.ParseMultipartForm(64 << 10); err != nil && !errors.Is(err, http.ErrNotMultipart) {
			return nil, nil, err
		}
		return nil, r.PostForm, nil
	}
	body, err = io.ReadAll(r.Body)
	return body, nil, err
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(append(b, '\n')) // the client's loss
}

func writeError(w http.ResponseWriter, status int, err error) {
	b, _ := json.Marshal(map[string]string{"error": err.Error()}) // cannot fail
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// quirkView is a quirk on the page.
type quirkView struct {
	Name   string
	Value  string // as JSON
	Switch bool   // on or off, by a button
	On     bool
}

// quirkViews returns the quirks in the order of the fields of Quirks.
func quirkViews(q Quirks) ([]quirkView, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	values := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &values); err != nil {
		return nil, err
	}
	var out []quirkView
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Quirks]()) {
		name := f.Tag.Get("json")
		if name == "-" {
			name = "delay_seconds"
		}
		v := string(values[name])
		out = append(out, quirkView{Name: name, Value: v, Switch: v == "true" || v == "false",
			On: v != "false" && v != "0" && v != "[]" && v != "{}"})
	}
	return out, nil
}

func (e *Emulator) servePage(w http.ResponseWriter, r *http.Request, tmpl *template.Template) {
	quirks, err := quirkViews(e.Quirks())
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	q, state := r.FormValue("q"), r.FormValue("state")
	found, total, err := e.find(state, q, 0, pageCustomers)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	status := e.adminStatus()
	var b bytes.Buffer
	err = tmpl.Execute(&b, map[string]any{
		"Status": status, "Calls": sortedKeys(status.Calls), "Quirks": quirks,
		"Profiles": Profiles(), "Shapes": []Shape{ShapeA, ShapeB, ShapeC, ShapeD, ShapeE, ShapeF},
		"Customers": found, "Total": total, "Query": q, "State": state,
	})
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}
