package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
)

// explainEvents is how many packets an Explanation lists.
const explainEvents = 20

// Explanation is what is known about one address, MAC or subscriber, and why it
// has an address or has none.
type Explanation struct {
	Query   string `json:"query"`
	Kind    string `json:"kind"`    // ip, mac or customer
	Summary string `json:"summary"` // some sentences for people

	Subscribers []SubscriberView    `json:"subscribers"`
	Bindings    []BindingView       `json:"bindings"`
	Subnets     []SubnetView        `json:"subnets,omitempty"` // of the customer, or that the address lies in
	Leases      []LeaseView         `json:"leases"`
	Problems    []provision.Problem `json:"problems"`       // of the ERP's data, that mention it
	Events      []EventView         `json:"events"`         // newest first
	Pool        *dhcpd.PoolAddress  `json:"pool,omitempty"` // of an address in the range of a pool
	Would       *WouldView          `json:"would,omitempty"`
	Held        []syncer.HeldChange `json:"held,omitempty"`    // what the fetch guard holds of the subscribers
	Foreign     []outbox.Foreign    `json:"foreign,omitempty"` // reports that were dropped since their MAC is another client's: of it, of its address, or of whom it is

	Source        provision.Source `json:"source"` // of the snapshot; empty: there is none
	FetchedAt     time.Time        `json:"fetched_at,omitzero"`
	WatchingSince time.Time        `json:"watching_since"` // packets before are not known
}

// LeaseView is a lease record with the place where it was given.
type LeaseView struct {
	lease.Record
	Place string `json:"place"` // in words
	// Overruled says that the ERP has got another MAC for the address since, and what comes of it.
	Overruled *OverruledView `json:"overruled,omitempty"`
}

// SubscriberView is a subscriber and its state.
type SubscriberView struct {
	ID     provision.SubscriberID `json:"id"`
	State  provision.State        `json:"state"`
	Listed bool                   `json:"listed"` // a state list of the ERP has it
}

// BindingView is one row of the snapshot with what belongs to its address.
type BindingView struct {
	Subscriber provision.SubscriberID `json:"subscriber"`
	IP         netip.Addr             `json:"ip"`
	MAC        provision.MAC          `json:"mac,omitzero"`
	Device     provision.DeviceID     `json:"device,omitempty"`
	DeviceName string                 `json:"device_name,omitempty"`
	DeviceIP   netip.Addr             `json:"device_ip,omitzero"`
	Model      string                 `json:"device_model,omitempty"`
	Port       uint32                 `json:"port,omitempty"`
	PortName   string                 `json:"port_name,omitempty"`
	VLAN       uint16                 `json:"vlan,omitempty"`
	ACL        ACLView                `json:"acl"`
	Report     *outbox.Entry          `json:"report,omitempty"` // MAC that waits to be told to the ERP
}

// ACLView is in which set an address should be and in which it is: open,
// stopped, paused, or for Have also stopped+paused and unknown.
type ACLView struct {
	Want  string `json:"want"`
	Have  string `json:"have"`
	Error string `json:"error,omitempty"` // why Have is unknown

	Exempt string        `json:"exempt,omitempty"` // key of the configuration by which it is never blocked
	Spared access.Spared `json:"spared,omitempty"` // why it is not blocked though its customer is
}

