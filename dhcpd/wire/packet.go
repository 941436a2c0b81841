package wire

import (
	"encoding/binary"
	"net/netip"
)

// Sizes and places of the BOOTP header (RFC 2131 section 2).
const (
	headerLen   = 236
	optionsAt   = 240 // after the magic cookie
	snameAt     = 44
	snameLen    = 64
	fileAt      = 108
	fileLen     = 128
	cookie      = 0x63825363
	maxReadable = 65535 // option places are kept in 16 bits

	// MinReplyLen is what replies are padded to: old relays and clients drop
	// anything shorter than a BOOTP packet (RFC 1542 section 2.1).
	MinReplyLen = 300
	// ipUDPHeader is what option 57 counts on top of the DHCP payload.
	ipUDPHeader = 28
	minMaxSize  = 576  // the least that option 57 may say, and the default
	maxMaxSize  = 1500 // replies larger than an Ethernet frame would be fragmented
)

// ParseError says why bytes are not a DHCP packet, or not an option 82. A closed set.
type ParseError uint8

// The parse errors.
const (
	ErrShort           ParseError = iota + 1 // fewer bytes than header and cookie
	ErrLong                                  // more bytes than the receiver takes
	ErrCookie                                // no DHCP magic cookie: BOOTP or noise
	ErrHardwareLength                        // hlen above 16
	ErrOptionTruncated                       // an option runs past the end
	ErrNoType                                // no option 53, or only empty ones
	ErrSubOption                             // a sub-option of option 82 runs past its end, or a stray byte follows
)

// Error implements error.
func (e ParseError) Error() string {
	switch e {
	case ErrShort:
		return "packet shorter than a DHCP header"
	case ErrLong:
		return "packet too long"
	case ErrCookie:
		return "no DHCP magic cookie"
	case ErrHardwareLength:
		return "hardware address length above 16"
	case ErrOptionTruncated:
		return "option runs past the end of its field"
	case ErrNoType:
		return "no message type option"
	case ErrSubOption:
		return "sub-options do not fill option 82 exactly"
	}
	return "unknown parse error"
}

// span is the place of an option's value in the packet, or in Packet.joined if
// its parts had to be put together. Zero is "absent", for no value of a packet
// starts at offset 0.
type span struct {
	at, n  uint16
	joined bool
}

// Packet is a view of one DHCP packet. Its methods return parts of the parsed
// bytes, which must stay unchanged as long as the view is used. It can be
// parsed into again and again; it never allocates.
type Packet struct {
	raw  []byte
	main int // end of the options field that was walked: the place of End, or len(raw)

	msgType     MessageType
	overload    byte
	duplicate   bool
	rapidCommit bool
	relays      uint8 // instances of option 82

	requested, serverID, clientID, params, maxSize span
	relay, hostName, vendorClass, message          span
	userClass, vendorID, vendorInfo, leaseTime     span

	split  uint16 // texts that came in several parts, as bits in the order of texts
	joined []byte // those texts, each whole (RFC 3396)
}

// texts are the options whose parts are joined, with the places of their values:
// one longer than 255 bytes comes in parts, and the fields of an overloaded packet
// may cut it anywhere (RFC 3396 section 7).
func (p *Packet) texts() [8]text {
	return [...]text{
		{OptClientID, &p.clientID}, {OptParameterList, &p.params}, {OptHostName, &p.hostName},
		{OptVendorClass, &p.vendorClass}, {OptMessage, &p.message}, {OptUserClass, &p.userClass},
		{OptVendorIdentifyingClass, &p.vendorID}, {OptVendorIdentifying, &p.vendorInfo},
	}
}

type text struct {
	code byte
	at   *span
}

