package outbox

import (
	"context"
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
	if read && has == r.MAC {
		o.hasAlready(e)
		return true
	}
	if !ok || has.IsZero() || has == r.MAC || has == r.Replaces.MAC || o.sentLast(*r, has) || o.opts.Ours != nil && o.opts.Ours(*r, has) || !o.current(e) {
		return false
	}
	o.mu.Lock()
	o.overrules = append(o.overrules, Overrule{*r, time.Now(), has})
	if n := len(o.overrules) - maxRefusals; n > 0 {
		o.overrules = append(o.overrules[:0], o.overrules[n:]...)
	}
	o.mu.Unlock()
	o.log.Warn("mac report dropped: the ERP has got another MAC for the address since the client got it, and that is newer",
		"ip", r.IP, "mac", r.MAC, "subscriber", r.Subscriber, "replaces", r.Replaces.MAC, "erp_has", has)
	o.finish(e, ResultOverruled)
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
			return mac, true, true
		}
		o.log.Debug("the ERP's MAC cannot be read before a mac report, the last whole fetch counts", "ip", e.report.IP, "error", err)
	}
	if o.opts.Accepted == nil {
		return provision.MAC{}, false, false
	}
	mac, ok = o.opts.Accepted(e.report)
	return mac, false, ok
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
