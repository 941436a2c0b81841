package console

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/garden"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/provision/wayback"
	"github.com/usher-agent/usher/userside"
)

// How much of long lists a status holds.
const (
	statusEvents  = 50
	statusEntries = 20
)

// Status is everything that "usher status" and the overview page show. Parts
// that are switched off are nil.
type Status struct {
	Build         Build     `json:"build"`
	StartedAt     time.Time `json:"started_at"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Ready         bool      `json:"ready"`
	NotReady      []string  `json:"not_ready"` // reasons; empty when ready
	DryRun        bool      `json:"dry_run"`   // the whole agent: nothing is touched and nobody answered

	// Degraded says of which of the ERP's sources an earlier answer is in use.
	Degraded []string `json:"degraded,omitempty"`

	Config *ConfigStatus    `json:"config,omitempty"`
	Sync   syncer.Status    `json:"sync"`
	ACL    *access.Status   `json:"acl,omitempty"`
	Open   *MaintenanceView `json:"open,omitempty"` // everybody passes
	DHCP   *DHCPStatus      `json:"dhcp,omitempty"`
	Routes *route.Status    `json:"routes,omitempty"`
	Outbox *outbox.Status   `json:"outbox,omitempty"`
	Garden *garden.Status   `json:"garden,omitempty"`
	State  *StateStatus     `json:"state,omitempty"`
	Files  []FileTrouble    `json:"files,omitempty"` // of state_dir, but the leases'
	Doors  []door.Status    `json:"doors,omitempty"` // who is connected to console, hints, portal and control socket

	ERPCalls []userside.Pending `json:"erp_calls,omitempty"` // that the ERP has not answered yet, the oldest first
}

// DHCPStatus is the state of the DHCP server.
type DHCPStatus struct {
	Listen   netip.AddrPort     `json:"listen,omitzero"` // absent: not bound
	Sockets  dhcpd.SocketStatus `json:"sockets"`
	Packets  uint64             `json:"packets"`
	Outcomes []OutcomeCount     `json:"outcomes"` // not zero, the largest first
	Leases   *lease.Counts      `json:"leases,omitempty"`
	Pools    []dhcpd.PoolStatus `json:"pools,omitempty"`
	Senders  senders.Status     `json:"senders"`             // relays and switches; of each kind the first 20
	WaysBack []wayback.Finding  `json:"ways_back,omitempty"` // relays whose packets the kernel drops (rp_filter)
	ByMAC    ByMACStatus        `json:"by_mac"`

	Overruled OverruledStatus `json:"overruled"`

	Events []EventView `json:"events"` // the newest first
}

// EventView is one packet for people: what came and what became of it, why.
type EventView struct {
	Time        time.Time              `json:"time"`
	Type        string                 `json:"type"`
	Outcome     string                 `json:"outcome"`
	Text        string                 `json:"text"`             // what the outcome means
	Advice      string                 `json:"advice,omitempty"` // what an operator may do
	Detail      string                 `json:"detail,omitempty"`
	Answered    bool                   `json:"answered"`
	MAC         provision.MAC          `json:"mac,omitzero"`
	ClientIP    netip.Addr             `json:"client_ip,omitzero"`
	RequestedIP netip.Addr             `json:"requested_ip,omitzero"`
	YourIP      netip.Addr             `json:"your_ip,omitzero"`
	Relay       netip.Addr             `json:"relay,omitzero"`
	Source      netip.AddrPort         `json:"source,omitzero"` // who sent it
	Interface   string                 `json:"interface,omitempty"`
	VouchedBy   string                 `json:"vouched_by"`              // for where the client is; none: nobody
	MatchedBy   string                 `json:"matched_by,omitempty"`    // ways of dhcp.match, joined by +; empty: the client was not found
	Rule        string                 `json:"rule,omitempty"`          // row of docs/dhcp-matching.md that decided
	RuleText    string                 `json:"rule_text,omitempty"`     // the row in a sentence
	Since       time.Time              `json:"since,omitzero"`          // when the client of the lease record that counted got the address
	Stray       string                 `json:"stray,omitempty"`         // the address was given by MAC on a line that does not say so: why that may be the wrong place
	Networks    v4.OtherNetwork        `json:"other_network,omitzero"`  // the client is in one network, and its address is of another
	Lost        string                 `json:"option82_lost,omitempty"` // why option 82 led to no port, also where the client was found otherwise
	Subscriber  provision.SubscriberID `json:"subscriber,omitempty"`
	Device      provision.DeviceID     `json:"device,omitempty"`
	DeviceName  string                 `json:"device_name,omitempty"`
	Port        uint32                 `json:"port,omitempty"`
	Option82    lease.Hex              `json:"option82,omitempty"`
	ClientID    string                 `json:"client_id,omitempty"` // in words
	Rival       provision.MAC          `json:"rival,omitzero"`      // who has the address that MAC wants
	XID         uint32                 `json:"xid"`

	LatencySeconds float64 `json:"latency_seconds"`
}

// Untrusted says by whom a packet came whose option 82 was left out of account.
func Untrusted(relay netip.Addr, iface string) string {
	switch {
	case relay.IsValid():
		return "through relay " + relay.String()
	case iface == "":
		return "on -"
	}
	return "on " + iface
}

// IP is the address that the packet is about, the most telling one of it.
func (e EventView) IP() netip.Addr {
	for _, a := range []netip.Addr{e.YourIP, e.RequestedIP, e.ClientIP} {
		if a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

func viewEvent(e *dhcpd.Event, s *provision.Snapshot) EventView {
	v := EventView{
		Time: e.Time, Type: e.Type.String(), Outcome: e.Outcome.String(), Text: e.Outcome.Explain(),
		Advice: Advice(e.Outcome), Detail: e.Detail, Answered: e.Outcome.Answered(),
		MAC: e.MAC, ClientIP: e.ClientIP, RequestedIP: e.RequestedIP, YourIP: e.YourIP, Relay: e.GIAddr,
		Source: e.Source, VouchedBy: e.VouchedBy.String(), MatchedBy: e.MatchedBy.String(), Rule: e.Rule.String(), RuleText: e.Rule.Explain(), Since: e.Since, Stray: strayWord(e.Stray), Networks: e.Networks,
		Interface: e.Interface, Subscriber: e.Subscriber, Device: e.Device, Port: e.Port, Rival: e.Rival,
		Option82: e.Option82, ClientID: wire.DescribeClientID(e.ClientID), XID: e.XID, LatencySeconds: e.Latency.Seconds(),
	}
	if d := s.Device(e.Device); d != nil {
		v.DeviceName = d.Name
	}
	if e.Lost != 0 {
		v.Lost = e.Lost.String()
	}
	return v
}

// status gathers what is known now.
func (d *Deps) status() Status {
	now := d.now()
	st := Status{
		Build: d.Build, StartedAt: d.Started, UptimeSeconds: now.Sub(d.Started).Seconds(),
		NotReady: d.notReady(), DryRun: d.DryRun, Sync: d.Syncer.Status(),
	}
	st.Ready = len(st.NotReady) == 0
	st.Degraded = degraded(st.Sync.Sources)
	if d.Config != nil {
		c := d.Config()
		st.Config = &c
	}
	if d.Enforcer != nil {
		s := d.Enforcer.Status()
		st.ACL = &s
		st.Open = d.maintenance(s.OpenUntil)
	}
	if d.Routes != nil {
		s := d.Routes.Status()
		st.Routes = &s
	}
	if d.ERPCalls != nil {
		st.ERPCalls = d.ERPCalls()
	}
	st.State, st.Files = d.stateStatus(), d.files(&st.Sync)
	if d.Doors != nil {
		st.Doors = d.Doors()
	}
	if d.Outbox != nil {
		s := d.Outbox.Status(statusEntries)
		st.Outbox = &s
	}
	if d.Garden != nil {
		s := d.Garden.Status()
		st.Garden = &s
	}
	if d.DHCP != nil {
		st.DHCP = d.dhcpStatus(now)
	}
	return st
}

func (d *Deps) dhcpStatus(now time.Time) *DHCPStatus {
	st := &DHCPStatus{Listen: d.DHCP.LocalAddr(), Sockets: d.DHCP.Sockets(), Senders: d.DHCP.Senders(), Outcomes: []OutcomeCount{}, Events: []EventView{}}
	st.Senders.Trim(statusEntries)
	if d.WaysBack != nil {
		st.WaysBack = d.WaysBack()
	}
	if d.Metrics != nil {
		st.Outcomes = d.Metrics.Outcomes()
	}
	for _, o := range st.Outcomes {
		st.Packets += o.Count
	}
	st.ByMAC = d.byMAC()
	if d.Leases != nil {
		c := d.Leases.Counts(now)
		st.Leases = &c
		st.Overruled = d.overruled(now)
	}
	if d.Pools != nil {
		st.Pools = d.Pools.Pools()
	}
	if d.Events != nil {
		s := d.Syncer.Current()
		events := d.Events.Find(dhcpd.EventFilter{Limit: statusEvents})
		for i := range events {
			st.Events = append(st.Events, viewEvent(&events[i], s))
		}
	}
	return st
}

// Advice says what an operator may do about an outcome; empty where nothing is
// wrong or the outcome's own text says it.
func Advice(o outcome.Outcome) string {
	switch o {
	case outcome.AckBeforeCommit:
		return "Look at the disk of state_dir: its latency and its free space."
	case outcome.NakOtherClient, outcome.PortFull:
		return "Ask who else is on this port; give the subscriber a second address in the ERP, or wait for the other client's lease to end."
	case outcome.HolderLive:
		return "Nothing, if that one renews soon; else have its router restarted, or shorten lease_time before addresses are to change hands."
	case outcome.SaysLess:
		return "Nothing, if the client is answered through its relay; else look why its switch or relay adds no option 82."
	case outcome.NakNoSubnet:
		return "Add the network to dhcp.subnets, or change the address in the ERP."
	case outcome.Declined:
		return "Find the device that has the address set by hand."
	case outcome.PoolExhausted:
		return "Widen the pool or shorten its lease_time; usher pools NAME lists who has its addresses."
	case outcome.NoPool:
		return "Add a pool in the subnet of the relay's or the interface's address, or add that network to links of a pool."
	case outcome.PoolConflict, outcome.PoolDeclined:
		return "Find the device that has the address set by hand, or keep such addresses out of the pool's range."
	case outcome.PoolNotDurable:
		return "Look at the disk of state_dir: its latency and its free space; usher status has its error."
	case outcome.Option82Malformed:
		return "Compare the option 82 format of the switch with that of one that works."
	case outcome.Option82Unread:
		return "Choose a profile for the switch: usher option82 suggest proposes one."
	case outcome.Option82Double:
		return "Let access ports drop or replace option 82 that comes from the customer."
	case outcome.InterfaceOff:
		return "Add the interface to dhcp.interfaces if its clients are to be served."
	case outcome.Standby:
		return "Nothing, if another host answers; else look where the address is."
	case outcome.Stale:
		return "Nothing, if the agent was started again then; else look why it took so long to start."
	case outcome.LimitedClient:
		return "Look what is wrong with the device; raise dhcp.limits.client if all is well with it."
	case outcome.LimitedPort:
		return "Look for a loop or a flooding device behind the port; raise dhcp.limits.port if so many clients live there."
	case outcome.LimitedRelay:
		return "Look for a flood behind the relay; raise dhcp.limits.relay if so many clients live there."
	case outcome.RelayUntrusted:
		return "Add the relay's address, and the one that it sends from, to dhcp.relays if it is yours; usher status has the line."
	case outcome.LeaseQueryRefused:
		return "Add the access node's address to dhcp.leasequery.from if it is yours."
	case outcome.RelaySource:
		return "Add the address that the relay sends from to dhcp.relays, and to dhcp.option82_relays if that has its giaddr, if it is yours; usher status has the lines."
	case outcome.RelayNoSource:
		return "Find out on the interface who sends it. A relay on this very host has to be in dhcp.relays by the address that it sends from, as one address; from 0.0.0.0 none is believed."
	case outcome.RelaySubscriber:
		return "Ask who is at this address. If a switch of yours has it, add giaddr and source to dhcp.relays as single addresses; else a subscriber tries to take another's address."
	case outcome.RelayInterface:
		return "If a switch of yours relays on this interface, add giaddr and source to dhcp.relays as single addresses; else a subscriber tries to take another's address."
	case outcome.Option82Untrusted:
		return "Add the relay to dhcp.option82_relays, or without one the interface to dhcp.trusted_interfaces, if equipment there drops option 82 of customers and inserts its own; else a client writes it itself, and nothing on the way takes it out."
	case outcome.NotReady:
		return "See in the status why there is no snapshot: the ERP's address, its key, its answer."
	case outcome.UnknownClient:
		return "Bind the MAC or the port to an address in the ERP, and see that the relay inserts option 82."
	case outcome.DevicesUnread:
		return "See in the status why the ERP's list of switches (source devices) cannot be read; until then only what needs no switch tells who the client is."
	case outcome.UnknownDevice:
		return "Give the switch its MAC and management address in the ERP, as it sends them in option 82."
	case outcome.UnknownPort:
		return "Link the subscriber with this port of the switch in the ERP."
	case outcome.UnknownVLAN:
		return "Give the customer's address its VLAN in the ERP."
	case outcome.VLANShared:
		return "Give each customer a VLAN of its own in the ERP, or use vlan+mac in dhcp.match."
	case outcome.MatchDisagrees:
		return "Compare the MAC, the port and the VLAN of the address in the ERP with those of the packet."
	case outcome.PortMACLimit:
		return "Ask who else is on this port; wait for their leases to end, or raise dhcp.max_macs_per_port."
	case outcome.TakeoverDamped:
		return "Find out which of the two devices is to have the address and take the other off the line, or give the subscriber a second address in the ERP."
	case outcome.MACRefused:
		return "Give the address its new MAC in the ERP if the customer has a new router."
	case outcome.MACReported:
		return "Wait for the next fetch; if it goes on, see why the ERP does not take the report."
	case outcome.NoSubnet:
		return "Add the network to dhcp.subnets, or correct the address in the ERP."
	case outcome.NotAuthoritative:
		return "Set dhcp.authoritative to true if no other server answers here."
	case outcome.NakOverruled:
		return "If the old router is to keep the address, give it its MAC again in the ERP; else connect the new one."
	case outcome.MACElsewhere:
		return "If the customer has moved, give its address the new port or VLAN in the ERP; else find out who uses its MAC: usher explain IP says where the lease was given and where the packets come from."
	case outcome.WrongNetwork, outcome.NakWrongNetwork:
		return "If the customer has moved, give it an address of the network where it is now in the ERP. If both networks share one wire, write them in one of dhcp.shared_networks: usher status has the line."
	case outcome.SendFailed:
		return "Look for the interface's state and for dropped packets of the kernel."
	case outcome.SendFull:
		return "Look for who makes the server answer to addresses that nobody has: list the relays in dhcp.relays. If it is an interface that is slow, look at its queue (tc -s qdisc)."
	default:
		return ""
	}
}
