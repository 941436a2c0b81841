package dhcpd

import (
	"net/netip"
	"time"
)

// MatchKind is one way to find the binding of a client. Several of them in one
// value must agree: MatchOption82|MatchMAC is the address of the port that the ERP has with the client's MAC.
type MatchKind uint8

// The ways to find a binding.
const (
	MatchOption82 MatchKind = 1 << iota // by the switch and port that option 82 names
	MatchVLAN                           // by the VLAN that the interface is named after
	MatchClientID                       // by the client identifier
	MatchMAC                            // by the client's MAC

	matchEnd
)

// Options is what the server runs with. Compiled once by New and Reload.
type Options struct {
	// Interfaces to answer on, by name or pattern ("eth1.*", quoted); they may come
	// and go. Empty: all but loopback.
	Interfaces []string `cfg:"interfaces" read:"interface" unique:"true"`

	// Where packets are received. One socket serves all interfaces. A loopback
	// address is for trying the agent without privileges: it then answers relays.
	Listen netip.AddrPort `cfg:"listen" read:"ipv4_listen" default:"0.0.0.0:67" restart:"true"` // a loopback address: unprivileged mode, UDP only

	// Port of relays and of clients; others than these are for tests.
	RelayPort  uint16 `cfg:"relay_port" default:"67" min:"1" max:"65535"`  // 0: 67
	ClientPort uint16 `cfg:"client_port" default:"68" min:"1" max:"65535"` // 0: 68

	// The server identifier (option 54), an address that clients and relays reach.
	// Empty: the address that the packet came to; for a broadcast the interface's
	// own, best one in the client's subnet; where it has none the subnet's gateway.
	// A subnet may have its own. See docs/dhcp-interfaces.md.
	ServerID netip.Addr `cfg:"server_id"`

	// Answer only while this host has this address, which keepalived or the like
	// moves between routers. Empty: always.
	AnswerWhileHolding netip.Addr `cfg:"answer_while_holding"`

	// Packets a second that are taken from one sender in the long run, and how many
	// at once after a pause; what is more is dropped and counted. Whoever floods uses
	// up the own share only. rate: 0 is no limit.
	Limits Limits `cfg:"limits"`

	// Prefixes or single addresses of relays (giaddr) that are answered; packets
	// of others are dropped and counted. Empty: any relay, but not an address that the
	// ERP binds or that is of a pool.
	Relays []netip.Prefix `cfg:"relays" read:"ipv4_network"`

	// true: a packet with a relay's address must come from that address or from one
	// in relays. Leave it off where a relay sends from an address that is not listed.
	CheckRelaySource bool `cfg:"check_relay_source" default:"false"`

	// Interfaces, by name or pattern, where option 82 is believed though no relay gave
	// its address: behind a switch that inserts it and drops what clients send. On
	// others such packets are dropped and counted. Empty: every served interface.
	TrustedInterfaces []string `cfg:"trusted_interfaces" read:"interface" unique:"true"`

	// How a client is found, in this order (docs/dhcp-matching.md): option82, the port
	// that a relay or switch wrote down; vlan, the VLAN of the interface; client_id;
	// mac. Joined by + they must agree: option82+mac is the port's address with that MAC.
	Match []MatchKind `cfg:"match" read:"match" default:"[option82, mac]" empty:"an empty list would match nobody;"` // empty: the default

	// What interfaces of one customer's VLAN are called, for vlan, such as "eth1.{vlan}",
	// "vlan{vlan}" or "eth1.{svlan}.{vlan}". {vlan} is what the ERP has for the address.
	VLANInterfaces []string `cfg:"vlan_interfaces" read:"vlan_interface" unique:"true" most:"64"` // the first that fits the name of an interface counts

	// Addresses by client identifier (option 61), for client_id (example): hex or text. An
	// address that the ERP binds to nobody is not given. Others are found by the MAC
	// within the identifier.
	ClientIDs []ClientID `cfg:"client_ids" most:"10000" example:"- text: gateway-7\n  ip: 198.51.100.7\n- hex: \"ff:00:00:00:07:00:04:80\"\n  ip: 198.51.100.8"`

	// By what a client is known again when it renews: mac, or client_id (the MAC if it
	// sends none).
	ClientKey ClientKey `cfg:"client_key" default:"mac"`

	// When the ERP has another MAC for the address: accept (answer, tell the ERP),
	// report (tell it, answer when it has the MAC), refuse. An address without a MAC
	// always learns it.
	MACChange MACChange `cfg:"mac_change" default:"accept"`

	// How many different clients may be live on one port at a time, 1 to 64. 0: as
	// many as it has addresses. Bounds as well how many addresses of pools one value
	// of option 82 holds; 0: as many as it asks for.
	MaxPortMACs int `cfg:"max_macs_per_port" default:"0" min:"0" max:"64"`

	// When a client renews an address that is not bound to it any more: nak, or shorten
	// (it may keep the address for a minute, if it is nobody else's).
	BindingChange BindingChange `cfg:"on_binding_change" default:"nak"`

	// How option 82 is read, see docs/option82.md: `usher option82 HEX` tries it, and
	// `usher option82 suggest` makes lines of this from what was not understood.
	Option82 Option82 `cfg:"option82"`

	// Answer NAK to a client that insists on an address which is not its own.
	// false: stay silent, another server on the segment may know it.
	Authoritative bool `cfg:"authoritative" default:"true"`

	// Answer a DISCOVER that asks for it (option 80) with an ACK at once (RFC 4039).
	// Only where this is the one server: every server that is asked so commits.
	RapidCommit bool `cfg:"rapid_commit" default:"false"`

	// Who may ask which client has an address (leasequery, RFC 4388), as access nodes
	// do after a restart: prefixes or addresses that they name as giaddr, which is
	// where answers go. Empty: nobody.
	LeaseQuery LeaseQuery `cfg:"leasequery"`

	// What the clients of all subnets are told, see below.
	Common OptionSet `cfg:"common" layout:"plain"`

	// Kinds of clients that are told something else (example). The first class that
	// fits a client counts.
	Classes []Class `cfg:"classes"`

	// The served networks. Required while dhcp is enabled (example).
	Subnets []Subnet `cfg:"subnets"`

	// What clients get whom the ERP does not know: silence, nak (a NAK when they insist
	// on an address, else silence), or guest (an address of a pool for guests).
	Unknown Unknown `cfg:"unknown_clients" default:"silence"`

	// Ranges that the server gives out by itself, see docs/dhcp-pools.md (example). An
	// address that the ERP binds goes to nobody else, nor does a gateway.
	Pools []Pool `cfg:"pools"`

	// How long an address of a pool that somebody else was found to use is kept from
	// clients. 1m to 30 days.
	Quarantine time.Duration `cfg:"quarantine" default:"1h" min:"1m" max:"720h"` // 0: an hour

	CommitTimeout time.Duration // how long an ACK waits for the disk; 0: 100 ms
}

