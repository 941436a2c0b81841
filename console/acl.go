package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
)

// ACLDeps are what the block lists are shown and steered by.
type ACLDeps struct {
	Wishes      ACLWishes
	Kernel      ACLKernel
	Maintenance Maintenance // nil: the kernel is not touched
	// Exempt tells the key of the configuration by which a subscriber or an
	// address is never blocked; empty: it is not exempt. The subscriber may be zero.
	Exempt func(id provision.SubscriberID, addr netip.Addr) string
	// Links tell what blocks IPv6; nil: that is not told.
	Links IPv6Links
	// Tenants tell what leases are worth; nil: that is not told.
	Tenants ACLTenants
}

// ACLTenants is the part of access.Enforcer that knows what a lease is worth.
type ACLTenants interface {
	LeaseStanding(ip netip.Addr) (access.LeaseStanding, bool)
}

// ACLWishes is the part of access.Enforcer that knows what should be.
type ACLWishes interface {
	Want() (access.ACL, error)
	Verify(ctx context.Context) (access.Verification, error)
	// Spared tells why an address is never blocked, whoever has it; empty: it is not spared.
	Spared(addr netip.Addr) access.Spared
}

// ACLKernel tells what is in the kernel and changes nothing.
type ACLKernel interface {
	Read(ctx context.Context) (acl.View, error)
	Sets(ctx context.Context, addr netip.Addr) ([]access.Set, error)
	Counters(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]access.Counter, error)
	AsNFT(ctx context.Context) (string, error)
	// Passed tells what rules let past a block.
	Passed(ctx context.Context) ([]acl.Passed, error)
}

// Maintenance is the switch that lets everybody through for a time.
type Maintenance interface {
	OpenFor(ctx context.Context, d time.Duration, reason string) (until time.Time, err error)
	Shut(ctx context.Context) error
	// Reason is that of the maintenance which lasts until then, as far as is known.
	Reason(until time.Time) string
}

// MaintenanceView is a maintenance that is on.
type MaintenanceView struct {
	Until       time.Time `json:"until"`
	LeftSeconds float64   `json:"left_seconds"`
	Reason      string    `json:"reason,omitempty"` // not known after a restart of the agent
}

// ACLSummary is what "usher acl show" tells.
type ACLSummary struct {
	Agent  bool   `json:"agent"` // one runs: want is known
	DryRun bool   `json:"dry_run"`
	Exists bool   `json:"exists"`           // the table, in the kernel
	Defect string `json:"defect,omitempty"` // how the table differs from that of the configuration

	Sets        []ACLSetView     `json:"sets"`
	Open        *MaintenanceView `json:"open,omitempty"`
	GuardDirect []string         `json:"guard_direct"` // interfaces
	GuardVLAN   []string         `json:"guard_vlan"`
	Passed      []acl.Passed     `json:"passed"` // past a block, since the rules were made
	Generation  uint64           `json:"generation"`
	Status      *access.Status   `json:"status,omitempty"`
}

// ACLSetView is one set.
type ACLSetView struct {
	Name string `json:"name"`
	Want *int   `json:"want,omitempty"` // absent: not known
	Have int    `json:"have"`
}

// ACLSubject is what "usher acl show CUSTOMER|IP" tells.
type ACLSubject struct {
	Query     string           `json:"query"`
	Agent     bool             `json:"agent"`
	DryRun    bool             `json:"dry_run"`
	Open      *MaintenanceView `json:"open,omitempty"`
	Addresses []ACLAddress     `json:"addresses"`
}

// ACLAddress is one address in the block lists.
type ACLAddress struct {
	IP         netip.Addr             `json:"ip"`
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
	State      *provision.State       `json:"state,omitempty"`
	Subnet     netip.Prefix           `json:"subnet,omitzero"`  // IP is of it, and stands for all that is the subscriber's there
	Pool       string                 `json:"pool,omitempty"`   // by whose lease the subscriber has it
	Gone       bool                   `json:"gone,omitempty"`   // the ERP does not have the subscriber any more, and State is the last one known
	Exempt     string                 `json:"exempt,omitempty"` // key of the configuration
	Spared     access.Spared          `json:"spared,omitempty"` // why it is not blocked though its customer is
	Want       string                 `json:"want"`             // stopped, paused, guests, open, or unknown
	Have       []string               `json:"have"`             // sets of the kernel
	Why        string                 `json:"why"`
	Blocked    access.Counter         `json:"blocked"` // packets that were refused from and to it
	Error      string                 `json:"error,omitempty"`
}