// Parse makes p a view of b. It accepts a packet without End if its options
// fill it exactly, whatever bytes follow End, and an unknown message type. Texts
// in parts are joined (RFC 3396); of another option that may come once the first
// one counts, and Duplicate tells of both. An option that is empty, or too short for
// its number or address, is as good as absent; of one that is too long the first bytes
// count. ISC dhcpd and dnsmasq read it so, and no client has to go without an
// answer. After an error only the header's methods may be used, and only if b has a header.
func (p *Packet) Parse(b []byte) error {
	*p = Packet{raw: b, joined: p.joined[:0]}
	switch {
	case len(b) < optionsAt:
		return ErrShort
	case len(b) > maxReadable:
		return ErrLong
	case binary.BigEndian.Uint32(b[headerLen:]) != cookie:
		return ErrCookie
	case b[2] > 16:
		return ErrHardwareLength
	}
	end, err := p.walk(optionsAt, len(b))
	if err != nil {
		return err
	}
	// RFC 2131 section 4.1: first the options field, then file, then sname.
	if p.overload&1 != 0 {
		if _, err := p.walk(fileAt, fileAt+fileLen); err != nil {
			return err
		}
	}
	if p.overload&2 != 0 {
		if _, err := p.walk(snameAt, snameAt+snameLen); err != nil {
			return err
		}
	}
	p.main = end
	if p.msgType == 0 {
		return ErrNoType
	}
	if p.split != 0 {
		p.join()
	}
	return nil
}

// join puts the texts together that came in parts.
func (p *Packet) join() {
	for i, t := range p.texts() {
		if p.split&(1<<i) != 0 {
			at := len(p.joined)
			p.joined = p.AppendOption(p.joined, t.code)
			*t.at = span{uint16(at), uint16(len(p.joined) - at), true}
		}
	}
}

// part notes that a text goes on in another instance of its option.
func (p *Packet) part(code byte) {
	for i, t := range p.texts() {
		if t.code == code {
			p.split |= 1 << i
		}
	}
}

// walk reads the options of one field and notes those that a server needs.
func (p *Packet) walk(at, end int) (int, error) {
	b := p.raw
	for at < end {
		code := b[at]
		if code == OptPad {
			at++
			continue
		}
		if code == OptEnd {
			return at, nil
		}
		if at+2 > end {
			return 0, ErrOptionTruncated
		}
		n := int(b[at+1])
		at += 2
		if at+n > end {
			return 0, ErrOptionTruncated
		}
		p.note(code, at, n)
		at += n
	}
	return at, nil
}

func (p *Packet) note(code byte, at, n int) {
	var s *span
	switch code {
	case OptMessageType:
		if n == 0 || p.raw[at] == 0 {
			return
		}
		if p.msgType != 0 {
			p.duplicate = true
			return
		}
		p.msgType = MessageType(p.raw[at])
		return
	case OptOverload:
		switch {
		case n == 0 || p.raw[at]&3 == 0: // it names no field
		case p.overload != 0: // within an overloaded field it means nothing
			p.duplicate = true
		default:
			p.overload = p.raw[at] & 3
		}
		return
	case OptRelayAgentInfo:
		if p.relays < 255 {
			p.relays++
		}
		if p.relays == 1 {
			p.relay = span{at: uint16(at), n: uint16(n)}
		}
		return
	case OptRequestedIP, OptServerID:
		if n < 4 {
			return
		}
		s = &p.requested
		if code == OptServerID {
			s = &p.serverID
		}
	case OptClientID:
		s = &p.clientID
	case OptParameterList:
		s = &p.params
	case OptMaxMessageSize:
		s = &p.maxSize
	case OptHostName:
		s = &p.hostName
	case OptVendorClass:
		s = &p.vendorClass
	case OptMessage:
		s = &p.message
	case OptLeaseTime:
		s = &p.leaseTime
	case OptUserClass:
		s = &p.userClass
	case OptVendorIdentifyingClass:
		s = &p.vendorID
	case OptVendorIdentifying:
		s = &p.vendorInfo
	case OptRapidCommit:
		p.rapidCommit = true
		return
	default:
		return
	}
	switch {
	case n == 0:
	case s.at != 0:
		p.duplicate = true
		p.part(code)
	default:
		*s = span{at: uint16(at), n: uint16(n)}
	}
}

