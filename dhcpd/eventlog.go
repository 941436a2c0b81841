package dhcpd

import (
	"bytes"
	"net/netip"
	"sync"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// DefaultEvents is how many events an EventLog keeps unless told otherwise.
const DefaultEvents = 8192

// EventLog is an Observer that keeps the newest events in a ring of fixed
// size, for usher explain and the console. It may be used from several goroutines.
type EventLog struct {
	mu   sync.Mutex // guards the fields below
	ring []Event
	n    uint64 // events ever seen; the newest is at (n-1) % len(ring)
}

// NewEventLog makes a log of the newest size events; size <= 0 means DefaultEvents.
func NewEventLog(size int) *EventLog {
	if size <= 0 {
		size = DefaultEvents
	}
	return &EventLog{ring: make([]Event, size)}
}

// Packet implements Observer. A flood that is shed does not push out the rest:
// repeats are left out.
func (l *EventLog) Packet(e *Event) {
	if e.Repeat {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	slot := &l.ring[l.n%uint64(len(l.ring))]
	slot.copyFrom(e)
	l.n++
	slot.Seq = l.n
}

// Commit implements Observer; commits are not kept.
func (l *EventLog) Commit(int, time.Duration, error) {}

// Seen returns the number of events ever seen, kept or not.
func (l *EventLog) Seen() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// EventFilter chooses events; zero fields do not restrict.
type EventFilter struct {
	MAC        provision.MAC
	IP         netip.Addr // ciaddr, requested, or given address
	Subscriber provision.SubscriberID
	Device     provision.DeviceID
	Port       uint32 // looked at only with Device
	GIAddr     netip.Addr
	Option82   []byte // exact payload
	XID        uint32
	Type       wire.MessageType
	Outcome    outcome.Outcome
	Lost       bool // Option82 led to no port
	Stray      bool // the address was given by MAC on a line that does not say so
	Since      time.Time
	Limit      int // at most so many; 0: all
}

func (f *EventFilter) match(e *Event) bool {
	switch {
	case !f.MAC.IsZero() && e.MAC != f.MAC,
		f.IP.IsValid() && e.ClientIP != f.IP && e.RequestedIP != f.IP && e.YourIP != f.IP,
		f.Subscriber != 0 && e.Subscriber != f.Subscriber,
		f.Device != 0 && (e.Device != f.Device || f.Port != 0 && e.Port != f.Port),
		f.GIAddr.IsValid() && e.GIAddr != f.GIAddr,
		len(f.Option82) > 0 && !bytes.Equal(e.Option82, f.Option82),
		f.XID != 0 && e.XID != f.XID,
		f.Type != 0 && e.Type != f.Type,
		f.Outcome != 0 && e.Outcome != f.Outcome,
		f.Lost && e.Lost == 0,
		f.Stray && e.Stray == v4.StrayNone,
		!f.Since.IsZero() && e.Time.Before(f.Since):
		return false
	}
	return true
}

// Find returns copies of the kept events that match f, newest first.
func (l *EventLog) Find(f EventFilter) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Event
	for i := uint64(1); i <= l.n && i <= uint64(len(l.ring)); i++ {
		e := &l.ring[(l.n-i)%uint64(len(l.ring))]
		if !f.match(e) {
			continue
		}
		c := *e
		c.Option82, c.ClientID = bytes.Clone(e.Option82), bytes.Clone(e.ClientID)
		found = append(found, c)
		if f.Limit > 0 && len(found) == f.Limit {
			break
		}
	}
	return found
}
