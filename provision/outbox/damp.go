package outbox

import (
	"maps"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
)

// DampTime is how long after a change of an address's MAC the ERP is told of no other one:
// where two devices fight over an address it hears of one change an hour. What waits is still
// one report per address, the newest. The first MAC of an address is no change, neither is a
// report that the ERP did not take. It is kept in memory: a restart may cost one more call
// per address.
const DampTime = time.Hour

// telling is what the ERP was told of an address last.
type telling struct {
	mac     provision.MAC
	at      time.Time
	changed time.Time // when it was last told of a change; zero: of a first MAC only
	doubted bool      // another MAC was sent since, and nobody knows whether the ERP took it
}

// tellings are those of the last DampTime, and of up to as long before.
type tellings struct {
	last  map[netip.Addr]telling
	swept time.Time
}

// changes reports whether r changes what the ERP has: by the snapshot, or by what was sent
// since it was fetched.
func (o *Outbox) changes(r provision.MACReport) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changesLocked(r)
}

func (o *Outbox) changesLocked(r provision.MACReport) bool {
	if o.opts.Changes == nil {
		return false
	}
	t, known := o.told.last[r.IP]
	return known && t.mac != r.MAC || o.opts.Changes(r)
}

// HasTold reports whether a MAC is the last that the ERP took from here for an address, within DampTime.
func (o *Outbox) HasTold(ip netip.Addr, mac provision.MAC) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, known := o.told.last[ip]
	return known && t.mac == mac
}

// toldSince reports whether the ERP has taken this very MAC since the snapshot in use was fetched. Each packet of a client may
// lead to a report until a snapshot shows the MAC; what the ERP was told counts until then.
func (o *Outbox) toldSince(r provision.MACReport) bool {
	if o.opts.Fetched == nil {
		return false
	}
	fetched := o.opts.Fetched()
	o.mu.Lock()
	defer o.mu.Unlock()
	t, known := o.told.last[r.IP]
	return known && t.mac == r.MAC && !t.doubted && t.at.After(fetched)
}

// doubt notes that an entry was sent, and nobody knows whether the ERP took it: what it took before may be gone.
func (o *Outbox) doubt(e *entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.sent = true
	if t, known := o.told.last[e.report.IP]; known && t.mac != e.report.MAC {
		t.doubted = true
		o.told.last[e.report.IP] = t
	}
}

// putOff lets an entry that is due wait if the ERP was told of another change of its address
// lately, and reports whether it has to. It is counted when it begins to wait.
func (o *Outbox) putOff(e *entry) bool {
	o.mu.Lock()
	now, t := time.Now(), o.told.last[e.report.IP]
	if t.changed.IsZero() || now.Sub(t.changed) >= DampTime || !o.changesLocked(e.report) {
		o.mu.Unlock()
		return false
	}
	if o.entries[e.report.IP] != e { // replaced meanwhile
		o.mu.Unlock()
		return true
	}
	begins := !e.damped
	e.due, e.damped = t.changed.Add(DampTime), true
	o.queue.fix(e)
	if begins {
		o.totals.Damped++
	}
	o.mu.Unlock()
	if begins {
		o.obs.Delivered(ResultDamped)
		o.log.Info("mac report put off, the ERP was told of another change of the address lately",
			"ip", e.report.IP, "mac", e.report.MAC, "told", t.mac, "until", t.changed.Add(DampTime))
	}
	return true
}

// tell notes that the ERP has taken r.
func (o *Outbox) tell(r provision.MACReport, changes bool, now time.Time) {
	if o.opts.Changes == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.told.swept) >= DampTime {
		maps.DeleteFunc(o.told.last, func(_ netip.Addr, t telling) bool { return now.Sub(t.at) >= DampTime })
		o.told.swept = now
	}
	if o.told.last == nil {
		o.told.last = map[netip.Addr]telling{}
	}
	t := o.told.last[r.IP]
	t.mac, t.at, t.doubted = r.MAC, now, false
	if changes {
		t.changed = now
	}
	o.told.last[r.IP] = t
}
