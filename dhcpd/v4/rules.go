package v4

import (
	"fmt"
	"math/bits"
	"slices"

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
	says   string // for people: what was known, where it is not plain also what follows
}

// action is what a row leads to.
type action uint8

const (
	giveIt       action = iota + 1 // OFFER or ACK, unless dhcp.mac_change or dhcp.max_macs_per_port is against it
	nakWrong                       // NAK: the client is to have another address
	nakOther                       // NAK: another client has it
	nakNotBound                    // NAK: it is nobody's any more, or somebody else's
	nakOverruled                   // NAK: the ERP has another MAC for it by now
	nakNetwork                     // NAK: the client has addresses of other networks only
	usePool                        // what the pools say, or why nobody is found
	stay                           // nothing, for the reason that nobody was found for
	unknown                        // nothing, or a NAK where dhcp.unknown_clients asks for one
	endLease                       // the lease ends
	markLease                      // it is marked, and the address stays the client's until it would end anyway
	noteIt                         // it is counted
	leaveIt                        // nothing, because the lease is live elsewhere, or the message may come from there as well
	ignoreIt                       // it is counted as none of ours
)

const (
	hasIt  = lineHas | macHas
	hasOne = lineOther | macOther
	isFull = lineFull | macFull
)

// rules is the table. docs/dhcp-matching.md has it for people; a test compares the two.
var rules = [...]rule{
	{name: "discover_has", on: msgDiscover, claim: hasIt, do: giveIt,
		says: "The line that the client is on has an address for it, or the ERP has its MAC for one."},
	{name: "discover_kept", on: msgDiscover, record: recKept, claim: untold, place: placeSame | placeUnsure, do: giveIt,
		says: "The packet tells no line and its MAC leads to nobody, but the client has a live lease that may have been given here, and the ERP still has the address there."},
	{name: "discover_less", on: msgDiscover, claim: untold, place: placeOther, do: leaveIt,
		says: "The packet tells no line and its MAC leads to nobody, but the client has a live lease that a relay on this wire gave it a line for: it is heard there, and nobody unknown here."},
	{name: "discover_network", on: msgDiscover, claim: macNetwork, do: stay,
		says: "The ERP has the MAC for addresses of other networks only than the client is in: they are of no use there."},
	{name: "discover_none", on: msgDiscover, do: usePool,
		says: "Neither a line that somebody vouches for nor the MAC leads to an address of the ERP for the client: only a pool can have one."},

	{name: "select_has", on: msgSelecting, claim: hasIt, do: giveIt,
		says: "The line that the client is on, or else its MAC, has the address that it takes."},
	{name: "select_other", on: msgSelecting, claim: hasOne, do: nakWrong,
		says: "The line that the client is on, or else its MAC, has another address than the one that it takes."},
	{name: "select_elsewhere", on: msgSelecting, claim: macLive, do: stay,
		says: "The ERP has the MAC for a line whose lease is live elsewhere: the client is heard there, and a NAK here might reach it too."},
	{name: "select_kept", on: msgSelecting, record: recKept, claim: untold, place: placeSame | placeUnsure, do: giveIt,
		says: "The packet tells no line and its MAC leads to nobody, but the client has a live lease of the address that may have been given here, and the ERP still has it there."},
	{name: "select_less", on: msgSelecting, claim: untold, do: leaveIt,
		says: "The packet tells no line and its MAC leads to nobody, but the address is found by a line: the same message may come from there, and a NAK here might reach the client, too."},
	{name: "select_network", on: msgSelecting, claim: macNetwork, do: nakNetwork,
		says: "The client takes an address, and the ERP has its MAC for addresses of other networks only."},
	{name: "select_none", on: msgSelecting, do: usePool,
		says: "Neither line nor MAC leads to an address of the ERP for the client: only a pool can have given the one that it takes."},

	{name: "reboot_has", on: msgReboot, claim: hasIt, do: giveIt,
		says: "The line that the client is on, or else its MAC, has the address that it had before."},
	{name: "reboot_other", on: msgReboot, claim: hasOne, do: nakWrong,
		says: "The line that the client is on, or else its MAC, has another address than the one that it had before."},
	{name: "reboot_gone", on: msgReboot, record: recGone, claim: isFull | nobody, place: placeSame | placeUnsure, do: nakNotBound,
		says: "The client had the address here, but the ERP has it elsewhere by now, or for nobody, and none for the client, or only those that other clients have."},
	{name: "reboot_full", on: msgReboot, claim: isFull | macAway | macLive, do: stay,
		says: "Other clients have the addresses of the client's line or MAC, or its MAC is that of a line elsewhere."},
	{name: "reboot_kept", on: msgReboot, record: recKept, claim: untold, place: placeSame | placeUnsure, do: giveIt,
		says: "The packet tells no line and its MAC leads to nobody, but the client has a live lease of the address that it had before, which may have been given here, and the ERP still has it there."},
	{name: "reboot_less", on: msgReboot, claim: untold, do: leaveIt,
		says: "The packet tells no line and its MAC leads to nobody, but the address that it had before is found by a line: the same message may come from there."},
	{name: "reboot_overruled", on: msgReboot, record: recOverruled, place: placeSame | placeUnsure, do: nakOverruled,
		says: "The address was the client's last, but the ERP has got another MAC for it since, and nobody vouches for the client's line."},
	{name: "reboot_network", on: msgReboot, claim: macNetwork, do: nakNetwork,
		says: "The client wants the address that it had before, and the ERP has its MAC for addresses of other networks only."},
	{name: "reboot_none", on: msgReboot, do: usePool,
		says: "Neither line nor MAC leads to an address of the ERP for the client: only a pool can have given the one that it had before."},

	{name: "extend_line_taken", on: msgExtendAt, record: recOther, claim: hasIt, do: nakOther,
		says: "The address is that of the line or the MAC, but another client has a live lease of it by now."},
	{name: "extend_line_has", on: msgExtendAt, claim: hasIt, do: giveIt,
		says: "The line that the renewal tells, or else the MAC, has the address."},
	{name: "extend_line_other", on: msgExtendAt, claim: hasOne, do: nakWrong,
		says: "The line that the renewal tells, or else the MAC, has another address."},
	{name: "extend_line_full", on: msgExtendAt, claim: isFull, do: nakOther,
		says: "Other clients have the addresses of the line that the renewal tells, or of the MAC."},
	{name: "extend_line_away", on: msgExtendAt, claim: macAway, do: nakNotBound,
		says: "The MAC, or the client's last lease, is that of another line, and the ERP knows the line that the renewal tells."},
	{name: "extend_elsewhere", on: msgExtendAt | msgExtend, record: recKept | recGone | recOverruled, place: placeOther, do: leaveIt,
		says: "The client's lease was given elsewhere than where the renewal comes from, and is live, or its address of no use there: it is left alone."},
	{name: "extend_pool_elsewhere", on: msgExtend, record: recPool, place: placeOther, do: leaveIt,
		says: "The client's lease of a pool is live and was given elsewhere than where the renewal comes from: it is left alone."},
	{name: "extend_pool", on: msgExtendAt | msgExtend, record: recPool, do: usePool,
		says: "The client has the address of a pool, or had it last."},
	{name: "extend_taken", on: msgExtendAt | msgExtend, record: recOther, do: nakOther,
		says: "Another client has a live lease of the address."},
	{name: "extend_overruled", on: msgExtendAt | msgExtend, record: recOverruled, do: nakOverruled,
		says: "The lease is the client's, or was its last, but the ERP has got another MAC for the address since, and nobody vouches for the client's line."},
	{name: "extend_network_other", on: msgExtend, claim: hasOne, do: nakWrong,
		says: "The address is of another network than the one that the renewal comes from, and the client has an address there."},
	{name: "extend_network", on: msgExtendAt | msgExtend, claim: macNetwork, do: nakNetwork,
		says: "The ERP has the MAC for addresses of other networks only than the one that the renewal comes from."},
	{name: "extend_kept", on: msgExtendAt | msgExtend, record: recKept, do: giveIt,
		says: "The lease is the client's, or was its last, and the ERP still has the address there."},
	{name: "extend_gone", on: msgExtendAt | msgExtend, record: recGone, do: nakNotBound,
		says: "The lease is the client's, or was its last, but the ERP has the address elsewhere by now, or for nobody."},
	{name: "extend_has", on: msgExtend, claim: hasIt, do: giveIt,
		says: "The ERP has the client's MAC, or its identifier, for the address."},
	{name: "extend_none", on: msgExtendAt | msgExtend, do: unknown,
		says: "Nothing tells that the address is the client's."},

	{name: "release_same", on: msgRelease, record: recOwn, place: placeSame, do: endLease,
		says: "The client gave its lease up from where it was given, and somebody vouches for that: it ends."},
	{name: "release_unsure", on: msgRelease, record: recOwn, place: placeUnsure, do: markLease,
		says: "Who has the client's MAC gave its lease up from where it may have been given: it is marked, and the client's until it would end."},
	{name: "release_other", on: msgRelease, do: ignoreIt,
		says: "The lease is not the client's, or was given elsewhere than where the packet comes from."},

	{name: "decline_same", on: msgDecline, record: recOwn, place: placeSame, do: endLease,
		says: "The client found its address in use, and somebody vouches for where it is: the lease ends."},
	{name: "decline_unsure", on: msgDecline, record: recOwn, place: placeUnsure, do: markLease,
		says: "Who has the client's MAC found its address in use, from where the lease may have been given: it is marked, and the client's until it would end."},
	{name: "decline_has", on: msgDecline, record: recNone | recOther, claim: macHas, do: noteIt,
		says: "The client with the ERP's MAC found the address in use, and has no lease of it."},
	{name: "decline_other", on: msgDecline, do: ignoreIt,
		says: "The address is not the client's, or its lease was given elsewhere than where the packet comes from."},
}

