package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Option is one option to send: its value is encoded already.
type Option struct {
	Code  uint8
	Value []byte
}

// OptionSet is a list of options serialised once, in the order in which they
// are needed by a client: where a reply gets too long, room goes to the first ones.
type OptionSet struct {
	mask    []byte // option 1, sent whether asked for or not
	options []encodedOption
}

type encodedOption struct {
	code  uint8
	bytes []byte // one or more instances with code and length (RFC 3396)
}

// needed is the order of need of the options that a client cannot do without; all others follow
// in the order given.
var needed = [...]uint8{OptRouter, OptDNS, OptClasslessRoutes, OptDomainName, OptNTP}

// ErrOptionReserved says that a code is filled by the server or by a relay and cannot be configured.
var ErrOptionReserved = errors.New("this option is filled by the server itself")

// NewOptionSet serialises options. A code may come once. Values above 255 bytes
// are split as RFC 3396 says.
func NewOptionSet(options []Option) (*OptionSet, error) {
	s := &OptionSet{}
	var seen [256]bool
	for _, o := range options {
		switch o.Code {
		case OptPad, OptEnd, OptRequestedIP, OptLeaseTime, OptOverload, OptMessageType, OptServerID,
			OptParameterList, OptMessage, OptMaxMessageSize, OptRenewalTime, OptRebindingTime,
			OptClientID, OptRelayAgentInfo:
			return nil, fmt.Errorf("option %d: %w", o.Code, ErrOptionReserved)
		}
		if seen[o.Code] {
			return nil, fmt.Errorf("option %d: given twice", o.Code)
		}
		seen[o.Code] = true
		if o.Code == OptSubnetMask && len(o.Value) != 4 {
			return nil, fmt.Errorf("option %d: %d bytes, want 4", o.Code, len(o.Value))
		}
		enc := encodeOption(o)
		if o.Code == OptSubnetMask {
			s.mask = enc
			continue
		}
		s.options = append(s.options, encodedOption{o.Code, enc})
	}
	slices.SortStableFunc(s.options, func(a, b encodedOption) int { return rank(a.code) - rank(b.code) })
	return s, nil
}

func rank(code uint8) int {
	if i := slices.Index(needed[:], code); i >= 0 {
		return i
	}
	return len(needed)
}

func encodeOption(o Option) []byte {
	var enc []byte
	rest := o.Value
	for {
		n := min(len(rest), 255)
		enc = append(enc, o.Code, byte(n))
		enc = append(enc, rest[:n]...)
		if rest = rest[n:]; len(rest) == 0 {
			return enc
		}
	}
}

// Reply is what to tell a client. Times are in seconds.
type Reply struct {
	Type       MessageType
	CIAddr     netip.Addr
	YIAddr     netip.Addr
	ServerID   netip.Addr
	LeaseTime  uint32 // 0: no lease times (INFORM, NAK)
	RenewTime  uint32
	RebindTime uint32
	Options    *OptionSet // nil: none (NAK)
	Message    string     // option 56, for a NAK
	Broadcast  bool       // set the broadcast flag whatever the client said
}

// MaxReplyLen is the most bytes that Append may write: a buffer with so much
// free capacity is never grown.
const MaxReplyLen = maxMaxSize - ipUDPHeader

// wanted is the parameter request list as a bit set.
type wanted struct {
	bits [4]uint64
	all  bool
}

func (w *wanted) has(code uint8) bool {
	return w.all || w.bits[code>>6]&(1<<(code&63)) != 0
}