func (p *Packet) bytes(s span) []byte {
	if s.joined {
		return p.joined[s.at : s.at+s.n : s.at+s.n]
	}
	if s.at == 0 {
		return nil
	}
	return p.raw[s.at : s.at+s.n : s.at+s.n]
}

func (p *Packet) addr(at int) netip.Addr {
	return netip.AddrFrom4([4]byte(p.raw[at : at+4]))
}

// headerAddr returns the address at a place of the header; 0.0.0.0 is invalid.
func (p *Packet) headerAddr(at int) netip.Addr {
	if binary.BigEndian.Uint32(p.raw[at:]) == 0 {
		return netip.Addr{}
	}
	return p.addr(at)
}

func (p *Packet) optionAddr(s span) netip.Addr {
	if s.at == 0 {
		return netip.Addr{}
	}
	return p.headerAddr(int(s.at))
}

// HasHeader reports whether the parsed bytes hold at least the BOOTP header,
// so that the header's methods may be used even if Parse failed.
func (p *Packet) HasHeader() bool { return len(p.raw) >= headerLen }

// Raw returns the parsed bytes.
func (p *Packet) Raw() []byte { return p.raw }

// Op is 1 for a request of a client, 2 for a reply of a server.
func (p *Packet) Op() byte { return p.raw[0] }

// HType is the hardware type, 1 for Ethernet.
func (p *Packet) HType() byte { return p.raw[1] }

// XID is the transaction id.
func (p *Packet) XID() uint32 { return binary.BigEndian.Uint32(p.raw[4:]) }

// Secs is the time since the client began, in seconds, as it says.
func (p *Packet) Secs() uint16 { return binary.BigEndian.Uint16(p.raw[8:]) }

// Broadcast reports whether the client asks for broadcast replies.
func (p *Packet) Broadcast() bool { return p.raw[10]&0x80 != 0 }

// CIAddr is the address the client says it has; invalid if 0.0.0.0, as with the others.
func (p *Packet) CIAddr() netip.Addr { return p.headerAddr(12) }

// YIAddr is the address given to the client.
func (p *Packet) YIAddr() netip.Addr { return p.headerAddr(16) }

// SIAddr is the address of the next server to use.
func (p *Packet) SIAddr() netip.Addr { return p.headerAddr(20) }

// GIAddr is the address of the relay.
func (p *Packet) GIAddr() netip.Addr { return p.headerAddr(24) }

// MAC is the client's hardware address; ok is false if hlen is not 6 or all bytes are zero.
func (p *Packet) MAC() (mac [6]byte, ok bool) {
	if p.raw[2] != 6 {
		return mac, false
	}
	mac = [6]byte(p.raw[28:34])
	return mac, mac != [6]byte{}
}

// Type is the message type.
func (p *Packet) Type() MessageType { return p.msgType }

// Requested is option 50; invalid if absent or 0.0.0.0.
func (p *Packet) Requested() netip.Addr { return p.optionAddr(p.requested) }

// ServerID is option 54; invalid if absent or 0.0.0.0.
func (p *Packet) ServerID() netip.Addr { return p.optionAddr(p.serverID) }

// ClientID is option 61, raw; nil if absent or empty, as with the texts below.
func (p *Packet) ClientID() []byte { return p.bytes(p.clientID) }

// HostName is option 12; nil if absent.
func (p *Packet) HostName() []byte { return p.bytes(p.hostName) }

// VendorClass is option 60; nil if absent.
func (p *Packet) VendorClass() []byte { return p.bytes(p.vendorClass) }

// UserClass is option 77 (RFC 3004), raw; nil if absent.
func (p *Packet) UserClass() []byte { return p.bytes(p.userClass) }

// RapidCommit reports whether the client takes an ACK for its DISCOVER (option 80, RFC 4039).
func (p *Packet) RapidCommit() bool { return p.rapidCommit }

