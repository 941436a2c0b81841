package dhcpd

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Query is a client that might ask: Explain answers what would happen.
type Query struct {
	MAC      provision.MAC `json:"mac,omitzero"`
	Option82 lease.Hex     `json:"option82,omitempty"` // payload, without code and length; nil: none
	GIAddr   netip.Addr    `json:"giaddr,omitzero"`
	// Source is who sends it. Invalid: who GIAddr says, else nobody knows. Any other without a relay says that none stands before the client: such
	// a DISCOVER comes from 0.0.0.0, whatever address the client had when it was seen.
	Source netip.Addr `json:"source,omitzero"`
	// Interface the packet would come in on; empty: one that is served.
	Interface string    `json:"interface,omitempty"`
	ClientID  lease.Hex `json:"client_id,omitempty"` // option 61; nil: none
}

// Explanation is what a DISCOVER of a Query would lead to now.
type Explanation struct {
	Outcome    outcome.Outcome        `json:"outcome"`
	Text       string                 `json:"text"`                // Outcome.Explain
	VouchedBy  v4.Voucher             `json:"vouched_by,omitzero"` // for where the client is
	MatchedBy  string                 `json:"matched_by"`          // as of MatchKind.String; empty: by nothing
	Rule       v4.Rule                `json:"rule,omitzero"`       // the row of docs/dhcp-matching.md that decides
	Since      time.Time              `json:"since,omitzero"`      // when the client of Lease got the address
	Stray      v4.Stray               `json:"stray,omitzero"`      // the address is given by MAC on a line that does not say so
	Untrusted  bool                   `json:"untrusted"`           // option 82 is left out of account: the relay, or the interface, is not trusted with it
	ClientID   string                 `json:"client_id,omitempty"` // how option 61 was read
	VLAN       uint16                 `json:"vlan,omitempty"`      // that the interface is named after
	Circuit    string                 `json:"circuit"`             // how sub-option 1 was read; empty: no option 82
	Remote     string                 `json:"remote"`              // how sub-option 2 was read
	Relay      string                 `json:"relay"`               // what else the relay says in option 82; empty: nothing
	Profile    string                 `json:"profile"`             // that read option 82, or the first that was to; empty: no option 82
	Fault      string                 `json:"fault"`               // why the profile could not read it
	YourIP     netip.Addr             `json:"your_ip,omitzero"`
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
	Device     provision.DeviceID     `json:"device,omitempty"`
	Port       uint32                 `json:"port,omitempty"`
	ServerID   netip.Addr             `json:"server_id,omitzero"`
	Via        string                 `json:"via"`             // relay, unicast, broadcast, frame, or none
	Swap       bool                   `json:"swap"`            // the ERP has another MAC: the ACK would be reported
	Lease      *lease.Record          `json:"lease,omitempty"` // record of YourIP
	Rival      provision.MAC          `json:"rival,omitzero"`  // who has YourIP, and may keep it until Until: of outcome.TakeoverDamped
	Until      time.Time              `json:"until,omitzero"`
	Pool       string                 `json:"pool,omitempty"` // that YourIP is of; empty: the ERP binds it

	Networks v4.OtherNetwork `json:"other_network,omitzero"` // the client is in one network, and its address, given or not, is of another
}

// explainXID is the transaction id of hypothetical packets; they never leave the process.
const explainXID = 0x75736872

