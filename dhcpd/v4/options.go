package v4

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
)

// Options is what a configuration asks for.
type Options struct {
	// Port of relays and of clients; others than these are for tests.
	RelayPort  uint16 `cfg:"relay_port" default:"67" min:"1" max:"65535"`  // 0: 67
	ClientPort uint16 `cfg:"client_port" default:"68" min:"1" max:"65535"` // 0: 68

	// The server identifier (option 54), an address that clients and relays reach.
	// Empty: the address that the packet came to; for a broadcast the interface's
	// own, best one in the client's subnet; where it has none the subnet's gateway.
	// A subnet may have its own. See docs/dhcp-interfaces.md.
	ServerID netip.Addr `cfg:"server_id"`

	// How a client is found, in this order (docs/dhcp-matching.md): option82, the port
	// that a relay or switch wrote down; vlan, the VLAN of the interface; client_id;
	// mac. Joined by + they must agree: option82+mac is the port's address with that MAC.
	Match []MatchKind `cfg:"match" read:"match" after:"trusted_interfaces" default:"[option82, mac]" empty:"an empty list would match nobody;"` // empty: the default

	// Addresses by client identifier (option 61), for client_id (example): hex or text. An
	// address that the ERP binds to nobody is not given. Others are found by the MAC
	// within the identifier.
	ClientIDs []ClientID `cfg:"client_ids" after:"vlan_interfaces" most:"10000" example:"- text: gateway-7\n  ip: 198.51.100.7\n- hex: \"ff:00:00:00:07:00:04:80\"\n  ip: 198.51.100.8"`

	// By what a client is known again when it renews: mac, or client_id (the MAC if it
	// sends none).
	ClientKey ClientKey `cfg:"client_key" default:"mac"`

	// When the ERP has another MAC for the address: accept (answer, tell the ERP),
	// report (tell it, answer when it has the MAC), refuse. An address without a MAC
	// always learns it. refuse holds for MACs seen by ARP (neighbours) as well.
	MACChange MACChange `cfg:"mac_change" default:"accept"`

	// How many different clients may be live on one port at a time, 1 to 64. 0: as
	// many as it has addresses. Bounds as well how many addresses of pools one value
	// of option 82 holds; 0: as many as it asks for.
	MaxPortMACs int `cfg:"max_macs_per_port" default:"0" min:"0" max:"64"`

	// When a client renews an address that is not bound to it any more: nak, or shorten
	// (it may keep the address for a minute, if it is nobody else's).
	BindingChange BindingChange `cfg:"on_binding_change" default:"nak"`

	// Answer NAK to a client that insists on an address which is not its own.
	// false: stay silent, another server on the segment may know it.
	Authoritative bool `cfg:"authoritative" after:"option82" default:"true"`

	// Answer a DISCOVER that asks for it (option 80) with an ACK at once (RFC 4039).
	// Only where this is the one server: every server that is asked so commits.
	RapidCommit bool `cfg:"rapid_commit" default:"false"`

	// Who may ask which client has an address (leasequery, RFC 4388), as access nodes
	// do after a restart: prefixes or addresses that they name as giaddr, which is
	// where answers go. Empty: nobody.
	LeaseQuery LeaseQuery `cfg:"leasequery"`

	// What the clients of all subnets are told, see below.
	Common options.OptionSet `cfg:"common" layout:"plain"`

	// Kinds of clients that are told something else (example). The first class that
	// fits a client counts.
	Classes []options.Class `cfg:"classes"`

	// The served networks. Required while dhcp is enabled (example).
	Subnets []Subnet `cfg:"subnets"`

	// Which of them share one wire (example), such as two networks on one interface or behind
	// one relay. A client gets no address of another network than those of its wire
	// (docs/dhcp-matching.md). Those of the interface's own addresses are joined anyway.
	SharedNetworks []SharedNetwork `cfg:"shared_networks"`

	// What clients get whom the ERP does not know: silence, nak (a NAK when they insist
	// on an address, else silence), or guest (an address of a pool for guests).
	Unknown Unknown `cfg:"unknown_clients" default:"silence"`

	// Ranges that the server gives out by itself, see docs/dhcp-pools.md (example). An
	// address that the ERP binds goes to nobody else, nor does a gateway.
	Pools []Pool `cfg:"pools"`

	// How long an address of a pool that somebody else was found to use is kept from
	// clients. 1m to 30 days.
	Quarantine time.Duration `cfg:"quarantine" default:"1h" min:"1m" max:"720h"` // 0: an hour

	line.Options `cfg:",inline" after:"limits"` // where clients are attached, and whose word is taken for that
}

// LeaseQuery says which access nodes may ask who has an address (RFC 4388).
type LeaseQuery struct {
	From []netip.Prefix `cfg:"from" read:"ipv4_network"` // their giaddr; empty: nobody may
}

// ClientID gives the client with an identifier an address, if the ERP binds it.
type ClientID struct {
	Text string     `cfg:"text"`           // it may follow a type of 0 on the wire (RFC 2132 section 9.14), and a NUL may follow it
	Hex  []byte     `cfg:"hex" read:"hex"` // the very bytes; Text is empty then
	IP   netip.Addr `cfg:"ip" required:"the address that the ERP binds to the client"`
}

// Check reports an identifier that cannot be sent.
func (c ClientID) Check() error {
	if n := len(c.Values()[0]); n == 0 || n > 254 {
		return fmt.Errorf("%d bytes; want 1 to 254", n)
	}
	return nil
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
	// IPv4, /8 to /32, none overlapping another. In a /31 both addresses are hosts
	// (RFC 3021), in a /32 the one is a client and the gateway is elsewhere.
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
	options.OptionSet `cfg:",inline"`
}