// ACLText is the table as nft prints it.
type ACLText struct {
	Text   string `json:"text" terminal:"lines"`
	Wanted bool   `json:"wanted"` // not what is in the kernel but what would be, of a dry run
}

// ACLDiff is what would be changed in the kernel now.
type ACLDiff struct {
	DryRun  bool             `json:"dry_run"`
	Exists  bool             `json:"exists"`
	Defect  string           `json:"defect,omitempty"`
	Add     access.SetCounts `json:"add"`
	Remove  access.SetCounts `json:"remove"`
	Changes []ACLChange      `json:"changes"` // the first ones
	More    int              `json:"more"`
}

// Equal tells that nothing would be changed.
func (d *ACLDiff) Equal() bool { return d.Defect == "" && len(d.Changes)+d.More == 0 }

// ACLChange is one step.
type ACLChange struct {
	Op      string `json:"op"` // add or remove
	Set     string `json:"set"`
	Element string `json:"element"`
}

// defaultDiff and maxDiff bound the list of changes.
const (
	defaultDiff = 20
	maxDiff     = 10_000
)

type openRequest struct {
	ForSeconds float64 `json:"for_seconds"`
	Reason     string  `json:"reason,omitempty"`
}

// maxReason bounds what is remembered of a reason, in bytes.
const maxReason = 200

func (c *control) handleACL(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/acl", c.withACL(func(r *http.Request) (any, error) { return c.d.aclSummary(r.Context()) }))
	mux.HandleFunc("GET /v1/acl/subject", c.withACL(func(r *http.Request) (any, error) {
		return c.d.aclSubject(r.Context(), r.URL.Query().Get("q"))
	}))
	mux.HandleFunc("GET /v1/acl/nft", c.withACL(func(r *http.Request) (any, error) { return c.d.aclText(r.Context()) }))
	mux.HandleFunc("GET /v1/acl/diff", c.withACL(func(r *http.Request) (any, error) {
		limit := defaultDiff
		if s := r.URL.Query().Get("limit"); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n > maxDiff {
				return nil, badRequest(fmt.Errorf("limit %.20q: want 0 to %d", s, maxDiff))
			}
			limit = n
		}
		return c.d.aclDiff(r.Context(), limit)
	}))
	mux.HandleFunc("POST /v1/acl/verify", c.aclAct(audit.ACLVerify, func(r *http.Request, rec *audit.Record) (any, error) {
		v, err := c.d.ACL.Wishes.Verify(r.Context())
		rec.What = audit.What{Extra: v.Extra, Missing: v.Missing, Rebuilt: v.Rebuilt}
		return &v, err
	}))
	mux.HandleFunc("POST /v1/acl/open", c.aclAct(audit.ACLOpen, func(r *http.Request, rec *audit.Record) (any, error) {
		var req openRequest
		if err := readJSON(r, &req); err != nil {
			return nil, badRequest(err)
		}
		rec.What = audit.What{Seconds: req.ForSeconds, Reason: req.Reason}
		m, err := c.d.openACL(r.Context(), req)
		if err != nil {
			return nil, err
		}
		rec.What.Until = m.Until
		return m, nil
	}))
	mux.HandleFunc("POST /v1/acl/close", c.aclAct(audit.ACLClose, func(r *http.Request, rec *audit.Record) (any, error) {
		closed, err := c.d.closeACL(r.Context())
		if err != nil {
			return nil, err
		}
		rec.What.WasOpen = &closed.WasOpen
		return closed, nil
	}))
}

// withACL serves a question about the block lists.
func (c *control) withACL(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c.d.ACL == nil {
			answer(w, nil, errNoACL)
			return
		}
		v, err := f(r)
		answer(w, v, err)
	}
}

