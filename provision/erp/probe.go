package erp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// ProbeOptions say what to probe, as the agent would use it.
type ProbeOptions struct {
	Client   userside.Options // its transport is made here
	Fetch    Options
	Subnets  []netip.Prefix // as in the configuration; may be empty
	Reserved []netip.Addr
	Pools    []provision.AddrRange
	Relays   []netip.Prefix
	Progress func(action string) // called before each call; nil: nobody
}

// May says whether the key may use an action.
type May string

// The answers of May.
const (
	MayUse     May = "yes"
	MayNotUse  May = "no"      // the ERP refuses the key, its address or the section
	MayRefused May = "refused" // the ERP says no and not why: it lacks the action, or the key may not
	MayUnknown May = "unknown" // no sound answer came
)

// ProbeCall is what came of one action.
type ProbeCall struct {
	Action  string           `json:"action"`  // category.action
	For     string           `json:"for"`     // what the agent needs it for; empty: it does not
	May     May              `json:"may"`     //
	Outcome userside.Outcome `json:"outcome"` // of the newest call
	Calls   int              `json:"calls"`
	Seconds float64          `json:"took_seconds"` // of all calls together
	Slowest float64          `json:"slowest_seconds"`
	Bytes   int64            `json:"bytes"` // of the largest answer, unpacked
	Detail  string           `json:"detail,omitempty"`
}

// ProbeReport is what Probe found out.
type ProbeReport struct {
	URL      string            `json:"url"`
	Version  string            `json:"version,omitempty"` // empty: not told
	PHP      string            `json:"php_version,omitempty"`
	OS       string            `json:"os,omitempty"`
	Envelope userside.Envelope `json:"envelope,omitempty"`
	Calls    []ProbeCall       `json:"calls"`
	NotTried []string          `json:"not_tried"` // actions that the agent uses and that change data

	Shape       string `json:"bindings_shape,omitempty"`       // of get_ip_port_device_commutation: A to F, or unknown
	Fingerprint string `json:"bindings_fingerprint,omitempty"` // when the shape is unknown
	Post        string `json:"post"`                           // works, refused, unknown

	StateZero         ZeroAnswer `json:"state_zero"`
	StateZeroCompared int        `json:"state_zero_compared"` // cards of customers in the list of state 0 that were looked at
	StateZeroOther    int        `json:"state_zero_other"`    // of these, cards with another state

	Source    provision.Source              `json:"source,omitempty"`
	Rows      int                           `json:"rows"`
	Counts    provision.Counts              `json:"counts"`
	Problems  map[provision.ProblemKind]int `json:"problems"`
	FetchTook float64                       `json:"fetch_seconds"`

	Ready    bool     `json:"ready"` // the agent can run
	Reason   string   `json:"reason"`
	Warnings []string `json:"warnings"`
}

// Probe asks an ERP, by reads alone, all that the agent will ask and a little
// more. The error is for options that cannot be right; what the ERP does is in
// the report.
func Probe(ctx context.Context, o ProbeOptions) (*ProbeReport, error) {
	transport, err := userside.NewTransport(o.Client)
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	p := &prober{opts: o, heard: map[string]*ProbeCall{}, out: &ProbeReport{
		URL: o.Client.URL, Calls: []ProbeCall{}, Warnings: []string{}, Problems: map[provision.ProblemKind]int{},
		NotTried:  []string{"customer.set_mac_by_ip", "customer.state_change"},
		StateZero: ZeroUnknown, Post: "unknown",
	}}
	co := o.Client
	co.Transport, co.CAFile, co.InsecureSkipVerify = &userside.Tap{Next: transport, Heard: p.hear, MaxText: co.MaxText << 10}, "", false
	co.Retries = 0
	if p.client, err = userside.New(co); err != nil {
		return nil, err
	}
	fetcher, err := New(p.client, o.Fetch)
	if err != nil {
		return nil, err
	}
	p.maxAsk = fetcher.opts.MaxAsk
	p.run(ctx, fetcher)
	for _, action := range p.order {
		p.out.Calls = append(p.out.Calls, *p.heard[action])
	}
	return p.out, nil
}

type prober struct {
	opts   ProbeOptions
	client *userside.Client
	out    *ProbeReport
	maxAsk int // cards that a fetch reads of customers in no list

	mu    sync.Mutex // guards what follows: the transport may call from anywhere
	heard map[string]*ProbeCall
	order []string
}

func (p *prober) call(action string) *ProbeCall {
	c := p.heard[action]
	if c == nil {
		c = &ProbeCall{Action: action, For: neededFor(action), May: MayUnknown, Outcome: userside.OutcomeUnavailable}
		p.heard[action] = c
		p.order = append(p.order, action)
	}
	return c
}

func neededFor(action string) string {
	switch action {
	case "customer.get_ip_port_device_commutation":
		return "bindings"
	case "customer.get_customers_id":
		return "states"
	case "customer.get_data":
		return "composed bindings, states"
	case "commutation.get_data":
		return "composed bindings"
	case "device.get_data":
		return "switches"
	case "system.get_system_info":
		return "version"
	}
	return ""
}

