package dhcpd

import (
	"net/netip"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// What changes in a village: in the ERP, at the customers and at the server.

// live lets a village live: something happens every few minutes.
func (v *village) live(d time.Duration) {
	v.loss = among(v.rng, 0, 0, 50, 8)
	v.slow(among(v.rng, 0, 20*time.Millisecond, maxPoolWait))
	for end := v.now.Add(d); v.now.Before(end) && len(v.fails) == 0; {
		v.run(v.within(15 * time.Minute))
		if len(v.fails) == 0 {
			v.happen(v.rng.IntN(32))
		}
	}
}

// slow makes the disk take up to d.
func (v *village) slow(d time.Duration) {
	v.disk = func() time.Duration {
		if d == 0 || v.one(2) {
			return 0
		}
		return v.within(d)
	}
}

// happen lets one thing happen.
func (v *village) happen(what int) {
	if v.down {
		return
	}
	c := among(v.rng, v.folk...)
	l := v.line(c.citizen)
	switch what {
	case 0, 1, 2:
		v.swap(c, among(v.rng, v.folk...))
	case 3:
		v.hand(c, among(v.rng, v.folk...))
	case 5, 6:
		v.vacate(c)
	case 7, 8:
		v.move(c)
	case 4, 9:
		v.exchange(c)
	case 10, 11, 12:
		v.bindLeased(c)
	case 13:
		if l != nil {
			l.MAC = among(v.rng, provision.MAC{}, c.mac, client(0x0f))
			v.erp("%s: MAC %v", c.name, l.MAC)
			v.seen["the ERP: another MAC"]++
			v.changed()
		}
	case 14, 15:
		v.succeed(c)
	case 16, 17:
		v.replace(c)
	case 18, 19:
		v.powerOff(c, v.within(2*time.Hour))
		v.seen["a client is off"]++
	case 20, 21:
		v.powerOff(c, v.within(time.Minute))
		v.seen["a client starts anew"]++
	case 22:
		v.change()
	case 23, 24:
		v.cut()
	case 25:
		v.restart(true)
	case 26, 27:
		v.restart(false)
	case 28: // a street has no power
		d := v.within(30 * time.Minute)
		for _, c := range v.folk {
			if v.one(2) {
				v.powerOff(c, d+v.within(20*time.Second))
			}
		}
		v.seen["a street without power"]++
	case 30:
		v.device(c)
	case 29: // whoever has the rows tidies up
		v.tidy()
	default: // just time
	}
}

func (v *village) erp(format string, args ...any) { v.tell(nil, "the ERP: "+format, args...) }

// nets reports whether two residents are in one network, so that an address of one is of use to the other.
func oneNet(a, b *resident) bool { return (a.at.index == ifEth) == (b.at.index == ifEth) }

// swap exchanges the addresses of two customers.
func (v *village) swap(c, with *resident) {
	l, m := v.line(c.citizen), v.line(with.citizen)
	if l == nil || m == nil || l == m || v.listed(c, l) || v.listed(with, m) || !oneNet(c, with) || len(l.Addresses)+len(m.Addresses) == 0 {
		return
	}
	l.Addresses, m.Addresses = m.Addresses, l.Addresses
	v.erp("%s has %v, %s has %v", c.name, l.Addresses, with.name, m.Addresses)
	v.seen["the ERP: addresses are swapped"]++
	v.changed()
}

// hand gives the addresses of one customer to another, beside or in place of what that had.
func (v *village) hand(c, to *resident) {
	l, m := v.line(c.citizen), v.line(to.citizen)
	if l == nil || m == nil || l == m || v.listed(c, l) || v.listed(to, m) || !oneNet(c, to) || len(l.Addresses) == 0 {
		return
	}
	if v.one(2) {
		v.keepAddresses(to, m)
	}
	m.Addresses = append(slices.Clone(m.Addresses), l.Addresses...)
	l.Addresses = nil
	v.erp("%s has %v, %s nothing", to.name, m.Addresses, c.name)
	v.seen["the ERP: an address is given to another"]++
	v.changed()
}

// keepAddresses takes the addresses out of a row, to be put back one day.
func (v *village) keepAddresses(c *resident, l *provision.Line) {
	for _, a := range l.Addresses {
		if !pooled(a) {
			v.had[c.row-1] = append(v.had[c.row-1], a)
		}
	}
	l.Addresses = nil
}

// pooled reports whether an address is of the range of a pool.
func pooled(a provision.Address) bool {
	return !a.Prefix.Addr().Less(host(200)) && !host(220).Less(a.Prefix.Addr())
}

// vacate takes a customer's addresses, or gives them back.
func (v *village) vacate(c *resident) {
	l := v.line(c.citizen)
	if l == nil || v.listed(c, l) || len(l.Addresses)+len(v.had[c.row-1]) == 0 {
		return
	}
	if len(l.Addresses) > 0 {
		v.keepAddresses(c, l)
	} else {
		l.Addresses, v.had[c.row-1] = v.had[c.row-1], nil
	}
	v.erp("%s has %v", c.name, l.Addresses)
	v.seen["the ERP: a line is made vacant, or has its address again"]++
	v.changed()
}

// move has a customer move to another port, first in the ERP or first with the router.
func (v *village) move(c *resident) {
	l := v.line(c.citizen)
	if l == nil || l.Port == 0 || c.twice() || v.shares(c.citizen) || v.spots > 250 {
		return
	}
	v.spots++
	device, n := l.Device, uint32(v.spots)
	at := c.at
	sw := switch1
	if device == 2 {
		sw = switch2
	}
	at.opt82 = port(sw, v.spots)
	told := func() {
		if v.line(c.citizen).Device == device {
			v.line(c.citizen).Port = n
			v.erp("%s is at port %d", c.name, n)
			v.changed()
		}
	}
	moves := func() {
		if c.at.index == at.index && c.at.gi == at.gi {
			v.relocate(c, at)
		}
	}
	v.seen["the ERP: a customer moves"]++
	switch v.rng.IntN(3) {
	case 0:
		told()
		v.plan(v.within(10*time.Minute), moves)
	case 1:
		moves()
		v.plan(v.within(10*time.Minute), told)
	default:
		moves()
		told()
	}
}

// relocate plugs a client in elsewhere: it may notice that, or not.
func (v *village) relocate(c *resident, at place) {
	c.at = at
	v.tell(c, "is at %v now", at)
	if !v.one(3) {
		v.powerOff(c, time.Second+v.within(time.Minute))
	}
	v.reckon(c)
}

// exchange has two customers move to each other's homes.
func (v *village) exchange(c *resident) {
	ported := func(x *resident) bool {
		l := v.line(x.citizen)
		return l != nil && l.Port != 0 && !v.shares(x.citizen) && x.at.index == c.at.index && x.at.gi == c.at.gi
	}
	var others []*resident
	for _, x := range v.folk {
		if x != c && ported(x) {
			others = append(others, x)
		}
	}
	if !ported(c) || len(others) == 0 {
		return
	}
	with := among(v.rng, others...)
	l, m := v.line(c.citizen), v.line(with.citizen)
	l.Device, m.Device = m.Device, l.Device
	l.Port, m.Port = m.Port, l.Port
	there := with.at
	v.relocate(with, c.at)
	v.relocate(c, there)
	v.erp("%s and %s live in each other's home", c.name, with.name)
	v.seen["the ERP: two customers exchange their homes"]++
	v.changed()
}

// bindLeased has the ERP give an address of a pool that somebody has leased to a customer, or takes such a one out again.
func (v *village) bindLeased(c *resident) {
	l := v.line(c.citizen)
	if l == nil || c.at.index == ifEth {
		return
	}
	pooled := func(a provision.Address) bool {
		return !a.Prefix.Addr().Less(host(200)) && !host(220).Less(a.Prefix.Addr())
	}
	if i := slices.IndexFunc(l.Addresses, pooled); i >= 0 {
		l.Addresses = slices.Delete(slices.Clone(l.Addresses), i, i+1)
		v.erp("%s has %v", c.name, l.Addresses)
		v.changed()
		return
	}
	var all []netip.Addr
	for rec := range v.leases.All() {
		if rec.Pool != "" && rec.Live(v.now) && v.rowOf(rec.IP) == nil {
			all = append(all, rec.IP)
		}
	}
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, netip.Addr.Compare)
	a := among(v.rng, all...)
	if v.one(2) {
		v.keepAddresses(c, l)
	}
	l.Addresses = append(slices.Clone(l.Addresses), provision.Hosts4(a)...)
	v.erp("%s has %v, which is leased of a pool", c.name, l.Addresses)
	v.seen["the ERP: an address that a pool has leased is bound"]++
	v.changed()
}