// firstRow is where the rows of each message begin, by its bit.
var firstRow = func() (at [16]uint8) {
	for bit := range at {
		at[bit] = uint8(max(slices.IndexFunc(rules[:], func(r rule) bool { return r.on&(1<<bit) != 0 }), 0))
	}
	return at
}()

// String returns the name of the row, as docs/dhcp-matching.md has it; empty for none.
func (r Rule) String() string {
	if r == 0 || int(r) > len(rules) {
		return ""
	}
	return rules[r-1].name
}

// Explain returns the row in a sentence for people; empty for none.
func (r Rule) Explain() string {
	if r == 0 || int(r) > len(rules) {
		return ""
	}
	return rules[r-1].says
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
	c.e.msg = msg
	for i := int(firstRow[bits.TrailingZeros16(uint16(msg))]); i < len(rules); i++ {
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
	case nakOverruled:
		c.refuse(msg, outcome.NakOverruled, Binding{})
	case nakOther:
		c.nak(outcome.NakOtherClient, Binding{})
	case nakNetwork:
		c.d.Evidence.OtherNetwork = c.d.Match.apart
		c.refuse(msg, outcome.NakWrongNetwork, Binding{})
	case usePool:
		c.askPool(msg)
	case stay:
		if c.d.Match.failed == outcome.WrongNetwork {
			c.d.Evidence.OtherNetwork = c.d.Match.apart
		}
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
		if c.e.claim == untold {
			c.end(outcome.SaysLess)
		} else {
			c.end(outcome.MACElsewhere)
		}
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
	if b.Line == nil || msg != msgDiscover && b.IP != c.e.at { // the record knows it
		b = c.bound(c.e.at)
	}
	switch {
	case msg == msgDiscover && c.cfg.rapidCommit && c.r.P.RapidCommit():
		c.grant(wire.Ack, b)
		c.d.Reply.RapidCommit = c.d.Reply.Type == wire.Ack
	case msg == msgDiscover:
		c.grant(wire.Offer, b)
	default:
		c.grant(wire.Ack, b)
	}
}

// refuse plans a NAK; b is what the client is to have, none if nothing.
func (c *decider) refuse(msg message, o outcome.Outcome, b Binding) {
	switch {
	case c.unplaced():
		c.end(outcome.DevicesUnread)
	case msg == msgReboot && !c.cfg.authoritative && c.cfg.unknown == UnknownNak && c.d.Match.unknown():
		c.nak(outcome.NakUnknown, Binding{}) // as anybody is whom the ERP does not know, with a lease or without
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
	if c.unplaced() && c.d.Match.Vacant == nil && msg&(msgExtend|msgExtendAt) == 0 {
		c.end(outcome.DevicesUnread)
		return
	}
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
