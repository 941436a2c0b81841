package dhcpd

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// A NAK ends the lease of its client before the next packet of the batch is looked at, which may begin it anew.
func TestRefusalEndsNoLeaseOfALaterPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{})
		r.ask(selectingOn(2, stranger, host(21)))
		time.Sleep(time.Second)
		take := func(q wire.Query) {
			r.h.take(time.Now(), socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP})
		}
		now := r.s.deps.Snapshot
		other := provisiontest.Build(t, provision.Input{
			Subscribers: []provision.Subscriber{{ID: 9, State: provision.StateActive}},
			Lines:       []provision.Line{{Subscriber: 9, MAC: client(0x99), Addresses: provision.Hosts4(host(99))}},
		})
		r.s.deps.Snapshot = func() *provision.Snapshot { return other } // the ERP has forgotten the customer, for a moment
		renewal := selectingOn(2, stranger, host(21))
		renewal.Options, renewal.CIAddr = nil, host(21)
		take(renewal)
		require.Equal(t, v4.ChangeRefused, r.h.d.Change, r.h.d.Outcome.String())
		r.s.deps.Snapshot = now
		take(selectingOn(2, stranger, host(21)))
		r.h.flush()
		time.Sleep(time.Second)
		rec, _ := r.s.deps.Leases.Get(host(21))
		assert.True(t, rec.Live(time.Now()), "the client was acknowledged last")
		sent := r.out.all()
		require.Len(t, sent, 3)
		assert.Equal(t, []wire.MessageType{wire.Nak, wire.Ack}, []wire.MessageType{sent[1].kind, sent[2].kind})
		require.NoError(t, r.end())
	})
}

// A client identifier in parts (RFC 3396) is its own packet's, whatever else is in the batch.
func TestEventsOfABatchKeepTheirIdentifiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{})
		for i, id := range [][]byte{{1, 0xaa, 0xab}, {1, 0xba, 0xbb}} {
			q := selectingOn(byte(i+1), client(byte(0x11+0x10*i)), host(byte(11+10*i)))
			q.Type, q.Options = wire.Discover, []wire.Option{{Code: 61, Value: id[:1]}, {Code: 61, Value: id[1:]}}
			r.h.take(time.Now(), socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP})
		}
		r.h.flush()
		var ids []string
		for _, e := range r.log.Find(EventFilter{}) {
			ids = append(ids, e.ClientID.String())
		}
		assert.Equal(t, []string{"01babb", "01aaab"}, ids)
		require.NoError(t, r.end())
	})
}
