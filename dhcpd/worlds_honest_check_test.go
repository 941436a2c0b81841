package dhcpd

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// rights is what a resident may expect where it is. It is found out here from the ERP's data alone, without the code that decides.
type rights struct {
	addrs  []netip.Addr           // that the ERP has for it: one of them
	vacant provision.SubscriberID // or one of a pool, as this subscriber; zero: none
	guest  bool                   // or one of a pool for guests
	placed bool                   // it is found by its line: whatever else its packets say
	macs   []provision.MAC        // that the ERP has for these: at a port of several who comes first hangs on it
}

func (r rights) any() bool { return len(r.addrs) > 0 || r.vacant != 0 || r.guest }

func (r rights) equal(o rights) bool {
	return slices.Equal(r.addrs, o.addrs) && r.vacant == o.vacant && r.guest == o.guest && r.placed == o.placed && slices.Equal(r.macs, o.macs)
}

// portOf returns the port that a place is at by its option 82, if that is believed.
func (v *village) portOf(p *place) (provision.DeviceID, uint32) {
	if len(p.opt82) != 18 || !v.vouched(p) {
		return 0, 0
	}
	for _, d := range v.in.Devices {
		if bytes.Equal(d.MAC[:], p.opt82[12:]) {
			return d.ID, uint32(p.opt82[7])
		}
	}
	return 0, 0
}

func vlanOf(p *place) uint16 {
	if p.index >= ifVLAN {
		return uint16(100 + p.index - ifVLAN)
	}
	return 0
}

// served reports whether an address is of a subnet of the configuration.
func (v *village) served(a netip.Addr) bool {
	return slices.ContainsFunc(v.opts.Subnets, func(n v4.Subnet) bool { return n.Prefix.Contains(a) })
}

// sameSpot reports whether two clients are on one line.
func sameSpot(a, b *resident) bool { return sameLine(&a.at, &b.at) }

// sameLine reports whether two places are one line.
func sameLine(a, b *place) bool {
	return a.index == b.index && a.gi == b.gi && bytes.Equal(a.opt82, b.opt82) && (len(a.opt82) > 0 || a.index >= ifVLAN)
}

// rightsOf says what the ERP has for a client where it is.
func (v *village) rightsOf(c *resident) (r rights) {
	device, number := v.portOf(&c.at)
	vlan := vlanOf(&c.at)
	together := 0 // clients at its port
	for _, o := range v.folk {
		if sameSpot(c, o) {
			together++
		}
	}
	known := false // the ERP has something to do with it
	o := &v.opts
	match := o.Match
	by := func(k v4.MatchKind) bool {
		return slices.ContainsFunc(match, func(m v4.MatchKind) bool { return m&k != 0 })
	}
	mine := func(l *provision.Line) bool { // by its MAC or identifier alone
		id, hasID := wire.ClientIDMAC(c.id)
		return by(v4.MatchMAC) && l.MAC == c.mac || by(v4.MatchClientID) && hasID && id == l.MAC
	}
	herePort := func(l *provision.Line) bool { return number != 0 && l.Device == device && l.Port == number }
	hereVLAN := func(l *provision.Line) bool { return vlan != 0 && l.VLAN == vlan }
	portKnown, vlanKnown := false, false
	for i := range v.in.Lines {
		l := &v.in.Lines[i]
		if len(l.Addresses) == 0 && !v.in.KeepVacant {
			continue
		}
		portKnown, vlanKnown = portKnown || herePort(l), vlanKnown || hereVLAN(l)
		known = known || herePort(l) || hereVLAN(l) || l.MAC == c.mac
	}
	away := func(l *provision.Line) bool {
		return by(v4.MatchOption82) && l.Port != 0 && !herePort(l) && portKnown || by(v4.MatchVLAN) && l.VLAN != 0 && !hereVLAN(l) && vlanKnown ||
			by(v4.MatchOption82) && portKnown && !herePort(l) && (l.VLAN != 0 && by(v4.MatchVLAN))
	}
	for _, kind := range match {
		var addrs []netip.Addr
		var vacant []*provision.Line
		placed := kind&(v4.MatchOption82|v4.MatchVLAN) != 0
		for i := range v.in.Lines {
			l := &v.in.Lines[i]
			id, hasID := wire.ClientIDMAC(c.id)
			switch {
			case kind&v4.MatchOption82 != 0 && !herePort(l),
				kind&v4.MatchVLAN != 0 && !hereVLAN(l),
				kind&v4.MatchMAC != 0 && l.MAC != c.mac,
				kind&v4.MatchClientID != 0 && !(hasID && id == l.MAC) && !v.listed(c, l),
				!placed && away(l):
				continue
			}
			if kind&v4.MatchClientID != 0 && v.listed(c, l) {
				addrs = append(addrs, shared(14))
				continue
			}
			for _, a := range l.Addresses {
				addrs = append(addrs, a.Prefix.Addr())
			}
			if len(l.Addresses) == 0 && v.in.KeepVacant {
				vacant = append(vacant, l)
			}
		}
		if len(addrs)+len(vacant) == 0 {
			continue
		}
		exact := slices.ContainsFunc(vacant, mine)
		r.placed = placed
		if placed && len(addrs) > 0 && len(vacant) > 0 || exact && len(addrs) > 0 || len(vacant) > 1 {
			return r // two contracts on one line: the tests of the decision have what becomes of it
		}
		if len(vacant) == 1 {
			if o.MACChange == v4.MACAccept || vacant[0].MAC.IsZero() || vacant[0].MAC == c.mac {
				r.vacant = vacant[0].Subscriber
			}
			if placed && together > 1 || !v.hasPool(v4.PoolSubscribers) {
				r.vacant = 0
			}
			return r
		}
		if placed && len(addrs) < together {
			return r // more clients than addresses: they take turns
		}
		for _, a := range addrs {
			l := v.rowOf(a)
			if v.served(a) && (o.MACChange == v4.MACAccept || l.MAC.IsZero() || l.MAC == c.mac) {
				r.addrs = append(r.addrs, a)
				if together > 1 {
					r.macs = append(r.macs, l.MAC)
				}
			}
		}
		if len(r.addrs) < len(addrs) && together > 1 {
			r.addrs = nil
		}
		slices.SortFunc(r.addrs, netip.Addr.Compare)
		return r
	}
	r.guest = !known && o.Unknown == v4.UnknownGuest && v.hasPool(v4.PoolGuests)
	return r
}