// LeaseQuery says which access nodes may ask who has an address (RFC 4388).
type LeaseQuery struct {
	From []netip.Prefix `cfg:"from" read:"ipv4_network"` // their giaddr; empty: nobody may
}

// ClientID gives the client with an identifier an address, if the ERP binds it.
type ClientID struct {
	Text string     `cfg:"text"`           // it may follow a type of 0 on the wire (RFC 2132 section 9.14)
	Hex  []byte     `cfg:"hex" read:"hex"` // the very bytes; Text is empty then
	IP   netip.Addr `cfg:"ip" required:"the address that the ERP binds to the client"`
}

// Values are the identifiers that the client may send: the bytes, or the text
// with and without its type.
func (c ClientID) Values() []string {
	if c.Text != "" {
		return []string{c.Text, "\x00" + c.Text}
	}
	return []string{string(c.Hex)}
}

// Subnet is one served network and what its clients are told.
type Subnet struct {
	// IPv4, /8 to /30, none overlapping another.
	Prefix netip.Prefix `cfg:"prefix" required:"an IPv4 prefix such as 192.0.2.0/24" example:"198.51.100.0/24"`

	// The clients' router (option 3). Empty: none is told.
	Gateway netip.Addr `cfg:"gateway" example:"198.51.100.1"`

	// The server identifier in this subnet. Empty: dhcp.server_id.
	ServerID netip.Addr `cfg:"server_id"`

	// How long a lease lasts, 1m to a year, and when a client renews it with
	// this server (T1) and with any (T2). T1 < T2 < lease; by default half and
	// seven eighths of lease_time.
	LeaseTime  time.Duration `cfg:"lease_time" read:"seconds" default:"1h" min:"1m" max:"8760h"`
	RenewTime  time.Duration `cfg:"renew_time" read:"seconds" min:"1s" max:"8760h" example:"30m"`     // 0: half of LeaseTime
	RebindTime time.Duration `cfg:"rebind_time" read:"seconds" min:"1s" max:"8760h" example:"52m30s"` // 0: seven eighths of LeaseTime

	// true: replies to clients that have no address yet are broadcast, as some old
	// ones need that do not ask for it.
	AlwaysBroadcast bool `cfg:"always_broadcast" default:"false"`

	// What follows can also stand in dhcp.common, in pools and in classes: a
	// subnet's word goes before common's, a pool's before both, a class's before all.
	OptionSet `cfg:",inline"`
}
