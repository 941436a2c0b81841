package v4

import (
	"fmt"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// Rule is a row of the table that leads from evidence to action, from 1; zero is none.
type Rule uint8

// rule is a row. A part that is zero is not asked; the first row counts of which everything fits.
type rule struct {
	name   string
	on     message
	record standing
	claim  claim
	place  place
	do     action
}

// action is what a row leads to.
type action uint8

const (
	giveIt      action = iota + 1 // OFFER or ACK, unless dhcp.mac_change or dhcp.max_macs_per_port is against it
	nakWrong                      // NAK: the client is to have another address
	nakOther                      // NAK: another client has it
	nakNotBound                   // NAK: it is nobody's any more, or somebody else's
	usePool                       // what the pools say, or why nobody is found
	stay                          // nothing, for the reason that nobody was found for
	unknown                       // nothing, or a NAK where dhcp.unknown_clients asks for one
	endLease                      // the lease ends
	markLease                     // it is marked, and the address stays the client's until it would end anyway
	noteIt                        // it is counted
	leaveIt                       // nothing, because the lease is live elsewhere
	ignoreIt                      // it is counted as none of ours
)

const (
	hasIt  = lineHas | macHas
	hasOne = lineOther | macOther
	isFull = lineFull | macFull
)

// rules is the table. docs/dhcp-matching.md has it for people; a test compares the two.
var rules = [...]rule{
	{name: "discover_has", on: msgDiscover, claim: hasIt, do: giveIt},
	{name: "discover_none", on: msgDiscover, do: usePool},

	{name: "select_has", on: msgSelecting, claim: hasIt, do: giveIt},
	{name: "select_other", on: msgSelecting, claim: hasOne, do: nakWrong},
	{name: "select_none", on: msgSelecting, do: usePool},

	{name: "reboot_has", on: msgReboot, claim: hasIt, do: giveIt},
	{name: "reboot_other", on: msgReboot, claim: hasOne, do: nakWrong},
	{name: "reboot_full", on: msgReboot, claim: isFull | macAway | macLive, do: stay},
	{name: "reboot_none", on: msgReboot, do: usePool},

	{name: "extend_line_taken", on: msgExtendAt, record: recOther, claim: hasIt, do: nakOther},
	{name: "extend_line_has", on: msgExtendAt, claim: hasIt, do: giveIt},
	{name: "extend_line_other", on: msgExtendAt, claim: hasOne, do: nakWrong},
	{name: "extend_line_full", on: msgExtendAt, claim: isFull, do: nakOther},
	{name: "extend_line_away", on: msgExtendAt, claim: macAway, do: nakNotBound},
	{name: "extend_elsewhere", on: msgExtendAt | msgExtend, record: recKept | recGone, place: placeOther, do: leaveIt},
	{name: "extend_pool_elsewhere", on: msgExtend, record: recPool, place: placeOther, do: leaveIt},
	{name: "extend_pool", on: msgExtendAt | msgExtend, record: recPool, do: usePool},
	{name: "extend_taken", on: msgExtendAt | msgExtend, record: recOther, do: nakOther},
	{name: "extend_kept", on: msgExtendAt | msgExtend, record: recKept, do: giveIt},
	{name: "extend_gone", on: msgExtendAt | msgExtend, record: recGone, do: nakNotBound},
	{name: "extend_has", on: msgExtend, claim: hasIt, do: giveIt},
	{name: "extend_none", on: msgExtendAt | msgExtend, do: unknown},

	{name: "release_same", on: msgRelease, record: recOwn, place: placeSame, do: endLease},
	{name: "release_unsure", on: msgRelease, record: recOwn, place: placeUnsure, do: markLease},
	{name: "release_other", on: msgRelease, do: ignoreIt},

	{name: "decline_same", on: msgDecline, record: recOwn, place: placeSame, do: endLease},
	{name: "decline_unsure", on: msgDecline, record: recOwn, place: placeUnsure, do: markLease},
	{name: "decline_has", on: msgDecline, record: recNone | recOther, claim: macHas, do: noteIt},
	{name: "decline_other", on: msgDecline, do: ignoreIt},
}

// String returns the name of the row, as docs/dhcp-matching.md has it; empty for none.
func (r Rule) String() string {
	if r == 0 || int(r) > len(rules) {
		return ""
	}
	return rules[r-1].name
}

// MarshalText implements encoding.TextMarshaler by String.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Rule) UnmarshalText(b []byte) error {
	for i := range rules {
		if rules[i].name == string(b) {
			*r = Rule(i + 1)
			return nil
		}
	}
	*r = 0
	if len(b) > 0 {
		return fmt.Errorf("rule %q: no such row", b)
	}
	return nil
}

