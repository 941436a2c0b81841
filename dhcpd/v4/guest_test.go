package v4

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
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

// Lines that only their subscriber-id (RFC 3993) tells apart are lines of their own: for the bound of a port, and for one MAC on several.
func TestGuestsBySubscriberID(t *testing.T) {
	at := func(name string, remote ...byte) []byte {
		o := append([]byte{6, byte(len(name))}, name...)
		if len(remote) > 0 {
			o = append(append(o, 2, byte(len(remote))), remote...)
		}
		return o
	}
	ask := func(mac provision.MAC, o82 []byte) wire.Query {
		return wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: o82}
	}
	take := func(mac provision.MAC, o82 []byte, a netip.Addr) wire.Query {
		q := ask(mac, o82)
		q.Type, q.Options = wire.Request, []wire.Option{requested(a), chosen(serverIP)}
		return q
	}
	one := func(_ *Request, o *Options) { o.MaxPortMACs = 1 }
	for name, remote := range map[string][]byte{"with a remote-id": {7, 7}, "alone": nil} {
		t.Run(name, func(t *testing.T) {
			p1, p2, p3 := at("p1", remote...), at("p2", remote...), at("p3", remote...)
			first := run(t, take(stranger, p1, host(201)), nil, withGuests, one)
			assert.Equal(t, outcome.PoolAck, first.Outcome)
			got := leases(first.Rec)
			assert.Equal(t, outcome.PoolOffer, run(t, ask(client(0xa1), p2), got, withGuests, one).Outcome, "another port")
			assert.Equal(t, outcome.PortMACLimit, run(t, ask(client(0xa1), p1), got, withGuests, one).Outcome, "the same port")

			second := run(t, take(stranger, p2, run(t, ask(stranger, p2), got, withGuests).YourIP), got, withGuests)
			assert.Equal(t, outcome.PoolAck, second.Outcome)
			third := run(t, ask(stranger, p3), leases(first.Rec, second.Rec), withGuests)
			assert.Equal(t, outcome.PoolOffer, third.Outcome)
			assert.NotContains(t, []netip.Addr{first.YourIP, second.YourIP}, third.YourIP, "what the same MAC has on other ports")
		})
	}
}

// A guest whose record numbers its line without the subscriber-id, as it was before, keeps its address; nobody else gets it by that.
func TestGuestOfAnOlderNumber(t *testing.T) {
	p2 := append([]byte{6, 2, 'p', '2'}, 2, 2, 7, 7)
	number := portKey(&wire.RelayInfo{RemoteID: []byte{7, 7}}, relayIP, "eth0", stranger)
	first := with(guest(host(201), stranger), func(r *lease.Record) {
		r.GIAddr, r.Option82, r.Ifindex, r.Interface = relayIP, append([]byte{6, 2, 'p', '1'}, 2, 2, 7, 7), 3, "eth0"
	})
	second := with(first, func(r *lease.Record) { r.IP, r.Option82, r.Key = host(202), p2, stranger.OwnerOn(number) })
	tab := leases(first, second)
	q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: p2}
	d := run(t, q, tab, withGuests)
	assert.Equal(t, "pool_offer 192.0.2.202 by relay to 198.51.100.1:67 hold", told(d))
	q.Type, q.Options = wire.Request, []wire.Option{requested(host(202)), chosen(serverIP)}
	d = run(t, q, tab, withGuests)
	assert.Equal(t, outcome.PoolAck, d.Outcome)
	assert.Equal(t, second.Key, d.Rec.Key)
	q.Type, q.Options, q.Option82 = wire.Discover, nil, append([]byte{6, 2, 'p', '3'}, 2, 2, 7, 7)
	d = run(t, q, tab, withGuests)
	assert.Equal(t, outcome.PoolOffer, d.Outcome)
	assert.NotEqual(t, host(202), d.YourIP)
}