// listed reports whether dhcp.client_ids names a client for an address of a row.
func (v *village) listed(c *resident, l *provision.Line) bool {
	return string(c.id) == "\x00cpe" && slices.Contains(l.Addresses, provision.Hosts4(shared(14))[0])
}

func (v *village) hasPool(k v4.PoolKind) bool {
	return slices.ContainsFunc(v.opts.Pools, func(p v4.Pool) bool { return p.Kind == k })
}

// changed makes the ERP's data known, and what follows from them.
func (v *village) changed() {
	v.publish()
	v.reckon(nil)
}

// reckon finds out what everybody may expect now, and how long others still have that. moved is who is elsewhere, or has another
// router, since a moment ago.
func (v *village) reckon(moved *resident) {
	for _, c := range v.folk {
		r := v.rightsOf(c)
		if r.equal(c.due) && (moved == nil || c != moved && !sameSpot(c, moved)) {
			continue
		}
		c.due, c.since, c.wait = r, v.now, 0
		for rec := range v.leases.All() {
			of := slices.Contains(r.addrs, rec.IP) || r.vacant != 0 && rec.Pool != "" && rec.Subscriber == r.vacant
			own := rec.MAC == c.mac
			if own && (c == moved || !r.placed && !v.home(c, &rec)) { // where it was
				of = true
			} else if own {
				of = false
			}
			if of && rec.Live(v.now) {
				c.wait = max(c.wait, rec.Expires.Sub(v.now))
			}
		}
	}
}

// Allowances for a client that asks by RFC 2131: what may pass until it asks next, and for each packet that is lost.
const (
	askAgain = 3 * time.Minute
	perLoss  = 70 * time.Second
)

// diskTick is how exactly the disk knows when a lease ends.
const diskTick = time.Millisecond

// deadline is when a client without an address is without one for too long.
func (c *resident) deadline() time.Time {
	t := c.since.Add(c.wait)
	for _, o := range []time.Time{c.want, c.full} {
		if o.After(t) {
			t = o
		}
	}
	return t.Add(askAgain + time.Duration(c.lost)*perLoss)
}

// settled notes how long a client was without an address.
func (v *village) settled(c *resident) {
	c.gap = max(c.gap, v.now.Sub(c.want))
	if c.due.any() && c.since.Add(c.wait).Before(c.want) && c.full.Before(c.want) {
		c.longest = max(c.longest, v.now.Sub(c.want))
	}
}

