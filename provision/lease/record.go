// Package lease keeps what the server granted: one Record per address, in
// memory for the packet path, in a Store for the next start. The ERP's
// binding is what makes an address a client's own; a record says who really
// used it, from where and until when.
package lease

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
)

// State is what became of a lease. Its zero value is invalid.
type State uint8

// The states of a lease. Whether a bound one has run out is told by Expires; and so it is
// whether a released or declined one is kept for its client nevertheless (Record.Kept).
const (
	StateBound    State = iota + 1 // acknowledged to the client
	StateReleased                  // the client gave it back
	StateDeclined                  // the client found the address in use by somebody else
	// StateQuarantined is an address of a pool that somebody else was found to
	// use: no client gets it before Expires.
	StateQuarantined
)

// String returns bound, released, declined, quarantined or invalid.
func (s State) String() string {
	switch s {
	case StateBound:
		return "bound"
	case StateReleased:
		return "released"
	case StateDeclined:
		return "declined"
	case StateQuarantined:
		return "quarantined"
	}
	return "invalid"
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(b []byte) error {
	for v := StateBound; v <= StateQuarantined; v++ {
		if v.String() == string(b) {
			*s = v
			return nil
		}
	}
	return fmt.Errorf("lease state %q: want bound, released, declined or quarantined", b)
}

// Hex is raw bytes that print as hexadecimal in JSON and text.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(b []byte) error {
	v, err := hex.AppendDecode(nil, b)
	if err == nil {
		*h = v
	}
	return err
}

// String returns the bytes in hexadecimal.
func (h Hex) String() string { return hex.EncodeToString(h) }

// Record is one lease. The slices of a Record that came out of a Table are
// shared and must not be written to.
type Record struct {
	IP         netip.Addr             `json:"ip"`
	MAC        provision.MAC          `json:"mac"`
	ClientID   Hex                    `json:"client_id,omitempty"` // option 61, raw
	Subscriber provision.SubscriberID `json:"subscriber"`
	Device     provision.DeviceID     `json:"device,omitempty"`
	Port       uint32                 `json:"port,omitempty"`
	Option82   Hex                    `json:"option82,omitempty"` // payload as received last
	GIAddr     netip.Addr             `json:"giaddr,omitzero"`    // relay it came through; invalid: none
	Ifindex    int                    `json:"ifindex,omitempty"`  // interface it came in on
	Interface  string                 `json:"interface,omitempty"`
	Pool       string                 `json:"pool,omitempty"` // it was given from; empty: the ERP binds the address
	Key        provision.Owner        `json:"key,omitzero"`   // the vacant Line that the pool keeps it for; zero: it keeps it for MAC
	State      State                  `json:"state"`
	// Prior is the client that had the address when this one got it, its lease still
	// bound; zero: none had, or nobody knows: it is not stored, so a restart forgets it.
	Prior provision.MAC `json:"prior,omitzero"`
	// ERP is what the ERP had for the address when this client got it; empty: not known, as of records of pools.
	ERP     ERPMACs   `json:"erp_mac,omitzero"`
	Start   time.Time `json:"start"`   // first ACK of this client for this address
	Renewed time.Time `json:"renewed"` // newest ACK, or the RELEASE or DECLINE after it
	Expires time.Time `json:"expires"`
}

// Holder returns whom a pool keeps the address for: a vacant line, else a client by its MAC.
func (r *Record) Holder() provision.Owner {
	if !r.Key.IsZero() {
		return r.Key
	}
	return r.MAC.Owner()
}

// Live reports whether the client may still use the address at now: it is bound to it, or
// kept for it.
func (r *Record) Live(now time.Time) bool {
	return r.State == StateBound && now.Before(r.Expires) || r.Kept(now)
}

// Kept reports whether the address stays the client's at now although a RELEASE or DECLINE
// came for it: nobody could tell whether the client had sent it (Table.Keep). A lease that
// ended by one expired when it came, also in records of versions that kept none; it does not
// come back when the clock is set back.
func (r *Record) Kept(now time.Time) bool {
	return (r.State == StateReleased || r.State == StateDeclined) && r.Expires.After(r.Renewed) && now.Before(r.Expires)
}

// Standing describes for people what the lease is at now, such as "bound until
// 2026-05-01 12:00:00" or "released (kept until 2026-05-01 12:00:00)", in the time zone of now.
func (r *Record) Standing(now time.Time) string {
	at := r.Expires.In(now.Location()).Format(time.DateTime)
	switch {
	case r.Kept(now):
		return fmt.Sprintf("%s (kept until %s)", r.State, at)
	case r.State == StateReleased, r.State == StateDeclined:
		return fmt.Sprintf("%s at %s", r.State, r.Renewed.In(now.Location()).Format(time.DateTime))
	}
	return fmt.Sprintf("%s until %s", r.State, at)
}
