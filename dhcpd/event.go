package dhcpd

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Event is what is known about one packet after its outcome is decided.
// Addresses that the packet does not have are invalid (the zero netip.Addr).
type Event struct {
	Seq         uint64                 `json:"seq"`  // place in the EventLog, from 1; zero elsewhere
	Time        time.Time              `json:"time"` // when it was read from the socket
	Type        wire.MessageType       `json:"type"` // of the request
	Outcome     outcome.Outcome        `json:"outcome"`
	Ifindex     int                    `json:"ifindex,omitempty"`
	Interface   string                 `json:"interface,omitempty"`
	MAC         provision.MAC          `json:"mac,omitzero"`
	ClientIP    netip.Addr             `json:"client_ip,omitzero"`    // ciaddr
	RequestedIP netip.Addr             `json:"requested_ip,omitzero"` // option 50
	GIAddr      netip.Addr             `json:"giaddr,omitzero"`
	YourIP      netip.Addr             `json:"your_ip,omitzero"` // offered, acknowledged, or what a NAKed client should have
	Subscriber  provision.SubscriberID `json:"subscriber,omitempty"`
	Device      provision.DeviceID     `json:"device,omitempty"` // as option 82 names it, else as bound
	Port        uint32                 `json:"port,omitempty"`
	Option82    lease.Hex              `json:"option82,omitempty"`     // payload; valid only during the call of an Observer
	ClientID    lease.Hex              `json:"client_id,omitempty"`    // option 61; valid as long as Option82
	Lost        outcome.Outcome        `json:"option82_lost,omitzero"` // why Option82 led to no port, also where the client was found otherwise
	Source      netip.AddrPort         `json:"source,omitzero"`        // who sent it
	VouchedBy   v4.Voucher             `json:"vouched_by,omitzero"`    // for where the client is
	MatchedBy   v4.MatchKind           `json:"matched_by,omitzero"`    // how the client was found; zero: it was not
	Rule        v4.Rule                `json:"rule,omitzero"`          // the row of docs/dhcp-matching.md that decided
	Since       time.Time              `json:"since,omitzero"`         // when the client of the lease record that counted got the address; zero: none did
	Stray       v4.Stray               `json:"stray,omitzero"`         // the address was given by MAC on a line that does not say so
	Networks    v4.OtherNetwork        `json:"other_network,omitzero"` // the address was given, or not given, though it is of another network than the client
	Rival       provision.MAC          `json:"rival,omitzero"`         // who has the address that MAC wants; of outcome.TakeoverDamped and NakOtherClient
	XID         uint32                 `json:"xid"`
	Latency     time.Duration          `json:"-"`                // from reading the packet to having sent the answer
	Detail      string                 `json:"detail,omitempty"` // constant text: parse error, send error class
	// Repeat marks a shed, refused or unreadable packet whose like was told within the same
	// second: it is to be counted, not remembered.
	Repeat bool `json:"-"`
}

// copyFrom makes e the same as other, in memory of its own, which is used again.
func (e *Event) copyFrom(other *Event) {
	opt82, id := append(e.Option82[:0], other.Option82...), append(e.ClientID[:0], other.ClientID...)
	*e = *other
	e.Option82, e.ClientID = opt82, id
}

// Observer sees every packet once, after its outcome. It is called from
// several goroutines, must be quick and must not keep e or its slices.
type Observer interface {
	// Packet is called once per packet.
	Packet(e *Event)
	// Commit is called after each group commit: n records took d; err is the journal's error.
	Commit(n int, d time.Duration, err error)
}

// Observers calls each of its members in turn.
type Observers []Observer

// Packet implements Observer.
func (o Observers) Packet(e *Event) {
	for _, m := range o {
		m.Packet(e)
	}
}

// Commit implements Observer.
func (o Observers) Commit(n int, d time.Duration, err error) {
	for _, m := range o {
		m.Commit(n, d, err)
	}
}
