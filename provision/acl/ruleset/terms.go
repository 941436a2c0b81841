package ruleset

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// term is a word of a rule: as nft prints it and as the kernel has it.
type term struct {
	text  string
	needs []fact
	exprs []expr.Any
}

// fact is what must be known of a packet before a term can look at it. Like nft
// we have it looked at once in a rule, before the first term that needs it.
type fact uint8

const (
	isIPv4 fact = iota
	isEthernet
	isTCP
	isUDP
	isIPv6
	isIPv6Frame // where there is no family but that of the frame

	factEnd
)

// String returns nft's word for a protocol.
func (f fact) String() string {
	switch f {
	case isIPv4:
		return "ip"
	case isEthernet:
		return "ether"
	case isTCP:
		return "tcp"
	case isUDP:
		return "udp"
	case isIPv6:
		return "ipv6"
	case isIPv6Frame:
		return "ip6"
	default:
		return "invalid"
	}
}

func (f fact) exprs() []expr.Any {
	// [ meta load l4proto => reg 1 ]
	// [ cmp eq reg 1 0x00000006 ]
	equal := func(key expr.MetaKey, value ...byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
	}
	switch f {
	case isIPv4:
		return equal(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4)
	case isEthernet:
		return equal(expr.MetaKeyIIFTYPE, binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)...)
	case isTCP:
		return equal(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP)
	case isIPv6:
		return equal(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)
	case isIPv6Frame:
		return equal(expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6)...)
	default:
		return equal(expr.MetaKeyL4PROTO, unix.IPPROTO_UDP)
	}
}

// side is an end of a packet's way.
type side struct {
	addr   string // nft's word for its address
	offset uint32 // of the address in the IPv4 header
}

var (
	source      = side{"saddr", 12}
	destination = side{"daddr", 16}
)

// loadAddr loads the side's address: [ payload load 4b @ network header + 12 => reg 1 ].
func (s side) loadAddr(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: s.offset, Len: 4}
}

// from is "ip saddr @set", or what else the set knows a source by.
func from(set access.Set) term { return lookUp(set, source, false) }

// to is "ip daddr @set".
func to(set access.Set) term { return lookUp(set, destination, false) }

// notFrom is "ip saddr != @set", notTo is "ip daddr != @set".
func notFrom(set access.Set) term { return lookUp(set, source, true) }
func notTo(set access.Set) term   { return lookUp(set, destination, true) }

// lookUp looks for one side of the packet in a set, by all parts of its key.
func lookUp(set access.Set, s side, invert bool) term {
	var t term
	var words []string
	at, is := 0, " @"
	for _, p := range set.Key() {
		register := register(at)
		switch p {
		case access.PartInterface:
			word, key := "iifname", expr.MetaKeyIIFNAME
			if s == destination {
				word, key = "oifname", expr.MetaKeyOIFNAME
			}
			words = append(words, word)
			t.exprs = append(t.exprs, &expr.Meta{Key: key, Register: register})
		case access.PartMAC, access.PartEther: // what it goes to is not known yet
			const etherSource = 6
			words, t.needs = append(words, "ether saddr"), append(t.needs, isEthernet)
			t.exprs = append(t.exprs, &expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: etherSource, Len: 6})
		default:
			words, t.needs = append(words, "ip "+s.addr), append(t.needs, isIPv4)
			t.exprs = append(t.exprs, s.loadAddr(register))
			if bits, net := p.Bits(); net && bits < 32 {
				mask := binary.BigEndian.AppendUint32(nil, access.Mask(bits))
				words[len(words)-1] += " & " + netip.AddrFrom4([4]byte(mask)).String()
				if len(set.Key()) == 1 {
					is = " == @" // nft's way to print it
				}
				t.exprs = append(t.exprs, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: mask, Xor: make([]byte, 4)})
			}
		}
		at += p.Width()
	}
	t.text = strings.Join(words, " . ") + is + set.String()
	if invert {
		t.text = strings.Join(words, " . ") + " != @" + set.String()
	}
	t.exprs = append(t.exprs, &expr.Lookup{SourceRegister: 1, SetName: set.String(), Invert: invert})
	return t
}

