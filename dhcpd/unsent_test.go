package dhcpd

import (
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A reply that the kernel does not take is counted as that, once, and as nothing that its client was given. What was written for it
// does the client no harm: it asks again and is answered.
func TestUnsentReplies(t *testing.T) {
	relayed := func(typ wire.MessageType, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2), Options: more}
	}
	guest := func(typ wire.MessageType, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40), Options: more}
	}
	renewal := relayed(wire.Request)
	renewal.CIAddr = host(21)
	inform := relayed(wire.Inform)
	inform.CIAddr = host(21)
	for name, tc := range map[string]struct {
		q     wire.Query
		first []wire.Query  // that are answered
		disk  time.Duration // how slow it is
		count string        // of the question asked again
	}{
		"offer":                {q: relayed(wire.Discover), count: "discover offer"},
		"offer of a pool":      {q: guest(wire.Discover), count: "discover pool_offer"},
		"ACK":                  {q: selectingOn(2, stranger, host(21)), count: "request ack"},
		"ACK before the disk":  {q: selectingOn(2, stranger, host(21)), disk: time.Second, count: "request ack"},
		"ACK of a pool":        {q: guest(wire.Request, chosen(serverIP), requested(host(201))), first: []wire.Query{guest(wire.Discover, requested(host(201)))}, count: "request pool_ack"},
		"ACK of a renewal":     {q: renewal, first: []wire.Query{selectingOn(2, stranger, host(21))}, count: "request ack"},
		"NAK":                  {q: selectingOn(2, stranger, host(22)), count: "request nak_wrong_address"},
		"settings":             {q: inform, count: "inform inform_ack"},
		"offer that is probed": {q: directBy(stranger), count: "discover pool_offer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := probeRig(t, nil)
				for _, q := range tc.first {
					r.ask(q)
					time.Sleep(2 * time.Second)
				}
				before, sent := r.n.get(), len(r.out.all())
				r.j.delay = tc.disk
				r.out.refuse(syscall.ENETUNREACH)
				r.ask(tc.q)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				want := before
				want[tc.q.Type.String()+" send_failed"] = 1
				assert.Equal(t, want, r.n.get())
				assert.Len(t, r.out.all(), sent)
				e := r.log.Find(EventFilter{Limit: 1})[0]
				assert.Equal(t, outcome.SendFailed, e.Outcome)
				assert.Equal(t, "network is unreachable", e.Detail)

				r.j.delay = 0
				r.out.refuse(nil)
				r.ask(tc.q)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				want[tc.count]++
				assert.Equal(t, want, r.n.get())
				require.Len(t, r.out.all(), sent+1)
				if reply := r.out.all()[sent]; reply.kind == wire.Ack && tc.q.Type == wire.Request {
					rec, _ := r.s.deps.Leases.Get(reply.yourIP)
					assert.Equal(t, lease.StateBound, rec.State)
					assert.Equal(t, stranger, rec.MAC)
				}
				require.NoError(t, r.end())
			})
		})
	}
}

// An address of another network is given when its ACK has left, whether that waited for the disk or not.
func TestUnsentAddressOfAnotherNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{})
		o := testOptions()
		o.Subnets = append(o.Subnets, v4.Subnet{Prefix: netip.MustParsePrefix("198.51.100.0/24"), LeaseTime: time.Hour}) // that of the relay
		require.NoError(t, r.s.Reload(o))
		for i, err := range []error{syscall.ENETUNREACH, nil, syscall.EAGAIN, nil} { // the first one waits
			r.out.refuse(err)
			r.ask(selectingOn(2, stranger, host(21)))
			time.Sleep(time.Second)
			nets := r.s.Senders().Networks
			if i == 0 {
				assert.Empty(t, nets)
				continue
			}
			require.Len(t, nets, 1)
			assert.Equal(t, [2]uint64{uint64(i+1) / 2, 0}, [2]uint64{nets[0].Given, nets[0].Refused}, i)
		}
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"request ack": 2, "request send_failed": 1, "request send_full": 1}, r.n.get())
	})
}

// Who did not hear that it is refused still uses the address: its lease goes on, whatever kept the NAK here.
func TestUnsentNAKEndsNoLease(t *testing.T) {
	for _, err := range []error{syscall.ENETUNREACH, syscall.EAGAIN, syscall.ENOBUFS} {
		synctest.Test(t, func(t *testing.T) {
			r, snap := poolRig(t, &journal{})
			a := r.join(t, stranger)
			next, _ := provision.Build(provision.Input{
				Devices: []provision.Device{{ID: 1, MAC: switch1}},
				Lines:   []provision.Line{{Subscriber: 50, Addresses: provision.Hosts4(a), Device: 1, Port: 7}},
			})
			snap.Store(next)
			rebinds := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a, GIAddr: relayIP, Option82: port(switch1, 40)}
			r.out.refuse(err)
			r.ask(rebinds)
			rec, _ := r.s.deps.Leases.Get(a)
			assert.True(t, rec.Live(time.Now()), "%v: the guest heard nothing", err)
			r.out.refuse(nil)
			r.ask(selectingOn(7, client(0x70), a))
			assert.Equal(t, outcome.NakOtherClient, r.h.ev.Outcome, "%v: two clients on one address", err)
			r.ask(rebinds)
			assert.Equal(t, outcome.NakNotBound, r.h.ev.Outcome)
			rec, _ = r.s.deps.Leases.Get(a)
			assert.False(t, rec.Live(time.Now()))
			require.NoError(t, r.end())
		})
	}
}
