package provision

import (
	"iter"
	"net/netip"
	"slices"
	"time"
)

// This file tells what the ERP itself said last of an address, as far as that is to count against a lease: only the rows
// of a whole fetch that was accepted. The rows in use may be others: stored ones, those of an earlier fetch, or those that
// a state, read for a hint, made of two that claim one address.

// word is which whole fetch the rows of a Snapshot are of.
type word struct {
	origin  Source    // where the rows came from, also of a stored snapshot; empty: not known
	rows    *tables   // of that fetch, before any state was changed; nil: the rows are of no accepted fetch
	at      time.Time // when it began or, of a held one that somebody accepted, when that was
	earlier []SubscriberID

	devicesUnread bool // see DevicesUnread
}

func newWord(t *tables, in *Input) word {
	if !in.Source.fetched() {
		return word{devicesUnread: in.DevicesUnread}
	}
	w := word{origin: in.Source, rows: t, at: in.FetchedAt, earlier: slices.Clone(in.Earlier), devicesUnread: in.DevicesUnread}
	slices.Sort(w.earlier)
	return w
}

// fetched reports whether rows of this source are the ERP's own words.
func (s Source) fetched() bool { return s == SourceDirect || s == SourceComposed }

// Row is what an accepted whole fetch has for an address.
type Row struct {
	*Line
	Source Source    // by which the ERP was read: another one may spell the same otherwise
	At     time.Time // what is newer than this the fetch does not know: when it began, or a held one was accepted
}

// Origin says which way of reading the ERP the rows came from; unlike Source also of a stored Snapshot. Empty: not known.
func (s *Snapshot) Origin() Source {
	if s == nil {
		return ""
	}
	return s.word.origin
}

// DevicesUnread reports whether the ERP's list of switches was never read as a whole, also of a stored Snapshot: that a switch
// or the name of a port is not in it says nothing then.
func (s *Snapshot) DevicesUnread() bool { return s != nil && s.word.devicesUnread }

// AcceptedAt says as of when the rows are the ERP's word: see Row. Zero for a stored Snapshot and a nil one.
func (s *Snapshot) AcceptedAt() time.Time {
	if s == nil || s.word.rows == nil {
		return time.Time{}
	}
	return s.word.at
}

// Accept returns a copy of a Snapshot that the guard held and somebody accepted at a time: its rows are the ERP's word as of
// then, whenever they were fetched.
func (s *Snapshot) Accept(at time.Time) *Snapshot {
	next := &Snapshot{t: s.t, subs: s.subs, source: s.source, fetchedAt: s.fetchedAt, counts: s.counts, word: s.word, nets: s.nets}
	next.fpOnce.Do(func() { next.fingerprint = s.Fingerprint() })
	next.word.at = at
	return next
}

// AcceptedRow returns what the ERP said of an address in the last whole fetch that was accepted; false if that has none, if
// it is that of an earlier fetch, or if another MAC is in use for the address.
func (s *Snapshot) AcceptedRow(ip netip.Addr) (Row, bool) {
	if s == nil || s.word.rows == nil {
		return Row{}, false
	}
	l := s.ByIP(ip)
	if l == nil {
		return Row{}, false
	}
	return s.accepted(ip, l)
}

func (s *Snapshot) accepted(ip netip.Addr, l *Line) (Row, bool) {
	w := &s.word
	if w.rows != s.t {
		i, ok := slices.BinarySearch(w.rows.byIP.keys, ipKey(ip.Unmap()))
		if !ok || w.rows.lines[w.rows.byIP.refs[i]].MAC != l.MAC {
			return Row{}, false
		}
	}
	if len(w.earlier) > 0 {
		if _, earlier := slices.BinarySearch(w.earlier, l.Subscriber); earlier {
			return Row{}, false
		}
	}
	return Row{l, w.origin, w.at}, true
}

// AcceptedRows returns AcceptedRow of every address that has one, ascending.
func (s *Snapshot) AcceptedRows() iter.Seq2[netip.Addr, Row] {
	return func(yield func(netip.Addr, Row) bool) {
		if s == nil || s.word.rows == nil {
			return
		}
		for ip, l := range s.Hosts4() {
			if r, ok := s.accepted(ip, l); ok && !yield(ip, r) {
				return
			}
		}
	}
}
