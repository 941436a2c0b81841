package v4

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
)

// Options is what a configuration asks for.
type Options struct {
	line.Options // where clients are attached, and whose word is taken for that

	RelayPort     uint16            // port of relays; 0: 67
	ClientPort    uint16            // port of clients; 0: 68
	ServerID      netip.Addr        // option 54; invalid: the address that the packet came to
	Match         []MatchKind       // in order; empty: option 82, then MAC
	Authoritative bool              // NAK a wrong address in INIT-REBOOT
	RapidCommit   bool              // answer a DISCOVER that asks for it with an ACK (RFC 4039)
	LeaseQuery    []netip.Prefix    // access nodes that may ask who has an address (RFC 4388), by giaddr; empty: none
	Common        options.OptionSet // what clients of all subnets are told
	Classes       []options.Class   // the first that fits a client counts
	Subnets       []Subnet
	Unknown       Unknown       // what becomes of clients that the ERP does not know
	Pools         []Pool        // addresses that the server gives out by itself
	Quarantine    time.Duration // how long a pool's address in use by somebody else is kept; 0: an hour

	ClientIDs     []ClientID // addresses by client identifier, for MatchClientID
	ClientKey     ClientKey
	MACChange     MACChange
	MaxPortMACs   int // different clients live on one port at a time; 0: no limit
	BindingChange BindingChange
}

// ClientID gives the client with an identifier an address, if the ERP binds it.
type ClientID struct {
	Value []byte // of option 61
	Text  bool   // Value is text: it may follow a type of 0 on the wire (RFC 2132 section 9.14)
	IP    netip.Addr
}

// Subnet is one served network and what its clients are told.
type Subnet struct {
	Prefix     netip.Prefix
	Gateway    netip.Addr    // invalid: none
	ServerID   netip.Addr    // option 54 here; invalid: Options.ServerID
	LeaseTime  time.Duration // at least a minute
	RenewTime  time.Duration // T1; 0: half of LeaseTime
	RebindTime time.Duration // T2; 0: seven eighths of LeaseTime
	// AlwaysBroadcast is for clients that miss unicast replies before they have
	// an address, and do not set the broadcast flag.
	AlwaysBroadcast bool
	options.OptionSet
}
