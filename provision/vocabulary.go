// Package provision holds the vocabulary of usher and its pure core: what the
// ERP says (Line, Subscriber, Device), the immutable Snapshot built from it,
// and the plan that brings a kernel to it.
package provision

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"
)

// SubscriberID is the customer id of the ERP (customer_id, formerly usercode).
// Zero means "none".
type SubscriberID int64

// DeviceID is the ERP's id of a switch or OLT. Zero means "none".
type DeviceID int64

// Made reports whether it is the id of a switch that the ERP gave none: made of what rows tell, and another one once the ERP's list
// has the switch. Such ids are below 2^53, which every reader of JSON can hold, and above every id of an ERP.
func (d DeviceID) Made() bool { return d >= 1<<51 }

// MAC is an Ethernet address. The zero value means "not known".
type MAC [6]byte

// ParseMAC reads a hardware address in any spelling that the ERP or an operator
// uses: with colons, dashes, dots or no separator, in any case. The empty
// string, all zeros and the broadcast address give the zero MAC and no error,
// for they all mean "not known" in the ERP (API page, looseness rules).
func ParseMAC(s string) (MAC, error) {
	var digits [12]byte
	n := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ':' || c == '-' || c == '.' || c == ' ':
		case n == len(digits):
			return MAC{}, fmt.Errorf("mac %q: more than 12 hex digits", s)
		default:
			digits[n] = c
			n++
		}
	}
	if n == 0 {
		return MAC{}, nil
	}
	var m MAC
	if n != len(digits) {
		return MAC{}, fmt.Errorf("mac %q: %d hex digits, want 12", s, n)
	}
	if _, err := hex.Decode(m[:], digits[:]); err != nil {
		return MAC{}, fmt.Errorf("mac %q: not hexadecimal", s)
	}
	if m == (MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) {
		return MAC{}, nil
	}
	return m, nil
}

// IsZero reports whether the address is not known.
func (m MAC) IsZero() bool { return m == MAC{} }

// String returns the form 00:00:5e:00:53:01.
func (m MAC) String() string {
	b := make([]byte, 0, 17)
	return string(m.AppendTo(b))
}

// AppendTo appends the form of String.
func (m MAC) AppendTo(b []byte) []byte {
	const hexdigits = "0123456789abcdef"
	for i, v := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, hexdigits[v>>4], hexdigits[v&15])
	}
	return b
}

// MarshalText implements encoding.TextMarshaler; the zero MAC is empty text.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return m.AppendTo(make([]byte, 0, 17)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler by ParseMAC.
func (m *MAC) UnmarshalText(b []byte) error {
	v, err := ParseMAC(string(b))
	if err == nil {
		*m = v
	}
	return err
}

// State is what a subscriber may do, in the ERP's own three words. Its zero
// value is invalid, so that a forgotten state never blocks and never opens.
type State uint8

// The states; the ERP's numbers are 0 stop, 1 pause, 2 active (state_change).
const (
	StateUnknown State = iota
	StateStop
	StatePause
	StateActive
)

// ERP returns the state_id that the ERP uses for s; ok is false for StateUnknown.
func (s State) ERP() (id int, ok bool) {
	if s < StateStop || s > StateActive {
		return 0, false
	}
	return int(s) - 1, true
}

// String returns unknown, stop, pause or active.
func (s State) String() string {
	switch s {
	case StateStop:
		return "stop"
	case StatePause:
		return "pause"
	case StateActive:
		return "active"
	default:
		return "unknown"
	}
}

// Blocks reports whether a subscriber in this state is kept off the network.
func (s State) Blocks() bool { return s == StateStop || s == StatePause }

