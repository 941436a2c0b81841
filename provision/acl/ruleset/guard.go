package ruleset

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// The ports of DHCP.
const (
	portServer = 67
	portClient = 68
)

// guard returns the rules of the source guard. What DHCP needs of it, and no more,
// is the way to this router and to the servers that are named: with any other
// destination it would be a way out for everybody.
func guard(p Policy) []Rule {
	out := []Rule{
		pass(PassMaintenance, chainSource, "maintenance", isOpen()),
		rule(chainSource, "", from(access.SetGuardedDirect), notFrom(access.SetBoundDirect), goTo(chainUnbound)),
		rule(chainSource, "", from(access.SetGuardedVLAN), notFrom(access.SetBoundVLAN), goTo(chainUnbound)),
	}
	out = append(out, p.boundNets()...)
	return append(out,
		// Who has no address, or not any more, asks for one, and a relay asks for its clients.
		pass(PassDHCP, chainUnbound, "", ports(isUDP, portClient, portServer), toLocal()),
		pass(PassDHCP, chainUnbound, "", ports(isUDP, portClient, portServer), toBroadcast()),
		pass(PassDHCP, chainUnbound, "", ports(isUDP, portServer, portServer), toLocal()),
		toDHCP(chainUnbound),
		pass(PassDHCP, chainUnbound, "", to(access.SetDHCPServers), ports(isUDP, portServer, portServer)),
		pass(PassExempt, chainUnbound, "", from(access.SetExempt)),
		rule(chainUnbound, "", counter(), drop()))
}

// toDHCP lets a client renew with a server beyond this router, fromDHCP the server answer.
func toDHCP(chain string) Rule {
	return pass(PassDHCP, chain, "", to(access.SetDHCPServers), ports(isUDP, portClient, portServer))
}

func fromDHCP(chain string) Rule {
	return pass(PassDHCP, chain, "", from(access.SetDHCPServers), ports(isUDP, portServer, portClient))
}

// toLocal finds packets to an address of this router.
func toLocal() term { return destined("fib daddr type local", unix.RTN_LOCAL, false) }

// toBroadcast finds those to everybody on the wire that they came by, which no
// router takes further.
func toBroadcast() term { return destined("fib daddr . iif type broadcast", unix.RTN_BROADCAST, true) }

// destined asks the routing table of what type the destination is.
func destined(text string, typ uint32, here bool) term {
	return end(text,
		// [ fib daddr type => reg 1 ]
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true, FlagIIF: here},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, typ)})
}
