package ruleset

import (
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/usher-agent/usher/provision/access"
)

// Rule is one rule of a chain.
type Rule struct {
	Chain   string
	comment string
	terms   []term
}

func rule(chain, comment string, terms ...term) Rule { return Rule{chain, comment, terms} }

// Rules returns the rules in their order. A packet that concerns nobody costs
// seven look-ups and nothing else; with IPv6 one comparison more.
func Rules(p Policy) []Rule {
	out := []Rule{
		rule(chainForward, "maintenance", isOpen(), counter(), accept()),
		rule(chainForward, "from a stopped subscriber", from(access.SetStopped), goTo(chainFromStopped)),
		rule(chainForward, "to a stopped subscriber", to(access.SetStopped), goTo(chainToStopped)),
		rule(chainForward, "from a paused subscriber", from(access.SetPaused), goTo(chainFromPaused)),
		rule(chainForward, "to a paused subscriber", to(access.SetPaused), goTo(chainToPaused)),
		rule(chainForward, "from a guest", from(access.SetGuests), goTo(chainFromGuests)),
		rule(chainForward, "to a guest", to(access.SetGuests), goTo(chainToGuests)),

		// The count is a rule of its own: when the set is full, the rule ends
		// there, and the packet must be dropped all the same.
		rule(chainFromStopped, "", count(source)),
		rule(chainFromStopped, "", counter(), drop()),
		rule(chainToStopped, "", count(destination)),
		rule(chainToStopped, "", counter(), drop()),
	}
	out = append(out, limited(chainFromPaused, chainToPaused, access.SetGarden)...)
	out = append(out, limited(chainFromGuests, chainToGuests, access.SetGuestGarden)...)
	if p.IPv6 {
		out = append(out, rulesIPv6()...)
	}
	if p.Portal.Port() != 0 {
		out = append(out,
			rule(chainPortal, "maintenance", isOpen(), accept()),
			rule(chainPortal, "", from(access.SetPaused), dport(isTCP, 80), notTo(access.SetGarden), counter(), redirect(p.Portal)),
			rule(chainPortal, "", from(access.SetGuests), dport(isTCP, 80), notTo(access.SetGuestGarden), counter(), redirect(p.Portal)))
	}
	if p.SourceGuard {
		out = append(out,
			rule(chainSource, "maintenance", isOpen(), accept()),
			rule(chainSource, "", from(access.SetGuardedDirect), notFrom(access.SetBoundDirect), goTo(chainUnbound)),
			rule(chainSource, "", from(access.SetGuardedVLAN), notFrom(access.SetBoundVLAN), goTo(chainUnbound)),
			// Who has no address, or not any more, asks for one.
			rule(chainUnbound, "", ports(isUDP, 68, 67), accept()),
			rule(chainUnbound, "", from(access.SetExempt), accept()),
			rule(chainUnbound, "", counter(), drop()))
	}
	return out
}

// limited returns the rules for those who may go to a garden and ask DNS, and
// whose other packets are refused: on the way out and on the way back.
func limited(out, back string, garden access.Set) []Rule {
	return []Rule{
		rule(out, "", to(access.SetResolvers), dport(isUDP, 53), accept()),
		rule(out, "", to(access.SetResolvers), dport(isTCP, 53), accept()),
		rule(out, "", to(garden), accept()),
		rule(out, "", count(source)),
		// The subscriber's own packets come back as refusals: a reset ends a
		// connection at once and fails a new one with "connection refused".
		rule(out, "", proto(isTCP), counter(), reset()),
		rule(out, "", counter(), prohibited()),

		// The answers are known by where they come from, not by the state of a
		// connection: some routers track nothing.
		rule(back, "", from(access.SetResolvers), sport(isUDP, 53), accept()),
		rule(back, "", from(access.SetResolvers), sport(isTCP, 53), accept()),
		rule(back, "", from(garden), accept()),
		rule(back, "", count(destination)),
		// Towards the internet a reset is sent only for segments that belong
		// to a connection (they have ACK set), so that the far end closes it
		// too. An attempt to open one learns that it is administratively
		// prohibited: the host is not down and its port not closed. The flag
		// is looked at instead of the connection's state, for the entry of a
		// blocked flow is deleted.
		rule(back, "", ack(), counter(), reset()),
		rule(back, "", counter(), prohibited()),
	}
}

// Exprs returns the rule as the kernel has it, with nothing counted.
func (r Rule) Exprs() []expr.Any {
	var out []expr.Any
	var known [factEnd]bool
	for _, t := range r.terms {
		for _, f := range t.needs {
			if !known[f] {
				known[f] = true
				out = append(out, f.exprs()...)
			}
		}
		out = append(out, t.exprs...)
	}
	return out
}

// UserData returns the rule's comment as nft keeps it.
func (r Rule) UserData() []byte {
	if r.comment == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}
