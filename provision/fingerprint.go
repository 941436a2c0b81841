package provision

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
)

// Fingerprint is a hash of the content: lines, states and switches, not times or
// source. It is the same in every process, and does not depend on the order in
// which the ERP told the rows.
func (s *Snapshot) Fingerprint() uint64 {
	if s == nil {
		return 0
	}
	s.fpOnce.Do(func() { s.fingerprint = s.hash() })
	return s.fingerprint
}

func (s *Snapshot) hash() uint64 {
	h := hasher{h: sha256.New(), buf: make([]byte, 0, 1<<15)}
	h.num(uint64(s.Len()))
	for ip, l := range s.PortHosts() {
		h.host(ip, l)
	}
	h.num(uint64(len(s.t.contested)))
	for i := range s.t.contested {
		l := &s.t.contested[i]
		if l.Vacant() {
			h.subnet(l.Addresses[0].Prefix, l)
		} else {
			h.host(l.first(), l)
		}
	}
	// Of the following there is none unless it is asked for, and then nothing changes by it.
	for l := range s.LinesBySubscriber().All() {
		if !l.Owner.IsZero() {
			h.num(uint64(l.Subscriber))
			h.num(uint64(l.Port))
			h.place(l)
		}
	}
	for p, l := range s.Subnets() {
		h.subnet(p, l)
	}
	for _, n := range s.SubnetClaims() {
		h.text(n.Prefix.String())
		h.num(uint64(n.Subscriber))
	}
	for _, g := range s.gateways() {
		h.text(g.String())
	}
	h.num(uint64(len(s.subs)))
	for _, sub := range s.subs {
		h.num(uint64(sub.ID))
		h.num(uint64(sub.State))
	}
	h.num(uint64(len(s.t.devices)))
	for i := range s.t.devices {
		d := &s.t.devices[i]
		h.num(uint64(d.ID))
		h.num(macKey(d.MAC))
		h.text(d.Name)
		if d.Model != "" { // most ERPs do not tell it, and then nothing changes by it
			h.text(d.Model)
		}
		h.text(d.IP.String())
	}
	if s.DevicesUnread() {
		h.text("devices unread")
	}
	return h.sum()
}

// hasher feeds fixed-size numbers and length-prefixed texts to a hash in blocks.
type hasher struct {
	h   hash.Hash
	buf []byte
}

func (h *hasher) num(v uint64) {
	h.buf = binary.BigEndian.AppendUint64(h.buf, v)
	if len(h.buf) > 1<<14 {
		h.h.Write(h.buf)
		h.buf = h.buf[:0]
	}
}

func (h *hasher) host(ip netip.Addr, l *Line) {
	h.num(uint64(l.Subscriber))
	h.num(uint64(ipKey(ip))<<32 | uint64(l.Port))
	h.place(l)
}

// place feeds where a line is, but for the number of its port.
func (h *hasher) place(l *Line) {
	h.num(macKey(l.MAC)<<16 | uint64(l.VLAN))
	h.num(uint64(l.Device))
	h.text(l.PortName)
}

func (h *hasher) subnet(p netip.Prefix, l *Line) {
	h.text(p.String())
	h.num(uint64(l.Subscriber))
	h.num(uint64(l.Port))
	h.place(l)
}

func (h *hasher) text(s string) {
	h.num(uint64(len(s)))
	h.buf = append(h.buf, s...)
}

func (h *hasher) sum() uint64 {
	h.h.Write(h.buf)
	return binary.BigEndian.Uint64(h.h.Sum(nil))
}
