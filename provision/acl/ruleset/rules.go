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
	passes  string // what it lets past a block; empty: nothing
}

func rule(chain, comment string, terms ...term) Rule {
	return Rule{Chain: chain, comment: comment, terms: terms}
}

// pass is a rule that lets something past a block, and counts it.
func pass(what, chain, comment string, terms ...term) Rule {
	r := rule(chain, comment, append(terms, counter(), accept())...)
	r.passes = what
	return r
}

// Rules returns the rules in their order. A packet that concerns nobody costs
// seven look-ups and nothing else, and two more for each set of blocked subnets that there is; with IPv6 one comparison more.
func Rules(p Policy) []Rule {
	out := []Rule{
		pass(PassMaintenance, chainForward, "maintenance", isOpen()),
		rule(chainForward, "from a stopped subscriber", from(access.SetStopped), goTo(chainFromStopped)),
		rule(chainForward, "to a stopped subscriber", to(access.SetStopped), goTo(chainToStopped)),
	}
	out = append(out, p.blockedNets(access.SetStopped, "a stopped subscriber's subnet", chainFromStopped, chainToStopped)...)
	out = append(out,
		rule(chainForward, "from a paused subscriber", from(access.SetPaused), goTo(chainFromPaused)),
		rule(chainForward, "to a paused subscriber", to(access.SetPaused), goTo(chainToPaused)))
	out = append(out, p.blockedNets(access.SetPaused, "a paused subscriber's subnet", chainFromPaused, chainToPaused)...)
	out = append(out,
		rule(chainForward, "from a guest", from(access.SetGuests), goTo(chainFromGuests)),
		rule(chainForward, "to a guest", to(access.SetGuests), goTo(chainToGuests)))
	if p.Alone {
		out = append(out, multicast()...)
	}
	out = append(out,
		// The count is a rule of its own: when the set is full, the rule ends
		// there, and the packet must be dropped all the same.
		toDHCP(chainFromStopped),
		rule(chainFromStopped, "", count(source)),
		rule(chainFromStopped, "", counter(), drop()),
		fromDHCP(chainToStopped),
		rule(chainToStopped, "", count(destination)),
		rule(chainToStopped, "", counter(), drop()),
	)
	out = append(out, limited(p, chainFromPaused, chainToPaused, access.SetGarden)...)
	out = append(out, limited(p, chainFromGuests, chainToGuests, access.SetGuestGarden)...)
	if p.IPv6 {
		out = append(out, rulesIPv6()...)
	}
	out = append(out, portalRules(p)...)
	if p.SourceGuard {
		out = append(out, guard(p)...)
	}
	return out
}

// limited returns the rules for those who may go to a garden and ask DNS, and
// whose other packets are refused: on the way out and on the way back.
func limited(p Policy, out, back string, garden access.Set) []Rule {
	rules := []Rule{
		toDHCP(out),
		pass(PassDNS, out, "", to(access.SetResolvers), dport(isUDP, 53)),
		pass(PassDNS, out, "", to(access.SetResolvers), dport(isTCP, 53)),
		pass(PassGarden, out, "", to(garden)),
		rule(out, "", count(source)),
	}
	rules = append(rules, missed(p, out)...)
	return append(rules,
		// The subscriber's own packets come back as refusals: a reset ends a
		// connection at once and fails a new one with "connection refused".
		rule(out, "", proto(isTCP), counter(), reset()),
		rule(out, "", counter(), prohibited()),

		// The answers are known by where they come from, not by the state of a
		// connection: some routers track nothing.
		fromDHCP(back),
		pass(PassDNS, back, "", from(access.SetResolvers), sport(isUDP, 53)),
		pass(PassDNS, back, "", from(access.SetResolvers), sport(isTCP, 53)),
		pass(PassGarden, back, "", from(garden)),
		rule(back, "", count(destination)),
		// Towards the internet a reset is sent only for segments that belong
		// to a connection (they have ACK set), so that the far end closes it
		// too. An attempt to open one learns that it is administratively
		// prohibited: the host is not down and its port not closed. The flag
		// is looked at instead of the connection's state, for the entry of a
		// blocked flow is deleted.
		rule(back, "", ack(), counter(), reset()),
		rule(back, "", counter(), prohibited()))
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
