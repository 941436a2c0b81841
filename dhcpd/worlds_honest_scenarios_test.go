package dhcpd

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

func (v *village) resident(name string) *resident {
	for _, c := range v.folk {
		if c.name == name {
			return c
		}
	}
	v.t.Fatalf("nobody is called %q", name)
	return nil
}

// on starts the clients of these names, one after the other, and leaves all others off.
func (v *village) on(apart time.Duration, names ...string) (list []*resident) {
	for _, c := range v.folk {
		c.wake = v.now.Add(1000 * time.Hour)
	}
	for i, name := range names {
		c := v.resident(name)
		c.wake = v.now.Add(time.Duration(i) * apart)
		list = append(list, c)
	}
	return list
}

// well makes sure that nothing has been that must not be, and that the clients have addresses.
func (v *village) well(who ...*resident) {
	v.t.Helper()
	for _, f := range v.fails {
		v.t.Fatal(f.text)
	}
	for _, c := range who {
		if !c.uses(v.now) {
			v.fail("without an address", c, nil, "has none")
			v.t.Fatal(v.fails[0].text)
		}
	}
}

// left is how long the lease of a client lasts for the server.
func (v *village) left(c *resident) time.Duration {
	rec, _ := v.leases.Get(c.addr)
	return rec.Expires.Sub(v.now)
}

