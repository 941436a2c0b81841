package acl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// schema numbers what this package builds. It stands in the comments of the
// sets, so that an operator and another version of usher can see it. Raise it
// whenever the rules or sets change; testdata/usher.nft shows them.
const schema = 2

const (
	tableName  = "usher"
	tableTitle = "inet usher"

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
	// SourceGuard makes the chain that looks at sources. Without it the sets of
	// the guard do nothing.
	SourceGuard bool
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
)

// The sets that are no part of an ACL.
const (
	// setOpen has an element while the maintenance switch is on. The kernel
	// takes it away when its time is over, whether an agent runs or not.
	setOpen = "open"
	// setRefused has an element with a counter for each address that something
	// was refused to or from lately. The rules put them there.
	setRefused = "refused"
)

const (
	refusedSize    = 1 << 17
	refusedTimeout = 24 * time.Hour
)

func wantTable() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
}

// wantSet gives the declaration of a set of an ACL.
func wantSet(set access.Set) *nftables.Set {
	s := &nftables.Set{Table: wantTable(), Name: set.String(), Comment: setComment(set.String())}
	switch kindOf(set) {
	case kindName:
		s.KeyType, s.KeyByteOrder = nftables.TypeIFName, binaryutil.NativeEndian
	case kindAddrMAC:
		s.KeyType = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeEtherAddr)
	case kindNameAddr:
		s.KeyType = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)
	case kindPrefix:
		s.KeyType, s.KeyByteOrder, s.Interval = nftables.TypeIPAddr, binaryutil.BigEndian, true
	default:
		s.KeyType, s.KeyByteOrder = nftables.TypeIPAddr, binaryutil.BigEndian
	}
	return s
}

// wantSets gives the declarations of all sets in the order in which they are made.
func wantSets() []*nftables.Set {
	var out []*nftables.Set
	for set := range eachSet() {
		out = append(out, wantSet(set))
	}
	return append(out, openSet(), refusedSet())
}

func openSet() *nftables.Set {
	return &nftables.Set{
		Table: wantTable(), Name: setOpen, Comment: setComment(setOpen),
		KeyType: nftables.TypeNFProto, KeyByteOrder: binaryutil.BigEndian, HasTimeout: true,
	}
}

func refusedSet() *nftables.Set {
	return &nftables.Set{
		Table: wantTable(), Name: setRefused, Comment: setComment(setRefused),
		KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian,
		Dynamic: true, HasTimeout: true, Timeout: refusedTimeout, Counter: true, Size: refusedSize,
	}
}

// setComment says of what schema a set is and what it is for.
func setComment(name string) string {
	what := "subscribers"
	switch name {
	case access.SetGuests.String():
		what = "addresses of nobody's customers"
	case access.SetGarden.String():
		what = "where the paused may go"
	case access.SetGuestGarden.String():
		what = "where guests may go"
	case access.SetResolvers.String():
		what = "where both may ask DNS"
	case access.SetGuardedDirect.String(), access.SetGuardedVLAN.String():
		what = "guarded interfaces"
	case access.SetBoundDirect.String(), access.SetBoundVLAN.String():
		what = "sources they let in"
	case access.SetExempt.String():
		what = "sources they let in always"
	case setOpen:
		what = "everything passes meanwhile"
	case setRefused:
		what = "counts per address"
	default:
		what = name + " " + what
	}
	return fmt.Sprintf("usher schema %d: %s", schema, what)
}

func wantChains(p Policy) []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	base := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Table: wantTable(), Name: name, Type: typ, Hooknum: hook,
			Priority: nftables.ChainPriorityRef(prio), Policy: &accept}
	}
	out := []*nftables.Chain{base(chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, priority)}
	for _, name := range []string{chainFromStopped, chainToStopped, chainFromPaused, chainToPaused, chainFromGuests, chainToGuests} {
		out = append(out, &nftables.Chain{Table: wantTable(), Name: name})
	}
	if p.Portal.Port() != 0 {
		out = append(out, base(chainPortal, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, priorityPortal))
	}
	if p.SourceGuard {
		out = append(out, base(chainSource, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, prioritySource),
			&nftables.Chain{Table: wantTable(), Name: chainUnbound})
	}
	return out
}

// rule is one rule as nft prints it and as the kernel has it.
type rule struct {
	chain   string
	comment string
	text    string
	exprs   []expr.Any
}

// Offsets in the IPv4 header.
const (
	source      = 12
	destination = 16
)

