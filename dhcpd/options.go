package dhcpd

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
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
	line.Options // where clients are attached, and whose word is taken for that

	Listen        netip.AddrPort // normally 0.0.0.0:67; a loopback address: unprivileged mode, UDP only
	RelayPort     uint16         // port of relays; 0: 67
	ClientPort    uint16         // port of clients; 0: 68
	Interfaces    []string       // names or path.Match patterns; empty: all but loopback
	ServerID      netip.Addr     // option 54; invalid: the address that the packet came to
	Match         []MatchKind    // in order; empty: option 82, then MAC
	Authoritative bool           // NAK a wrong address in INIT-REBOOT
	RapidCommit   bool           // answer a DISCOVER that asks for it with an ACK (RFC 4039)
	LeaseQuery    []netip.Prefix // access nodes that may ask who has an address (RFC 4388), by giaddr; empty: none
	Common        OptionSet      // what clients of all subnets are told
	Classes       []Class        // the first that fits a client counts
	Subnets       []Subnet
	// AnswerWhileHolding is an address that this host must have to answer; invalid: always.
	AnswerWhileHolding netip.Addr
	Limits             Limits
	Unknown            Unknown       // what becomes of clients that the ERP does not know
	Pools              []Pool        // addresses that the server gives out by itself
	Quarantine         time.Duration // how long a pool's address in use by somebody else is kept; 0: an hour
	CommitTimeout      time.Duration // how long an ACK waits for the disk; 0: 100 ms

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
	OptionSet
}