// WouldView is what a DISCOVER of the client would lead to now, by the server's
// own decision.
type WouldView struct {
	MAC       provision.MAC `json:"mac,omitzero"`
	Option82  lease.Hex     `json:"option82,omitempty"`
	Relay     netip.Addr    `json:"relay,omitzero"`
	Source    netip.Addr    `json:"source,omitzero"` // that the relay sends from; absent: taken to be Relay
	Outcome   string        `json:"outcome"`
	Text      string        `json:"text"`
	Advice    string        `json:"advice,omitempty"`
	VouchedBy string        `json:"vouched_by"`                   // for where the client is; none: nobody
	Rule      string        `json:"rule,omitempty"`               // row of docs/dhcp-matching.md that decides
	RuleText  string        `json:"rule_text,omitempty"`          // the row in a sentence
	Holder    provision.MAC `json:"holder,omitzero"`              // client of the lease record of your_ip
	Since     time.Time     `json:"since,omitzero"`               // when Holder got it
	Stray     string        `json:"stray,omitempty"`              // the address is given by MAC on a line that does not say so: why that may be the wrong place
	StrayText string        `json:"stray_text,omitempty"`         // the same in a sentence
	Untrusted bool          `json:"option82_untrusted,omitempty"` // option 82 is left out of account: Relay, or without one Interface, is not trusted with it
	MatchedBy string        `json:"matched_by,omitempty"`         // ways of dhcp.match, joined by +
	Interface string        `json:"interface,omitempty"`
	VLAN      uint16        `json:"vlan,omitempty"`      // that the interface is named after
	ClientID  string        `json:"client_id,omitempty"` // in words
	Circuit   string        `json:"circuit,omitempty"`
	Remote    string        `json:"remote,omitempty"`
	RelaySays string        `json:"relay_says,omitempty"` // what else is in option 82
	Profile   string        `json:"profile,omitempty"`    // that read option 82, or was to
	Fault     string        `json:"fault,omitempty"`      // why it could not

	Networks v4.OtherNetwork `json:"other_network,omitzero"` // the client is in one network, and its address is of another

	Device provision.DeviceID `json:"device,omitempty"`
	Port   uint32             `json:"port,omitempty"`
	YourIP netip.Addr         `json:"your_ip,omitzero"`
	Via    string             `json:"via,omitempty"`
	Rival  provision.MAC      `json:"rival,omitzero"` // who has your_ip and keeps it until Until at least
	Until  time.Time          `json:"until,omitzero"`
}

// errQuery is an error of whoever asks.
var errQuery = errors.New("want an IPv4 address, a MAC or a customer id")

// subject is what a query asks about.
type subject struct {
	kind string
	ip   netip.Addr
	mac  provision.MAC
	id   provision.SubscriberID
}

// parseSubject tells the three kinds of a query apart. Twelve digits without
// separators are a MAC: no ERP has so many customers.
func parseSubject(q string) (subject, error) {
	q = strings.TrimSpace(q)
	if ip, err := netip.ParseAddr(q); err == nil && ip.Unmap().Is4() {
		return subject{kind: "ip", ip: ip.Unmap()}, nil
	}
	if id, err := strconv.ParseInt(q, 10, 64); err == nil && len(q) != 12 && id > 0 {
		return subject{kind: "customer", id: provision.SubscriberID(id)}, nil
	}
	if mac, err := provision.ParseMAC(q); err == nil && !mac.IsZero() {
		return subject{kind: "mac", mac: mac}, nil
	}
	return subject{}, fmt.Errorf("%w, got %.60q", errQuery, q)
}

func (s subject) String() string {
	switch s.kind {
	case "ip":
		return s.ip.String()
	case "mac":
		return s.mac.String()
	default:
		return fmt.Sprintf("customer %d", s.id)
	}
}

// explain answers one query.
func (d *Deps) explain(ctx context.Context, q string) (*Explanation, error) {
	return d.explainFrom(ctx, q, netip.Addr{})
}

// explainFrom answers one query. A source that is valid is where the client's next packet would come from, if a relay brings it.
func (d *Deps) explainFrom(ctx context.Context, q string, source netip.Addr) (*Explanation, error) {
	sub, err := parseSubject(q)
	if err != nil {
		return nil, err
	}
	snap := d.Syncer.Current()
	x := &explainer{d: d, ctx: ctx, snap: snap, now: d.now(), sub: sub, source: source, sources: d.Syncer.Status().Sources, x: &Explanation{
		Query: q, Kind: sub.kind, Source: snap.Source(), FetchedAt: snap.FetchedAt(), WatchingSince: d.Started,
		Subscribers: []SubscriberView{}, Bindings: []BindingView{}, Leases: []LeaseView{},
		Problems: []provision.Problem{}, Events: []EventView{},
	}}
	x.bindings()
	x.leases()
	x.foreign()
	x.pool()
	x.subscribers()
	x.problems()
	x.events()
	x.would()
	x.spareERP()
	x.x.Summary = x.summary()
	return x.x, nil
}

// row is an address that the ERP gives, with its line.
type row struct {
	*provision.Line
	ip netip.Addr
}

