package lease

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/huge"
)

// This file keeps the records in pages of a /24, so that whoever looks at many of them locks the table for one page at a
// time, and the indexes beside them.

// set says which of the 256 addresses of a page are meant.
type set [4]uint64

func (s *set) has(i byte) bool { return s[i>>6]&(1<<(i&63)) != 0 }
func (s *set) add(i byte)      { s[i>>6] |= 1 << (i & 63) }
func (s *set) remove(i byte)   { s[i>>6] &^= 1 << (i & 63) }
func (s *set) empty() bool     { return s[0]|s[1]|s[2]|s[3] == 0 }

// below counts those before i.
func (s *set) below(i byte) int {
	w := int(i >> 6)
	n := bits.OnesCount64(s[w] & (1<<(i&63) - 1))
	for k := range w {
		n += bits.OnesCount64(s[k])
	}
	return n
}

// page is what there is of the addresses of a /24.
type page struct {
	no      uint32 // the upper 24 bits of its addresses
	has     set
	records []*entry // of has, by address
	due     [kinds]set
	queued  [kinds]bool // in the queue of what is due
	since   uint32      // Table.ticks when it was queued as lazy
	behind  [kinds]*page
}

// entry is a record with what the table knows of it.
type entry struct {
	Record
	links   [indexes]link
	version uint64 // Table.changes when it was changed last
	saved   uint64 // the version that is on disk; 0: none
	ends    int64  // when that one ends, seconds since 1970
}

func (p *page) at(i byte) *entry {
	if !p.has.has(i) {
		return nil
	}
	return p.records[p.has.below(i)]
}

// from returns the records from the address with the last byte i on.
func (p *page) from(i byte) []*entry { return p.records[p.has.below(i):] }

// slots are 256 of a kind, of which n are in use.
type slots[T any] struct {
	n   int
	sub [256]*T
}

// pages finds pages by their number, a byte of it at a time: that is quick, keeps them sorted, and a /24 more or less moves no other.
type pages struct {
	slots[slots[slots[page]]]
}

func (ps *pages) get(no uint32) *page {
	a := ps.sub[byte(no>>16)]
	if a == nil {
		return nil
	}
	b := a.sub[byte(no>>8)]
	if b == nil {
		return nil
	}
	return b.sub[byte(no)]
}

// make gets the page with a number, a new one if there is none.
func (ps *pages) make(no uint32) *page {
	p := ps.slots.make(byte(no >> 16)).make(byte(no >> 8)).make(byte(no))
	p.no = no
	return p
}

// make gets what is in slot i, something new if it is empty.
func (s *slots[T]) make(i byte) *T {
	if s.sub[i] == nil {
		s.sub[i] = new(T)
		s.n++
	}
	return s.sub[i]
}

// next returns the first page whose number is not below from; nil: there is none.
func (ps *pages) next(from uint32) *page {
	for no := from; no < pageCount; {
		a := ps.sub[no>>16]
		if a == nil {
			no = (no>>16 + 1) << 16
			continue
		}
		b := a.sub[byte(no>>8)]
		if b == nil {
			no = (no>>8 + 1) << 8
			continue
		}
		if p := b.sub[byte(no)]; p != nil {
			return p
		}
		no++
	}
	return nil
}

const pageCount = 1 << 24

// tidy lets a page go that has nothing and waits for nothing.
func (ps *pages) tidy(p *page) {
	if !p.has.empty() || !p.due[urgent].empty() || !p.due[lazy].empty() || p.queued[urgent] || p.queued[lazy] {
		return
	}
	a := ps.sub[p.no>>16]
	b := a.sub[byte(p.no>>8)]
	b.sub[byte(p.no)] = nil
	if b.n--; b.n > 0 {
		return
	}
	a.sub[byte(p.no>>8)] = nil
	if a.n--; a.n == 0 {
		ps.sub[p.no>>16] = nil
		ps.n--
	}
}

func (t *Table) at(key uint32) *entry {
	if p := t.pages.get(key >> 8); p != nil {
		return p.at(byte(key))
	}
	return nil
}

// insertLocked puts e where the record of an address belongs that has none.
func (t *Table) insertLocked(key uint32, e *entry) {
	p, i := t.pages.make(key>>8), byte(key)
	p.records = slices.Insert(p.records, p.has.below(i), e)
	p.has.add(i)
	t.n++
}

