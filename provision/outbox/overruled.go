package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A report may wait for long, and somebody may have written another MAC into the ERP meanwhile. That one is newer: a report never
// undoes it. So a report knows which MAC it is to replace, and the ERP is looked at before each call.

// reads reports whether the ERP is to be read before an entry is sent.
func (o *Outbox) reads(e *entry) bool { return e.report.Replaces.Known && o.opts.Row != nil }

// overruled drops a report if the ERP has its MAC by now, or a third one for the address: neither that of the report, nor the one that
// it is to replace, nor one of ours. It reports whether it did.
func (o *Outbox) overruled(ctx context.Context, e *entry) bool {
	r := &e.report
	if !r.Replaces.Known {
		return false
	}
	has, read, ok := o.has(ctx, e)
	if !e.gone.IsZero() && o.awaitsFetch(e) {
		return true
	}
	if read && has == r.MAC {
		o.hasAlready(e)
		return true
	}
	if !ok || has.IsZero() || has == r.MAC || has == r.Replaces.MAC || o.sentLast(*r, has) || o.opts.Ours != nil && o.opts.Ours(*r, has) || !o.current(e) {
		return false
	}
	o.dropped(Overrule{MACReport: *r, Has: has})
	o.log.Warn("mac report dropped: the ERP has got another MAC for the address since the client got it, and that is newer",
		"ip", r.IP, "mac", r.MAC, "subscriber", r.Subscriber, "replaces", r.Replaces.MAC, "erp_has", has)
	o.finish(e, ResultOverruled)
	return true
}

// dropped remembers a report that is dropped for the status.
func (o *Outbox) dropped(x Overrule) {
	x.DroppedAt = time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.overrules = append(o.overrules, x)
	if n := len(o.overrules) - maxRefusals; n > 0 {
		o.overrules = append(o.overrules[:0], o.overrules[n:]...)
	}
}

// passed drops a report if the address is another customer's by now, and reports whether it did.
func (o *Outbox) passed(e *entry) bool {
	if o.opts.Passed == nil {
		return false
	}
	owner, passed := o.opts.Passed(e.report)
	if !passed || !o.current(e) {
		return false
	}
	o.drops(e, owner)
	return true
}

// drops drops a report whose address is not its customer's any more, but of owner, if that is known.
func (o *Outbox) drops(e *entry, owner provision.SubscriberID) {
	r := &e.report
	o.dropped(Overrule{MACReport: *r, Passed: true, Owner: owner})
	o.log.Warn("mac report dropped: the address is another customer's by now, or nobody's",
		"ip", r.IP, "mac", r.MAC, "subscriber", r.Subscriber, "erp_owner", owner)
	o.finish(e, ResultOverruled)
}

// goneWait is how long a report waits for a fetch before the card is read again.
const goneWait = time.Minute

// awaitsFetch deals with a report whose customer's card has not got the address. Nobody knows who has it, so it waits for a whole fetch
// that began since. One that has the address for the customer all the same says that such cards tell nothing. After one that has not the
// report is dropped. It reports whether the report is not to be sent now.
func (o *Outbox) awaitsFetch(e *entry) bool {
	if o.opts.Fetched == nil || o.opts.Accepted == nil {
		return false
	}
	since := e.report
	since.At = e.gone
	if _, ok := o.opts.Accepted(since); ok { // passed looks whose it is
		return false
	}
	if !o.opts.Fetched().After(e.gone) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.entries[e.report.IP] == e {
			e.due, e.err = time.Now().Add(goneWait), provision.ErrNoRow.Error()
			o.queue.fix(e)
		}
		return true
	}
	if o.current(e) {
		o.drops(e, 0)
	}
	return true
}

// hasAlready drops a report whose MAC the ERP has: an earlier call was taken whose answer was lost, or this one need not be made.
func (o *Outbox) hasAlready(e *entry) {
	if e.sent {
		if o.opts.Told != nil {
			o.opts.Told(e.report, e.attempts, nil)
		}
		o.taken(e, o.changes(e.report))
		return
	}
	o.tell(e.report, false, time.Now())
	o.finish(e, ResultSettled)
}

// row reads the MAC that the ERP has for the address of a report.
func (o *Outbox) row(ctx context.Context, r provision.MACReport) (provision.MAC, error) {
	ctx, cancel := context.WithTimeout(ctx, o.opts.SendTimeout)
	defer cancel()
	return o.opts.Row(ctx, r)
}

// has returns the MAC that the ERP has for the address of an entry: by a look at it, of which read tells, else by the last whole
// fetch that began after the report was made; ok is false if neither tells.
func (o *Outbox) has(ctx context.Context, e *entry) (mac provision.MAC, read, ok bool) {
	if o.reads(e) {
		mac, err := o.row(ctx, e.report)
		if err == nil {
			o.noteGone(e, false)
			return mac, true, true
		}
		if errors.Is(err, provision.ErrNoRow) {
			o.noteGone(e, true)
		}
		o.log.Debug("the ERP's MAC cannot be read before a mac report, the last whole fetch counts", "ip", e.report.IP, "error", err)
	}
	if o.opts.Accepted == nil {
		return provision.MAC{}, false, false
	}
	mac, ok = o.opts.Accepted(e.report)
	return mac, false, ok
}

// noteGone notes whether the card of an entry's customer is without the address, and since when.
func (o *Outbox) noteGone(e *entry, gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !gone:
		e.gone = time.Time{}
	case e.gone.IsZero():
		e.gone = time.Now()
	}
}

// sentLast reports whether mac is what the ERP was told of the address of a report last.
func (o *Outbox) sentLast(r provision.MACReport, mac provision.MAC) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, known := o.told.last[r.IP]
	return known && t.mac == mac
}

// Accepted returns what says which MAC a whole fetch has that was accepted and began after a report was made, for Options.
func Accepted(snapshot func() *provision.Snapshot) func(provision.MACReport) (provision.MAC, bool) {
	return func(r provision.MACReport) (provision.MAC, bool) {
		row, ok := snapshot().AcceptedRow(r.IP)
		if !ok || !row.At.After(r.At) {
			return provision.MAC{}, false
		}
		return row.MAC, true
	}
}

// Passed returns what says whose the address of a report is by a snapshot, if that is another customer, for Options. The next customer of the
// port that the packet came from is no other: what sits there is theirs by now.
func Passed(snapshot func() *provision.Snapshot) func(provision.MACReport) (provision.SubscriberID, bool) {
	return func(r provision.MACReport) (provision.SubscriberID, bool) {
		l := snapshot().ByIP(r.IP)
		if l == nil || r.Subscriber == 0 || l.Subscriber == r.Subscriber ||
			r.Packet.Port != 0 && r.Packet.Device == l.Device && r.Packet.Port == l.Port {
			return 0, false
		}
		return l.Subscriber, true
	}
}

// Ours returns what says that the ERP may have a MAC by what is known of the lease of the client of a report, for Options.
func Ours(leases Leases) func(provision.MACReport, provision.MAC) bool {
	return func(r provision.MACReport, mac provision.MAC) bool {
		rec, ok := leases.Get(r.IP)
		return ok && rec.MAC == r.MAC && rec.Ours(mac)
	}
}

// Note makes leases know what is sent to the ERP and what it takes, read by the way that snapshot has, for Options.
func Note(leases *lease.Table, snapshot func() *provision.Snapshot) (sending func(provision.MACReport), taken func(provision.MACReport, time.Time)) {
	return func(r provision.MACReport) { leases.Sending(r.IP, r.MAC) },
		func(r provision.MACReport, at time.Time) { leases.Taken(r.IP, r.MAC, snapshot().Origin(), at) }
}