// check makes sure of what holds after each packet and each change.
func (v *village) check() {
	users := map[netip.Addr]*resident{}
	for _, c := range v.folk {
		if c.uses(v.now) {
			if o := users[c.addr]; o != nil && v.mayTakeOver(c, o) { // and the other one has not heard of it yet
				rec, _ := v.leases.Get(c.addr)
				c.deaf, o.deaf = c.deaf || rec.MAC != c.mac, o.deaf || rec.MAC != o.mac
			} else if o != nil && v.now.Add(diskTick).Before(c.until) && v.now.Add(diskTick).Before(o.until) &&
				!c.deaf && !o.deaf {
				v.fail("one address", c, o, "and %s (%v) use %v", o.name, o.mac, c.addr)
			}
			users[c.addr] = c
			continue
		}
		if c.phase != off && c.due.any() && v.now.After(c.deadline()) {
			v.fail("without an address", c, v.holderOf(c), "has none since %v", clock(c.want))
		}
	}
	v.checkPools()
}

// mayTakeOver reports whether one of two clients may have taken the address from the other at once: both are at one port, and there are
// too few addresses for both; or the one is where the other got it, and is not any more; or it is one subscriber's, and the one is on its line, or has the ERP's MAC for it.
func (v *village) mayTakeOver(c, o *resident) bool {
	rec, _ := v.leases.Get(c.addr)
	if sameSpot(c, o) && (len(c.due.addrs) == 0 || c.deaf || o.deaf) {
		return true
	}
	l, now, before := v.rowOf(c.addr), c, o
	if rec.MAC == o.mac {
		now, before = o, c
	}
	if now.due.placed && sameLine(&now.at, &before.got) && !sameSpot(c, o) {
		return true // who had it got it at that very line and moved: the server takes the other one for a new router there
	}
	ones := c.of == o.of && c.of != 0
	return l != nil && l.MAC == rec.MAC && (sameSpot(c, o) || ones) || ones && now.due.placed
}

// holderOf returns who has what a client waits for; nil: nobody.
func (v *village) holderOf(c *resident) *resident {
	for _, o := range v.folk {
		if o != c && slices.Contains(c.due.addrs, o.addr) {
			return o
		}
	}
	return nil
}

// checkPools makes sure that what a pool keeps is somebody's.
func (v *village) checkPools() {
	p := v.h.s.generation.Load().pools
	for i := range p.all {
		a := p.all[i].alloc
		for at, slot := range a.p.All(v.now) {
			if slot.State != pool.StateLeased || slot.Bound {
				continue
			}
			rec, _ := v.leases.Get(at)
			if rec.Holder() != slot.Owner || !rec.Live(v.now.Add(-leaseSlack-time.Second)) && rec.State == lease.StateBound {
				c := v.folk[0]
				for _, o := range v.folk {
					if o.mac == rec.MAC {
						c = o
					}
				}
				v.fail("a pool leaks", c, nil, "pool %s keeps %v for %v until %v, the lease is %v of %v until %v", p.all[i].Name, at, slot.Owner, slot.Until, rec.State, rec.MAC, rec.Expires)
			}
		}
	}
}

// takenForGuest reports whether a client of which the server hears one copy without its line may be taken for a guest: the
// copy does not tell that another one comes.
func (v *village) takenForGuest() bool {
	return v.opts.Unknown == v4.UnknownGuest && v.hasPool(v4.PoolGuests)
}

// mustAck reports whether the ERP still has the address of a client for it, and nobody else has it, so that the server may not
// refuse it more time.
func (v *village) mustAck(c *resident) bool {
	if c.phase != renewing && c.phase != rebinding && c.phase != rebooting {
		return false
	}
	rec, known := v.leases.Get(c.addr)
	if !known || rec.MAC != c.mac || !rec.Live(v.now) || !bytes.Equal(rec.ClientID, c.id) {
		return false
	}
	switch r := &c.due; {
	case slices.Contains(r.addrs, c.addr):
		if v.rowOf(c.addr).MAC != c.mac && slices.ContainsFunc(r.addrs, func(a netip.Addr) bool { return v.rowOf(a).MAC == c.mac }) {
			return false // of two rows of its port the other one is its own
		}
		if mac := v.rowOf(c.addr).MAC; !mac.IsZero() && mac != c.mac && !(r.placed && v.home(c, &rec)) {
			return false // the ERP has another MAC, and the lease was given at another port, or to who is named by dhcp.client_ids
		}
		return r.placed && rec.Pool == "" || v.home(c, &rec)
	case v.rowOf(c.addr) != nil || rec.Pool == "":
		return false
	case r.vacant != 0:
		return rec.Subscriber == r.vacant && v.snap.ByOwner(rec.Subscriber, rec.Key) != nil && (r.placed || v.home(c, &rec)) && v.inPool(c.addr, v4.PoolSubscribers)
	case r.guest:
		return rec.Subscriber == 0 && v.inPool(c.addr, v4.PoolGuests) && v.home(c, &rec)
	}
	return false
}

