package emulator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// errNothing ends a change that would change nothing; the caller hears success.
var errNothing = errors.New("nothing to change")

// edit is one object after a change; exactly one of customer, device and vlan
// is set.
type edit struct {
	customer *Customer
	device   *Device
	vlan     *VLAN
	history  []MACRecord
	change   Change
}

// change plans edits, stores them in one transaction, installs them and, unless
// quiet, tells the feed. Changes are made one after the other; plan sees the
// model as all earlier ones left it. After an error nothing has changed.
func (e *Emulator) change(quiet bool, plan func(now time.Time) ([]edit, error)) error {
	e.write.Lock()
	defer e.write.Unlock()
	if e.closed {
		return ErrClosed
	}
	now := e.now()
	edits, err := plan(now)
	if err != nil || len(edits) == 0 {
		return err
	}
	if err := e.store.put(edits); err != nil {
		return err
	}
	e.mu.Lock()
	for _, ed := range edits {
		e.installLocked(ed)
	}
	e.mu.Unlock()
	if quiet {
		return nil
	}
	for _, ed := range edits {
		ev := ed.change
		ev.At = now
		if ed.customer != nil {
			ev.Customer, ev.State = ed.customer.ID, ed.customer.State
		}
		e.feed.publish(ev)
	}
	return nil
}

// changeCustomer changes one customer: fn gets a copy to modify.
func (e *Emulator) changeCustomer(id int64, quiet bool, fn func(c *Customer, now time.Time) (Change, []MACRecord, error)) error {
	err := e.change(quiet, func(now time.Time) ([]edit, error) {
		c := e.customer(id)
		if c == nil {
			return nil, fmt.Errorf("customer %d: %w", id, ErrNotFound)
		}
		c = c.clone()
		ev, seen, err := fn(c, now)
		if err != nil {
			return nil, err
		}
		return []edit{{customer: c, history: seen, change: ev}}, nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// installLocked puts the result of a change into the model; mu is held for writing.
func (e *Emulator) installLocked(ed edit) {
	switch {
	case ed.device != nil:
		i, found := slices.BinarySearchFunc(e.devices, ed.device.ID, deviceOrder)
		if found {
			e.devices[i] = ed.device
		} else {
			e.devices = slices.Insert(e.devices, i, ed.device)
		}
	case ed.vlan != nil:
		e.vlans = append(e.vlans, *ed.vlan)
	default:
		e.installCustomerLocked(ed.customer)
		if len(ed.history) > 0 {
			e.history[ed.customer.ID] = trimHistory(append(e.history[ed.customer.ID], ed.history...))
		}
	}
}

func (e *Emulator) installCustomerLocked(c *Customer) {
	i, found := slices.BinarySearchFunc(e.customers, c.ID, customerOrder)
	if !found {
		e.customers = slices.Insert(e.customers, i, c)
		e.indexLocked(c)
		return
	}
	for _, a := range e.customers[i].Addresses {
		if a.IP.IsValid() {
			left := slices.DeleteFunc(e.byIP[a.IP], func(id int64) bool { return id == c.ID })
			if len(left) == 0 {
				delete(e.byIP, a.IP)
			} else {
				e.byIP[a.IP] = left
			}
		}
	}
	e.customers[i] = c
	e.indexLocked(c)
}

// indexLocked adds the addresses of c to byIP.
func (e *Emulator) indexLocked(c *Customer) {
	for _, a := range c.Addresses {
		if a.IP.IsValid() && !slices.Contains(e.byIP[a.IP], c.ID) {
			e.byIP[a.IP] = append(e.byIP[a.IP], c.ID)
		}
	}
}

func trimHistory(h []MACRecord) []MACRecord {
	if len(h) > maxHistory {
		return slices.Clone(h[len(h)-maxHistory:])
	}
	return h
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
