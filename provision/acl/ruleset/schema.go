// Package ruleset says what the table "inet usher" is: its sets, chains and
// rules, in the form that the kernel takes and in the words of nft. It talks to
// nobody. Each rule is spelled once and each set comes of its line in package
// access, so that what a person reads is what the kernel has.
package ruleset

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/usher-agent/usher/provision/access"
)

// Schema numbers what this package builds. It stands in the comments of the
// sets, so that an operator and another version of usher can see it. Raise it
// whenever the rules or sets change; testdata/usher.nft of package acl shows them.
const Schema = 3

// TableName is the table's name, in the family inet.
const TableName = "usher"

const (
	// Before every ordinary filter chain (priority 0), so before its
	// "ct state established accept" and before others spend time on the packet.
	priority = -10
	// Before connection tracking (-200): what is spoofed makes no entry there.
	prioritySource = -300
	// Before others translate addresses (-100): the first translation of a
	// flow is the only one.
	priorityPortal = -110
)

// Policy is what the rules follow from besides the sets. It changes rarely: the
// rules of another policy are replaced, the sets left as they are. Its zero value has no portal and guards no source.
type Policy struct {
	// Portal is where HTTP of paused subscribers and guests goes instead of to
	// its destination. With a zero address it is the port of the router itself,
	// at the address of the interface by which the packet came. A zero port:
	// HTTP is refused like everything else. The portal needs connection
	// tracking, which the kernel starts because of it.
	Portal netip.AddrPort
	// PortalBeforeGarden sends HTTP to the portal that is for a garden's address, too.
	PortalBeforeGarden bool
	// SourceGuard makes the chain that looks at sources. Without it the sets of
	// the guard do nothing.
	SourceGuard bool
	// Alone says that the guard knows interfaces with one subscriber, or few, each:
	// routed multicast is looked at, for there the outgoing interface tells whom it reaches.
	Alone bool
	// Nets are the sets of subnets that there are, each with its rules. No configuration says it, but what the sets hold.
	Nets access.NetSets
	// IPv6 blocks it of the blocked. Without it the sets of MACs and interfaces do nothing.
	IPv6 bool
	// Egress names the interfaces, between spaces, where what leaves is looked at for
	// that; empty: none, and no table netdev.
	Egress string
	// Seen tells interfaces of the same names apart: a chain ends with its interface.
	Seen string
}

// The chains. Three are where packets come in, the others hold what happens to
// the packets of somebody.
const (
	chainForward     = "forward"
	chainFromStopped = "from_stopped"
	chainToStopped   = "to_stopped"
	chainFromPaused  = "from_paused"
	chainToPaused    = "to_paused"
	chainFromGuests  = "from_guests"
	chainToGuests    = "to_guests"
	chainPortal      = "portal"
	chainSource      = "source"
	chainUnbound     = "unbound"
	chainMulticast   = "multicast"
)

// The sets that are no part of an ACL.
const (
	// SetOpen has an element while the maintenance switch is on. The kernel
	// takes it away when its time is over, whether an agent runs or not.
	SetOpen = "open"
	// SetRefused has an element with a counter for each address that something
	// was refused to or from lately. The rules put them there.
	SetRefused = "refused"
)

const (
	refusedSize    = 1 << 17
	refusedTimeout = 24 * time.Hour
)

// Table returns the declaration of the table.
func Table() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
}

// Set returns the declaration of a set of an ACL.
func Set(set access.Set) *nftables.Set {
	s := declared(set.String(), set.About())
	var types []nftables.SetDatatype
	for _, p := range set.Key() { // a PartSubnet is an address too
		switch p {
		case access.PartInterface:
			types, s.KeyByteOrder = append(types, nftables.TypeIFName), binaryutil.NativeEndian
		case access.PartMAC, access.PartEther:
			types, s.KeyByteOrder = append(types, nftables.TypeEtherAddr), binaryutil.BigEndian
		default:
			types, s.KeyByteOrder = append(types, nftables.TypeIPAddr), binaryutil.BigEndian
			s.Interval = s.Interval || p == access.PartPrefix
		}
	}
	if s.KeyType = types[0]; len(types) > 1 {
		s.KeyType, s.KeyByteOrder = nftables.MustConcatSetType(types...), nil
	}
	return s
}

// Sets returns the declarations of all sets in the order in which they are made.
func Sets(p Policy) []*nftables.Set {
	var out []*nftables.Set
	for set := range access.Sets() {
		if !set.Optional() {
			out = append(out, Set(set))
		}
	}
	out = append(out, Open(), PortalUp(), Refused())
	for set := range p.Sets() { // they come later, so the kernel has them last
		if set.Optional() {
			out = append(out, Set(set))
		}
	}
	return out
}

// Open returns the declaration of SetOpen.
func Open() *nftables.Set {
	s := declared(SetOpen, "everything passes meanwhile")
	s.KeyType, s.KeyByteOrder, s.HasTimeout = nftables.TypeNFProto, binaryutil.BigEndian, true
	return s
}

// Refused returns the declaration of SetRefused.
func Refused() *nftables.Set {
	s := declared(SetRefused, "counts per address")
	s.KeyType, s.KeyByteOrder = nftables.TypeIPAddr, binaryutil.BigEndian
	s.Dynamic, s.HasTimeout, s.Timeout, s.Counter, s.Size = true, true, refusedTimeout, true, refusedSize
	return s
}

// declared is a set whose comment says of what schema it is and what it is for.
func declared(name, about string) *nftables.Set {
	return &nftables.Set{Table: Table(), Name: name, Comment: fmt.Sprintf("usher schema %d: %s", Schema, about)}
}

// Chains returns the declarations of the chains in the order in which they are made.
func Chains(p Policy) []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	base := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Table: Table(), Name: name, Type: typ, Hooknum: hook,
			Priority: nftables.ChainPriorityRef(prio), Policy: &accept}
	}
	out := []*nftables.Chain{base(chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, priority)}
	for _, name := range []string{chainFromStopped, chainToStopped, chainFromPaused, chainToPaused, chainFromGuests, chainToGuests} {
		out = append(out, &nftables.Chain{Table: Table(), Name: name})
	}
	if p.Alone {
		out = append(out, &nftables.Chain{Table: Table(), Name: chainMulticast})
	}
	if p.IPv6 {
		out = append(out, chainsIPv6()...)
	}
	if p.Portal.Port() != 0 {
		out = append(out, base(chainPortal, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, priorityPortal))
	}
	if p.SourceGuard {
		out = append(out, base(chainSource, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, prioritySource),
			&nftables.Chain{Table: Table(), Name: chainUnbound})
	}
	return out
}