// rowsOf returns the addresses of lines, ascending.
func rowsOf(lines provision.Lines) []row {
	var rows []row
	for l := range lines.All() {
		for ip := range l.Hosts4() {
			rows = append(rows, row{l, ip})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return a.ip.Compare(b.ip) })
	return rows
}

// explainer gathers one Explanation from one snapshot.
type explainer struct {
	d    *Deps
	ctx  context.Context
	snap *provision.Snapshot
	now  time.Time
	sub  subject
	rows []row // by address
	x    *Explanation

	source   netip.Addr
	sources  []syncer.SourceStatus
	clientID lease.Hex // of the newest packet
}

func (x *explainer) bindings() {
	switch x.sub.kind {
	case "ip":
		if l := x.snap.ByIP(x.sub.ip); l != nil {
			x.rows = []row{{l, x.sub.ip}}
		}
	case "mac":
		x.rows = rowsOf(x.snap.ByMAC(x.sub.mac))
	default:
		x.rows = rowsOf(x.snap.BySubscriber(x.sub.id))
	}
	x.subnets()
	reports := map[netip.Addr]*outbox.Entry{}
	if x.d.Outbox != nil && len(x.rows) > 0 {
		entries := x.d.Outbox.Status(1 << 20).Entries
		for i := range entries {
			reports[entries[i].IP] = &entries[i]
		}
	}
	for _, b := range x.rows {
		v := BindingView{
			Subscriber: b.Subscriber, IP: b.ip, MAC: b.MAC, Device: b.Device, Port: b.Port, PortName: b.PortName, VLAN: b.VLAN,
			ACL: x.acl(b), Report: reports[b.ip],
		}
		if dev := x.snap.Device(b.Device); dev != nil {
			v.DeviceName, v.DeviceIP, v.Model = dev.Name, dev.IP, dev.Model
		}
		x.x.Bindings = append(x.x.Bindings, v)
	}
}

// foreign gathers the reports that were dropped since their MAC is another client's.
func (x *explainer) foreign() {
	if x.d.Outbox == nil {
		return
	}
	concerned := map[netip.Addr]bool{}
	for _, b := range x.rows {
		concerned[b.ip] = true
	}
	for _, l := range x.x.Leases {
		concerned[l.IP] = true
	}
	for _, r := range x.d.Outbox.Status(0).ForeignList {
		if concerned[r.IP] || concerned[r.OwnerIP] || x.sub.kind == "mac" && r.MAC == x.sub.mac || x.sub.kind == "customer" && (r.Subscriber == x.sub.id || r.Owner == x.sub.id) {
			x.x.Foreign = append(x.x.Foreign, r)
		}
	}
}

// setName says in words in which sets an address is.
func setName(stopped, paused bool) string {
	switch {
	case stopped && paused:
		return "stopped+paused"
	case stopped:
		return "stopped"
	case paused:
		return "paused"
	default:
		return "open"
	}
}

func (x *explainer) acl(b row) ACLView {
	st := x.snap.State(b.Subscriber)
	v := ACLView{Want: setName(st == provision.StateStop, st == provision.StatePause), Have: "unknown"}
	if x.d.ACL != nil && x.d.ACL.Exempt != nil {
		if v.Exempt = x.d.ACL.Exempt(b.Subscriber, b.ip); v.Exempt != "" {
			v.Want = "open"
		}
	}
	if x.d.ACL != nil && v.Want != "open" {
		if v.Spared = x.d.ACL.Wishes.Spared(b.ip); v.Spared != "" {
			v.Want = "open"
		}
	}
	if x.d.Enforcer == nil {
		return ACLView{Want: "open", Have: "unknown", Error: "acl.enabled is false"}
	}
	es := x.d.Enforcer.Status()
	switch {
	case es.DryRun:
		v.Error = "acl.dry_run is true: the kernel is not touched"
	case x.d.Kernel != nil:
		stopped, paused, err := x.d.Kernel.Holds(x.ctx, b.ip)
		if err != nil {
			v.Error = err.Error()
			return v
		}
		v.Have = setName(stopped, paused)
	case es.Ready && es.Pending == 0 && es.LastError == "":
		v.Have = v.Want // the last round found the kernel equal to the snapshot
	case es.LastError != "":
		v.Error = es.LastError
	default:
		v.Error = "the ACL has not been applied yet"
	}
	return v
}

