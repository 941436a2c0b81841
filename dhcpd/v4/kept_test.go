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

// kept is a lease that was released by nobody knows whom.
func kept(a netip.Addr, mac provision.MAC, sub provision.SubscriberID) lease.Record {
	r := bound(a, mac, sub)
	r.State = lease.StateReleased
	return r
}

// A lease that is kept is for its client and for others what it was before.
func TestKeptLeaseIsStillTheClients(t *testing.T) {
	behind := func(r *lease.Record) {
		r.GIAddr, r.Option82, r.Device, r.Port = relayIP, port(switch1, 2), 1, 2
		r.Ifindex, r.Interface = 3, "eth0"
	}
	rec := with(kept(host(21), stranger, 2), behind)
	tab := leases(rec)
	renew := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21)}
	d := run(t, renew, tab)
	assert.Equal(t, outcome.Ack, d.Outcome, "past the relay")
	assert.Equal(t, ChangeRenew, d.Change, "the disk has it already")
	assert.Equal(t, lease.StateBound, d.Rec.State)

	renew.MAC = client(0x77)
	assert.Equal(t, outcome.NakOtherClient, run(t, renew, tab).Outcome)
	next := wire.Query{Type: wire.Discover, MAC: client(0x77), GIAddr: relayIP, Option82: port(switch1, 2)}
	assert.Equal(t, outcome.Offer, run(t, next, tab).Outcome, "a new router on the port takes over all the same")

	ended := with(rec, func(r *lease.Record) { r.Expires = testNow })
	renew.MAC = stranger
	assert.Equal(t, outcome.RenewUnknown, run(t, renew, leases(ended)).Outcome)
}

// So is that of a pool, whose renewal is on disk before the ACK as ever.
func TestKeptLeaseOfAPool(t *testing.T) {
	rec := with(guest(host(201), stranger), func(r *lease.Record) {
		r.State = lease.StateDeclined
		r.GIAddr, r.Option82, r.Ifindex, r.Interface = relayIP, port(switch1, 40), 3, "eth0"
	})
	d := run(t, wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201)}, leases(rec), withGuests)
	assert.Equal(t, outcome.PoolAck, d.Outcome)
	assert.Equal(t, ChangePoolRenew, d.Change)
	assert.Equal(t, lease.StateBound, d.Rec.State)
}