// What the ERP's changes cost clients, one kind after the other, with leases of an hour. Each is tried without a restart, and with
// one right after the change: an orderly one and a kill.
func TestHonestClientsOneByOne(t *testing.T) {
	const soon = 15 * time.Second // for a client that is told
	shorten := func(o *Options) { o.BindingChange = v4.BindingShorten }
	nothing := func(*Options) {}
	bothOf := func(v *village, of ...*resident) (longest time.Duration) {
		for _, c := range of {
			longest = max(longest, v.left(c))
		}
		return longest
	}
	for _, tc := range []struct {
		name    string
		options func(*Options)
		play    func(v *village, restart func())
	}{
		{"two addresses are swapped, by MAC", nothing, func(v *village, restart func()) {
			of := v.on(11*time.Minute, "the shared wire", "the shared wire, too")
			v.run(25 * time.Minute)
			v.well(of...)
			a, b := of[0].addr, of[1].addr
			bound := min(bothOf(v, of...), 30*time.Minute) + maxRetry // who has it renews at T1, and hears that it is refused
			v.swap(of[0], of[1])
			restart()
			v.run(2 * time.Hour)
			v.well(of...)
			require.Equal(v.t, []netip.Addr{b, a}, []netip.Addr{of[0].addr, of[1].addr})
			require.Less(v.t, of[0].gap, bound)
			require.Less(v.t, of[1].gap, soon, "nobody has what it is to have")
		}},
		{"two addresses are swapped, by option 82", nothing, func(v *village, restart func()) {
			of := v.on(11*time.Minute, "a port", "a second port")
			v.run(25 * time.Minute)
			v.well(of...)
			a, b := of[0].addr, of[1].addr
			bound := bothOf(v, of...)
			v.swap(of[0], of[1])
			restart()
			v.run(3 * time.Hour)
			v.well(of...)
			require.Equal(v.t, []netip.Addr{b, a}, []netip.Addr{of[0].addr, of[1].addr})
			require.Less(v.t, of[0].gap, bound)
			require.Less(v.t, of[1].gap, soon)
		}},
		{"two addresses are swapped, by option 82, and leases shortened", shorten, func(v *village, restart func()) {
			of := v.on(11*time.Minute, "a port", "a second port")
			v.run(25 * time.Minute)
			v.well(of...)
			a, b := of[0].addr, of[1].addr
			v.swap(of[0], of[1])
			restart()
			v.run(32 * time.Minute) // T1, and a minute
			v.well(of...)
			require.Equal(v.t, []netip.Addr{b, a}, []netip.Addr{of[0].addr, of[1].addr})
			require.Less(v.t, of[1].gap, soon)
		}},
		{"two addresses are swapped, at a switch that inserts option 82", nothing, func(v *village, restart func()) {
			of := v.on(11*time.Minute, "a snooping switch", "a snooping switch, second port")
			of[0].snoops, of[1].snoops = true, false
			v.run(25 * time.Minute)
			v.well(of...)
			v.swap(of[0], of[1])
			restart()
			v.run(time.Hour)
			v.well(of...)
			require.Less(v.t, of[0].gap, 30*time.Minute+maxRetry)
			require.Less(v.t, of[1].gap, soon)
		}},
		{"an address is given to another, who is off, and back", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "a VLAN", "a VLAN with the MAC")
			v.run(10 * time.Minute)
			v.well(of...)
			a := of[0].addr
			v.powerOff(of[1], 5*time.Minute)
			of[1].addr, of[0].gap = netip.Addr{}, 0
			v.swap(of[0], of[1])
			restart()
			v.run(5 * time.Minute)
			require.True(v.t, of[0].uses(v.now), "it was not told yet")
			require.Equal(v.t, a, of[0].addr)
			v.swap(of[0], of[1])
			v.run(10 * time.Minute)
			v.well(of...)
			require.Equal(v.t, a, of[0].addr)
			require.Zero(v.t, of[0].gap, "it never heard of that")
		}},
		{"the ERP binds the address that a guest has", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "a guest of a port", "a second port")
			guest, c := of[0], of[1]
			v.run(10 * time.Minute)
			v.well(of...)
			a, bound := guest.addr, v.left(guest)
			v.line(c.citizen).Addresses = provision.Hosts4(a)
			v.powerOff(c, time.Second)
			v.changed()
			restart()
			v.run(20 * time.Minute)
			v.well(of...)
			require.Equal(v.t, a, c.addr)
			require.NotEqual(v.t, a, guest.addr)
			require.Less(v.t, c.gap, bound+maxRetry)
			require.Less(v.t, guest.gap, soon, "the pool has others")
		}},
		{"the ERP gives a customer for good what it has of a pool", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "a vacant port", "a vacant VLAN", "vacant, by MAC")
			v.run(8 * time.Minute)
			v.well(of...)
			for _, c := range of {
				c.gap = 0
				v.line(c.citizen).Addresses = provision.Hosts4(c.addr)
			}
			v.changed()
			restart()
			v.run(3 * time.Hour)
			v.well(of...)
			for _, c := range of {
				require.Zero(v.t, c.gap, "nobody refuses it anything")
				rec, _ := v.leases.Get(c.addr)
				require.Empty(v.t, rec.Pool)
			}
		}},
		{"the ERP takes out again what it bound of a pool", nothing, func(v *village, restart func()) {
			c := v.on(0, "a snooping switch")[0]
			l := v.line(c.citizen)
			own := l.Addresses
			l.Addresses = provision.Hosts4(host(212))
			v.changed()
			v.run(10 * time.Minute)
			require.Equal(v.t, host(212), c.addr)
			l.Addresses = own
			v.changed()
			restart()
			v.run(31 * time.Minute)
			v.well(c)
			require.Equal(v.t, own[0].Prefix.Addr(), c.addr)
			slot, _ := v.h.s.PoolAddress(host(212))
			require.Equal(v.t, "free", slot.State, "it heard that it is to leave the address")
			require.Less(v.t, c.gap, soon)
		}},
		{"two contracts on a port, and one of them has no address", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "a port", "a vacant port with the MAC")
			l := v.line(of[1].citizen)
			l.Port, of[1].at = v.line(of[0].citizen).Port, of[0].at
			v.changed()
			v.run(10 * time.Minute)
			v.well(of...)
			rec, _ := v.leases.Get(of[1].addr)
			require.Equal(v.t, "flats", rec.Pool)
			l.Addresses = provision.Hosts4(host(15))
			v.changed()
			restart()
			of[0].gap, of[1].gap = 0, 0
			v.run(time.Hour)
			v.well(of...)
			require.Equal(v.t, []netip.Addr{host(11), host(15)}, []netip.Addr{of[0].addr, of[1].addr})
			require.Zero(v.t, of[0].gap)
			require.Less(v.t, of[1].gap, soon)
		}},
		{"two contracts without an address on a port, by their MACs", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "a vacant port with the MAC", "a vacant port")
			l := v.line(of[1].citizen)
			l.Port, l.MAC, of[1].at = v.line(of[0].citizen).Port, of[1].mac, of[0].at
			v.changed()
			v.run(10 * time.Minute)
			v.well(of...)
			has := []netip.Addr{of[0].addr, of[1].addr}
			require.NotEqual(v.t, has[0], has[1])
			restart()
			of[0].gap, of[1].gap = 0, 0
			v.run(3 * time.Hour)
			v.well(of...)
			require.Equal(v.t, has, []netip.Addr{of[0].addr, of[1].addr})
			require.Equal(v.t, [2]time.Duration{}, [2]time.Duration{of[0].gap, of[1].gap}, "neither takes anything from the other")
		}},
		{"two clients on a vacant port", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "a vacant port", "a second port")
			of[1].at = of[0].at
			v.reckon(nil)
			v.run(10 * time.Minute)
			restart()
			for range 180 {
				v.run(time.Minute)
				require.True(v.t, of[0].uses(v.now) || of[1].uses(v.now), "the line has an address, whoever of them uses it")
				require.LessOrEqual(v.t, v.h.s.Pools()[1].Leased, 1)
			}
		}},
		{"a customer moves to another port, in the ERP first", nothing, func(v *village, restart func()) {
			c := v.on(0, "a port")[0]
			v.run(10 * time.Minute)
			a := c.addr
			v.line(c.citizen).Port = 33
			v.changed()
			restart()
			v.run(5 * time.Minute)
			at := c.at
			at.opt82 = port(switch1, 33)
			c.at = at
			v.powerOff(c, time.Second)
			v.reckon(c)
			c.gap = 0
			v.run(5 * time.Minute)
			v.well(c)
			require.Equal(v.t, a, c.addr)
			require.Less(v.t, c.gap, soon)
		}},
		{"another customer with another router moves in", nothing, func(v *village, restart func()) {
			c := v.on(0, "a port")[0]
			v.run(10 * time.Minute)
			a := c.addr
			v.succeed(c)
			restart()
			c.wake = v.now.Add(10 * time.Second)
			c.gap = 0
			v.run(5 * time.Minute)
			v.well(c)
			require.Equal(v.t, a, c.addr)
			require.Less(v.t, c.gap, soon, "at the port it waits for nothing")
		}},
		{"another customer with another router moves in, by MAC", nothing, func(v *village, restart func()) {
			c := v.on(0, "the shared wire")[0]
			v.run(10 * time.Minute)
			a, bound := c.addr, v.left(c)
			v.succeed(c)
			restart()
			c.wake = v.now.Add(10 * time.Second)
			c.gap = 0
			v.run(2 * time.Hour)
			v.well(c)
			require.Equal(v.t, a, c.addr)
			require.Less(v.t, c.gap, bound+maxRetry)
		}},
		{"the ERP gets the MAC of another device, and both are on", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "the shared wire", "a guest of the shared wire")
			v.run(20 * time.Minute)
			v.well(of...)
			old, device := of[0], of[1]
			a := old.addr
			v.line(old.citizen).MAC = device.mac
			v.changed()
			restart()
			device.gap = 0
			v.run(11 * time.Minute) // the device renews its lease of the pool, and is told
			v.well(device)
			require.Equal(v.t, a, device.addr)
			require.Less(v.t, device.gap, soon)
			v.run(time.Hour)
			v.well(of...)
			require.NotEqual(v.t, a, old.addr, "it is a guest now")
		}},
		{"a subnet is removed, and put back", nothing, func(v *village, restart func()) {
			of := v.on(time.Minute, "the shared wire", "an access switch in the customers' VLAN", "a port")
			v.run(10 * time.Minute)
			v.well(of...)
			all := v.opts.Subnets
			v.opts.Subnets = all[:2]
			v.reload()
			restart()
			v.run(time.Hour)
			v.well(of[2])
			require.False(v.t, of[0].uses(v.now), "it heard that at T1")
			require.False(v.t, of[1].uses(v.now))
			v.opts.Subnets = all
			v.reload()
			v.run(2 * time.Minute)
			v.well(of...)
			require.Positive(v.t, v.seen["nak_no_subnet"])
		}},
	} {
		for name, restart := range map[string]func(v *village){
			"":                   func(*village) {},
			", and a restart":    func(v *village) { v.restart(true) },
			", and a kill":       func(v *village) { v.restart(false) },
			", and two restarts": func(v *village) { v.restart(true); v.plan(10*time.Minute, func() { v.restart(false) }) },
		} {
			t.Run(tc.name+name, func(t *testing.T) {
				v := newVillage(t, 1, tc.options)
				tc.play(v, func() { restart(v) })
				v.well()
				v.empty()
				v.well()
			})
		}
	}
}