// aclAct serves an act upon the block lists.
func (c *control) aclAct(name audit.Act, f func(*http.Request, *audit.Record) (any, error)) http.HandlerFunc {
	return c.act(name, func(r *http.Request, rec *audit.Record) (any, error) {
		if c.d.ACL == nil {
			return nil, errNoACL
		}
		rec.KernelDryRun = c.d.Enforcer.Status().DryRun
		return f(r, rec)
	})
}

// maintenance returns the maintenance that is on, or nil.
func (d *Deps) maintenance(until time.Time) *MaintenanceView {
	left := until.Sub(d.now())
	if until.IsZero() || left <= 0 {
		return nil
	}
	m := &MaintenanceView{Until: until, LeftSeconds: left.Seconds()}
	if d.ACL != nil && d.ACL.Maintenance != nil {
		m.Reason = d.ACL.Maintenance.Reason(until)
	}
	return m
}

func (d *Deps) aclSummary(ctx context.Context) (*ACLSummary, error) {
	st := d.Enforcer.Status()
	s := &ACLSummary{Agent: true, DryRun: st.DryRun, Generation: st.Generation, Status: &st, Open: d.maintenance(st.OpenUntil)}
	want, err := d.ACL.Wishes.Want()
	if err != nil && !errors.Is(err, access.ErrNoSnapshot) {
		return nil, err
	}
	known := err == nil
	view, err := d.ACL.Kernel.Read(ctx)
	if err != nil && !st.DryRun {
		return nil, err
	}
	if err != nil { // a dry run may lack the right to look
		s.Defect = err.Error()
	} else {
		s.Exists, s.Defect = view.Exists, view.Defect
		if s.Open == nil {
			s.Open = d.maintenance(view.OpenUntil)
		}
	}
	if s.Passed, err = d.ACL.Kernel.Passed(ctx); err != nil {
		s.Passed = []acl.Passed{} // Defect tells why, or there is no table
	}
	s.GuardDirect, s.GuardVLAN = want.Strings(access.SetGuardedDirect), want.Strings(access.SetGuardedVLAN)
	wants, haves := want.Counts(), view.ACL.Counts()
	for set := range access.Sets() {
		if set.Optional() && wants[set]+haves[set] == 0 {
			continue
		}
		v := ACLSetView{Name: set.String(), Have: haves[set]}
		if known {
			n := wants[set]
			v.Want = &n
		}
		s.Sets = append(s.Sets, v)
	}
	return s, nil
}