// wantRules gives the rules in their order. A packet that concerns nobody costs
// seven look-ups and nothing else.
func wantRules(p Policy) []rule {
	open := join(isOpen(), accept())
	out := []rule{
		{chainForward, "maintenance", "meta nfproto @open counter accept", join(isOpen(), counter(), accept())},
		{chainForward, "from a stopped subscriber", "ip saddr @stopped goto from_stopped", join(inSet(source, access.SetStopped), jumpTo(chainFromStopped))},
		{chainForward, "to a stopped subscriber", "ip daddr @stopped goto to_stopped", join(inSet(destination, access.SetStopped), jumpTo(chainToStopped))},
		{chainForward, "from a paused subscriber", "ip saddr @paused goto from_paused", join(inSet(source, access.SetPaused), jumpTo(chainFromPaused))},
		{chainForward, "to a paused subscriber", "ip daddr @paused goto to_paused", join(inSet(destination, access.SetPaused), jumpTo(chainToPaused))},
		{chainForward, "from a guest", "ip saddr @guests goto from_guests", join(inSet(source, access.SetGuests), jumpTo(chainFromGuests))},
		{chainForward, "to a guest", "ip daddr @guests goto to_guests", join(inSet(destination, access.SetGuests), jumpTo(chainToGuests))},

		// The count is a rule of its own: when the set is full, the rule ends
		// there, and the packet must be dropped all the same.
		{chainFromStopped, "", "update @refused { ip saddr }", count(source)},
		{chainFromStopped, "", "counter drop", join(counter(), drop())},
		{chainToStopped, "", "update @refused { ip daddr }", count(destination)},
		{chainToStopped, "", "counter drop", join(counter(), drop())},
	}
	out = append(out, limited(chainFromPaused, chainToPaused, access.SetGarden)...)
	out = append(out, limited(chainFromGuests, chainToGuests, access.SetGuestGarden)...)
	if p.Portal.Port() != 0 {
		target, text := p.redirect()
		out = append(out, rule{chainPortal, "maintenance", "meta nfproto @open accept", open})
		for _, who := range []struct{ set, garden access.Set }{
			{access.SetPaused, access.SetGarden}, {access.SetGuests, access.SetGuestGarden},
		} {
			out = append(out, rule{chainPortal, "",
				fmt.Sprintf("ip saddr @%s tcp dport 80 ip daddr != @%s counter %s", who.set, who.garden, text),
				join(inSet(source, who.set), isProto(unix.IPPROTO_TCP), port(2, 80), notIn(destination, who.garden), counter(), target)})
		}
	}
	if p.SourceGuard {
		out = append(out,
			rule{chainSource, "maintenance", "meta nfproto @open accept", open},
			rule{chainSource, "", "iifname @guarded_direct ip saddr . ether saddr != @bound_direct goto unbound", join(notBoundDirect(), jumpTo(chainUnbound))},
			rule{chainSource, "", "iifname @guarded_vlan iifname . ip saddr != @bound_vlan goto unbound", join(notBoundVLAN(), jumpTo(chainUnbound))},
			// Who has no address, or not any more, asks for one.
			rule{chainUnbound, "", "udp sport 68 udp dport 67 accept", join(isProto(unix.IPPROTO_UDP), ports(68, 67), accept())},
			rule{chainUnbound, "", "ip saddr @exempt accept", join(inSet(source, access.SetExempt), accept())},
			rule{chainUnbound, "", "counter drop", join(counter(), drop())})
	}
	return out
}

