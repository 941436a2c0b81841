package provision

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrRefused marks an error by which the ERP says no to this very change, and
// will say no again: the address is not known, the MAC is not wanted. A wrong
// key, a time-out, a 5xx answer or a page that is no answer are not refusals.
var ErrRefused = errors.New("refused by the ERP")

// ErrUncertain marks an error after which nobody knows whether the ERP made a change: it was asked, and no answer came, or
// one that says neither yes nor no.
var ErrUncertain = errors.New("it is not known whether the ERP did it")

// ErrNoRow says that none of the customers who were asked has an address, by their cards.
var ErrNoRow = errors.New("no customer that was asked has the address")

// MACReport says that a bound address was acknowledged to a MAC which the ERP
// does not have for it, or that such a MAC answers for it by ARP.
type MACReport struct {
	IP         netip.Addr   `json:"ip"`
	MAC        MAC          `json:"mac"`
	Subscriber SubscriberID `json:"subscriber,omitempty"`
	At         time.Time    `json:"at"` // when the packet came
	ARP        ARPSighting  `json:"arp,omitzero"`
	Packet     Packet       `json:"packet,omitzero"`
	Replaces   Replaced     `json:"replaces,omitzero"`
}

// Replaced is the ERP's MAC that a report is to replace. If the ERP has a third one by the time that the report would be sent, that is newer.
type Replaced struct {
	MAC   MAC  `json:"mac,omitzero"` // zero: the ERP had none
	Known bool `json:"known"`        // false: of an older usher's, or before the first answer of the ERP
}

// Packet is the evidence of a MAC that was seen by DHCP: the packet that was answered, or is to be when the ERP
// has the MAC, and what decided about it. The zero value is that of one seen by ARP, or reported by an older usher.
type Packet struct {
	Source    netip.AddrPort `json:"source,omitzero"` // who sent it
	Interface string         `json:"interface,omitempty"`
	Relay     netip.Addr     `json:"relay,omitzero"`     // giaddr
	Option82  string         `json:"option82,omitempty"` // payload, hexadecimal
	Device    DeviceID       `json:"device,omitempty"`   // as option 82 names it, else as bound
	Port      uint32         `json:"port,omitempty"`
	VouchedBy string         `json:"vouched_by,omitempty"` // for where the client is
	MatchedBy string         `json:"matched_by,omitempty"` // ways of dhcp.match; empty: the lease record alone told the client
	Rule      string         `json:"rule,omitempty"`       // row of docs/dhcp-matching.md
}

// ARPSighting is the evidence of a MAC that was seen by ARP alone. The zero value is
// that of one seen by DHCP.
type ARPSighting struct {
	Interface string `json:"interface"`
	Silent    MAC    `json:"silent,omitzero"` // the ERP's MAC, which did not answer for the address; zero: it had none
	Asked     uint8  `json:"asked,omitempty"` // how often Silent was asked
}

// Normal returns r as it is kept and compared: the address in its shortest form
// and the time as a clock on a wall shows it. A report needs an address and a MAC.
func (r MACReport) Normal() (MACReport, error) {
	r.IP = r.IP.Unmap().WithZone("")
	if !r.IP.IsValid() || r.MAC.IsZero() {
		return r, fmt.Errorf("mac report for %s: an address and a mac are needed", r.IP)
	}
	r.At = time.Unix(0, r.At.UnixNano())
	return r, nil
}

// maxAhead is how far in the future the time of a kept report may be to win
// over a new one: more means that the clock was wrong then.
const maxAhead = time.Minute

// Outranks reports whether r, which is kept, stays when other comes for the same
// address at now: the newer one wins.
func (r MACReport) Outranks(other MACReport, now time.Time) bool {
	return r.At.After(other.At) && r.At.Before(now.Add(maxAhead))
}
