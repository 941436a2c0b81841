package ruleset

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// IPv6 of a blocked subscriber is known by the MAC that it comes from, and by the
// interface where nobody else is. The MAC that it goes to is known only where the
// frame leaves: an egress chain, which belongs to an interface and stands in a table
// of the family netdev. It cannot refuse, only drop.

const (
	chainIPv6     = "ipv6"
	chainFromIPv6 = "from_ipv6"
	chainToIPv6   = "to_ipv6"

	chainToMAC = "to_mac"
	// egressPrefix begins the name of the chain of an interface.
	egressPrefix = "egress_"
)

// chainsIPv6 are those of the table inet.
func chainsIPv6() []*nftables.Chain {
	var out []*nftables.Chain
	for _, name := range []string{chainIPv6, chainFromIPv6, chainToIPv6} {
		out = append(out, &nftables.Chain{Table: Table(), Name: name})
	}
	return out
}

// rulesIPv6 are those of the table inet.
func rulesIPv6() []Rule {
	wire := from(access.SetIPv6Direct)
	return []Rule{
		rule(chainForward, "IPv6", family(isIPv6), goTo(chainIPv6)),

		rule(chainIPv6, "", from(access.SetStoppedInterface), counter(), drop()),
		rule(chainIPv6, "", to(access.SetStoppedInterface), counter(), drop()),
		rule(chainIPv6, "", from(access.SetPausedInterface), goTo(chainFromIPv6)),
		rule(chainIPv6, "", to(access.SetPausedInterface), goTo(chainToIPv6)),
		rule(chainIPv6, "", wire, from(access.SetStoppedMAC), counter(), drop()),
		rule(chainIPv6, "", wire, from(access.SetPausedMAC), goTo(chainFromIPv6)),

		// As for IPv4: see limited.
		rule(chainFromIPv6, "", proto(isTCP), counter(), reset()),
		rule(chainFromIPv6, "", counter(), prohibited()),
		rule(chainToIPv6, "", ack(), counter(), reset()),
		rule(chainToIPv6, "", counter(), prohibited()),
	}
}

// EgressTable returns the declaration of the table with the egress chains.
func EgressTable() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyNetdev}
}

// EgressSets are the sets of an ACL that the table has too.
func EgressSets() []access.Set { return []access.Set{access.SetStoppedMAC, access.SetPausedMAC} }

// EgressSet returns the declaration of one of them.
func EgressSet(set access.Set) *nftables.Set {
	s := Set(set)
	s.Table = EgressTable()
	return s
}

// EgressOpen returns the declaration of the switch of the maintenance there.
func EgressOpen() *nftables.Set {
	s := declared(SetOpen, "everything passes meanwhile")
	s.Table, s.KeyType, s.KeyByteOrder, s.HasTimeout = EgressTable(), nftables.TypeEtherType, binaryutil.BigEndian, true
	return s
}

// Devices returns the interfaces that have an egress chain.
func (p Policy) Devices() []string { return strings.Fields(p.Egress) }

// EgressChains returns the declarations of the chains of that table.
func EgressChains(p Policy) []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	out := []*nftables.Chain{{Table: EgressTable(), Name: chainToMAC}}
	for _, name := range p.Devices() {
		out = append(out, &nftables.Chain{Table: EgressTable(), Name: egressPrefix + name, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookEgress, Priority: nftables.ChainPriorityRef(0), Policy: &accept, Device: name})
	}
	return out
}

// EgressRules returns its rules. What the router itself sends must pass. That is what
// has the hop limit of neighbour discovery, which nothing forwarded has left; a
// link-local source, of which a router forwards nothing to another link; or a source
// that is its own. A reset that a rule of ours sends has the other end's source: it
// is nothing but its header.
func EgressRules(p Policy) []Rule {
	out := []Rule{
		pass(PassRouter, chainToMAC, "", hopLimit(255)),
		pass(PassRouter, chainToMAC, "", fromLinkLocal()),
		pass(PassRouter, chainToMAC, "", fromHere()),
		pass(PassRouter, chainToMAC, "", rst(), payloadLength(20)),
		pass(PassMaintenance, chainToMAC, "maintenance", isOpenProtocol()),
		rule(chainToMAC, "", counter(), drop()),
	}
	for _, name := range p.Devices() {
		for _, set := range EgressSets() {
			out = append(out, rule(egressPrefix+name, "", protocol(isIPv6Frame), toMAC(set), goTo(chainToMAC)))
		}
	}
	return out
}

func family(f fact) term { return term{text: "meta nfproto " + f.String(), needs: []fact{f}} }

func protocol(f fact) term { return term{text: "meta protocol " + f.String(), needs: []fact{f}} }

// toMAC is "ether daddr @set".
func toMAC(set access.Set) term {
	return term{"ether daddr @" + set.String(), []fact{isEthernet}, []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: 6},
		&expr.Lookup{SourceRegister: 1, SetName: set.String()},
	}}
}

// header compares bytes of the IPv6 header.
func header(text string, offset uint32, data []byte) term {
	return term{text, []fact{isIPv6Frame}, []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}}
}

func hopLimit(n byte) term { return header(fmt.Sprintf("ip6 hoplimit %d", n), 7, []byte{n}) }

func payloadLength(n uint16) term {
	return header(fmt.Sprintf("ip6 length %d", n), 4, binary.BigEndian.AppendUint16(nil, n))
}

func fromLinkLocal() term {
	mask, prefix := make([]byte, 16), make([]byte, 16)
	copy(mask, []byte{0xff, 0xc0})
	copy(prefix, []byte{0xfe, 0x80})
	return term{"ip6 saddr fe80::/10", []fact{isIPv6Frame}, []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: prefix},
	}}
}

func fromHere() term {
	return term{text: "fib saddr type local", exprs: []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	}}
}

func rst() term { return tcpFlag("rst", 0x04) }

// isOpenProtocol is isOpen where there is no family but that of the frame.
func isOpenProtocol() term {
	return term{text: "meta protocol @" + SetOpen, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: SetOpen},
	}}
}
