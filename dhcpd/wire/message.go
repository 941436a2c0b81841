// Package wire reads and writes DHCP packets (RFC 2131, RFC 2132) without
// copying and without allocating: a Packet is a view of the received bytes with
// the places of the options that a server needs, and a reply is built into the
// caller's buffer. It also takes option 82 apart (RFC 3046), and has the words for
// how a reply travels.
package wire

import "strconv"

// MessageType is the value of option 53. Zero means "none was read".
type MessageType uint8

// The message types of RFC 2132 section 9.6.
const (
	Discover MessageType = iota + 1
	Offer
	Request
	Decline
	Ack
	Nak
	Release
	Inform
)

// The message types of RFC 4388.
const (
	LeaseQuery MessageType = iota + 10
	LeaseUnassigned
	LeaseUnknown
	LeaseActive
)

// MessageTypes lists the types that String names, for metric labels.
func MessageTypes() []MessageType {
	return []MessageType{0, Discover, Offer, Request, Decline, Ack, Nak, Release, Inform}
}

// String returns discover, offer, ... , leasequery, ... ; none for zero and "type_<n>" for numbers that
// have no name here. Use Label where the set of words must be closed.
func (t MessageType) String() string {
	switch {
	case t == 0:
		return "none"
	case t <= Inform:
		return t.Label()
	case t >= LeaseQuery && t <= LeaseActive:
		return [...]string{"leasequery", "leaseunassigned", "leaseunknown", "leaseactive"}[t-LeaseQuery]
	}
	return "type_" + strconv.Itoa(int(t))
}

// Label is String with every number that is not in MessageTypes given as "other": a closed set.
func (t MessageType) Label() string {
	switch t {
	case 0:
		return "none"
	case Discover:
		return "discover"
	case Offer:
		return "offer"
	case Request:
		return "request"
	case Decline:
		return "decline"
	case Ack:
		return "ack"
	case Nak:
		return "nak"
	case Release:
		return "release"
	case Inform:
		return "inform"
	}
	return "other"
}

// MarshalText implements encoding.TextMarshaler by String.
func (t MessageType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// The option codes that this package and its callers name (RFC 2132 unless said).
const (
	OptPad                    = 0
	OptSubnetMask             = 1
	OptRouter                 = 3
	OptDNS                    = 6
	OptHostName               = 12
	OptDomainName             = 15
	OptMTU                    = 26
	OptNTP                    = 42
	OptVendorSpecific         = 43
	OptRequestedIP            = 50
	OptLeaseTime              = 51
	OptOverload               = 52
	OptMessageType            = 53
	OptServerID               = 54
	OptParameterList          = 55
	OptMessage                = 56
	OptMaxMessageSize         = 57
	OptRenewalTime            = 58
	OptRebindingTime          = 59
	OptVendorClass            = 60
	OptClientID               = 61
	OptUserClass              = 77  // RFC 3004
	OptRapidCommit            = 80  // RFC 4039
	OptRelayAgentInfo         = 82  // RFC 3046
	OptLastTransaction        = 91  // RFC 4388: seconds since the client was last heard
	OptAssociatedIP           = 92  // RFC 4388: the client's other addresses
	OptPOSIXTimezone          = 100 // RFC 4833
	OptTimezone               = 101 // RFC 4833: a name of the TZ database
	OptIPv6OnlyWait           = 108 // RFC 8925
	OptCaptivePortal          = 114 // RFC 8910
	OptDomainSearch           = 119 // RFC 3397
	OptClasslessRoutes        = 121 // RFC 3442
	OptVendorIdentifyingClass = 124 // RFC 3925
	OptVendorIdentifying      = 125 // RFC 3925
	OptMicrosoftRoutes        = 249 // what Windows asked for before 121
	OptEnd                    = 255
)