// What the server hears twice, through a relay with option 82 and itself without, is never acknowledged and refused, in whatever
// order the copies come.
func TestHonestClientsHeardTwice(t *testing.T) {
	for _, o := range []order{wireFirst, relayFirst} {
		for _, known := range []bool{false, true} { // to the ERP, by its MAC
			t.Run(fmt.Sprint(o, known), func(t *testing.T) {
				v := newVillage(t, 1, func(o *Options) { o.Unknown = v4.UnknownNak })
				v.order = o
				c := v.on(0, "an access switch in the customers' VLAN")[0]
				if !known {
					v.line(c.citizen).MAC = provision.MAC{}
					v.in.Lines[c.row-1].MAC = client(0xee)
				}
				v.changed()
				has := func(what string) {
					t.Helper()
					v.well(c)
					require.Less(t, c.gap, 15*time.Second, what)
					require.Equal(t, shared(21), c.addr, what)
					c.gap = 0
				}
				v.run(time.Minute)
				has("first")
				v.powerOff(c, time.Minute)
				v.run(2 * time.Minute)
				has("after a restart")
				c.until = v.now.Add(10 * time.Minute) // REBINDING
				c.phase, c.t2, c.wake = renewing, v.now, v.now
				v.run(time.Minute)
				has("rebinding")
				v.router(c)
				c.wake = v.now.Add(time.Second)
				v.run(5 * time.Minute)
				has("another router")
				v.run(3 * time.Hour)
				has("later")
				require.Zero(t, v.seen["a NAK is heard in REQUESTING"]+v.seen["a NAK is heard in REBINDING"]+v.seen["a NAK is heard in INIT-REBOOT"])
			})
		}
	}
}