func (d *Deps) aclSubject(ctx context.Context, q string) (*ACLSubject, error) {
	sub, err := parseSubject(q)
	if err == nil && sub.kind == "mac" {
		err = errors.New("want an IPv4 address or a customer id: block lists know no MACs")
	}
	if err != nil {
		return nil, badRequest(err)
	}
	want, err := d.ACL.Wishes.Want()
	if err != nil {
		return nil, err
	}
	st := d.Enforcer.Status()
	s := &ACLSubject{Query: q, Agent: true, DryRun: st.DryRun, Open: d.maintenance(st.OpenUntil), Addresses: []ACLAddress{}}
	snap := d.Syncer.Current()
	var ips []netip.Addr
	pools := map[netip.Addr]lease.Record{}
	if sub.kind == "ip" {
		ips = append(ips, sub.ip)
		if d.Leases != nil {
			if rec, ok := d.Leases.Get(sub.ip); ok && rec.Live(d.now()) && (rec.Pool != "" || d.outlived(sub.ip)) {
				pools[rec.IP] = rec
			}
		}
	} else {
		for l := range snap.BySubscriber(sub.id).All() {
			ips = slices.AppendSeq(ips, l.Hosts4())
		}
		if d.Leases != nil {
			for _, rec := range d.Leases.BySubscriber(sub.id) {
				if rec.Live(d.now()) && snap.ByIP(rec.IP) == nil && (rec.Pool != "" || d.outlived(rec.IP)) {
					pools[rec.IP] = rec
					ips = append(ips, rec.IP)
				}
			}
		}
		if _, known := snap.Subscriber(sub.id); !known && len(ips) == 0 && len(snap.SubnetsOf(sub.id)) == 0 {
			return nil, statusErr{http.StatusNotFound, fmt.Errorf("the ERP has no customer %d, or gives it neither state nor address", sub.id)}
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	counters, cerr := d.ACL.Kernel.Counters(ctx, ips)
	for _, ip := range slices.Compact(ips) {
		a := ACLAddress{IP: ip, Want: wantOf(want, ip), Have: []string{}, Blocked: counters[ip]}
		if b := snap.ByIP(ip); b != nil {
			a.Subscriber = b.Subscriber
		} else if rec, ok := pools[ip]; ok {
			a.Subscriber, a.Pool = rec.Subscriber, rec.Pool
		} else if n, in := snap.SubnetOf(ip); in {
			a.Subscriber, a.Subnet = n.Subscriber, n.Prefix
		}
		if a.Subscriber != 0 {
			state := snap.State(a.Subscriber)
			if t, ok := d.tenant(ip); ok && !t.Known && t.Holder == a.Subscriber {
				state, a.Gone = t.State, true
			}
			a.State = &state
		}
		a.Exempt = d.ACL.Exempt(a.Subscriber, ip)
		if a.State != nil && a.State.Blocks() && a.Exempt == "" {
			a.Spared = d.ACL.Wishes.Spared(ip)
		}
		a.Why = whyBlocked(&a)
		if d.inKernel(ctx, &a); a.Error == "" && cerr != nil {
			a.Error = cerr.Error()
		}
		s.Addresses = append(s.Addresses, a)
	}
	if sub.kind != "ip" {
		d.aclSubnets(ctx, s, &want, snap, sub.id)
	}
	return s, nil
}

// tenant judges the lease of an address; false if it has none of a customer, and where that is not told.
func (d *Deps) tenant(ip netip.Addr) (access.LeaseStanding, bool) {
	if d.ACL == nil || d.ACL.Tenants == nil {
		return access.LeaseStanding{}, false
	}
	return d.ACL.Tenants.LeaseStanding(ip)
}

// outlived reports whether a customer has an address by a lease without the row that it was given for.
func (d *Deps) outlived(ip netip.Addr) bool {
	t, ok := d.tenant(ip)
	return ok && t.Owner == t.Holder
}

// wantOf names the set that should have an address.
func wantOf(want access.ACL, a netip.Addr) string {
	if set := want.Standing(a); set != 0 {
		return set.String()
	}
	return "open"
}

// whyBlocked says in a sentence why an address is treated so.
func whyBlocked(a *ACLAddress) string {
	who := "nobody is bound to it"
	if a.Subscriber != 0 {
		who = fmt.Sprintf("customer %d is %s", a.Subscriber, stateWord(*a.State))
		if a.Subnet.IsValid() {
			who += fmt.Sprintf(", whose subnet %s it is", a.Subnet)
		}
		if a.Gone {
			who = fmt.Sprintf("the ERP does not have customer %d any more, who counts as %s until its lease ends", a.Subscriber, stateWord(*a.State))
		}
		if a.Pool != "" {
			who += fmt.Sprintf(" and has it by a lease of the pool %s", a.Pool)
		}
	}
	switch {
	case a.Exempt != "":
		return fmt.Sprintf("exempt by %s; %s", a.Exempt, who)
	case a.Spared != "":
		return fmt.Sprintf("%s, but it is %s, which is never blocked", who, a.Spared)
	case a.Want == access.SetGuests.String():
		return "it is one of a pool for guests, and " + who
	default:
		return who
	}
}

func stateWord(s provision.State) string {
	switch s {
	case provision.StateStop:
		return "stopped"
	case provision.StatePause:
		return "paused"
	case provision.StateActive:
		return "active"
	default:
		return "of no known state, which blocks nothing"
	}
}

func (d *Deps) aclText(ctx context.Context) (*ACLText, error) {
	text, err := d.ACL.Kernel.AsNFT(ctx)
	return &ACLText{Text: text, Wanted: d.Enforcer.Status().DryRun}, err
}

func (d *Deps) aclDiff(ctx context.Context, limit int) (*ACLDiff, error) {
	want, err := d.ACL.Wishes.Want()
	if err != nil {
		return nil, err
	}
	view, err := d.ACL.Kernel.Read(ctx)
	if err != nil {
		return nil, err
	}
	out := &ACLDiff{DryRun: d.Enforcer.Status().DryRun, Exists: view.Exists, Defect: view.Defect, Changes: []ACLChange{}}
	for _, c := range access.Plan(want, view.ACL) {
		if c.Op == provision.OpAdd {
			out.Add[c.Set]++
		} else {
			out.Remove[c.Set]++
		}
		if len(out.Changes) < limit {
			out.Changes = append(out.Changes, ACLChange{c.Op.String(), c.Set.String(), c.Element.String()})
		} else {
			out.More++
		}
	}
	return out, nil
}

var (
	errNoACL         = statusErr{http.StatusNotImplemented, errors.New("this agent keeps no block lists (acl.enabled is false)")}
	errNoMaintenance = statusErr{http.StatusConflict, errors.New("a dry run touches nothing: there is nothing to open")}
)

func (d *Deps) openACL(ctx context.Context, req openRequest) (*MaintenanceView, error) {
	if d.ACL.Maintenance == nil {
		return nil, errNoMaintenance
	}
	length := time.Duration(req.ForSeconds * float64(time.Second))
	if req.ForSeconds != req.ForSeconds || req.ForSeconds < 1 || req.ForSeconds > acl.MaxOpen.Seconds() {
		return nil, badRequest(fmt.Errorf("open for %gs: want 1s to %s", req.ForSeconds, acl.MaxOpen))
	}
	if len(req.Reason) > maxReason {
		return nil, badRequest(fmt.Errorf("a reason of %d bytes: want at most %d", len(req.Reason), maxReason))
	}
	until, err := d.ACL.Maintenance.OpenFor(ctx, length, req.Reason)
	if err != nil {
		return nil, err
	}
	return &MaintenanceView{Until: until, LeftSeconds: until.Sub(d.now()).Seconds(), Reason: req.Reason}, nil
}

// ACLClosed is the answer to the end of a maintenance.
type ACLClosed struct {
	WasOpen bool `json:"was_open"`
}

func (d *Deps) closeACL(ctx context.Context) (*ACLClosed, error) {
	if d.ACL.Maintenance == nil {
		return nil, errNoMaintenance
	}
	was := d.maintenance(d.Enforcer.Status().OpenUntil) != nil
	if err := d.ACL.Maintenance.Shut(ctx); err != nil {
		return nil, err
	}
	return &ACLClosed{was}, nil
}

// ACL asks what is in the block lists.
func (c *Client) ACL(ctx context.Context) (*ACLSummary, error) {
	return call[ACLSummary](ctx, c, http.MethodGet, "/v1/acl", nil)
}

// ACLOf asks about the addresses of a customer, or about one address.
func (c *Client) ACLOf(ctx context.Context, q string) (*ACLSubject, error) {
	return call[ACLSubject](ctx, c, http.MethodGet, "/v1/acl/subject?q="+url.QueryEscape(q), nil)
}

// ACLText asks for the table as nft prints it.
func (c *Client) ACLText(ctx context.Context) (*ACLText, error) {
	return call[ACLText](ctx, c, http.MethodGet, "/v1/acl/nft", nil)
}

// ACLDiff asks what would be changed in the kernel now; at most limit changes
// are listed.
func (c *Client) ACLDiff(ctx context.Context, limit int) (*ACLDiff, error) {
	return call[ACLDiff](ctx, c, http.MethodGet, "/v1/acl/diff?limit="+strconv.Itoa(limit), nil)
}

// VerifyACL has everything read back and repaired now.
func (c *Client) VerifyACL(ctx context.Context) (*access.Verification, error) {
	return call[access.Verification](ctx, c, http.MethodPost, "/v1/acl/verify", nil)
}

// OpenACL lets everybody through for a time.
func (c *Client) OpenACL(ctx context.Context, d time.Duration, reason string) (*MaintenanceView, error) {
	return call[MaintenanceView](ctx, c, http.MethodPost, "/v1/acl/open", openRequest{d.Seconds(), reason})
}

// CloseACL ends a maintenance.
func (c *Client) CloseACL(ctx context.Context) (*ACLClosed, error) {
	return call[ACLClosed](ctx, c, http.MethodPost, "/v1/acl/close", nil)
}
