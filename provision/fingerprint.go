package provision

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Fingerprint is a hash of the content: rows, states and switches, not times or
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
	for _, rows := range [][]Binding{s.t.rows, s.t.contested} {
		h.num(uint64(len(rows)))
		for i := range rows {
			r := &rows[i]
			h.num(uint64(r.Subscriber))
			h.num(uint64(ipKey(r.IP))<<32 | uint64(r.Port))
			h.num(macKey(r.MAC)<<16 | uint64(r.VLAN))
			h.num(uint64(r.Device))
			h.text(r.PortName)
		}
	}
	for i := range s.t.seats.rows { // none unless they are asked for, and then nothing changes by them
		r := &s.t.seats.rows[i]
		h.num(uint64(r.Subscriber))
		h.num(uint64(r.Port))
		h.num(macKey(r.MAC)<<16 | uint64(r.VLAN))
		h.num(uint64(r.Device))
		h.text(r.PortName)
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

func (h *hasher) text(s string) {
	h.num(uint64(len(s)))
	h.buf = append(h.buf, s...)
}

func (h *hasher) sum() uint64 {
	h.h.Write(h.buf)
	return binary.BigEndian.Uint64(h.h.Sum(nil))
}
