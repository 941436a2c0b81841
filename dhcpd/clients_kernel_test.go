package dhcpd

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// says makes the ERP say something else from now on.
func (e *learningERP) says(in provision.Input) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.in = in
	snap, _ := provision.Build(in)
	e.snap.Store(snap)
}

// newShared makes a district of two customers on one wire of the router's own.
func newShared(t *testing.T, name string) *district {
	t.Helper()
	d := newDistrict(t, name)
	d.home = d.household("home", homeMAC, d.router, "port2")
	d.neighbour = d.household("neighbour", neighbourMAC, d.router, "port3")
	d.ip(d.router, "link add cust0 type bridge", "link set dev port2 master cust0", "link set dev port3 master cust0",
		"addr add 192.0.2.1/24 dev cust0", "link set dev cust0 up")
	return d
}

// byMAC is what the ERP says of two customers that are found by their MACs.
func byMAC(home, neighbour netip.Addr) provision.Input {
	return provision.Input{Lines: []provision.Line{
		{Subscriber: 2, Addresses: provision.Hosts4(home), MAC: homeMAC},
		{Subscriber: 3, Addresses: provision.Hosts4(neighbour), MAC: neighbourMAC},
	}}
}

// neverTwo makes sure that nobody was acknowledged an address before its holder was refused it.
func (d *district) neverTwo(since time.Time, addresses ...netip.Addr) {
	d.t.Helper()
	events := d.seen()
	slices.Reverse(events)
	has := map[netip.Addr]provision.MAC{}
	for _, e := range events {
		switch e.Outcome {
		case outcome.Ack:
			if h, taken := has[e.YourIP]; taken && e.Time.After(since) {
				require.Equal(d.t, h, e.MAC, "%s is acknowledged while another uses it", e.YourIP)
			}
			has[e.YourIP] = e.MAC
		case outcome.NakNotBound, outcome.NakWrongAddress, outcome.NakOtherClient:
			for _, a := range addresses {
				if (e.ClientIP == a || e.RequestedIP == a) && has[a] == e.MAC && (e.GIAddr.IsValid() || d.access == nil) {
					delete(has, a)
				}
			}
		}
	}
}

// Leases last ten minutes and clients renew every two seconds. Each gets the other's address when that one
// was refused it, not ten minutes later, and not before.
func TestKernelSwappedAddresses(t *testing.T) {
	labtest.Need(t, "dhclient")
	t.Parallel()
	d := newShared(t, "swapm")
	opts := peersOptions()
	d.serve(opts, byMAC(homeDirectIP, neighbourDirect))
	home, neighbour := d.movesIn(d.home, homeDirectIP), d.movesIn(d.neighbour, neighbourDirect)
	swapped := time.Now()
	d.erp.says(byMAC(neighbourDirect, homeDirectIP))
	d.logged(home, "bound to "+neighbourDirect.String(), 1)
	d.logged(neighbour, "bound to "+homeDirectIP.String(), 1)
	d.neverTwo(swapped, homeDirectIP, neighbourDirect)
	require.NoError(t, d.stop())
	rec, _ := d.leases.Get(homeDirectIP)
	assert.Equal(t, neighbourMAC, rec.MAC)
}

// Behind a relay a client does not hear the NAK to a renewal by unicast; it hears that to its rebinding. Until then the
// address is not given to whom the ERP has it for.
func TestKernelSwappedPorts(t *testing.T) {
	labtest.Need(t, "dhclient", "dhcrelay")
	t.Parallel()
	d, opts := relaysItself(t, "swapp")
	for i := range opts.Subnets {
		opts.Subnets[i].RebindTime = 5 * time.Second
	}
	d.relayOnPorts("uplink", coreIP)
	d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
	home, neighbour := d.movesIn(d.home, homeIP), d.movesIn(d.neighbour, neighbourIP)
	swapped := time.Now()
	d.erp.says(erpOf(gatewayIP, neighbourIP, homeIP))
	home.Kill()
	home = d.dhclient(d.home) // it is refused its address at once, through the relay, and the neighbour later
	d.logged(home, "bound to "+neighbourIP.String(), 1)
	d.logged(neighbour, "bound to "+homeIP.String(), 1)
	d.neverTwo(swapped, homeIP, neighbourIP)
}

// The ERP binds the address of a guest: its new owner waits until the guest was told.
func TestKernelGuestsAddressIsBound(t *testing.T) {
	labtest.Need(t, "dhclient")
	t.Parallel()
	d := newShared(t, "swapg")
	opts := peersOptions()
	opts.Unknown = v4.UnknownGuest
	opts.Pools = []v4.Pool{{Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: host(200), Last: host(201)}, LeaseTime: time.Minute}}
	d.serve(opts, byMAC(host(21), host(31)))
	d.ip(d.home, "link set dev eth0 address "+client(0x77).String())
	guest := d.dhclient(d.home)
	var a netip.Addr
	d.sees("the guest's address", func(e Event) bool { // on a busy machine the guest asks again meanwhile
		a = e.YourIP
		return e.Outcome == outcome.PoolAck
	})
	d.logged(guest, "bound to "+a.String(), 1) // it has written that down, and asks for it again after its restart
	in := byMAC(host(21), a)
	d.erp.says(in)
	owner := d.dhclient(d.neighbour)
	d.sees("the owner waits", func(e Event) bool { return e.MAC == neighbourMAC && e.Outcome == outcome.HolderLive })
	rec, _ := d.leases.Get(a)
	require.Equal(t, client(0x77), rec.MAC)
	// The guest asks for its address anew, as after a restart of it, and hears that it is gone.
	guest.Kill()
	d.dhclient(d.home)
	d.logged(owner, "bound to "+a.String(), 1)
	d.sees("the guest was refused", func(e Event) bool { return e.MAC == client(0x77) && e.Outcome == outcome.NakNotBound })
}

