package ruleset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Foreign is what of other tables is looked at: it is read, never written.
type Foreign interface {
	// Rules returns those of a chain in order; nil: they cannot be read, or are too many.
	Rules(table *nftables.Table, chain string) []*nftables.Rule
	// Elements returns those of a set; false: they cannot be read, or are too many.
	Elements(table *nftables.Table, set string) ([]nftables.SetElement, bool)
}

// Obstacles returns what of other tables keeps HTTP of the paused from the portal, for
// people: rules that take the packet before us or hide it from address translation,
// where they match or may match, and firewalls that drop what has come to the
// portal's port for sure. Rules that ask for more than a new connection shows are
// not decided, and no finding where something is dropped.
func Obstacles(p Policy, chains []*nftables.Chain, f Foreign) (out []string) {
	if p.Portal.Port() == 0 {
		return nil
	}
	for _, c := range chains {
		if c.Hooknum == nil || c.Priority == nil || c.Table.Name == TableName && c.Table.Family == nftables.TableFamilyINet ||
			c.Table.Family != nftables.TableFamilyIPv4 && c.Table.Family != nftables.TableFamilyINet {
			continue
		}
		before := *c.Priority <= priorityPortal
		w := &walk{foreign: f, table: c.Table, chain: c.Name, port: 80, sure: true, tracked: *c.Priority > *nftables.ChainPriorityConntrack}
		if *c.Hooknum == *nftables.ChainHookInput || !before {
			w.port, w.led, w.policy = p.Portal.Port(), true, p
		}
		switch *c.Hooknum {
		case *nftables.ChainHookPrerouting:
			if c.Type == nftables.ChainTypeNAT && !before {
				continue // the first translation of a flow is the only one
			}
		case *nftables.ChainHookInput:
			if c.Type == nftables.ChainTypeNAT {
				continue
			}
		default:
			continue
		}
		ended := w.walk(c.Name, 0)
		if !ended && w.sure && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			w.drop("by its policy")
		}
		out = append(out, w.found...)
	}
	return out
}

const (
	maxDepth    = 8
	maxObstacle = 4 // of one chain
)

// tri is yes, no, or not known.
type tri uint8

const (
	no tri = iota
	maybe
	yes
)

// walk follows a new connection from a paused subscriber through a base chain.
type walk struct {
	foreign Foreign
	table   *nftables.Table
	chain   string
	port    uint16 // where it goes
	led     bool   // our translation has led it to the portal
	policy  Policy // if so
	tracked bool   // connection tracking has seen it
	sure    bool   // it comes as far as this
	found   []string
	steps   int
}

func (w *walk) note(format string, args ...any) {
	if len(w.found) < maxObstacle {
		family := "inet"
		if w.table.Family == nftables.TableFamilyIPv4 {
			family = "ip"
		}
		w.found = append(w.found, fmt.Sprintf("table %s %s, chain %s: ", family, w.table.Name, w.chain)+fmt.Sprintf(format, args...))
	}
}

func (w *walk) drop(how string) {
	if w.led {
		w.note("%s it drops what comes to the portal's port %d; let tcp %d in from subscribers", how, w.port, w.port)
		return
	}
	w.note("%s it drops HTTP of subscribers before it comes to the portal", how)
}

// walk reports whether the packet surely ends in the chain.
func (w *walk) walk(chain string, depth int) (ended bool) {
	if depth > maxDepth {
		w.sure = false
		return false
	}
	rules := w.foreign.Rules(w.table, chain)
	if rules == nil {
		w.sure = false
	}
	for i, r := range rules {
		if w.steps++; w.steps > 1<<13 {
			w.sure = false
			return false
		}
		m, does := w.rule(r)
		if m == no {
			continue
		}
		at := fmt.Sprintf("by rule %d of %s", i+1, chain)
		if does.notrack && !w.tracked {
			w.note("%s connections are not tracked (notrack), and what is not tracked never comes to the portal%s", at, unsure(m))
		}
		if does.translates && !w.led {
			w.note("%s the packet is translated before we see it, and only the first translation counts%s", at, unsure(m))
		}
		if does.undecided {
			w.sure = false
		}
		switch does.verdict {
		case "":
		case "drop":
			if m == yes && w.sure {
				w.drop(at)
			}
			fallthrough
		case "accept":
			if m == yes {
				return true
			}
			w.sure = false
		case "return":
			if m == yes {
				return false
			}
			w.sure = false
		default: // another chain
			before := w.sure
			w.sure = before && m == yes
			end := w.walk(does.verdict, depth+1)
			if m == yes && (end || does.forGood) {
				return end
			}
			w.sure = w.sure && m == yes
		}
	}
	return false
}