// limited gives the rules for those who may go to a garden and ask DNS, and
// whose other packets are refused.
func limited(from, to string, garden access.Set) []rule {
	const sport, dport = 0, 2
	dns := func(chain, way string, addr uint32, portAt uint32, proto byte) rule {
		name, side := "udp", "dport"
		if proto == unix.IPPROTO_TCP {
			name = "tcp"
		}
		if portAt == sport {
			side = "sport"
		}
		return rule{chain, "", fmt.Sprintf("ip %s @resolvers %s %s 53 accept", way, name, side),
			join(inSet(addr, access.SetResolvers), isProto(proto), port(portAt, 53), accept())}
	}
	return []rule{
		dns(from, "daddr", destination, dport, unix.IPPROTO_UDP),
		dns(from, "daddr", destination, dport, unix.IPPROTO_TCP),
		{from, "", fmt.Sprintf("ip daddr @%s accept", garden), join(inSet(destination, garden), accept())},
		{from, "", "update @refused { ip saddr }", count(source)},
		// The subscriber's own packets come back as refusals: a reset ends a
		// connection at once and fails a new one with "connection refused".
		{from, "", "meta l4proto tcp counter reject with tcp reset", join(isProto(unix.IPPROTO_TCP), counter(), reset())},
		{from, "", "counter reject with icmpx admin-prohibited", join(counter(), prohibited())},

		// The answers are known by where they come from, not by the state of a
		// connection: some routers track nothing.
		dns(to, "saddr", source, sport, unix.IPPROTO_UDP),
		dns(to, "saddr", source, sport, unix.IPPROTO_TCP),
		{to, "", fmt.Sprintf("ip saddr @%s accept", garden), join(inSet(source, garden), accept())},
		{to, "", "update @refused { ip daddr }", count(destination)},
		// Towards the internet a reset is sent only for segments that belong
		// to a connection (they have ACK set), so that the far end closes it
		// too. An attempt to open one learns that it is administratively
		// prohibited: the host is not down and its port not closed. The flag
		// is looked at instead of the connection's state, for the entry of a
		// blocked flow is deleted.
		{to, "", "tcp flags ack counter reject with tcp reset", join(isProto(unix.IPPROTO_TCP), hasACK(), counter(), reset())},
		{to, "", "counter reject with icmpx admin-prohibited", join(counter(), prohibited())},
	}
}

// redirect gives the end of a rule that sends a packet to the portal.
func (p Policy) redirect() ([]expr.Any, string) {
	port := binary.BigEndian.AppendUint16(nil, p.Portal.Port())
	if addr := p.Portal.Addr().Unmap(); addr.Is4() && !addr.IsUnspecified() {
		ip := addr.As4()
		return []expr.Any{
			// [ immediate reg 1 address ] [ immediate reg 2 port ]
			&expr.Immediate{Register: 1, Data: ip[:]},
			&expr.Immediate{Register: 2, Data: port},
			// [ nat dnat ip addr_min reg 1 proto_min reg 2 flags 0x2 ]
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4,
				RegAddrMin: 1, RegAddrMax: 1, RegProtoMin: 2, RegProtoMax: 2, Specified: true},
		}, fmt.Sprintf("dnat ip to %s:%d", addr, p.Portal.Port())
	}
	const specified = 2 // NF_NAT_RANGE_PROTO_SPECIFIED
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: port},
		// [ redir proto_min reg 1 flags 0x2 ]
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: specified},
	}, fmt.Sprintf("redirect to :%d", p.Portal.Port())
}

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// isOpen is "meta nfproto @open".
func isOpen() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: setOpen},
	}
}

// ipv4 loads four octets of the IPv4 header, as "ip saddr" does in an inet table.
func ipv4(offset uint32) []expr.Any {
	return []expr.Any{
		// [ meta load nfproto => reg 1 ]
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		// [ cmp eq reg 1 0x00000002 ]
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		// [ payload load 4b @ network header + 12 => reg 1 ]
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
	}
}

// inSet is what "ip saddr @set" stands for in an inet table.
func inSet(offset uint32, set access.Set) []expr.Any {
	return append(ipv4(offset), &expr.Lookup{SourceRegister: 1, SetName: set.String()})
}

// notIn is "ip daddr != @set" where the packet is known to be IPv4.
func notIn(offset uint32, set access.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set.String(), Invert: true},
	}
}

// count is "update @refused { ip saddr }".
func count(offset uint32) []expr.Any {
	return append(ipv4(offset), &expr.Dynset{SrcRegKey: 1, SetName: setRefused, Operation: unix.NFT_DYNSET_OP_UPDATE})
}

// inInterfaces is "iifname @set".
func inInterfaces(set access.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set.String()},
	}
}

// notBoundDirect is "iifname @guarded_direct ip saddr . ether saddr != @bound_direct".
// The parts of the key stand in registers of four bytes: the MAC in the one
// that the kernel numbers 9, behind the address.
func notBoundDirect() []expr.Any {
	const reg32nd, etherSource = 9, 6
	load := ipv4(source)
	return join(inInterfaces(access.SetGuardedDirect), load[:2], []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)},
	}, load[2:], []expr.Any{
		&expr.Payload{DestRegister: reg32nd, Base: expr.PayloadBaseLLHeader, Offset: etherSource, Len: 6},
		&expr.Lookup{SourceRegister: 1, SetName: access.SetBoundDirect.String(), Invert: true},
	})
}

