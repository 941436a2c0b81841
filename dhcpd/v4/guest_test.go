package v4

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision/lease"
)

// A guest's MAC on another line is another guest: the lease of the first one stays as it is.
func TestGuestsMACElsewhere(t *testing.T) {
	at := func(n byte, q wire.Query) wire.Query { q.GIAddr, q.Option82 = relayIP, port(switch1, n); return q }
	discover := wire.Query{Type: wire.Discover, MAC: stranger, Options: []wire.Option{requested(host(201))}}
	selecting := wire.Query{Type: wire.Request, MAC: stranger, Options: []wire.Option{requested(host(201)), chosen(serverIP)}}
	extend := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201)}
	here := with(guest(host(201), stranger), func(r *lease.Record) {
		r.GIAddr, r.Option82, r.Ifindex, r.Interface = relayIP, port(switch1, 40), 3, "eth0"
	})
	tab := leases(here)

	d := run(t, at(40, discover), tab, withGuests)
	assert.Equal(t, host(201), d.YourIP, "on its line it is the same guest")
	d = run(t, at(41, discover), tab, withGuests)
	assert.Equal(t, "pool_offer", d.Outcome.String())
	assert.NotEqual(t, host(201), d.YourIP)
	assert.NotEqual(t, stranger.Owner(), d.Holder)
	assert.Equal(t, "mac_elsewhere", told(run(t, at(41, selecting), tab, withGuests)))
	assert.Equal(t, "mac_elsewhere", told(run(t, at(41, extend), tab, withGuests)))
	assert.Equal(t, "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool-renew", told(run(t, extend, tab, withGuests)), "past the relay")

	// What it got there it keeps there, also when the first lease is over.
	selecting.Options[0] = requested(d.YourIP)
	ack := run(t, at(41, selecting), tab, withGuests)
	assert.Equal(t, "pool_ack", ack.Outcome.String())
	assert.Equal(t, ack.Holder, ack.Rec.Key)
	assert.Zero(t, ack.Rec.Subscriber)
	here.Expires = testNow
	tab = leases(here, ack.Rec)
	d = run(t, at(41, discover), tab, withGuests)
	assert.Equal(t, ack.YourIP, d.YourIP)
	extend.CIAddr = ack.YourIP
	d = run(t, extend, tab, withGuests)
	assert.Equal(t, "pool_ack", d.Outcome.String())
	assert.Equal(t, ack.Rec.Key, d.Rec.Key)
	assert.Equal(t, host(201), run(t, at(40, discover), tab, withGuests).YourIP, "and the first one comes back to its own")
}

// A renewal to which the switch adds nothing leaves the line of the lease in its record.
func TestPoolRecordKeepsItsLine(t *testing.T) {
	rec := with(guest(host(201), stranger), func(r *lease.Record) {
		r.Option82, r.Ifindex, r.Interface = port(switch1, 40), 3, "eth0"
	})
	d := run(t, wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201)}, leases(rec), withGuests)
	assert.Equal(t, "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool-renew", told(d))
	assert.Equal(t, rec.Option82, d.Rec.Option82)
}
