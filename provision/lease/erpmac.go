package lease

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// This file keeps with each lease what the ERP had for its address when its client got it. Only so can a later MAC in the
// ERP be told to be its operator's word, newer than the lease, and not one that is older, or our own.

// ERPMAC is the MAC that the ERP had for the address of a lease, by one way of reading it.
type ERPMAC struct {
	MAC provision.MAC // zero: the ERP had none
	At  int64         // when that was learned, nanoseconds since 1970; zero: it is not known
}

// Known reports whether it is known what the ERP had.
func (e ERPMAC) Known() bool { return e.At != 0 }

type erpMACText struct {
	MAC provision.MAC `json:"mac,omitzero"`
	At  time.Time     `json:"at"`
}

// MarshalJSON writes the time as such.
func (e ERPMAC) MarshalJSON() ([]byte, error) {
	return json.Marshal(erpMACText{e.MAC, time.Unix(0, e.At).UTC()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *ERPMAC) UnmarshalJSON(b []byte) error {
	var t erpMACText
	err := json.Unmarshal(b, &t)
	e.MAC, e.At = t.MAC, 0
	if !t.At.IsZero() {
		e.At = t.At.UnixNano()
	}
	return err
}

// ERPMACs is what is known of the ERP's MAC for the address of a lease since its client got it. The ways of reading the ERP are kept
// apart: that they spell an address differently is nobody's word.
type ERPMACs struct {
	Direct   ERPMAC `json:"direct,omitzero"`
	Composed ERPMAC `json:"composed,omitzero"`
	// Sent are MACs other than the client's that our outbox sent to the ERP since, the newest first.
	Sent [maxSent]provision.MAC `json:"sent,omitzero"`
}

// maxSent bounds Sent. The client before may have begun it; while a lease is live only a report that was on its way when the client got it adds one.
const maxSent = 4

// of returns what is known by one way of reading the ERP; nil for what is none.
func (e *ERPMACs) of(s provision.Source) *ERPMAC {
	switch s {
	case provision.SourceDirect:
		return &e.Direct
	case provision.SourceComposed:
		return &e.Composed
	}
	return nil
}

func (e *ERPMACs) sent(mac provision.MAC) bool {
	for _, m := range e.Sent {
		if m == mac && !m.IsZero() {
			return true
		}
	}
	return false
}

// ERPMAC returns what the ERP had for the address by one way of reading it; not Known if that is not known.
func (r *Record) ERPMAC(s provision.Source) ERPMAC {
	if e := r.ERP.of(s); e != nil {
		return *e
	}
	return ERPMAC{}
}

// Ours reports whether the ERP may have mac for the address by what is known: it had it, or our outbox sent it.
func (r *Record) Ours(mac provision.MAC) bool {
	return r.ERP.sent(mac) || r.ERP.Direct.Known() && r.ERP.Direct.MAC == mac || r.ERP.Composed.Known() && r.ERP.Composed.MAC == mac
}

// Granted returns what is known of the ERP's MAC for an address that a new client gets at now, by the snapshot in use; before
// is what was recorded of the address until then.
func Granted(s *provision.Snapshot, l *provision.Line, before *Record, now time.Time) (e ERPMACs) {
	is := e.of(s.Origin())
	if is == nil || l == nil {
		return e
	}
	*is = ERPMAC{l.MAC, now.UnixNano()}
	if was := before.ERPMAC(s.Origin()); was.At > s.FetchedAt().UnixNano() && before.Pool == "" {
		is.MAC = was.MAC // the ERP has taken a report of ours since the fetch
	}
	if _, overruled := before.Overruled(s); before.State != 0 && before.Pool == "" && before.MAC != is.MAC && !overruled {
		e.Sent[0] = before.MAC // it may have taken this one, too, just before a kill that cost what was known of that
	}
	return e
}

// at reports whether a line is where the lease was given, whoever is there now: the same subscriber's, or the same port.
func (r *Record) at(l *provision.Line) bool {
	return l.Subscriber == r.Subscriber || r.Port != 0 && l.Device == r.Device && l.Port == r.Port
}

// Overruled returns the MAC that the ERP has for the address by its operator's word, newer than the lease; false if it
// has none. No word are an empty MAC, one that the ERP had when the client got the address or took from us since, another owner
// or port, and what an accepted whole fetch did not say, or one that began before that was known.
func (r *Record) Overruled(s *provision.Snapshot) (provision.MAC, bool) {
	if r.State == 0 || r.Pool != "" {
		return provision.MAC{}, false
	}
	row, ok := s.AcceptedRow(r.IP)
	if !ok || row.MAC.IsZero() || row.MAC == r.MAC || !r.at(row.Line) {
		return provision.MAC{}, false
	}
	e := r.ERPMAC(row.Source)
	if !e.Known() || e.MAC == row.MAC || row.At.UnixNano() <= e.At || r.ERP.sent(row.MAC) {
		return provision.MAC{}, false
	}
	return row.MAC, true
}

// Replaced returns what a report of the client's MAC would replace in the ERP, as far as known.
func (r *Record) Replaced(s *provision.Snapshot) provision.Replaced {
	e := r.ERPMAC(s.Origin())
	return provision.Replaced{MAC: e.MAC, Known: e.Known()}
}

// Learn takes what an accepted whole fetch has for the address at now, and reports whether anything changed by it: the record's own
// MAC, or any where nothing is known yet. One that was learned by a clock that was ahead counts as of this fetch.
func (r *Record) Learn(row provision.Row, now time.Time) bool {
	e := r.ERP.of(row.Source)
	if e == nil || r.Pool != "" || !r.at(row.Line) {
		return false
	}
	at := row.At.UnixNano()
	switch {
	case !e.Known(), row.MAC == r.MAC && e.MAC != row.MAC && at > e.At:
		*e = ERPMAC{row.MAC, at}
	case e.At > now.UnixNano():
		e.At = at
	default:
		return false
	}
	return true
}

// adoptChunk bounds how many addresses are looked at under one lock of the table, so that no packet waits.
const adoptChunk = 512

// Adopt takes what an accepted whole fetch says of the addresses of leases, and leaves writing it to the background. It
// returns how many records learned something, and how many live ones the ERP has another MAC for by its operator's
// word. Of a snapshot that is not of such a fetch it takes nothing.
func (t *Table) Adopt(s *provision.Snapshot, now time.Time) (learned, overruled int) {
	type item struct {
		key uint32
		row provision.Row
	}
	var keys []uint32
	chunk, todo := make([]item, 0, adoptChunk), make([]item, 0, adoptChunk)
	look := func() {
		todo = todo[:0]
		t.mu.RLock()
		for _, it := range chunk {
			e := t.at(it.key)
			if e == nil {
				continue
			}
			r := &e.Record
			if c := *r; c.Learn(it.row, now) {
				todo = append(todo, it)
			} else if _, yes := r.Overruled(s); yes && r.Live(now) {
				keys = append(keys, it.key)
			}
		}
		t.mu.RUnlock()
		for _, it := range todo {
			if t.changeERP(addrOf(it.key), func(r *Record) bool { return r.Learn(it.row, now) }) {
				learned++
			}
		}
		chunk = chunk[:0]
	}
	for ip, row := range s.AcceptedRows() {
		if chunk = append(chunk, item{ipKey(ip), row}); len(chunk) == cap(chunk) {
			look()
		}
	}
	look()
	t.mu.Lock()
	t.overruled = keys
	t.mu.Unlock()
	return learned, len(keys)
}

// Overruled returns how many live leases there are for whose addresses the ERP has another MAC by its operator's word, by the last Adopt and as
// far as that is so still, and the first of them, most at most, by address.
func (t *Table) Overruled(s *provision.Snapshot, now time.Time, most int) (n int, first []Record) {
	t.mu.RLock()
	keys := t.overruled // which Adopt replaces as a whole
	t.mu.RUnlock()
	for chunk := range slices.Chunk(keys, adoptChunk) {
		t.mu.RLock()
		for _, key := range chunk {
			e := t.at(key)
			if e == nil || !e.Live(now) {
				continue
			}
			if _, yes := e.Overruled(s); !yes {
				continue
			}
			if n++; n <= most {
				first = append(first, e.Record)
			}
		}
		t.mu.RUnlock()
	}
	return n, first
}

// Sending notes that our outbox is about to send mac to the ERP for an address: whether it arrives or not, it is nobody else's word.
func (t *Table) Sending(ip netip.Addr, mac provision.MAC) {
	t.changeERP(ip, func(r *Record) bool { return r.sending(mac) })
}

func (r *Record) sending(mac provision.MAC) bool {
	if mac == r.MAC || mac.IsZero() || r.ERP.sent(mac) {
		return false
	}
	copy(r.ERP.Sent[1:], r.ERP.Sent[:])
	r.ERP.Sent[0] = mac
	return true
}

// Taken notes that the ERP has taken mac from our outbox for an address, while it was read by a way.
func (t *Table) Taken(ip netip.Addr, mac provision.MAC, by provision.Source, at time.Time) {
	t.changeERP(ip, func(r *Record) bool {
		changed := r.sending(mac) // the client may have got the address while it was sent
		if e := r.ERP.of(by); e != nil {
			*e, changed = ERPMAC{mac, at.UnixNano()}, true
		}
		return changed
	})
}

// changeERP changes what a record, not of a pool, says of the ERP, whoever its client is.
func (t *Table) changeERP(ip netip.Addr, change func(*Record) bool) bool {
	t.mu.RLock()
	e := t.at(ipKey(ip))
	var mac provision.MAC
	if e != nil {
		mac = e.MAC
	}
	t.mu.RUnlock()
	return e != nil && t.update(ip, mac, func(e *entry) mark {
		if e.Pool == "" && change(&e.Record) {
			return urgently
		}
		return unchanged
	})
}

// The stored form of ERPMACs: of each that is known its letter, MAC and time (8 bytes), then of each that was sent its letter and MAC.
const (
	erpDirect   = 'd'
	erpComposed = 'c'
	erpSent     = 's'
)

func (e *ERPMACs) appendTo(b []byte) []byte {
	known := func(letter byte, m ERPMAC) {
		if m.Known() {
			b = append(append(b, letter), m.MAC[:]...)
			b = binary.BigEndian.AppendUint64(b, uint64(m.At))
		}
	}
	known(erpDirect, e.Direct)
	known(erpComposed, e.Composed)
	for _, m := range e.Sent {
		if !m.IsZero() {
			b = append(append(b, erpSent), m[:]...)
		}
	}
	return b
}

func (e *ERPMACs) unmarshal(b []byte) error {
	sent := 0
	for len(b) > 0 {
		letter := b[0]
		n := 1 + 6 + 8
		if letter == erpSent {
			n = 1 + 6
		}
		if len(b) < n {
			return errors.New("the ERP's MAC is cut off")
		}
		mac := provision.MAC(b[1:7])
		switch letter {
		case erpDirect:
			e.Direct = ERPMAC{mac, int64(binary.BigEndian.Uint64(b[7:]))}
		case erpComposed:
			e.Composed = ERPMAC{mac, int64(binary.BigEndian.Uint64(b[7:]))}
		case erpSent:
			if sent == maxSent {
				return errors.New("too many MACs that were sent to the ERP")
			}
			e.Sent[sent] = mac
			sent++
		default:
			return errors.New("the ERP's MAC by a way that is not known")
		}
		b = b[n:]
	}
	return nil
}