// hear counts what passes the transport.
func (p *prober) hear(h userside.Heard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.call(h.Category + "." + h.Action)
	c.Calls++
	c.Seconds += h.Took.Seconds()
	c.Slowest = max(c.Slowest, h.Took.Seconds())
	c.Bytes = max(c.Bytes, h.Form.Bytes)
	if e := h.Form.Envelope; p.out.Envelope == "" && e != userside.EnvelopeBare {
		p.out.Envelope = e
	}
	if c.Action == "customer.get_ip_port_device_commutation" && h.Err == nil && h.Status == 200 {
		p.out.Shape, p.out.Fingerprint = h.Form.Shape, ""
		if h.Form.Shape == "unknown" {
			p.out.Fingerprint = h.Form.Fingerprint
		}
	}
}

// try does one call and keeps what came of it.
func (p *prober) try(action string, f func() error) error {
	if p.opts.Progress != nil {
		p.opts.Progress(action)
	}
	err := f()
	p.judge(action, err)
	return err
}

func (p *prober) judge(action string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.call(action)
	c.Outcome, c.Detail = userside.OutcomeOK, ""
	var e *userside.Error
	switch {
	case err == nil:
		c.May = MayUse
		return
	case errors.As(err, &e):
		c.Detail = e.Text
		if e.Status != 0 && e.Status != 200 {
			c.Detail = fmt.Sprintf("http status %d: %s", e.Status, e.Text)
		}
	default:
		c.Detail = err.Error()
	}
	switch {
	case errors.Is(err, userside.ErrPermission):
		c.May, c.Outcome = MayNotUse, userside.OutcomePermission
	case errors.Is(err, userside.ErrNotFound):
		c.May, c.Outcome = MayUse, userside.OutcomeNotFound
	case errors.Is(err, userside.ErrRefused):
		c.May, c.Outcome = MayRefused, userside.OutcomeRefused
	case errors.Is(err, userside.ErrUnknownShape):
		c.May, c.Outcome = MayUse, userside.OutcomeUnknownShape
	case errors.Is(err, userside.ErrMalformed):
		c.May, c.Outcome = MayUnknown, userside.OutcomeMalformed
	case errors.Is(err, context.DeadlineExceeded):
		c.May, c.Outcome = MayUnknown, userside.OutcomeTimeout
	default:
		c.May, c.Outcome = MayUnknown, userside.OutcomeUnavailable
	}
}

func (p *prober) run(ctx context.Context, fetcher *Fetcher) {
	err := p.try("system.get_system_info", func() error {
		info, err := p.client.SystemInfo(ctx)
		if err == nil {
			p.out.Version, p.out.PHP, p.out.OS = info.Version.Text(), info.PHPVersion.Text(), info.OS.Text()
			if skew := time.Since(info.Time).Abs(); !info.Time.IsZero() && skew > 5*time.Minute {
				p.warn("the clocks of the ERP and of this host differ by %s", skew.Round(time.Second))
			}
		}
		return err
	})
	if errors.Is(err, userside.ErrUnavailable) {
		p.out.Reason = "the ERP does not answer: " + err.Error()
		return // every other call would only wait as long
	}
	snapshot, fetchErr := p.fetch(ctx, fetcher)
	p.reads(ctx, snapshot)
	if z := fetcher.memory.zeroChecked(); z.Answer != ZeroUnknown && z.Answer != "" {
		p.out.StateZero, p.out.StateZeroCompared, p.out.StateZeroOther = z.Answer, z.Compared, z.Other
	}
	p.conclude(snapshot, fetchErr)
}

// fetch reads everything as the agent does.
func (p *prober) fetch(ctx context.Context, fetcher *Fetcher) (*provision.Snapshot, error) {
	if p.opts.Progress != nil {
		p.opts.Progress("everything that the agent reads")
	}
	begin := time.Now()
	in, err := fetcher.Fetch(ctx, nil)
	p.out.FetchTook = time.Since(begin).Seconds()
	if err != nil {
		return nil, err
	}
	in.Subnets, in.Reserved, in.Pools, in.Relays = p.opts.Subnets, p.opts.Reserved, p.opts.Pools, p.opts.Relays
	p.out.Source, p.out.Rows = in.Source, len(in.Lines)
	snapshot, problems := provision.Build(in)
	for _, problem := range problems {
		p.out.Problems[problem.Kind]++
	}
	p.out.Counts = snapshot.Counts()
	return snapshot, nil
}

// firstBound returns the first line that has a host address, or nil.
func firstBound(s *provision.Snapshot) *provision.Line {
	for l := range s.Lines().All() {
		if !l.Vacant() {
			return l
		}
	}
	return nil
}