// A client of a vacant line that is heard twice takes what it is offered.
func TestHonestVacantHeardTwice(t *testing.T) {
	for _, o := range []order{wireFirst, relayFirst} {
		for _, unknown := range []v4.Unknown{v4.UnknownSilence, v4.UnknownNak} {
			v := newVillage(t, 1, func(o *Options) { o.Unknown = unknown })
			v.order = o
			c := v.on(0, "an access switch in the customers' VLAN")[0]
			l := v.line(c.citizen)
			l.Addresses, l.MAC = nil, client(0xee)
			v.changed()
			v.run(time.Minute)
			v.well(c)
			v.powerOff(c, 30*time.Minute) // longer than the lease
			v.run(32 * time.Minute)
			v.well(c)
			require.Zero(t, v.seen["a NAK is heard in REQUESTING"]+v.seen["a NAK is heard in INIT-REBOOT"])
		}
	}
}

// A REQUEST that is sent again before the first one's record is on disk is acknowledged when that is there; if the server is killed
// before, the client has heard nothing that the server then does not know.
func TestHonestClientsWaitForTheDisk(t *testing.T) {
	for _, kill := range []bool{false, true} {
		v := newVillage(t, 1, func(*Options) {})
		v.disk = func() time.Duration { return 6 * time.Second }
		c := v.on(0, "a port")[0]
		v.run(5 * time.Second) // it asks, and again
		require.Equal(t, requesting, c.phase)
		require.Equal(t, 1, c.tries, "the second REQUEST")
		require.False(t, c.uses(v.now))
		if kill {
			v.restart(false)
		}
		v.run(25 * time.Second)
		v.well(c)
		onDisk := false
		require.NoError(t, v.store.Leases(func(r lease.Record, err error) { onDisk = onDisk || r.IP == c.addr && r.MAC == c.mac }))
		require.True(t, onDisk)
	}
}

// A device that the ERP has for two customers keeps its address when that passes from the one to the other.
func TestHonestDeviceOfTwoCustomers(t *testing.T) {
	v := newVillage(t, 1, func(*Options) {})
	c := v.on(0, "the shared wire")[0]
	other := v.resident("the shared wire, too")
	v.line(other.citizen).MAC = c.mac
	v.changed()
	v.run(10 * time.Minute)
	v.well(c)
	has := c.addr
	v.swap(c, other)
	v.run(3 * time.Hour)
	v.well(c)
	require.Equal(t, has, c.addr)
	require.Zero(t, v.seen["a NAK is heard in RENEWING"])
	rec, _ := v.leases.Get(has)
	require.Equal(t, v.rowOf(has).Subscriber, rec.Subscriber)
}