// makeAhead makes entries beforehand until stop is called, and then ends the channel: that the kernel zeroes their memory is a third of what they cost, and
// may go on beside the rest.
func makeAhead() (entries <-chan []entry, stop func()) {
	made, done := make(chan []entry), make(chan struct{})
	go func() {
		defer close(made)
		for {
			s := huge.MakeReady[entry](mostAtOnce)
			select {
			case made <- s:
			case <-done:
				return
			}
		}
	}()
	return made, sync.OnceFunc(func() { close(done) })
}

func (t *Table) removeLocked(p *page, i byte) {
	at := p.has.below(i)
	p.records = slices.Delete(p.records, at, at+1)
	p.has.remove(i)
	t.n--
	t.pages.tidy(p)
}

// walk calls each with one page after the other that has addresses from first to last, and locks the table for one at a time.
// A page that comes or goes meanwhile may be seen or not. It stops when each returns false.
func (t *Table) walk(first, last uint32, lock, unlock func(), each func(*page) bool) {
	for no, end := first>>8, last>>8; no <= end; {
		lock()
		p := t.pages.next(no)
		if p == nil || p.no > end {
			unlock()
			return
		}
		no = p.no + 1
		more := each(p)
		unlock()
		if !more {
			return
		}
	}
}

// read is a walk that changes nothing.
func (t *Table) read(first, last uint32, each func(*page)) {
	t.walk(first, last, t.mu.RLock, t.mu.RUnlock, func(p *page) bool { each(p); return true })
}

// The indexes of records beside their address.
const (
	ofMAC = iota
	ofID
	ofSubscriber
	indexes
)

// link is a record's place among those with the same value: the addresses before and after it, 0: none.
type link struct{ prev, next uint32 }

// hashes are those by which a record is found.
type hashes struct{ mac, id uint32 }

func (t *Table) hashesOf(r *Record) (h hashes) {
	h.mac = t.hash(r.MAC[:])
	if len(r.ClientID) > 0 {
		h.id = t.hash(r.ClientID)
	}
	return h
}

// indexLocked notes by what a record is found.
func (t *Table) indexLocked(key uint32, e *entry, h hashes) {
	t.byMAC.add(t, ofMAC, h.mac, key, e)
	if len(e.ClientID) > 0 {
		t.byID.add(t, ofID, h.id, key, e)
	}
	if e.Subscriber != 0 {
		t.bySubscriber.add(t, ofSubscriber, t.hashSubscriber(e.Subscriber), key, e)
	}
}

// unindexLocked forgets it.
func (t *Table) unindexLocked(e *entry) {
	t.byMAC.remove(t, ofMAC, t.hash(e.MAC[:]), e)
	if len(e.ClientID) > 0 {
		t.byID.remove(t, ofID, t.hash(e.ClientID), e)
	}
	if e.Subscriber != 0 {
		t.bySubscriber.remove(t, ofSubscriber, t.hashSubscriber(e.Subscriber), e)
	}
}

// hash is that of an index. Its seed keeps clients, who say what they like, from making many values look the same.
func (t *Table) hash(value []byte) uint32 { return uint32(maphash.Bytes(t.seed, value)) }

func (t *Table) hashSubscriber(id provision.SubscriberID) uint32 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(id))
	return t.hash(b[:])
}

// chainLocked returns the records that hang on first and match, sorted by address.
func (t *Table) chainLocked(which int, first uint32, match func(*Record) bool) []Record {
	var found []Record
	for key := first; key != 0; {
		e := t.at(key)
		if match(&e.Record) {
			found = append(found, e.Record)
		}
		key = e.links[which].next
	}
	slices.SortFunc(found, func(a, b Record) int { return a.IP.Compare(b.IP) })
	return found
}

// BySubscriber returns the records of a subscriber, sorted by address. Of guests, who are subscriber 0, it looks at all records.
func (t *Table) BySubscriber(id provision.SubscriberID) (found []Record) {
	if id != 0 {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return t.chainLocked(ofSubscriber, t.bySubscriber.first(t.hashSubscriber(id)), func(r *Record) bool { return r.Subscriber == id })
	}
	for r := range t.All() {
		if r.Subscriber == 0 {
			found = append(found, r)
		}
	}
	return found
}