// device has the ERP get the MAC of another device for a customer who is found by MAC alone: one on the same wire that was a guest until
// now, or that of another customer there, who gets the one of this. The devices that had the addresses are still on: they are told at
// their next renewal, and the new ones wait for nothing, so that two have an address for a while.
func (v *village) device(c *resident) {
	l := v.line(c.citizen)
	if l == nil || l.Port != 0 || l.VLAN != 0 || v.listed(c, l) {
		return
	}
	var others []*resident
	for _, o := range v.folk {
		m := v.line(o.citizen)
		if o != c && o.at.index == c.at.index && o.at.gi == c.at.gi && (m == nil || m.Port == 0 && m.VLAN == 0 && !v.listed(o, m)) {
			others = append(others, o)
		}
	}
	if len(others) == 0 {
		return
	}
	o := among(v.rng, others...)
	if m := v.line(o.citizen); m != nil {
		m.MAC = c.mac
		v.erp("%s: MAC %v", o.name, m.MAC)
	}
	l.MAC = o.mac
	v.erp("%s: MAC %v", c.name, l.MAC)
	v.seen["the ERP: the MAC of another device, and both are on"]++
	v.changed()
}

// succeed has somebody else move in: another customer with another router, whose MAC the ERP knows.
func (v *village) succeed(c *resident) {
	l := v.line(c.citizen)
	if l == nil || v.shares(c.citizen) {
		return
	}
	v.owners++
	v.router(c)
	l.Subscriber, l.MAC = v.owners, c.mac
	v.in.Subscribers = append(v.in.Subscribers, provision.Subscriber{ID: v.owners, State: provision.StateActive})
	v.erp("%s: another customer (%d), MAC %v", c.name, l.Subscriber, l.MAC)
	v.seen["the ERP: another customer with another router"]++
	v.changed()
}

