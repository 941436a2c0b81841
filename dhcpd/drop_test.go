package dhcpd

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision/lease"
)

// An address of a pool whose lease was ended by hand is free, and its client is told so when it renews after somebody took it.
func TestDropFreesTheAddressOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		o := testOptions()
		withGuests(&o)
		o.Pools[0].Last = o.Pools[0].First
		require.NoError(t, r.s.Reload(o))
		a := o.Pools[0].First
		other := client(0x66)
		r.ask(discoverBy(stranger))
		r.ask(selectBy(stranger, a))
		time.Sleep(time.Second)
		r.ask(discoverBy(other))
		newest := func() outcome.Outcome { return r.log.Find(EventFilter{Limit: 1})[0].Outcome }
		require.Equal(t, outcome.PoolExhausted, newest())

		assert.False(t, r.s.Drop(a, other), "it is not that client's")
		require.True(t, r.s.Drop(a, stranger))
		assert.False(t, r.s.Drop(a, stranger), "it is over")
		assert.Equal(t, 0, r.s.Pools()[0].Leased)
		r.ask(discoverBy(other))
		require.Equal(t, outcome.PoolOffer, newest())
		r.ask(selectBy(other, a))
		time.Sleep(time.Second)
		require.Equal(t, outcome.PoolAck, newest())
		q := discoverBy(stranger)
		q.Type, q.CIAddr = wire.Request, a
		r.ask(q)
		require.Equal(t, outcome.NakOtherClient, newest())
		require.NoError(t, r.end())
	})
}

// A lease that an operator drops while its client's renewal is decided on: what the client is told of is written.
func TestDropWhileARenewalIsDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: 20 * time.Millisecond})
		defer func() { require.NoError(t, r.end()) }()
		r.ask(selectingOn(1, client(0x11), host(11)))
		time.Sleep(time.Minute)
		q := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)}
		now, gen := time.Now(), r.s.generation.Load()
		r.h.read(socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(host(11), 68), Ifindex: 3, To: serverIP})
		r.h.enter(now, gen)
		r.h.decide(now, gen)
		require.Equal(t, v4.ChangeRenew, r.h.d.Change)
		require.True(t, r.s.Drop(host(11), client(0x11)))
		r.h.describe(now)
		r.h.answer(gen)
		require.True(t, r.h.apply(now, gen), "it waits for the disk")
		time.Sleep(time.Second)
		assert.Equal(t, wire.Ack, r.last().kind)
		rec, _ := r.s.deps.Leases.Get(host(11))
		assert.True(t, rec.Live(now))
		assert.Equal(t, now.Add(time.Hour), rec.Expires, "as the ACK says")
		assert.Equal(t, lease.StateBound, r.j.groups[1][0].Lease.State)
	})
}

// What is the ERP's word goes on: a client that the ERP still has for the address gets it again when it asks.
func TestDropLeavesTheBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{})
		r.ask(selectingOn(4, client(0x77), host(41))) // the ERP has other MACs there, and nobody is live
		r.ask(selectingOn(4, client(0x78), host(42)))
		time.Sleep(time.Second)
		newest := func() Event { return r.log.Find(EventFilter{Limit: 1})[0] }
		third := selectingOn(4, client(0x79), host(41))
		third.Type, third.Options = wire.Discover, nil
		r.ask(third)
		require.Equal(t, outcome.PortFull, newest().Outcome)
		require.True(t, r.s.Drop(host(41), client(0x77)))
		r.ask(third)
		require.Equal(t, outcome.Offer, newest().Outcome)
		assert.Equal(t, host(41), newest().YourIP)

		r.ask(selectingOn(1, client(0x11), host(11)))
		time.Sleep(time.Second)
		require.True(t, r.s.Drop(host(11), client(0x11)))
		r.ask(wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)})
		time.Sleep(time.Second)
		require.Equal(t, outcome.Ack, newest().Outcome)
		require.NoError(t, r.end())
	})
}