// A neighbour on a wire without lines declines and releases what others have there, in their names. Nobody can tell, so
// they keep it, and nobody else gets it.
func TestKernelForgedEndsOnASharedWire(t *testing.T) {
	labtest.Need(t, "dhclient")
	t.Parallel()
	d := newShared(t, "forged")
	opts := peersOptions()
	opts.Unknown = v4.UnknownGuest
	opts.Pools = []v4.Pool{{Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: host(200), Last: host(200)}, LeaseTime: 10 * time.Minute}}
	d.serve(opts, byMAC(homeDirectIP, neighbourDirect))
	p := d.movesIn(d.home, homeDirectIP)
	guest := victim{ip: host(200), mac: client(0x77), server: host(1)}
	d.ip(d.neighbour, "link set dev eth0 address "+guest.mac.String())
	d.movesIn(d.neighbour, guest.ip).Kill()
	for _, v := range []struct {
		victim
		from *lab.Host
		want []outcome.Outcome
	}{
		{victim{ip: homeDirectIP, mac: homeMAC, server: host(1)}, d.neighbour, []outcome.Outcome{outcome.Declined, outcome.Released}},
		{guest, d.home, []outcome.Outcome{outcome.PoolDeclined, outcome.PoolReleased}},
	} {
		x := impostor{at: v.from, from: from(nowhere, 68), to: everybody, ends: true}
		before, _ := d.leases.Get(v.ip)
		for i, m := range x.messages(t, v.victim) {
			x.send(t, m)
			d.eventually("it is dealt with", func() bool { return d.all.of(m.TransactionID) != nil })
			require.Equal(t, v.want[i], d.all.of(m.TransactionID).Outcome)
			rec, _ := d.leases.Get(v.ip)
			require.True(t, rec.Live(time.Now()), "%+v", rec)
			require.Equal(t, v.mac, rec.MAC)
			require.False(t, rec.Expires.Before(before.Expires))
		}
	}
	x := impostor{at: d.home, from: from(nowhere, 68), to: everybody, want: []outcome.Outcome{outcome.PoolExhausted, outcome.NakOtherClient}}
	for i, m := range x.messages(t, guest) {
		x.send(t, m)
		d.eventually("it is dealt with", func() bool { return d.all.of(m.TransactionID) != nil })
		require.Equal(t, x.want[i], d.all.of(m.TransactionID).Outcome, "another guest wants it")
	}
	d.renews(p, homeDirectIP)
	d.logged(d.dhclient(d.neighbour), "bound to "+guest.ip.String(), 1)
	for _, v := range []netip.Addr{homeDirectIP, guest.ip} {
		rec, _ := d.leases.Get(v)
		require.Equal(t, lease.StateBound, rec.State, "who has it has it again")
	}
}

// A relay and the server share the customers' wire, so that both hear each broadcast. Clients are found by option 82 alone.
func TestKernelHeardTwice(t *testing.T) {
	labtest.Need(t, "dhclient", "dhcrelay")
	t.Parallel()
	d := newDistrict(t, "twice")
	d.access = d.host("access")
	d.home = d.household("home", homeMAC, d.access, "port2")
	d.wire(d.access, "toRouter", d.router, "cust0")
	d.uplink()
	d.ip(d.access, "link add br0 type bridge", "link set dev port2 master br0", "link set dev toRouter master br0",
		"addr add 198.51.100.1/24 dev br0", "link set dev br0 up")
	d.ip(d.router, "addr add 198.51.100.254/24 dev cust0")
	d.relay(d.access, "-a", "-id", "br0", "-iu", "uplink", coreIP.String())
	in := erpOf(gatewayIP, homeIP, neighbourIP)
	in.Lines[0].PortName = "br0"
	opts := peersOptions(gatewayIP, uplinkIP)
	opts.Unknown = v4.UnknownNak
	d.serve(opts, in)
	p := d.movesIn(d.home, homeIP)
	d.sees("the copy without option 82", func(e Event) bool {
		return e.Type == wire.Request && e.Outcome == outcome.SaysLess && e.Interface == "cust0" && !e.GIAddr.IsValid()
	})
	p.Kill()
	p = d.dhclient(d.home) // INIT-REBOOT
	d.logged(p, "bound to "+homeIP.String(), 1)
	require.NotContains(t, p.Log(), "DHCPNAK")
	for _, e := range d.seen() {
		require.False(t, e.Outcome > outcome.PoolAck && e.Outcome.Answered(), "%+v", e)
	}
	rec, _ := d.leases.Get(homeIP)
	assert.Equal(t, lease.Hex(circuit("br0")), rec.Option82)
	assert.Equal(t, gatewayIP, rec.GIAddr)
}

// A network that a reload takes out of the configuration: its clients are told.
func TestKernelRemovedSubnet(t *testing.T) {
	labtest.Need(t, "dhclient")
	t.Parallel()
	d := newShared(t, "gone")
	opts := peersOptions()
	d.serve(opts, byMAC(homeDirectIP, neighbourDirect))
	p := d.movesIn(d.home, homeDirectIP)
	opts.Subnets = opts.Subnets[:1]
	require.NoError(t, d.server.Reload(opts))
	d.logged(p, "DHCPNAK", 1)
	d.sees("the refusal", func(e Event) bool { return e.Outcome == outcome.NakNoSubnet })
	require.True(t, strings.Contains(p.Log(), "DHCPDISCOVER"))
}