// Append appends the reply to the request p to dst. The options come in this
// order: 53, 54, 51, 58, 59, 1, 56, 61, then those of the set by need, and
// option 82 of the request, byte for byte, last. 53, 54, 51, 58, 59 and 1 are
// always sent (most clients do not ask for 58 and 59, but follow them: T1 and T2
// are the operator's, not the client's), the others if the client asks for them or has no parameter request list;
// 61 is returned as RFC 6842 says. Options for which the client's maximum
// (option 57) leaves no room, given those before them, are left out.
func (r *Reply) Append(dst []byte, p *Packet) []byte {
	base := len(dst)
	limit := p.MaxPayload()
	dst = r.appendHeader(dst, p)

	relay := p.RelayInfo()
	room := limit - 1 // End
	if p.RelayInfoCount() > 0 {
		room -= 2 + len(relay)
	}
	var want wanted
	if list := p.ParameterList(); list == nil {
		want.all = true
	} else {
		for _, c := range list {
			want.bits[c>>6] |= 1 << (c & 63)
		}
	}

	dst = append(dst, OptMessageType, 1, byte(r.Type))
	if r.ServerID.Is4() {
		dst = appendAddrOption(dst, OptServerID, r.ServerID)
	}
	if r.LeaseTime != 0 {
		dst = appendUint32Option(dst, OptLeaseTime, r.LeaseTime)
		dst = appendUint32Option(dst, OptRenewalTime, r.RenewTime)
		dst = appendUint32Option(dst, OptRebindingTime, r.RebindTime)
	}
	if r.Options != nil {
		dst = append(dst, r.Options.mask...)
	}
	if n := len(r.Message); n > 0 && n < 256 && len(dst)-base+2+n <= room {
		dst = append(dst, OptMessage, byte(n))
		dst = append(dst, r.Message...)
	}
	if id := p.ClientID(); id != nil && len(dst)-base+2+len(id) <= room {
		dst = append(dst, OptClientID, byte(len(id)))
		dst = append(dst, id...)
	}
	if r.Options != nil {
		for i := range r.Options.options {
			o := &r.Options.options[i]
			if want.has(o.code) && len(dst)-base+len(o.bytes) <= room {
				dst = append(dst, o.bytes...)
			}
		}
	}
	if p.RelayInfoCount() > 0 {
		dst = append(dst, OptRelayAgentInfo, byte(len(relay)))
		dst = append(dst, relay...)
	}
	dst = append(dst, OptEnd)
	for len(dst)-base < MinReplyLen {
		dst = append(dst, OptPad)
	}
	return dst
}

func (r *Reply) appendHeader(dst []byte, p *Packet) []byte {
	var h [optionsAt]byte
	h[0] = 2
	h[1], h[2] = p.raw[1], p.raw[2]
	copy(h[4:8], p.raw[4:8])     // xid
	copy(h[10:12], p.raw[10:12]) // flags
	if r.Broadcast {
		h[10] |= 0x80
	}
	putAddr(h[12:], r.CIAddr)
	putAddr(h[16:], r.YIAddr)
	copy(h[24:28], p.raw[24:28]) // giaddr
	copy(h[28:44], p.raw[28:44]) // chaddr
	binary.BigEndian.PutUint32(h[headerLen:], cookie)
	return append(dst, h[:]...)
}

func putAddr(b []byte, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		copy(b, v[:])
	}
}

func appendAddrOption(dst []byte, code byte, a netip.Addr) []byte {
	v := a.As4()
	return append(dst, code, 4, v[0], v[1], v[2], v[3])
}

func appendUint32Option(dst []byte, code byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, code, 4), v)
}

// Query is a request to build: what Server.Explain asks with.
type Query struct {
	Type     MessageType
	XID      uint32
	MAC      [6]byte
	CIAddr   netip.Addr
	GIAddr   netip.Addr
	Options  []Option
	Option82 []byte // payload; nil: none
}

// Append appends the request to dst, with option 82 last.
func (q *Query) Append(dst []byte) []byte {
	var h [optionsAt]byte
	h[0], h[1], h[2] = 1, 1, 6
	binary.BigEndian.PutUint32(h[4:], q.XID)
	putAddr(h[12:], q.CIAddr)
	putAddr(h[24:], q.GIAddr)
	copy(h[28:], q.MAC[:])
	binary.BigEndian.PutUint32(h[headerLen:], cookie)
	dst = append(dst, h[:]...)
	dst = append(dst, OptMessageType, 1, byte(q.Type))
	for _, o := range q.Options {
		dst = append(dst, encodeOption(o)...)
	}
	if q.Option82 != nil {
		dst = append(dst, OptRelayAgentInfo, byte(len(q.Option82)))
		dst = append(dst, q.Option82...)
	}
	return append(dst, OptEnd)
}