func unsure(m tri) string {
	if m == maybe {
		return ", if it matches"
	}
	return ""
}

// action is what a rule does to what it matches.
type action struct {
	verdict             string // accept, drop, return, a chain, or empty
	forGood             bool   // it does not come back from that chain
	undecided           bool   // there is a verdict, and it is not known
	notrack, translates bool
}

// rule reports whether a rule matches, and what it does.
func (w *walk) rule(r *nftables.Rule) (tri, action) {
	regs := map[uint32]value{}
	m, does := yes, action{}
	and := func(t tri) { m = min(m, t) }
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			if e.SourceRegister {
				continue // sets a mark
			}
			regs[e.Register] = w.meta(e.Key)
		case *expr.Payload:
			if e.OperationType != expr.PayloadWrite {
				regs[e.DestRegister] = w.payload(e)
			}
		case *expr.Ct:
			if !e.SourceRegister {
				regs[e.Register] = w.ct(e.Key)
			}
		case *expr.Immediate:
			regs[e.Register] = value{data: e.Data}
		case *expr.Bitwise:
			regs[e.DestRegister] = regs[e.SourceRegister].masked(e.Mask, e.Xor)
		case *expr.Cmp:
			and(regs[e.Register].compare(e.Op, e.Data))
		case *expr.Range:
			and(regs[e.Register].within(e.FromData, e.ToData, e.Op == expr.CmpOpNeq))
		case *expr.Lookup:
			t, v := w.lookUp(e, regs[e.SourceRegister])
			and(t)
			switch {
			case v != nil && t != no:
				does.take(v)
			case e.IsDestRegSet && e.DestRegister == 0: // a map of verdicts, and which is not known
				does.undecided = true
			case e.IsDestRegSet:
				regs[e.DestRegister] = value{}
			}
		case *expr.Verdict:
			does.take(e)
		case *expr.Reject:
			does.verdict = "drop"
		case *expr.Notrack:
			does.notrack = true
		case *expr.NAT:
			if e.Type == expr.NATTypeDestNAT {
				does.translates, does.verdict = true, "accept"
			}
		case *expr.Redir, *expr.TProxy:
			does.translates, does.verdict = true, "accept"
		case *expr.Target:
			switch e.Name {
			case "CT", "NOTRACK":
				does.notrack = true
				and(maybe) // it may set a zone instead
			case "REJECT":
				does.verdict = "drop"
			case "DNAT", "REDIRECT", "TPROXY":
				does.translates, does.verdict = true, "accept"
			}
		case *expr.Counter, *expr.Log, *expr.Objref, *expr.Dynset:
		default:
			and(maybe)
			clear(regs) // whatever it has written
		}
		if m == no {
			return no, does
		}
	}
	return m, does
}

func (a *action) take(v *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictAccept:
		a.verdict = "accept"
	case expr.VerdictDrop:
		a.verdict = "drop"
	case expr.VerdictReturn:
		a.verdict = "return"
	case expr.VerdictJump, expr.VerdictGoto:
		a.verdict, a.forGood = v.Chain, v.Kind == expr.VerdictGoto
	}
}

// value is what a register holds: bytes, or nothing that is known.
type value struct {
	data      []byte
	incoming  bool // the interface by which the packet came, which is not the loopback
	translate bool // the connection's status: it is translated
}

func (w *walk) meta(k expr.MetaKey) value {
	switch k {
	case expr.MetaKeyNFPROTO:
		return value{data: []byte{unix.NFPROTO_IPV4}}
	case expr.MetaKeyL4PROTO:
		return value{data: []byte{unix.IPPROTO_TCP}}
	case expr.MetaKeyPROTOCOL:
		return value{data: []byte{8, 0}}
	case expr.MetaKeyIIF, expr.MetaKeyIIFNAME:
		return value{incoming: true}
	}
	return value{}
}