// router gives a customer another router, which knows nothing.
func (v *village) router(c *resident) {
	v.routers++
	if v.routers == 0xff {
		v.routers = 0xc0
		v.series++
	}
	c.mac = provision.MAC{0, 0, 0x5e, v.series, 0x54, v.routers}
	if len(c.id) > 0 && c.id[0] == 1 && len(c.id) == 7 {
		c.id = append([]byte{1}, c.mac[:]...)
	}
	v.tell(c, "has a new router, %v", c.mac)
	c.addr, c.until, c.offered = netip.Addr{}, time.Time{}, netip.Addr{}
	c.phase, c.wake = off, v.now.Add(time.Second+v.within(5*time.Minute))
	v.reckon(c)
}

// replace has a customer swap routers; where the MAC alone tells who it is the operator is told.
func (v *village) replace(c *resident) {
	v.router(c)
	v.seen["a new router"]++
	if l := v.line(c.citizen); l != nil && (!v.vouched(&c.at) || v.one(4)) {
		mac := c.mac
		v.plan(v.within(10*time.Minute), func() {
			if v.line(c.citizen) == l && c.mac == mac {
				l.MAC = mac
				v.erp("%s: MAC %v of its new router", c.name, mac)
				v.changed()
			}
		})
	}
}

// change reloads with other settings.
func (v *village) change() {
	o := &v.opts
	lease := among(v.rng, 2*time.Minute, 10*time.Minute, time.Hour)
	for i := range o.Subnets {
		o.Subnets[i].LeaseTime = lease
	}
	o.Pools = slices.Clone(o.Pools)
	for i := range o.Pools {
		o.Pools[i].LeaseTime = among(v.rng, time.Minute, 10*time.Minute)
	}
	o.Authoritative = v.one(2)
	o.BindingChange = v4.BindingChange(v.rng.IntN(2))
	v.seen["a reload"]++
	v.reload()
}

// reload takes the settings.
func (v *village) reload() {
	require.NoError(v.t, v.h.s.Reload(v.opts))
	v.tell(nil, "RELOAD: leases of %v, binding_change %d", leaseTimes(&v.opts), v.opts.BindingChange)
	v.changed()
}

// cut takes a subnet out of the configuration, or puts it back.
func (v *village) cut() {
	o := &v.opts
	if v.gone != nil {
		o.Subnets = append(slices.Clone(o.Subnets), *v.gone)
		o.Pools, v.gone, v.spare = append(slices.Clone(o.Pools), v.spare...), nil, nil
		v.reload()
		return
	}
	of := among(v.rng, host(1), ethIP)
	i := slices.IndexFunc(o.Subnets, func(n v4.Subnet) bool { return n.Prefix.Contains(of) })
	if i < 0 {
		return
	}
	gone := o.Subnets[i]
	o.Subnets = slices.Delete(slices.Clone(o.Subnets), i, i+1)
	v.gone = &gone
	if gone.Prefix.Contains(host(1)) {
		v.spare, o.Pools = o.Pools, nil
	}
	v.seen["a subnet is removed"]++
	v.reload()
	v.plan(v.within(time.Hour), func() {
		if v.gone != nil {
			v.cut()
		}
	})
}

// restart ends the server and starts it again, with what is on the disk.
func (v *village) restart(clean bool) {
	if clean {
		v.write()
		require.NoError(v.t, v.leases.Flush())
		v.seen["a restart"]++
	} else {
		v.seen["a kill"]++
	}
	v.tell(nil, "RESTART, clean: %v", clean)
	v.down, v.written, v.sent = true, time.Time{}, nil
	before := v.leases
	v.plan(v.within(5*time.Second), func() {
		v.down = false
		v.start()
		for _, c := range v.folk {
			is, _ := v.leases.Get(c.addr)
			if was, _ := before.Get(c.addr); c.uses(v.now) && was.Expires.Sub(is.Expires) > diskTick {
				c.deaf = true // what was given in the last second is not on disk
				v.seen["a renewal is lost by a kill"]++
			}
		}
		v.reckon(nil)
	})
}

// tidy puts everybody's own addresses back.
func (v *village) tidy() {
	for i := range v.had {
		l := &v.in.Lines[i]
		if len(l.Addresses) == 0 && len(v.had[i]) > 0 {
			l.Addresses, v.had[i] = v.had[i], nil
		}
	}
	v.erp("all have addresses again")
	v.changed()
}