func (x *explainer) leases() {
	if x.d.Leases == nil {
		return
	}
	found := map[netip.Addr]lease.Record{}
	for _, b := range x.rows {
		if rec, ok := x.d.Leases.Get(b.ip); ok {
			found[b.ip] = rec
		}
	}
	switch x.sub.kind {
	case "ip":
		if rec, ok := x.d.Leases.Get(x.sub.ip); ok {
			found[rec.IP] = rec
		}
	case "mac":
		for _, rec := range x.d.Leases.ByMAC(x.sub.mac) {
			found[rec.IP] = rec
		}
	default:
		for _, rec := range x.d.Leases.BySubscriber(x.sub.id) {
			found[rec.IP] = rec
		}
	}
	for _, rec := range found {
		x.x.Leases = append(x.x.Leases, LeaseView{rec, givenAt(&rec), x.d.viewOverruled(&rec, x.snap)})
	}
	slices.SortFunc(x.x.Leases, func(a, b LeaseView) int {
		return cmp.Or(b.Renewed.Compare(a.Renewed), a.IP.Compare(b.IP))
	})
}

// givenAt says in words where a lease was given: what the packet told, not what the ERP has.
func givenAt(rec *lease.Record) string {
	var s []string
	if rec.GIAddr.IsValid() {
		s = append(s, "relay "+rec.GIAddr.String())
	}
	if rec.Interface != "" {
		s = append(s, "interface "+rec.Interface)
	}
	if len(rec.Option82) > 0 {
		if r, err := wire.ParseRelayInfo(rec.Option82); err == nil {
			s = append(s, "circuit-id "+wire.DecodeCircuit(r.CircuitID).Describe(), "remote-id "+wire.DecodeRemote(r.RemoteID).Describe())
		} else {
			s = append(s, "option 82 "+rec.Option82.String())
		}
	}
	if len(s) == 0 {
		return "not known"
	}
	return strings.Join(s, ", ")
}

func (x *explainer) subscribers() {
	ids := []provision.SubscriberID{}
	if x.sub.kind == "customer" {
		ids = append(ids, x.sub.id)
	}
	for _, b := range x.rows {
		ids = append(ids, b.Subscriber)
	}
	for _, n := range x.x.Subnets {
		ids = append(ids, n.Subscriber)
	}
	for _, l := range x.x.Leases {
		if l.Pool != "" && l.Subscriber != 0 && l.Live(x.now) {
			ids = append(ids, l.Subscriber)
		}
	}
	if x.sub.kind == "ip" && len(x.rows) == 0 {
		if id := x.d.Syncer.HeldOwner(x.sub.ip); id != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		x.x.Held = append(x.x.Held, x.d.Syncer.HeldChanges(id)...)
		s, listed := x.snap.Subscriber(id)
		if !listed && x.sub.kind == "customer" && x.snap.BySubscriber(id).Len() == 0 {
			continue // unknown altogether
		}
		x.x.Subscribers = append(x.x.Subscribers, SubscriberView{ID: id, State: s.State, Listed: listed})
	}
}

func (x *explainer) problems() {
	for _, p := range x.d.Syncer.Status().ProblemsList {
		if x.mentions(p) {
			x.x.Problems = append(x.x.Problems, p)
		}
	}
}

func (x *explainer) mentions(p provision.Problem) bool {
	switch x.sub.kind {
	case "ip":
		if p.IP == x.sub.ip || p.Kind == provision.ProblemBadSubnet && p.Prefix.Contains(x.sub.ip) {
			return true
		}
	case "mac":
		if p.MAC == x.sub.mac {
			return true
		}
	default:
		if p.Subscriber == x.sub.id {
			return true
		}
	}
	if slices.ContainsFunc(x.x.Subnets, func(n SubnetView) bool { return p.Subscriber != 0 && p.Subscriber == n.Subscriber }) {
		return true
	}
	return slices.ContainsFunc(x.rows, func(b row) bool {
		return p.IP.IsValid() && p.IP == b.ip || p.Subscriber != 0 && p.Subscriber == b.Subscriber ||
			!p.MAC.IsZero() && p.MAC == b.MAC || p.Device != 0 && p.Device == b.Device && (p.Port == 0 || p.Port == b.Port)
	})
}

