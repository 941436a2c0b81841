package acl

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// schema numbers what this package builds. It stands in the comments of the
// sets, so that an operator and another version of usher can see it. Raise it
// whenever the rules or sets change; testdata/usher.nft shows them.
const schema = 1

const (
	tableName  = "usher"
	tableTitle = "inet usher"

	// Before every ordinary filter chain (priority 0), so before its
	// "ct state established accept" and before others spend time on the packet.
	priority = -10
)

// The chains. The two others hold what happens to a paused subscriber's packets.
const (
	chainForward   = "forward"
	chainPausedOut = "paused_out"
	chainPausedIn  = "paused_in"
)

func wantTable() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
}

// wantSet gives the declaration of a set: a plain hash of IPv4 addresses.
func wantSet(set provision.Set) *nftables.Set {
	return &nftables.Set{
		Table:        wantTable(),
		Name:         set.String(),
		KeyType:      nftables.TypeIPAddr,
		KeyByteOrder: binaryutil.BigEndian,
		Comment:      setComment(set),
	}
}

func setComment(set provision.Set) string {
	return fmt.Sprintf("usher schema %d: %s subscribers", schema, set)
}

func wantChains() []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return []*nftables.Chain{
		{Table: wantTable(), Name: chainForward, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(priority), Policy: &accept},
		{Table: wantTable(), Name: chainPausedOut},
		{Table: wantTable(), Name: chainPausedIn},
	}
}

type rule struct {
	chain   string
	comment string
	exprs   []expr.Any
}

// wantRules gives the rules in their order. A packet that concerns nobody costs
// four look-ups and nothing else.
func wantRules() []rule {
	const source, destination = 12, 16 // offsets in the IPv4 header
	return []rule{
		// ip saddr @stopped counter drop
		{chainForward, "from a stopped subscriber", join(inSet(source, provision.SetStopped), counted(drop()))},
		// ip daddr @stopped counter drop
		{chainForward, "to a stopped subscriber", join(inSet(destination, provision.SetStopped), counted(drop()))},
		// ip saddr @paused goto paused_out
		{chainForward, "from a paused subscriber", join(inSet(source, provision.SetPaused), jumpTo(chainPausedOut))},
		// ip daddr @paused goto paused_in
		{chainForward, "to a paused subscriber", join(inSet(destination, provision.SetPaused), jumpTo(chainPausedIn))},

		// The subscriber's own packets come back as refusals: a reset ends a
		// connection at once and fails a new one with "connection refused".
		// meta l4proto tcp counter reject with tcp reset
		{chainPausedOut, "", join(isTCP(), counted(reset()))},
		// counter reject with icmpx admin-prohibited
		{chainPausedOut, "", counted(prohibited())},

		// Towards the internet a reset is sent only for segments that belong
		// to a connection (they have ACK set), so that the far end closes it
		// too. An attempt to open one learns that it is administratively
		// prohibited: the host is not down and its port not closed. The flag
		// is looked at instead of the connection's state, for the entry of a
		// blocked flow is deleted, and some routers track nothing.
		// tcp flags ack counter reject with tcp reset
		{chainPausedIn, "", join(isTCP(), hasACK(), counted(reset()))},
		// counter reject with icmpx admin-prohibited
		{chainPausedIn, "", counted(prohibited())},
	}
}

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// inSet is what "ip saddr @set" stands for in an inet table.
func inSet(offset uint32, set provision.Set) []expr.Any {
	return []expr.Any{
		// [ meta load nfproto => reg 1 ]
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		// [ cmp eq reg 1 0x00000002 ]
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		// [ payload load 4b @ network header + 12 => reg 1 ]
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		// [ lookup reg 1 set stopped ]
		&expr.Lookup{SourceRegister: 1, SetName: set.String()},
	}
}

func isTCP() []expr.Any {
	return []expr.Any{
		// [ meta load l4proto => reg 1 ]
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		// [ cmp eq reg 1 0x00000006 ]
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
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

func counted(e expr.Any) []expr.Any { return []expr.Any{&expr.Counter{}, e} }

func drop() expr.Any { return &expr.Verdict{Kind: expr.VerdictDrop} }

func jumpTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func reset() expr.Any { return &expr.Reject{Type: unix.NFT_REJECT_TCP_RST} }

func prohibited() expr.Any {
	return &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}
}

// queueSchema encodes the whole table with the given elements. Where the table
// exists it is replaced: within the batch, so the old rules work until the new
// ones do.
func queueSchema(c *nftables.Conn, replace bool, have contents) error {
	if replace {
		c.DelTable(wantTable())
	}
	c.AddTable(wantTable())
	for set := range eachSet() {
		s := wantSet(set)
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("set %s: %w", set, err)
		}
		if err := queueElements(c.SetAddElements, s, have[set]); err != nil {
			return fmt.Errorf("set %s: %w", set, err)
		}
	}
	for _, ch := range wantChains() {
		c.AddChain(ch)
	}
	for _, r := range wantRules() {
		c.AddRule(&nftables.Rule{
			Table:    wantTable(),
			Chain:    &nftables.Chain{Name: r.chain},
			Exprs:    r.exprs,
			UserData: r.userData(),
		})
	}
	return nil
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
	found.defect, err = t.defectLocked(ctx, have)
	return found, err
}

func (t *Table) defectLocked(ctx context.Context, have *nftables.Table) (string, error) {
	chains, rules := wantChains(), wantRules()
	if have.Flags != 0 {
		return fmt.Sprintf("table flags %#x", uint32(have.Flags)), nil
	}
	// The kernel counts what is in the table: a chain, set or other object of
	// somebody else shows here.
	if want := uint32(len(perSet[int]{}) - 1 + len(chains)); have.Use != want {
		return fmt.Sprintf("%d objects in the table, want %d", have.Use, want), nil
	}
	for set := range eachSet() {
		info, err := t.setLocked(ctx, set)
		if errors.Is(err, unix.ENOENT) {
			return fmt.Sprintf("no set %s", set), nil
		}
		if err != nil {
			return "", err
		}
		if d := info.defect(set); d != "" {
			return d, nil
		}
	}
	for _, want := range chains {
		ch, err := t.write.ListChain(wantTable(), want.Name)
		if errors.Is(err, unix.ENOENT) {
			return fmt.Sprintf("no chain %s", want.Name), nil
		}
		if err != nil {
			return "", fmt.Errorf("read chain %s: %w", want.Name, err)
		}
		if !sameChain(ch, want) {
			return fmt.Sprintf("chain %s has another type, hook, priority or policy", want.Name), nil
		}
		d, err := t.ruleDefectLocked(want, rules)
		if d != "" || err != nil {
			return d, err
		}
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
func (s setInfo) defect(want provision.Set) string {
	switch {
	case s.flags != 0 || s.keyType != nftables.TypeIPAddr.GetNFTMagic() || s.keyLen != nftables.TypeIPAddr.Bytes:
		return fmt.Sprintf("set %s has another type or other flags", want)
	case s.comment != setComment(want):
		return fmt.Sprintf("set %s is of another schema: comment %q", want, strings.ToValidUTF8(s.comment, "?"))
	}
	return ""
}

// readable tells whether the elements of a set of any schema can be taken over:
// they are single IPv4 addresses.
func (s setInfo) readable() bool {
	const others = unix.NFT_SET_ANONYMOUS | unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | unix.NFT_SET_OBJECT | nftables.NFT_SET_CONCAT
	return s.flags&others == 0 && s.keyType == nftables.TypeIPAddr.GetNFTMagic() && s.keyLen == nftables.TypeIPAddr.Bytes
}