// reads tries each read by itself, so that the report can say what the key may do.
func (p *prober) reads(ctx context.Context, snapshot *provision.Snapshot) {
	states := p.states(ctx)
	customer, ip := int64(1), "192.0.2.1"
	if l := firstBound(snapshot); l != nil {
		customer, ip = int64(l.Subscriber), l.Addresses[0].Prefix.Addr().String()
	} else if len(states) > 0 {
		customer = states[0]
	}
	id := strconv.FormatInt(customer, 10)
	_ = p.try("customer.get_ip_port_device_commutation", func() error { _, err := p.client.CustomerBindings(ctx); return err })
	_ = p.try("customer.get_data", func() error {
		_, err := p.client.Customers(ctx, append([]int64{customer}, states[:min(1, len(states))]...))
		return err
	})
	_ = p.try("commutation.get_data", func() error { _, err := p.client.CustomerChain(ctx, customer); return err })
	_ = p.try("device.get_data", func() error { _, err := p.client.Devices(ctx, userside.DeviceFilter{}); return err })
	for _, t := range []struct {
		category, name string
		args           url.Values
	}{
		{"customer", "get_customer_id", url.Values{"data_typer": {"ip"}, "data_value": {ip}}},
		{"customer", "get_abon_id", url.Values{"data_typer": {"ip"}, "data_value": {ip}}},
		{"customer", "get_mac_history", url.Values{"customer_id": {id}}},
		{"customer", "get_customer_group", nil},
		{"device", "find_mac", url.Values{"mac": {"00005e005301"}}},
		{"module", "get_user_state_list", nil},
		{"module", "get_user_list", url.Values{"customer_id": {id}}},
	} {
		_ = p.try(t.category+"."+t.name, func() error { return p.client.Try(ctx, t.category, t.name, t.args, false) })
	}
	err := p.client.Try(ctx, "customer", "get_customers_id", url.Values{"state_id": {"2"}, "limit": {"1"}}, true)
	switch {
	case err == nil:
		p.out.Post = "works"
	case errors.Is(err, userside.ErrRefused) || errors.Is(err, userside.ErrPermission):
		p.out.Post = "refused"
	}
}

// states learns whether state_id=0 is a condition, as far as two lists tell: the
// fetch compares cards, too. It gives the active customers.
func (p *prober) states(ctx context.Context) []int64 {
	active, stop := 2, 0
	var all, stopped userside.IDs
	if err := p.try("customer.get_customers_id", func() (err error) {
		all, err = p.client.CustomerIDs(ctx, userside.CustomerFilter{State: &active})
		return err
	}); err != nil {
		return nil
	}
	stopped, err := p.client.CustomerIDs(ctx, userside.CustomerFilter{State: &stop})
	switch {
	case errors.Is(err, userside.ErrRefused) || errors.Is(err, userside.ErrUnknownShape):
		p.out.StateZero = ZeroRefused
	case err == nil:
		p.out.StateZero = ZeroCondition
		in := make(map[int64]bool, len(stopped))
		for _, id := range stopped {
			in[id] = true
		}
		both := 0
		for _, id := range all {
			if in[id] {
				both++
			}
		}
		if both > 1 && 2*both > len(all) {
			p.out.StateZero = ZeroIgnored
		}
	}
	return all
}

func (p *prober) warn(format string, args ...any) {
	p.out.Warnings = append(p.out.Warnings, fmt.Sprintf(format, args...))
}

// conclude says whether the agent can run, and why.
func (p *prober) conclude(s *provision.Snapshot, err error) {
	out := p.out
	may := func(action string) May {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.call(action).May
	}
	switch {
	case errors.Is(err, userside.ErrPermission):
		out.Reason = "the key may not read what the agent needs: " + err.Error()
		return
	case err != nil:
		out.Reason = "the ERP cannot be read: " + err.Error()
		return
	case s.Len() == 0:
		out.Reason = "the ERP answers no binding of an address"
		return
	}
	out.Ready = true
	out.Reason = fmt.Sprintf("get_ip_port_device_commutation answers %d rows of %d customers", out.Rows, out.Counts.Subscribers)
	if out.Source == provision.SourceComposed {
		out.Reason = fmt.Sprintf("%d rows of %d customers can be composed of customers, commutation and devices", out.Rows, out.Counts.Subscribers)
		switch m := may("customer.get_ip_port_device_commutation"); {
		case p.opts.Fetch.Bindings == ModeComposed:
		case out.Shape == "F":
			p.warn("get_ip_port_device_commutation answers no row, and while that is so, each poll asks for every customer")
		case m == MayUse:
			p.warn("get_ip_port_device_commutation answers in a shape that is not known; a recording (usher erp record) would help to read it")
		default:
			p.warn("get_ip_port_device_commutation cannot be used, which makes each poll ask for every customer")
		}
	}
	if m := may("device.get_data"); m != MayUse {
		p.warn("switches cannot be listed: option 82 is matched only as far as the rows name them")
	}
	if out.StateZero == ZeroIgnored {
		p.warn("the list of state 0 has customers of other states, so nobody is blocked by it: who is in no other list is read from cards, %d a fetch", p.maxAsk)
	}
	if n := out.Counts.Unknown; n > 0 {
		p.warn("the state of %d customers is not known; they are never blocked", n)
	}
	if n := out.Counts.WithoutPort; 2*n > out.Counts.Bindings {
		p.warn("%d of %d bindings have no switch port: they are found by MAC only", n, out.Counts.Bindings)
	}
}