// events finds the packets of the subject itself, of its addresses, its MACs
// and its ports. A packet on its port that belongs to somebody else is left out.
func (x *explainer) events() {
	if x.d.Events == nil {
		return
	}
	filters := []dhcpd.EventFilter{{IP: x.sub.ip, MAC: x.sub.mac, Subscriber: x.sub.id}}
	mine := map[provision.SubscriberID]bool{0: true, x.sub.id: true}
	for _, b := range x.rows {
		mine[b.Subscriber] = true
		filters = append(filters, dhcpd.EventFilter{IP: b.ip})
		if !b.MAC.IsZero() {
			filters = append(filters, dhcpd.EventFilter{MAC: b.MAC})
		}
		if b.Device != 0 && b.Port != 0 {
			filters = append(filters, dhcpd.EventFilter{Device: b.Device, Port: b.Port})
		}
	}
	for _, l := range x.x.Leases {
		if l.Pool != "" && l.Live(x.now) { // a packet that was left alone names no customer
			filters = append(filters, dhcpd.EventFilter{IP: l.IP, Since: l.Start})
		}
	}
	var found []dhcpd.Event
	for i, f := range filters {
		f.Limit = 4 * explainEvents
		for _, e := range x.d.Events.Find(f) {
			if i == 0 || f.Device == 0 || mine[e.Subscriber] {
				found = append(found, e)
			}
		}
	}
	slices.SortFunc(found, func(a, b dhcpd.Event) int { return cmp.Compare(b.Seq, a.Seq) })
	seen := map[uint64]bool{}
	for i := range found {
		e := &found[i]
		if seen[e.Seq] || len(x.x.Events) == explainEvents {
			continue
		}
		seen[e.Seq] = true
		if len(x.x.Events) == 0 {
			x.clientID = e.ClientID
		}
		x.x.Events = append(x.x.Events, viewEvent(e, x.snap))
	}
}

// pastRelay returns the lease of the client of a packet that went past the relay that the lease was given through, to the server itself: a
// renewal, from the client's own address. Its next DISCOVER comes through that relay again.
func (x *explainer) pastRelay(e *EventView) *lease.Record {
	from := e.Source.Addr().Unmap()
	if e.Relay.IsValid() || len(e.Option82) > 0 || !from.IsValid() || from.IsUnspecified() || from != e.ClientIP {
		return nil
	}
	for i := range x.x.Leases {
		if l := &x.x.Leases[i].Record; l.IP == from && l.MAC == e.MAC && l.GIAddr.IsValid() {
			return l
		}
	}
	return nil
}

// askedFrom is where the client of a lease record was when it asked last.
func askedFrom(l *lease.Record) dhcpd.Query {
	return dhcpd.Query{MAC: l.MAC, Option82: l.Option82, GIAddr: l.GIAddr, Interface: l.Interface, ClientID: l.ClientID}
}

// would asks the server what it would answer the client now, with the option
// 82 and relay that it used last.
func (x *explainer) would() {
	if x.d.DHCP == nil {
		return
	}
	q := dhcpd.Query{MAC: x.sub.mac}
	switch {
	case len(x.x.Events) > 0 && !x.x.Events[0].MAC.IsZero():
		e := x.x.Events[0]
		if l := x.pastRelay(&e); l != nil {
			q = askedFrom(l)
			break
		}
		q.MAC, q.Option82, q.GIAddr, q.Interface, q.ClientID = e.MAC, e.Option82, e.Relay, e.Interface, x.clientID
		q.Source = e.Source.Addr()
	case len(x.x.Leases) > 0:
		q = askedFrom(&x.x.Leases[0].Record)
	case q.MAC.IsZero():
		i := slices.IndexFunc(x.rows, func(b row) bool { return !b.MAC.IsZero() })
		if i < 0 {
			return
		}
		q.MAC = x.rows[i].MAC
	}
	if x.source.IsValid() {
		q.Source = x.source
	}
	would := x.d.wouldOf(q)
	x.x.Would = &would
}
