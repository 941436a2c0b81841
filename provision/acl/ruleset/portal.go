package ruleset

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/usher-agent/usher/provision/access"
)

// SetPortalUp has an element while the portal answers. The agent renews it; with the
// agent gone the kernel takes it away, and sends nobody's HTTP to a port that
// another program may have by then.
const SetPortalUp = "portal_up"

// PortalUp returns the declaration of SetPortalUp.
func PortalUp() *nftables.Set {
	s := declared(SetPortalUp, "the portal answers")
	s.KeyType, s.KeyByteOrder, s.HasTimeout = nftables.TypeNFProto, binaryutil.BigEndian, true
	return s
}

// portalRules lead HTTP to the portal while it answers.
func portalRules(p Policy) []Rule {
	if p.Portal.Port() == 0 {
		return nil
	}
	out := []Rule{
		rule(chainPortal, "maintenance", isOpen(), accept()),
		rule(chainPortal, "", redirected(p, access.SetPaused, access.SetGarden)...),
	}
	for _, set := range p.nets(access.SetPaused) {
		out = append(out, rule(chainPortal, "", redirected(p, set, access.SetGarden)...))
	}
	return append(out, rule(chainPortal, "", redirected(p, access.SetGuests, access.SetGuestGarden)...))
}

// redirected is what of somebody's leads to the portal.
func redirected(p Policy, who, garden access.Set) []term {
	terms := []term{from(who), dport(isTCP, 80)}
	if !p.PortalBeforeGarden {
		terms = append(terms, notTo(garden))
	}
	return append(terms, portalIsUp(), counter(), redirect(p.Portal))
}

// missed counts and refuses attempts to open HTTP that should have come to the portal
// and are forwarded all the same: something of another table has taken the packet
// before, or hidden it. It is where the kernel tells of that.
func missed(p Policy, out string) []Rule {
	if p.Portal.Port() == 0 {
		return nil
	}
	return []Rule{rule(out, commentMissed, dport(isTCP, 80), opening(), portalIsUp(), counter(), reset())}
}

// commentMissed marks the rules of missed.
const commentMissed = "missed the portal"

// portalIsUp finds the element of a portal that answers.
func portalIsUp() term { return byProtocol(SetPortalUp) }

// opening is the first segment of a connection: SYN without ACK.
func opening() term {
	const flagsOffset, syn, ack = 13, 0x02, 0x10
	return term{"tcp flags syn / syn,ack", []fact{isTCP}, []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{syn}},
	}}
}

// Missed reports whether a rule counts what should have come to the portal.
func (r Rule) Missed() bool { return r.comment == commentMissed }
