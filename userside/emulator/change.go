package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// errNothing ends a change that would change nothing; the caller hears success.
var errNothing = errors.New("nothing to change")

// edit is one object after a change, or a customer who is no more; exactly one
// of customer, deleted, device and vlan is set.
type edit struct {
	customer *Customer
	deleted  *Customer
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
		if c := cmp.Or(ed.customer, ed.deleted); c != nil {
			ev.Customer, ev.State = c.ID, c.State
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
	case ed.deleted != nil:
		if i, found := slices.BinarySearchFunc(e.customers, ed.deleted.ID, customerOrder); found {
			e.unindexLocked(e.customers[i])
			e.customers = slices.Concat(e.customers[:i], e.customers[i+1:])
		}
		delete(e.history, ed.deleted.ID)
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
	e.unindexLocked(e.customers[i])
	e.customers[i] = c
	e.indexLocked(c)
}

// unindexLocked takes the addresses of c from byIP.
func (e *Emulator) unindexLocked(c *Customer) {
	for _, a := range c.Addresses {
		if a.IP.IsValid() {
			left := slices.DeleteFunc(e.byIP[a.IP], func(id int64) bool { return id == c.ID })
			if len(left) == 0 {
				delete(e.byIP, a.IP)
			} else {
				e.byIP[a.IP] = left
			}
		}
	}
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
