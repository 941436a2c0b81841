package dhcpd

import (
	"net/netip"
	"time"
)

// MatchKind is one way to find the binding of a client.
type MatchKind uint8

// The ways to find a binding.
const (
	MatchOption82 MatchKind = iota + 1 // by the switch and port that option 82 names
	MatchMAC                           // by the client's MAC
)

// Options is what the server runs with. Compiled once by New and Reload.
type Options struct {
	Listen        netip.AddrPort // normally 0.0.0.0:67; a loopback address: unprivileged mode, UDP only
	RelayPort     uint16         // port of relays; 0: 67
	ClientPort    uint16         // port of clients; 0: 68
	Interfaces    []string       // names or path.Match patterns; empty: all but loopback
	Relays        []netip.Prefix // giaddr must be in one of these; empty: any
	ServerID      netip.Addr     // option 54; invalid: the address that the packet came to
	Match         []MatchKind    // in order; empty: option 82, then MAC
	Option82      Option82       // how option 82 is read
	Authoritative bool           // NAK a wrong address in INIT-REBOOT
	RapidCommit   bool           // answer a DISCOVER that asks for it with an ACK (RFC 4039)
	LeaseQuery    []netip.Prefix // access nodes that may ask who has an address (RFC 4388), by giaddr; empty: none
	Common        OptionSet      // what clients of all subnets are told
	Classes       []Class        // the first that fits a client counts
	Subnets       []Subnet
	CommitTimeout time.Duration // how long an ACK waits for the disk; 0: 100 ms
}

// Subnet is one served network and what its clients are told.
type Subnet struct {
	Prefix     netip.Prefix
	Gateway    netip.Addr    // invalid: none
	LeaseTime  time.Duration // at least a minute
	RenewTime  time.Duration // T1; 0: half of LeaseTime
	RebindTime time.Duration // T2; 0: seven eighths of LeaseTime
	// AlwaysBroadcast is for clients that miss unicast replies before they have
	// an address, and do not set the broadcast flag.
	AlwaysBroadcast bool
	OptionSet
}