// notBoundVLAN is "iifname @guarded_vlan iifname . ip saddr != @bound_vlan". A
// name fills the first of the large registers, the address begins the second.
func notBoundVLAN() []expr.Any {
	load := ipv4(source)
	return join(inInterfaces(access.SetGuardedVLAN), load[:2], []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Payload{DestRegister: 2, Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: access.SetBoundVLAN.String(), Invert: true},
	})
}

func isProto(proto byte) []expr.Any {
	return []expr.Any{
		// [ meta load l4proto => reg 1 ]
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		// [ cmp eq reg 1 0x00000006 ]
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

// port compares the port at an offset of the transport header.
func port(offset uint32, n uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, n)},
	}
}

// ports compares both ports at once, as nft does.
func ports(from, to uint16) []expr.Any {
	data := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

func hasACK() []expr.Any {
	const flagsOffset, ack = 13, 0x10
	return []expr.Any{
		// [ payload load 1b @ transport header + 13 => reg 1 ]
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		// [ bitwise reg 1 = ( reg 1 & 0x00000010 ) ^ 0x00000000 ]
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{ack}, Xor: []byte{0}},
		// [ cmp neq reg 1 0x00000000 ]
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
	}
}

func counter() []expr.Any { return []expr.Any{&expr.Counter{}} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func jumpTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func reset() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

func prohibited() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

// queueSchema encodes the whole table with the given elements, open for what is
// left of the maintenance. Where the table exists it is replaced: within the
// batch, so the old rules work until the new ones do.
func queueSchema(c *nftables.Conn, p Policy, replace bool, have contents, open time.Duration) error {
	if replace {
		c.DelTable(wantTable())
	}
	c.AddTable(wantTable())
	for _, s := range wantSets() {
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for set := range eachSet() {
		if err := queueElements(c.SetAddElements, set, have[set]); err != nil {
			return fmt.Errorf("set %s: %w", set, err)
		}
	}
	if open > 0 {
		if err := c.SetAddElements(openSet(), openElements(open)); err != nil {
			return fmt.Errorf("set %s: %w", setOpen, err)
		}
	}
	queueRules(c, p)
	return nil
}

// queueChains replaces the chains that are there and leaves the sets as they
// are, with all their counters. Within the batch, so the old rules work until
// the new ones do.
func queueChains(c *nftables.Conn, p Policy, have []string) error {
	for _, name := range have {
		c.FlushChain(&nftables.Chain{Table: wantTable(), Name: name}) // first all: rules lead to other chains
	}
	for _, name := range have {
		c.DelChain(&nftables.Chain{Table: wantTable(), Name: name})
	}
	queueRules(c, p)
	return nil
}

func queueRules(c *nftables.Conn, p Policy) {
	for _, ch := range wantChains(p) {
		c.AddChain(ch)
	}
	for _, r := range wantRules(p) {
		c.AddRule(&nftables.Rule{
			Table:    wantTable(),
			Chain:    &nftables.Chain{Name: r.chain},
			Exprs:    r.exprs,
			UserData: r.userData(),
		})
	}
}

func (r rule) userData() []byte {
	if r.comment == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}

// table is what inspectLocked finds.
type table struct {
	exists bool
	defect string // empty: exactly what we want
	// soundSets says that the defect is in the chains alone, and chains names
	// all that are there.
	soundSets bool
	chains    []string
}

// inspectLocked compares the table in the kernel with the wanted one. It reads
// declarations and rules, no elements.
func (t *Table) inspectLocked(ctx context.Context) (table, error) {
	if err := t.dialLocked(); err != nil {
		return table{}, err
	}
	if err := t.deadlineLocked(ctx); err != nil {
		return table{}, err
	}
	have, err := t.write.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		return table{defect: "there is none"}, nil
	}
	if err != nil {
		return table{}, fmt.Errorf("read table: %w", err)
	}
	found := table{exists: true}
	return found, t.findDefectLocked(ctx, have, &found)
}

func (t *Table) findDefectLocked(ctx context.Context, have *nftables.Table, found *table) (err error) {
	sets := wantSets()
	if have.Flags != 0 {
		found.defect = fmt.Sprintf("table flags %#x", uint32(have.Flags))
		return nil
	}
	for _, want := range sets {
		info, err := t.setLocked(ctx, want.Name)
		if errors.Is(err, unix.ENOENT) {
			found.defect = fmt.Sprintf("no set %s", want.Name)
			return nil
		}
		if err != nil {
			return err
		}
		if found.defect = info.defect(want); found.defect != "" {
			return nil
		}
	}
	all, err := t.write.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, c := range all {
		if c.Table.Name == tableName {
			found.chains = append(found.chains, c.Name)
		}
	}
	// The kernel counts what is in the table: a set or another object of
	// somebody else shows here.
	if want := uint32(len(sets) + len(found.chains)); have.Use != want {
		found.defect = fmt.Sprintf("%d objects in the table, want %d", have.Use, want)
		return nil
	}
	found.soundSets = true
	found.defect, err = t.chainDefectLocked(all, found.chains)
	return err
}

// chainDefectLocked compares the chains, of which all has the declarations of
// every table, and their rules.
func (t *Table) chainDefectLocked(all []*nftables.Chain, names []string) (string, error) {
	chains, rules := wantChains(t.policy), wantRules(t.policy)
	for _, want := range chains {
		i := slices.IndexFunc(all, func(c *nftables.Chain) bool { return c.Table.Name == tableName && c.Name == want.Name })
		if i < 0 {
			return fmt.Sprintf("no chain %s", want.Name), nil
		}
		if !sameChain(all[i], want) {
			return fmt.Sprintf("chain %s has another type, hook, priority or policy", want.Name), nil
		}
		d, err := t.ruleDefectLocked(want, rules)
		if d != "" || err != nil {
			return d, err
		}
	}
	if len(names) != len(chains) {
		return fmt.Sprintf("%d chains in the table, want %d", len(names), len(chains)), nil
	}
	return "", nil
}

func sameChain(have, want *nftables.Chain) bool {
	return have.Type == want.Type && same(have.Hooknum, want.Hooknum) &&
		same(have.Priority, want.Priority) && same(have.Policy, want.Policy)
}

func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func (t *Table) ruleDefectLocked(chain *nftables.Chain, all []rule) (string, error) {
	var want []rule
	for _, r := range all {
		if r.chain == chain.Name {
			want = append(want, r)
		}
	}
	have, err := t.write.GetRules(wantTable(), chain)
	if op := (*netlink.OpError)(nil); errors.As(err, &op) {
		return "", fmt.Errorf("read rules of chain %s: %w", chain.Name, err)
	}
	if err != nil {
		// Not the kernel's refusal: a rule that the library cannot read, so not ours.
		return fmt.Sprintf("chain %s has a strange rule: %v", chain.Name, err), nil
	}
	if len(have) != len(want) {
		return fmt.Sprintf("chain %s has %d rules, want %d", chain.Name, len(have), len(want)), nil
	}
	for i, r := range have {
		if !reflect.DeepEqual(resetCounters(r.Exprs), want[i].exprs) || string(r.UserData) != string(want[i].userData()) {
			return fmt.Sprintf("chain %s: rule %d is another one", chain.Name, i+1), nil
		}
	}
	return "", nil
}

// resetCounters makes what a rule has counted no part of a comparison.
func resetCounters(exprs []expr.Any) []expr.Any {
	for _, e := range exprs {
		if c, ok := e.(*expr.Counter); ok {
			*c = expr.Counter{}
		}
	}
	return exprs
}

// defect tells how a set differs from its declaration.
func (s setInfo) defect(want *nftables.Set) string {
	switch {
	case !s.fits(want) || s.timeout != want.Timeout:
		return fmt.Sprintf("set %s has another type or other flags", want.Name)
	case s.comment != want.Comment:
		return fmt.Sprintf("set %s is of another schema: comment %q", want.Name, strings.ToValidUTF8(s.comment, "?"))
	}
	return ""
}

// readable tells whether the elements of a set, of any schema, can be taken over.
func (s setInfo) readable(want *nftables.Set) bool {
	const others = unix.NFT_SET_ANONYMOUS | unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | unix.NFT_SET_OBJECT
	var flags uint32
	if want.Interval {
		flags = unix.NFT_SET_INTERVAL
	}
	return s.flags&others == flags && s.keyType == want.KeyType.GetNFTMagic() && s.keyLen == want.KeyType.Bytes
}

// fits tells whether a set is declared as wanted.
func (s setInfo) fits(want *nftables.Set) bool {
	var flags uint32
	for _, f := range []struct {
		on   bool
		flag uint32
	}{{want.Interval, unix.NFT_SET_INTERVAL}, {want.HasTimeout, unix.NFT_SET_TIMEOUT}, {want.Dynamic, unix.NFT_SET_EVAL}} {
		if f.on {
			flags |= f.flag
		}
	}
	return s.flags == flags && s.keyType == want.KeyType.GetNFTMagic() && s.keyLen == want.KeyType.Bytes
}