// register is where a part of a key stands that begins at an offset: in one of
// the registers of 16 bytes, which the kernel numbers from 1 on, or of those of
// four, from 8 on, which are the same bytes.
func register(offset int) uint32 {
	if offset%16 == 0 {
		return uint32(1 + offset/16)
	}
	return uint32(8 + offset/4)
}

// isOpen finds the switch of the maintenance.
func isOpen() term { return byProtocol(SetOpen) }

// byProtocol looks the packet's protocol up in a set that is a switch.
func byProtocol(set string) term {
	return term{text: "meta nfproto @" + set, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set},
	}}
}

// count counts what is refused to or from one side.
func count(s side) term {
	return term{fmt.Sprintf("update @%s { ip %s }", SetRefused, s.addr), []fact{isIPv4}, []expr.Any{
		s.loadAddr(1),
		&expr.Dynset{SrcRegKey: 1, SetName: SetRefused, Operation: unix.NFT_DYNSET_OP_UPDATE},
	}}
}

func proto(f fact) term { return term{text: "meta l4proto " + f.String(), needs: []fact{f}} }

func sport(f fact, n uint16) term { return port(f, "sport", 0, n) }

func dport(f fact, n uint16) term { return port(f, "dport", 2, n) }

func port(f fact, word string, offset uint32, n uint16) term {
	return term{fmt.Sprintf("%s %s %d", f, word, n), []fact{f}, transport(offset, binary.BigEndian.AppendUint16(nil, n))}
}

// ports compares both ports at once, as nft does.
func ports(f fact, s, d uint16) term {
	both := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s), d)
	return term{fmt.Sprintf("%s sport %d %s dport %d", f, s, f, d), []fact{f}, transport(0, both)}
}

// transport compares bytes of the transport header.
func transport(offset uint32, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

func ack() term { return tcpFlag("ack", 0x10) }

func tcpFlag(name string, flag byte) term {
	const flagsOffset = 13
	return term{"tcp flags " + name, []fact{isTCP}, []expr.Any{
		// [ payload load 1b @ transport header + 13 => reg 1 ]
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		// [ bitwise reg 1 = ( reg 1 & flag ) ^ 0x00000000 ]
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flag}, Xor: []byte{0}},
		// [ cmp neq reg 1 0x00000000 ]
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
	}}
}

func end(text string, e ...expr.Any) term { return term{text: text, exprs: e} }

// wordCounter is what nft prints with what was counted.
const wordCounter = "counter"

// counter counts the packets that come as far as this in the rule.
func counter() term { return end(wordCounter, &expr.Counter{}) }

func drop() term { return end("drop", &expr.Verdict{Kind: expr.VerdictDrop}) }

func accept() term { return end("accept", &expr.Verdict{Kind: expr.VerdictAccept}) }

func goTo(chain string) term {
	return end("goto "+chain, &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func reset() term {
	return end("reject with tcp reset", &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
}

func prohibited() term {
	return end("reject with icmpx admin-prohibited",
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
}

// redirect sends a packet to the portal.
func redirect(portal netip.AddrPort) term {
	port := binary.BigEndian.AppendUint16(nil, portal.Port())
	if addr := portal.Addr().Unmap(); addr.Is4() && !addr.IsUnspecified() {
		ip := addr.As4()
		return end(fmt.Sprintf("dnat ip to %s:%d", addr, portal.Port()),
			// [ immediate reg 1 address ] [ immediate reg 2 port ]
			&expr.Immediate{Register: 1, Data: ip[:]},
			&expr.Immediate{Register: 2, Data: port},
			// [ nat dnat ip addr_min reg 1 proto_min reg 2 flags 0x2 ]
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4,
				RegAddrMin: 1, RegAddrMax: 1, RegProtoMin: 2, RegProtoMax: 2, Specified: true})
	}
	const specified = 2 // NF_NAT_RANGE_PROTO_SPECIFIED
	return end(fmt.Sprintf("redirect to :%d", portal.Port()),
		&expr.Immediate{Register: 1, Data: port},
		// [ redir proto_min reg 1 flags 0x2 ]
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: specified})
}