func (w *walk) payload(e *expr.Payload) value {
	at := [3]uint32{uint32(e.Base), e.Offset, e.Len}
	switch {
	case at == [3]uint32{uint32(expr.PayloadBaseNetworkHeader), 9, 1}:
		return value{data: []byte{unix.IPPROTO_TCP}}
	case at == [3]uint32{uint32(expr.PayloadBaseTransportHeader), 2, 2}:
		return value{data: binary.BigEndian.AppendUint16(nil, w.port)}
	case at == [3]uint32{uint32(expr.PayloadBaseTransportHeader), 13, 1}:
		return value{data: []byte{0x02}} // SYN
	case w.led && w.policy.Portal.Addr().Is4() && !w.policy.Portal.Addr().IsUnspecified() && at == [3]uint32{uint32(expr.PayloadBaseNetworkHeader), destination.offset, 4}:
		return value{data: w.policy.Portal.Addr().AsSlice()}
	}
	return value{}
}

func (w *walk) ct(k expr.CtKey) value {
	const stateNew = 8 // NF_CT_STATE_BIT(IP_CT_NEW)
	switch {
	case k == expr.CtKeySTATE && w.tracked:
		return value{data: binary.NativeEndian.AppendUint32(nil, stateNew)}
	case k == expr.CtKeySTATUS && w.led:
		return value{translate: true}
	}
	return value{}
}

func (v value) masked(mask, xor []byte) value {
	const dstNAT = 32 // IPS_DST_NAT
	if v.translate && bytes.Equal(mask, binary.NativeEndian.AppendUint32(nil, dstNAT)) {
		v.data = mask
	}
	if v.data == nil || len(mask) != len(v.data) || len(xor) != len(v.data) {
		return value{}
	}
	out := make([]byte, len(mask))
	for i := range out {
		out[i] = v.data[i]&mask[i] ^ xor[i]
	}
	return value{data: out}
}

func (v value) compare(op expr.CmpOp, with []byte) tri {
	if v.incoming {
		isLoopback := bytes.HasPrefix(with, []byte("lo\x00")) || bytes.Equal(with, binary.NativeEndian.AppendUint32(nil, 1))
		switch {
		case isLoopback && op == expr.CmpOpEq:
			return no
		case isLoopback && op == expr.CmpOpNeq:
			return yes
		}
		return maybe
	}
	if v.data == nil || len(with) > len(v.data) {
		return maybe
	}
	n := bytes.Compare(v.data[:len(with)], with)
	return truth(map[expr.CmpOp]bool{expr.CmpOpEq: n == 0, expr.CmpOpNeq: n != 0, expr.CmpOpLt: n < 0, expr.CmpOpLte: n <= 0, expr.CmpOpGt: n > 0, expr.CmpOpGte: n >= 0}[op])
}

func (v value) within(from, to []byte, invert bool) tri {
	if v.data == nil || len(from) != len(v.data) || len(to) != len(v.data) {
		return maybe
	}
	return truth((bytes.Compare(from, v.data) <= 0 && bytes.Compare(v.data, to) <= 0) != invert)
}

func truth(b bool) tri {
	if b {
		return yes
	}
	return no
}

// lookUp looks a value up in a set, or in a map of verdicts, whose verdict it gives.
func (w *walk) lookUp(e *expr.Lookup, v value) (tri, *expr.Verdict) {
	if v.data == nil {
		return maybe, nil
	}
	elements, ok := w.foreign.Elements(w.table, e.SetName)
	if !ok {
		return maybe, nil
	}
	// Of an interval the first address and the one behind the last are elements.
	slices.SortFunc(elements, func(a, b nftables.SetElement) int {
		if n := bytes.Compare(a.Key, b.Key); n != 0 || a.IntervalEnd == b.IntervalEnd {
			return n
		}
		if a.IntervalEnd { // one ends where the next begins
			return -1
		}
		return 1
	})
	var hit *nftables.SetElement
	interval := slices.ContainsFunc(elements, func(x nftables.SetElement) bool { return x.IntervalEnd })
	for i := range elements {
		x := &elements[i]
		if len(x.Key) != len(v.data) {
			return maybe, nil
		}
		switch n := bytes.Compare(x.Key, v.data); {
		case !interval && n == 0 && !x.IntervalEnd:
			hit = x
		case interval && n <= 0 && x.IntervalEnd:
			hit = nil
		case interval && n <= 0:
			hit = x
		}
	}
	if hit == nil || !e.IsDestRegSet {
		return truth((hit != nil) != e.Invert), nil
	}
	if hit.VerdictData == nil {
		return maybe, nil
	}
	return yes, hit.VerdictData
}