// parseState reads the words that String gives.
func parseState(s string) (State, error) {
	for st := StateUnknown; st <= StateActive; st++ {
		if st.String() == s {
			return st, nil
		}
	}
	return StateUnknown, fmt.Errorf("state %q: want stop, pause or active", s)
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(b []byte) error {
	v, err := parseState(string(b))
	if err == nil {
		*s = v
	}
	return err
}

// Subscriber is a customer of the ERP.
type Subscriber struct {
	ID    SubscriberID
	State State
}

// Device is a switch or OLT that subscribers hang on.
type Device struct {
	ID    DeviceID
	Name  string
	Model string     // such as "D-Link DES-3200-28"; empty if the ERP does not tell
	MAC   MAC        // as in remote-id; zero if the ERP has none
	IP    netip.Addr // management address, often the relay's giaddr; invalid if none
}

// Source says where the rows of a Snapshot came from.
type Source string

// The sources of a Snapshot, a closed set: it is a metric label.
const (
	SourceDirect   Source = "direct"   // get_ip_port_device_commutation
	SourceComposed Source = "composed" // customers, commutation and devices joined by us
	SourceStored   Source = "stored"   // the last good snapshot, from disk
)

// Input is everything that Build needs, as one fetch saw it.
type Input struct {
	Lines       []Line // what of them is said twice or of one address by several is settled by Build
	Subscribers []Subscriber
	Devices     []Device
	Subnets     []netip.Prefix // the served subnets; empty: no check
	Reserved    []netip.Addr   // addresses no subscriber may hold: gateways
	// CustomerSubnets are whole subnets that customers have beside the addresses of their lines.
	CustomerSubnets []Subnet
	Pools           []AddrRange    // what pools give: a customer's subnet there is told, or not used
	Relays          []netip.Prefix // dhcp.relays: a customer's subnet that holds one is not used
	KeepVacant      bool           // there are pools for subscribers: lines without an address are kept
	Problems        []Problem      // what the fetch itself had to skip
	Earlier         []SubscriberID // whose lines are those of an earlier fetch, for the ERP gave no answer about them
	// FirstRead are customers of whom it is first told by this fetch, or by one before of which nothing came, that they
	// are blocked: what was not known before is no change for the fetch guard.
	FirstRead []SubscriberID
	// StatesKept says that the states are those of the snapshot in use, for the ERP did not tell any.
	StatesKept bool
	// DevicesUnread says that the ERP's list of switches was never read as a whole: Devices are what rows tell, and may lack some.
	DevicesUnread bool
	// StatesOfBefore are customers whose states are those of the snapshot in use, for the ERP gave no answer about them; sorted.
	StatesOfBefore []SubscriberID
	Source         Source
	FetchedAt      time.Time // when the fetch began: changes after it are not in it
}

// AddrRange is a range of IPv4 addresses with both its ends.
type AddrRange struct {
	From, To netip.Addr
}

// ProblemKind names a defect of the ERP's data. A closed set: it is a metric label.
type ProblemKind string

// The kinds of Problem.
const (
	ProblemBadRow            ProblemKind = "bad_row"            // a row or field that could not be read
	ProblemNoAddress         ProblemKind = "no_address"         // a row with a MAC but no IP
	ProblemDuplicateIP       ProblemKind = "duplicate_ip"       // one IP, two subscribers or two ports
	ProblemDuplicateMAC      ProblemKind = "duplicate_mac"      // one MAC, two subscribers
	ProblemPortConflict      ProblemKind = "port_conflict"      // one port, two subscribers
	ProblemOutsideSubnets    ProblemKind = "outside_subnets"    // IP in no served subnet
	ProblemReservedAddress   ProblemKind = "reserved_address"   // network, broadcast or gateway address
	ProblemUnknownDevice     ProblemKind = "unknown_device"     // row names a device that the ERP does not list
	ProblemDuplicateDevice   ProblemKind = "duplicate_device"   // two devices with one MAC or management IP
	ProblemUnknownSubscriber ProblemKind = "unknown_subscriber" // row of a customer that no state list has
	ProblemUnknownState      ProblemKind = "unknown_state"      // a state_id outside 0..2
	ProblemBadSubnet         ProblemKind = "bad_subnet"         // a customer's subnet that cannot be one: too large, with what serves others in it, or with too much of others
	ProblemSubnetConflict    ProblemKind = "subnet_conflict"    // a customer's subnet with what others have in it
)

// Problem is one defect that Build or the fetch saw; the rest of the data is used.
type Problem struct {
	Kind       ProblemKind  `json:"kind"`
	Subscriber SubscriberID `json:"subscriber,omitempty"`
	IP         netip.Addr   `json:"ip,omitzero"`
	Prefix     netip.Prefix `json:"prefix,omitzero"` // of a customer's subnet; IP is its first address, or one in it
	MAC        MAC          `json:"mac,omitzero"`
	Device     DeviceID     `json:"device,omitempty"`
	Port       uint32       `json:"port,omitempty"`
	Detail     string       `json:"detail"`
}