// Explain runs the very decision of the packet path for a DISCOVER that q
// describes, with the bindings and leases of this moment.
func (s *Server) Explain(q Query) Explanation {
	if len(q.Option82) > 255 {
		q.Option82 = q.Option82[:255]
	}
	ask := wire.Query{Type: wire.Discover, XID: explainXID, MAC: q.MAC, GIAddr: q.GIAddr, Option82: q.Option82}
	if q.MAC.IsZero() {
		ask.MAC = provision.MAC{0x02} // some new client: what would this port get?
	}
	if n := len(q.ClientID); n > 0 && n <= 255 {
		ask.Options = append(ask.Options, wire.Option{Code: wire.OptClientID, Value: q.ClientID})
	}
	gen := s.generation.Load()
	r := v4.Request{Served: true, Standby: s.standby(gen.settings)}
	if r.On = s.linkNamed(q.Interface); r.On == nil || !gen.listen.Addr().IsUnspecified() {
		r.Local = s.explainLocal(gen.settings, q)
	}
	if q.Interface != "" {
		r.Served = gen.serves(q.Interface, q.Interface == "lo" || r.On != nil && r.On.Loopback)
		r.P.Ingress = gen.config.Line().Ingress(q.Interface)
		r.HostRoutes = gen.routesHosts(q.Interface)
		r.Networks = gen.config.NetworksOf(r.On, r.HostRoutes)
	}
	r.P.Read(ask.Append(nil))
	switch {
	case !q.Source.IsValid():
	case q.GIAddr.IsValid():
		r.P.From, r.OwnFrom = netip.AddrPortFrom(q.Source, 0), s.ownAddress()(q.Source)
	default:
		r.P.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	gen.pools.adopt(s.deps.Snapshot, s.deps.Leases, s.now())
	snap := s.deps.Snapshot()
	v4.Judge(&r, snap, gen.config)
	var d v4.Decision
	v4.Decide(&d, s.now(), &r, snap, s.deps.Leases, gen.pools, gen.config)

	e := Explanation{
		Outcome:   d.Outcome,
		Text:      d.Outcome.Explain(),
		VouchedBy: r.Trust.By,
		MatchedBy: d.Match.By.String(),
		Rule:      d.Evidence.Rule,
		Stray:     d.Evidence.Stray,
		Networks:  d.Evidence.OtherNetwork,
		Untrusted: r.P.RelayInfoCount() > 0 && !r.P.HasOption82(),
		ClientID:  wire.DescribeClientID(q.ClientID),
		VLAN:      r.P.Ingress.VLAN,
		YourIP:    d.YourIP,
		Device:    d.Match.Loc.Device,
		Port:      d.Match.Loc.Port,
		ServerID:  d.Reply.ServerID,
		Via:       d.Way.String(),
		Rival:     d.Rival,
		Until:     d.Until,
	}
	if d.Evidence.By != v4.VoucherNone {
		e.VouchedBy = d.Evidence.By
	}
	if d.Pool > 0 {
		e.Pool = gen.pools.all[d.Pool-1].Name
	}
	if e.ServerID.IsUnspecified() {
		e.ServerID = netip.Addr{}
	}
	if r.P.HasOption82() && r.P.RelayErr == nil {
		e.Circuit = wire.DecodeCircuit(r.P.Relay.CircuitID).Describe()
		e.Remote = wire.DecodeRemote(r.P.Relay.RemoteID).Describe()
		e.Relay = r.P.Relay.Describe()
	}
	if loc := d.Match.Loc; loc.Profile != "" {
		e.Profile = loc.Profile
		switch {
		case loc.Fault != option82.FaultNone:
			e.Fault = loc.Fault.String()
		case loc.Result == line.Unread:
			e.Fault = "nothing names the switch: want a remote-id other than the client's MAC, or a relay address"
		}
	}
	if l := d.Match.Vacant; l != nil {
		e.Subscriber = l.Subscriber
		if e.Device == 0 {
			e.Device, e.Port = l.Device, l.Port
		}
	}
	if d.Binding.Line != nil {
		e.Subscriber = d.Binding.Subscriber
		if e.Device == 0 {
			e.Device, e.Port = d.Binding.Device, d.Binding.Port
		}
		e.Swap = d.Swap && !q.MAC.IsZero()
	}
	if rec, ok := s.deps.Leases.Get(d.YourIP); ok {
		e.Lease, e.Since = &rec, rec.Start
	}
	return e
}

// explainLocal guesses the address that a packet of q would come to; 0.0.0.0
// stands for one of this host that is not known before a packet comes.
func (s *Server) explainLocal(set *settings, q Query) netip.Addr {
	if a := set.listen.Addr(); !a.IsUnspecified() {
		return a
	}
	if socks := s.socks.Load(); socks != nil && q.Interface != "" {
		if a := socks.AddressOf(q.Interface); a.IsValid() {
			return a
		}
	}
	return netip.IPv4Unspecified()
}

// Option82Profiles returns the profiles of the configuration that are not ready
// ones, in its order.
func (s *Server) Option82Profiles() []option82.Profile {
	return s.generation.Load().config.Line().OwnProfiles()
}

// Spares reports whether the client of a lease for which the ERP has got another MAC since is answered all the same, for a typing error is to cut
// nobody off: somebody vouches for the line that the lease was given on.
func (s *Server) Spares(rec *lease.Record) bool {
	return s.generation.Load().config.Spares(rec, s.deps.Snapshot())
}

// Foreign says whose the MAC of a report is, if the ERP is not to be told of it, as v4.Config.Foreign.
func (s *Server) Foreign(r provision.MACReport) (owner provision.SubscriberID, ip netip.Addr, foreign bool) {
	return s.generation.Load().config.Foreign(&r, s.now(), s.deps.Snapshot(), s.deps.Leases)
}
