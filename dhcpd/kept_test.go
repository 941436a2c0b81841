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
	"github.com/usher-agent/usher/provision/pool"
)

// doubted handles a packet whose decision is taken to say that nobody knows who sent it.
func (r *rig) doubted(q wire.Query) {
	gen, now := r.s.generation.Load(), time.Now()
	h := r.h
	h.read(socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP})
	h.enter(now, gen)
	v4.Decide(&h.d, now, &h.r, r.s.deps.Snapshot(), r.s.deps.Leases, gen.pools, gen.config)
	h.d.Keep = true
	gen.pools.reserve(&h.d, r.s.deps.Leases, now, r.s.log)
	h.describe(now)
	h.apply(now, gen)
	h.s.ended(&h.ev, h.s.now())
}

func TestDoubtfulReleaseKeepsTheLease(t *testing.T) {
	for _, tc := range []struct {
		kind wire.MessageType
		want lease.State
	}{{wire.Release, lease.StateReleased}, {wire.Decline, lease.StateDeclined}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &journal{})
			defer func() { require.NoError(t, r.end()) }()
			r.ask(selectingOn(2, stranger, host(21)))
			synctest.Wait()
			end := time.Now().Add(time.Hour)
			time.Sleep(time.Minute)
			q := wire.Query{Type: tc.kind, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2), CIAddr: host(21)}
			if tc.kind == wire.Decline {
				q.CIAddr, q.Options = netip.Addr{}, []wire.Option{requested(host(21))}
			}
			r.doubted(q)
			rec, _ := r.s.deps.Leases.Get(host(21))
			assert.Equal(t, tc.want, rec.State)
			assert.Equal(t, end.UnixMilli(), rec.Expires.UnixMilli())
			assert.True(t, rec.Kept(time.Now()))

			renew := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21), GIAddr: relayIP, Option82: port(switch1, 2)}
			r.ask(renew)
			require.Equal(t, outcome.Ack, r.h.ev.Outcome)
			rec, _ = r.s.deps.Leases.Get(host(21))
			assert.Equal(t, lease.StateBound, rec.State)
			assert.Equal(t, time.Now().Add(time.Hour).UnixMilli(), rec.Expires.UnixMilli())

			r.ask(q)
			rec, _ = r.s.deps.Leases.Get(host(21))
			assert.False(t, rec.Live(time.Now()), "without doubt it ends")
		})
	}
}

// The address of a pool goes to nobody else before the lease ends, not after a restart either.
func TestDoubtfulReleaseKeepsThePoolsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		defer func() { require.NoError(t, r.end()) }()
		a := r.join(t, stranger)
		r.doubted(wire.Query{Type: wire.Release, MAC: stranger, CIAddr: a, GIAddr: relayIP, Option82: port(switch1, 40)})
		require.Equal(t, outcome.PoolReleased, r.h.ev.Outcome)
		rec, _ := r.s.deps.Leases.Get(a)
		require.True(t, rec.Kept(time.Now()))
		slot, _ := r.s.PoolAddress(a)
		assert.Equal(t, "leased", slot.State)
		assert.Equal(t, stranger.Owner(), slot.Holder)

		fresh, err := New(r.options(), Deps{Snapshot: r.s.deps.Snapshot, Leases: r.s.deps.Leases})
		require.NoError(t, err)
		slot, _ = fresh.PoolAddress(a)
		assert.Equal(t, "leased", slot.State, "after a restart")

		r.ask(selectBy(client(1), a))
		assert.Equal(t, outcome.NakOtherClient, r.h.ev.Outcome)
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a})
		synctest.Wait()
		require.Equal(t, outcome.PoolAck, r.log.Find(EventFilter{Limit: 1})[0].Outcome)
		rec, _ = r.s.deps.Leases.Get(a)
		assert.Equal(t, lease.StateBound, rec.State)

		r.ask(wire.Query{Type: wire.Release, MAC: stranger, CIAddr: a, GIAddr: relayIP, Option82: port(switch1, 40)})
		slot, _ = r.s.PoolAddress(a)
		assert.Equal(t, pool.StateFree.String(), slot.State, "without doubt it is free")
	})
}

// options are those of poolRig.
func (r *rig) options() Options {
	o := testOptions()
	withGuests(&o)
	return o
}