// FromEnterprise reports whether option 124 or 125 (RFC 3925) names an
// enterprise, and whether the packet has such an option at all.
func (p *Packet) FromEnterprise(n uint32) (named, any bool) {
	for _, v := range [...][]byte{p.bytes(p.vendorID), p.bytes(p.vendorInfo)} {
		for len(v) >= 5 && len(v) >= 5+int(v[4]) {
			any = true
			if binary.BigEndian.Uint32(v) == n {
				return true, true
			}
			v = v[5+int(v[4]):]
		}
	}
	return false, any
}

// Message is option 56, the reason of a NAK or DECLINE; nil if absent.
func (p *Packet) Message() []byte { return p.bytes(p.message) }

// ParameterList is option 55, the codes the client wants; nil if absent or empty.
func (p *Packet) ParameterList() []byte { return p.bytes(p.params) }

// LeaseTime is option 51 in seconds; 0 if absent or of a wrong length.
func (p *Packet) LeaseTime() uint32 {
	if p.leaseTime.n != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(p.raw[p.leaseTime.at:])
}

// MaxPayload is how many bytes of DHCP payload the client takes, from option 57:
// 548 if absent or less than allowed, never more than an Ethernet frame carries.
func (p *Packet) MaxPayload() int {
	size := minMaxSize
	if p.maxSize.n == 2 {
		size = int(binary.BigEndian.Uint16(p.raw[p.maxSize.at:]))
	}
	return min(max(size, minMaxSize), maxMaxSize) - ipUDPHeader
}

// RelayInfo is the payload of the first option 82; nil if absent. Look at
// RelayInfoCount before trusting it.
func (p *Packet) RelayInfo() []byte { return p.bytes(p.relay) }

// RelayInfoCount is the number of instances of option 82 (up to 255). They are
// never joined, for a second one mixes forged with real sub-options.
func (p *Packet) RelayInfoCount() int { return int(p.relays) }

// Duplicate reports whether an option that may come once came more often. Parts
// of a long option (RFC 3396) count as duplicates here.
func (p *Packet) Duplicate() bool { return p.duplicate }

// Option returns the first instance of any option by a new walk; ok is false if absent.
func (p *Packet) Option(code byte) (value []byte, ok bool) {
	p.each(code, func(v []byte) bool { value, ok = v, true; return false })
	return value, ok
}

// Fits reports whether an option fits: the value of a text, joined if it came in
// parts (RFC 3396) and nil if it is absent, or any one instance of the option. Some
// clients send a text twice and mean two texts.
func (p *Packet) Fits(code byte, fits func([]byte) bool) bool {
	for _, t := range p.texts() {
		if t.code == code && fits(p.bytes(*t.at)) {
			return true
		}
	}
	found := false
	p.each(code, func(v []byte) bool { found = fits(v); return !found })
	return found
}

// AppendOption appends all instances of an option to dst, joined as RFC 3396
// says. For option 82 use RelayInfo: joining is what an attacker would like.
func (p *Packet) AppendOption(dst []byte, code byte) []byte {
	p.each(code, func(v []byte) bool { dst = append(dst, v...); return true })
	return dst
}

// each calls f with every instance of code, in the order of RFC 3396, until f returns false.
func (p *Packet) each(code byte, f func([]byte) bool) {
	if p.main == 0 {
		return // not parsed, or parsed with an error
	}
	if !p.eachIn(optionsAt, p.main, code, f) {
		return
	}
	if p.overload&1 != 0 && !p.eachIn(fileAt, fileAt+fileLen, code, f) {
		return
	}
	if p.overload&2 != 0 {
		p.eachIn(snameAt, snameAt+snameLen, code, f)
	}
}

func (p *Packet) eachIn(at, end int, code byte, f func([]byte) bool) bool {
	for at < end && p.raw[at] != OptEnd {
		if p.raw[at] == OptPad {
			at++
			continue
		}
		n := int(p.raw[at+1])
		if p.raw[at] == code && !f(p.raw[at+2:at+2+n:at+2+n]) {
			return false
		}
		at += 2 + n
	}
	return true
}
