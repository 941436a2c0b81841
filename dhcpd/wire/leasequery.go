package wire

import (
	"encoding/binary"
	"net/netip"
)

// LeaseReply answers a leasequery (RFC 4388): what is known of an address. Of one
// that is not leased only the first three fields are.
type LeaseReply struct {
	Type     MessageType // LeaseActive, LeaseUnassigned or LeaseUnknown
	ServerID netip.Addr
	IP       netip.Addr // goes into ciaddr; invalid: nobody asked by address and none was found

	MAC             [6]byte
	ClientID        []byte // as the client sent it; empty: it sent none
	RelayInfo       []byte // option 82 of its last message that had one; empty: none
	LeaseTime       uint32 // seconds that are left
	RenewTime       uint32 // and until T1 and T2; 0: they are over
	RebindTime      uint32
	LastTransaction uint32       // seconds since the client was last heard
	Associated      []netip.Addr // its other addresses
	Options         *OptionSet   // what it was told; sent as far as it is asked for
}

// Append appends the answer to the query p to dst. Beside 53 and 54 it has what
// the parameter request list of the query names or, without a list, all of the
// lease, as far as there is room. The list asks for 82 and 61 of the client; those of the
// query are not echoed (RFC 4388 section 6.4.2).
func (r *LeaseReply) Append(dst []byte, p *Packet) []byte {
	base := len(dst)
	var h [optionsAt]byte
	h[0] = 2
	copy(h[4:8], p.raw[4:8])     // xid
	copy(h[10:12], p.raw[10:12]) // flags
	putAddr(h[12:], r.IP)
	copy(h[24:28], p.raw[24:28]) // giaddr
	if r.Type == LeaseActive {
		h[1], h[2] = 1, 6
		copy(h[28:], r.MAC[:])
	} else {
		copy(h[1:3], p.raw[1:3])
		copy(h[28:44], p.raw[28:44])
	}
	binary.BigEndian.PutUint32(h[headerLen:], cookie)
	dst = append(dst, h[:]...)
	dst = append(dst, OptMessageType, 1, byte(r.Type))
	if r.ServerID.Is4() {
		dst = appendAddrOption(dst, OptServerID, r.ServerID)
	}
	if r.Type == LeaseActive {
		dst = r.appendLease(dst, base, p)
	}
	dst = append(dst, OptEnd)
	for len(dst)-base < MinReplyLen {
		dst = append(dst, OptPad)
	}
	return dst
}

func (r *LeaseReply) appendLease(dst []byte, base int, p *Packet) []byte {
	list := p.ParameterList()
	wants := func(code byte) bool {
		for _, c := range list {
			if c == code {
				return true
			}
		}
		return list == nil
	}
	room := p.MaxPayload() - 1 // End
	relayed := wants(OptRelayAgentInfo) && len(r.RelayInfo) > 0
	if relayed {
		room -= 2 + len(r.RelayInfo)
	}
	for _, t := range [...]struct {
		code    byte
		seconds uint32
		always  bool
	}{
		{OptLeaseTime, r.LeaseTime, true},
		{OptRenewalTime, r.RenewTime, false},
		{OptRebindingTime, r.RebindTime, false},
		{OptLastTransaction, r.LastTransaction, true},
	} {
		if wants(t.code) && (t.always || t.seconds > 0) && len(dst)-base+6 <= room {
			dst = appendUint32Option(dst, t.code, t.seconds)
		}
	}
	if n := len(r.ClientID); n > 0 && wants(OptClientID) && len(dst)-base+encodedLen(n) <= room {
		dst = appendOption(dst, OptClientID, r.ClientID)
	}
	if n := 4 * min(len(r.Associated), 63); n > 0 && wants(OptAssociatedIP) && len(dst)-base+2+n <= room {
		dst = append(dst, OptAssociatedIP, byte(n))
		for _, a := range r.Associated[:n/4] {
			dst = append(dst, a.AsSlice()...)
		}
	}
	if r.Options != nil && list != nil {
		if wants(OptSubnetMask) && len(dst)-base+len(r.Options.mask) <= room {
			dst = append(dst, r.Options.mask...)
		}
		w := writer{dst: dst, base: base, room: room, set: r.Options, p: p}
		w.round()
		dst = w.dst
	}
	if relayed {
		dst = append(dst, OptRelayAgentInfo, byte(len(r.RelayInfo)))
		dst = append(dst, r.RelayInfo...)
	}
	return dst
}