// home reports whether a lease was given where its client is.
func (v *village) home(c *resident, rec *lease.Record) bool {
	return rec.GIAddr == c.at.gi && rec.Ifindex == c.at.index && bytes.Equal(rec.Option82, c.at.opt82)
}

func (v *village) inPool(a netip.Addr, k v4.PoolKind) bool {
	return slices.ContainsFunc(v.opts.Pools, func(p v4.Pool) bool { return p.Kind == k && !a.Less(p.First) && !p.Last.Less(a) })
}

// answered looks at what became of the packet of a client.
func (v *village) answered(c *resident) {
	switch d := &v.h.d; d.Outcome {
	case outcome.PoolExhausted:
		c.full = v.now
		p := v.h.s.generation.Load().pools
		served := &p.all[max(d.Pool-1, 0)]
		for a := served.First; !served.Last.Less(a); a = a.Next() {
			if s := p.Slot(max(d.Pool-1, 0), a, v.now); s.State == pool.StateFree && !s.Bound {
				v.fail("a pool leaks", c, nil, "is told that pool %s is full, and %v is free", served.Name, a)
			}
		}
	case outcome.PortMACLimit:
		c.full = v.now
	}
}

// empty lets all clients go away, and makes sure that the pools have everything back.
func (v *village) empty() {
	for _, c := range v.folk {
		c.phase, c.wake = off, v.now.Add(1000*time.Hour)
	}
	v.plans, v.written = nil, time.Time{}
	v.run(3*time.Hour + time.Minute)
	for _, st := range v.h.s.Pools() {
		if st.Leased+st.Offered+st.Quarantined > 0 {
			v.fail("a pool leaks", v.folk[0], nil, "nobody is there any more, and the pool has %+v", st)
		}
	}
}

func TestHonestClients(t *testing.T) {
	seen := map[string]int{}
	fails := map[string]harm{}
	count := map[string]int{}
	var longest time.Duration
	for seed := range uint64(long.Times(t, 8, 600)) {
		v := newVillage(t, seed, nil)
		v.live(12 * time.Hour)
		v.empty()
		for _, f := range v.fails {
			count[f.kind]++
			if old, known := fails[f.kind]; !known || len(f.text) < len(old.text) {
				fails[f.kind] = f
			}
		}
		for k, n := range v.seen {
			seen[k] += n
		}
		for _, c := range v.folk {
			longest = max(longest, c.longest)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(fails)) {
		t.Errorf("%d times: %s", count[k], fails[k].text)
	}
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%8d %s", seen[k], k)
	}
	t.Logf("the longest time without an address, with no change that concerned the client: %v", longest)
	// The villages are worth nothing if what they are about does not happen in them.
	for _, k := range happenings {
		if seen[k] == 0 {
			t.Errorf("%s: it never happened", k)
		}
	}
}

// happenings are what the villages are about, by what is counted in village.seen.
var happenings = []string{
	"a NAK is heard in INIT-REBOOT", "a NAK is heard in REBINDING", "a NAK is heard in RENEWING", "a NAK, or an ACK for a shorter time, is lost", "a RELEASE", "a client is off", "a client starts anew",
	"a kill", "a lease ends at its client", "a new router", "a packet is lost", "a reload", "a reply that nobody hears", "a restart", "a street without power", "a subnet is removed",
	"ack", "offer", "pool_ack", "pool_offer", "ack_shortened", "holder_live", "says_less", "nak_no_subnet", "nak_not_bound", "nak_other_client", "nak_wrong_address", "port_full", "takeover_damped",
	"the ERP learns a MAC", "the ERP: a customer moves", "the ERP: a line is made vacant, or has its address again", "the ERP: addresses are swapped", "the ERP: an address is given to another",
	"the ERP: an address that a pool has leased is bound", "the ERP: another MAC", "the ERP: the MAC of another device, and both are on", "the ERP: another customer with another router", "the ERP: two customers exchange their homes",
}

// FuzzHonestClients lets the fuzzer choose a village, what happens in it, and when.
func FuzzHonestClients(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, []byte{byte(seed), 0x13, 0x42, 0x91})
	}
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		v := newVillage(t, seed, nil)
		v.run(10 * time.Minute)
		for _, b := range script[:min(len(script), 40)] {
			v.happen(int(b & 0x1f))
			v.run(time.Duration(b>>5) * 3 * time.Minute)
		}
		v.run(2 * time.Hour)
		v.empty()
		for _, x := range v.fails {
			t.Error(x.text)
		}
	})
}
