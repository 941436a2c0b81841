package v4

import (
	"fmt"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Stray is why an address that was found by the client's MAC, identifier or lease alone may be in the
// wrong place. It is given all the same: a foreign line is no proof of a wrong one. The zero value is that nothing
// speaks against it.
type Stray uint8

// The strays. Of all but StrayMoved the ERP has a port, or a VLAN, for the line of the address.
const (
	StrayNone          Stray = iota
	StrayUnread              // no profile could read the option 82
	StrayUnknownDevice       // the ERP does not have the switch that the option 82 names
	StrayUnknownPort         // the ERP has nobody on the port that the option 82 names
	StrayUnknownVLAN         // the ERP has nobody in the VLAN that the interface is named after
	StrayMoved               // the ERP has no port and no VLAN for the line, and the client's lease of the address was given elsewhere
	strayEnd
)

// Strays returns one more than the highest stray.
func Strays() Stray { return strayEnd }

// String returns none, unread, unknown_device, unknown_port, unknown_vlan or moved.
func (s Stray) String() string {
	if s >= strayEnd {
		return "invalid"
	}
	return [strayEnd]string{"none", "unread", "unknown_device", "unknown_port", "unknown_vlan", "moved"}[s]
}

// Explain returns in a sentence for people why the place may be wrong; empty for none.
func (s Stray) Explain() string {
	switch s {
	case StrayUnread:
		return "No profile can read the option 82 of the line."
	case StrayUnknownDevice:
		return "The ERP does not have the switch that the option 82 names."
	case StrayUnknownPort:
		return "The ERP has nobody on the port that the option 82 names."
	case StrayUnknownVLAN:
		return "The ERP has nobody in the VLAN that the interface is named after."
	case StrayMoved:
		return "The ERP has no port and no VLAN for the address, and its lease was given elsewhere."
	}
	return ""
}

// MarshalText implements encoding.TextMarshaler by String.
func (s Stray) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Stray) UnmarshalText(b []byte) error {
	for x := range strayEnd {
		if x.String() == string(b) {
			*s = x
			return nil
		}
	}
	return fmt.Errorf("stray %q: no such one", b)
}

// strays says whether the client is given an address of l although nobody vouches for that line and the packet tells
// another; old is what is recorded of the address.
func (c *decider) strays(l *provision.Line, old *lease.Record) Stray {
	if c.d.Match.By&(MatchOption82|MatchVLAN) != 0 {
		return StrayNone
	}
	loc := &c.loc
	byPort := c.cfg.matches&MatchOption82 != 0 && hasPort(l)
	byVLAN := c.cfg.matches&MatchVLAN != 0 && l.VLAN != 0
	switch {
	case !byPort && !byVLAN:
		if c.d.Match.By != 0 && old.State != 0 && c.same(old) && c.comesFrom(old) == placeOther {
			return StrayMoved
		}
	case byPort && c.r.P.HasOption82() && loc.Lines.Len() == 0:
		switch loc.Result {
		case line.Unread:
			return StrayUnread
		case line.UnknownDevice:
			return StrayUnknownDevice
		case line.UnknownPort:
			return StrayUnknownPort
		}
	case byVLAN && loc.VLAN != 0:
		if lines, shared := c.snap.ByVLAN(loc.VLAN); !shared && lines.Len() == 0 {
			return StrayUnknownVLAN
		}
	}
	return StrayNone
}
