package emulator

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// ChangeKind says what a Change is about.
type ChangeKind string

// The kinds of Change.
const (
	ChangeState        ChangeKind = "state" // the state, or a flag that decides as well: disabled, potential, former
	ChangeMAC          ChangeKind = "mac"
	ChangeIPAdd        ChangeKind = "ip_add"
	ChangeIPDelete     ChangeKind = "ip_delete"
	ChangeSubnetAdd    ChangeKind = "subnet_add"
	ChangeSubnetDelete ChangeKind = "subnet_delete"
	ChangeLink         ChangeKind = "link"
	ChangeNew          ChangeKind = "new"
	ChangeEdit         ChangeKind = "edit" // what is written about a customer, the billing and the date of connection
	ChangeDelete       ChangeKind = "delete"
	ChangeMerge        ChangeKind = "merge" // of the customer that received the data
	ChangeBalance      ChangeKind = "balance"
	ChangeTariff       ChangeKind = "tariff"
	ChangeService      ChangeKind = "service"
	ChangeMark         ChangeKind = "mark"
	ChangeMessage      ChangeKind = "message"
	ChangePassword     ChangeKind = "password"
	ChangeNewDevice    ChangeKind = "new_device"
)

// Change is one event of the feed that stands for the ERP's internal hooks
// (API page, section 6).
type Change struct {
	At       time.Time
	Kind     ChangeKind
	Customer int64      // 0 for ChangeNewDevice
	State    State      // after the change
	IP       netip.Addr // ChangeMAC, ChangeIPAdd, ChangeIPDelete; the first of ChangeSubnetAdd and ChangeSubnetDelete
	MAC      MAC        // ChangeMAC, ChangeIPAdd
	Device   int64      // ChangeLink, ChangeNewDevice
	Port     uint32     // ChangeLink
}

// feedBuffer is how many changes wait for a reader of the feed.
const feedBuffer = 256

// feed hands changes to those who listen.
type feed struct {
	mu     sync.Mutex
	subs   map[*subscription]struct{} // guarded by mu
	closed bool                       // guarded by mu
}

type subscription struct {
	ch   chan Change
	stop func() bool // ends the watch over the subscriber's context
}

func (f *feed) subscribe(ctx context.Context) <-chan Change {
	s := &subscription{ch: make(chan Change, feedBuffer)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(s.ch)
		return s.ch
	}
	if f.subs == nil {
		f.subs = map[*subscription]struct{}{}
	}
	f.subs[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.endLocked(s)
	})
	return s.ch
}

func (f *feed) endLocked(s *subscription) {
	if _, ok := f.subs[s]; ok {
		delete(f.subs, s)
		close(s.ch)
	}
}

// publish never waits: a channel that is full loses the change. The lock is
// held while sending, so that no channel is closed meanwhile.
func (f *feed) publish(c Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		select {
		case s.ch <- c:
		default:
		}
	}
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for s := range f.subs {
		s.stop()
		f.endLocked(s)
	}
}
