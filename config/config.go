// Package config reads the agent's YAML file into a validated Config. Every
// mistake is reported at once, as file:line:column: key: reason.
package config

import (
	"net/netip"
	"time"
)

// Secret is a string that no log, error or page ever shows.
type Secret string

// String hides the value.
func (Secret) String() string { return "[redacted]" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText hides the value from every encoder.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Reveal gives the value to the one place that must send it.
func (s Secret) Reveal() string { return string(s) }

// Config is the whole validated configuration. All defaults are filled in.
type Config struct {
	StateDir   string // snapshot, leases, outbox; /var/lib/usher
	ERP        ERP
	Policy     Policy
	Hooks      Hooks
	Guard      Guard
	DHCP       DHCP
	ACL        ACL
	Portal     Portal
	Routes     Routes
	Neighbours Neighbours
	Reports    Reports
	Control    Control
	Console    Console
	Log        Log

	// Warnings is what works but should be known, such as a certificate that
	// is not verified. It never holds a secret.
	Warnings []Problem
}

// ERP is how to reach the UserSide API.
type ERP struct {
	URL               string // up to and with /api.php
	Key               Secret // resolved from key_file, credential or key
	CAFile            string // extra CA for a private certificate; empty: system pool
	Insecure          bool   // do not verify the certificate
	Timeout           time.Duration
	PollInterval      time.Duration // of states
	PollJitter        float64       // share of PollInterval, 0..0.5
	RefreshInterval   time.Duration // of everything
	RequestsPerMinute int           // 0: unlimited
	Retries           int           // of reads
	MaxConcurrent     int
	Bindings          string // auto, direct, composed
	BatchSize         int    // ids per get_data
	ERPVersion        string // of the server, such as "3.17"; empty: it is asked
}

// Guard holds a suspicious fetch; see provision.Guard.
type Guard struct {
	MaxRemoved  float64 // share of subscribers, 0..1
	MaxMoved    float64
	MaxBlocked  float64
	MinChanged  int // fewer changed subscribers than this never hold
	AcceptAfter int // the same answer this many times in a row is accepted; 0: never
}

// DHCP is the server.
type DHCP struct {
	Enabled       bool
	Interfaces    []string       // names or path.Match patterns to answer on; empty: all but loopback
	Listen        netip.AddrPort // 0.0.0.0:67
	RelayPort     uint16         // port of relays, 67
	ClientPort    uint16         // port of clients, 68
	ServerID      netip.Addr     // invalid: the address of the receiving interface
	Relays        []netip.Prefix // giaddr must be in one of these; empty: any
	Match         []string       // option82, vlan, client_id, mac, or several joined by +; in order
	Option82      Option82       // how option 82 is read
	Authoritative bool
	RapidCommit   bool
	Leasequery    Leasequery
	Common        OptionSet // for the clients of all subnets
	Classes       []Class   // the first that fits a client counts
	Subnets       []Subnet

	AnswerWhileHolding netip.Addr // invalid: always
	Limits             DHCPLimits

	// Whom the server believes and how it knows clients again; see dhcpd.Options.
	TrustedInterfaces []string // names or patterns; empty: all that are served
	CheckRelaySource  bool
	ClientIDs         []ClientID
	VLANInterfaces    []string // templates of vlanname
	ClientKey         string   // mac, client_id
	MACChange         string   // accept, report, refuse
	MaxMACsPerPort    int      // 0: no limit
	OnBindingChange   string   // nak, shorten

	UnknownClients string        // silence, nak, guest
	Pools          []Pool        // addresses that the server gives out by itself
	Quarantine     time.Duration // how long a pool's address that somebody else uses is kept from clients
}

// Leasequery says who may ask who has an address (RFC 4388).
type Leasequery struct {
	From []netip.Prefix // addresses of access nodes (giaddr); empty: nobody
}

// Subnet is one served network and what its clients are told.
type Subnet struct {
	Prefix          netip.Prefix // masked
	Gateway         netip.Addr   // invalid: none
	ServerID        netip.Addr   // invalid: DHCP.ServerID
	LeaseTime       time.Duration
	RenewTime       time.Duration // T1; LeaseTime/2 when not set
	RebindTime      time.Duration // T2; LeaseTime*7/8 when not set
	AlwaysBroadcast bool
	OptionSet
}

// ACL is the kernel side of states.
type ACL struct {
	Enabled        bool
	DryRun         bool          // compute and report, touch nothing
	VerifyInterval time.Duration // how often the kernel is compared with what is wanted
	FlowsInterval  time.Duration // between two passes over the connection tracking table

	DNS         []netip.Prefix // name servers for the paused and guests, besides those that DHCP tells
	Exempt      ACLExempt
	SourceGuard ACLSourceGuard

	Pause           ACLPause
	Guest           ACLGuest
	Resolvers       []netip.AddrPort // name servers for the gardens; empty: those of the host
	ResolveInterval time.Duration
	ResolveKeep     time.Duration // how long an address stays after the DNS stopped naming it
}

// Reports is the outbox of set_mac_by_ip.
type Reports struct {
	Enabled bool
	Rate    float64 // calls per second
	Burst   int
}

// Control is the unix socket of usher status, explain, guard and customer.
type Control struct {
	Socket string // /run/usher/usher.sock
	Group  string // group that may use it; empty: the agent's own
}

// Console is the HTTP listener for metrics, health and pages.
type Console struct {
	Listen netip.AddrPort // 127.0.0.1:9467; invalid: off
}

// Log is what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // auto, text, json
}

// Prefixes gives the served subnets, as provision.Input wants them.
func (c *Config) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(c.DHCP.Subnets))
	for _, s := range c.DHCP.Subnets {
		out = append(out, s.Prefix)
	}
	return out
}

// Reserved gives the addresses that no subscriber may hold.
func (c *Config) Reserved() []netip.Addr {
	var out []netip.Addr
	for _, s := range c.DHCP.Subnets {
		if s.Gateway.IsValid() {
			out = append(out, s.Gateway)
		}
	}
	return out
}