// rule finds the row for a message about the address that is at stake, and follows it.
func (c *decider) rule(msg message) {
	for i := range rules {
		r := &rules[i]
		if r.on&msg == 0 || r.record != 0 && r.record&c.stands(msg) == 0 ||
			r.claim != 0 && r.claim&c.claims(msg) == 0 || r.place != 0 && r.place&c.comes(msg) == 0 {
			continue
		}
		c.d.Evidence.Rule = Rule(i + 1)
		c.follow(r.do, msg)
		return
	}
}

// follow does what a row says.
func (c *decider) follow(do action, msg message) {
	b := c.d.Match.binding
	switch do {
	case giveIt:
		c.give(msg, b)
	case nakWrong:
		c.refuse(msg, outcome.NakWrongAddress, b)
	case nakNotBound:
		c.refuse(msg, outcome.NakNotBound, Binding{})
	case nakOther:
		c.nak(outcome.NakOtherClient, Binding{})
	case usePool:
		c.askPool(msg)
	case stay:
		c.end(c.d.Match.failed)
	case unknown:
		c.refuseUnknown(outcome.RenewUnknown)
	case endLease, markLease:
		c.d.Keep = do == markLease
		if msg == msgRelease {
			c.release(&c.e.rec)
		} else {
			c.decline(&c.e.rec)
		}
	case leaveIt:
		c.d.YourIP, c.d.Binding = c.e.at, c.bound(c.e.at)
		c.end(outcome.MACElsewhere)
	case noteIt:
		c.d.YourIP, c.d.Binding = c.e.at, c.bound(c.e.at)
		c.end(outcome.Declined)
	case ignoreIt:
		if msg == msgRelease {
			c.end(outcome.ReleaseUnknown)
		} else {
			c.end(outcome.DeclineUnknown)
		}
	}
}

// give plans an OFFER or ACK of an address of the ERP.
func (c *decider) give(msg message, b Binding) {
	switch {
	case msg == msgDiscover && c.cfg.rapidCommit && c.r.P.RapidCommit():
		c.grant(wire.Ack, b)
		c.d.Reply.RapidCommit = c.d.Reply.Type == wire.Ack
	case msg == msgDiscover:
		c.grant(wire.Offer, b)
	case b.Line == nil || b.IP != c.e.at: // the record knows it
		c.grant(wire.Ack, c.bound(c.e.at))
	default:
		c.grant(wire.Ack, b)
	}
}

// refuse plans a NAK; b is what the client is to have, none if nothing.
func (c *decider) refuse(msg message, o outcome.Outcome, b Binding) {
	switch {
	case msg == msgReboot && !c.cfg.authoritative:
		c.d.Binding = b
		c.end(outcome.NotAuthoritative)
	case msg&(msgExtend|msgExtendAt) != 0 && c.comesFrom(&c.e.rec) != placeOther && c.shorten(c.e.at): // at once, or after a moment
	default:
		c.nak(o, b)
	}
}

// askPool answers a client that the ERP has no address for.
func (c *decider) askPool(msg message) {
	switch msg {
	case msgDiscover:
		c.discoverPool()
	case msgSelecting:
		c.selectPool(c.e.at)
	case msgReboot:
		c.rebootPool(c.e.at)
	default:
		c.extendPool(&c.e.rec)
	}
}
