package v4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// fought is the lease of a client that took the address of port 2 from another a minute ago.
func fought() lease.Record {
	r := bound(host(21), client(0x77), 2)
	r.Device, r.Port, r.Prior = 1, 2, client(0x78)
	r.Start, r.Renewed, r.Expires = testNow.Add(-time.Minute), testNow.Add(-time.Minute), testNow.Add(59*time.Minute)
	return r
}

func TestWhoseTakeOverWaits(t *testing.T) {
	discover := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2)}
	rapid := discover
	rapid.Options = []wire.Option{{Code: 80}}
	reboot := discover
	reboot.Type, reboot.Options = wire.Request, []wire.Option{requested(host(21))}
	selecting := reboot
	selecting.Options = []wire.Option{requested(host(21)), chosen(serverIP)}
	its := func(q wire.Query) wire.Query { q.MAC = client(0x77); return q }
	named := func(q wire.Query, id string) wire.Query {
		q.Options = append(q.Options[:len(q.Options):len(q.Options)], wire.Option{Code: wire.OptClientID, Value: []byte(id)})
		return q
	}
	keyed := func(_ *Request, o *Options) { o.ClientKey = ClientKeyID }
	quick := func(_ *Request, o *Options) { o.RapidCommit = true }
	slow := func(_ *Request, o *Options) {
		o.Subnets[0].RenewTime, o.Subnets[0].RebindTime = 50*time.Minute, 55*time.Minute
	}
	none := func(*lease.Record) {}
	for _, tc := range []struct {
		name   string
		q      wire.Query
		rec    func(*lease.Record)
		change func(*Request, *Options)
		want   outcome.Outcome
	}{
		{"a DISCOVER is not answered", discover, none, nil, outcome.TakeoverDamped},
		{"neither is one with rapid commit", rapid, none, quick, outcome.TakeoverDamped},
		{"a REQUEST is refused", selecting, none, nil, outcome.NakOtherClient},
		{"so is a reboot", reboot, none, nil, outcome.NakOtherClient},
		{"not the holder", its(discover), none, nil, outcome.Offer},
		{"nor its reboot", its(reboot), none, nil, outcome.Ack},
		{"nobody was there before, or it is forgotten", discover, func(r *lease.Record) { r.Prior = provision.MAC{} }, nil, outcome.Offer},
		{"T1 is over to the second", discover, func(r *lease.Record) { r.Start = testNow.Add(-30 * time.Minute) }, nil, outcome.Offer},
		{"a second before", discover, func(r *lease.Record) { r.Start = testNow.Add(-30*time.Minute + time.Second) }, nil, outcome.TakeoverDamped},
		{"T1 as it is told", discover, func(r *lease.Record) { r.Start = testNow.Add(-49 * time.Minute) }, slow, outcome.TakeoverDamped},
		{"a renewal does not begin it anew", discover, func(r *lease.Record) { r.Start, r.Renewed = testNow.Add(-31*time.Minute), testNow }, nil, outcome.Offer},
		{"the lease is over", discover, func(r *lease.Record) { r.Expires = testNow }, nil, outcome.Offer},
		{"it was released by nobody knows whom", discover, func(r *lease.Record) { r.State = lease.StateReleased }, nil, outcome.Offer},
		{"the ERP has moved the address since", discover, func(r *lease.Record) { r.Subscriber, r.Port = 9, 9 }, nil, outcome.HolderLive},
		{"the clock was ahead when it began", discover, func(r *lease.Record) { r.Start = testNow.Add(time.Hour) }, nil, outcome.Offer},
		{"known by identifier: another one", named(discover, "\x00b"), func(r *lease.Record) { r.ClientID = lease.Hex("\x00a") }, keyed, outcome.TakeoverDamped},
		{"known by identifier: the same", named(discover, "\x00a"), func(r *lease.Record) { r.ClientID = lease.Hex("\x00a") }, keyed, outcome.Offer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := with(fought(), tc.rec)
			change := tc.change
			if change == nil {
				change = func(*Request, *Options) {}
			}
			d := run(t, tc.q, leases(rec), change)
			require.Equal(t, tc.want, d.Outcome)
			switch tc.want {
			case outcome.TakeoverDamped:
				assert.Zero(t, d.Reply.Type)
				assert.Equal(t, host(21), d.YourIP)
				assert.True(t, d.Until.After(testNow))
				assert.Equal(t, rec.MAC, d.Rival)
			case outcome.HolderLive:
				assert.Zero(t, d.Reply.Type)
				assert.Equal(t, rec.Expires, d.Until)
				assert.Equal(t, rec.MAC, d.Rival)
			case outcome.NakOtherClient:
				assert.Equal(t, wire.Nak, d.Reply.Type)
				assert.Equal(t, rec.MAC, d.Rival)
			default:
				assert.Zero(t, d.Rival)
			}
		})
	}
}

// From whom an address was taken is kept as long as the lease.
func TestWhomAnAddressWasTakenFrom(t *testing.T) {
	take := func(mac provision.MAC, rec lease.Record, change ...func(*Request, *Options)) provision.MAC {
		q := wire.Query{
			Type: wire.Request, MAC: mac, GIAddr: relayIP, Option82: port(switch1, 2),
			Options: []wire.Option{requested(host(21)), chosen(serverIP), {Code: wire.OptClientID, Value: []byte("\x00a")}},
		}
		d := run(t, q, leases(rec), change...)
		require.Equal(t, outcome.Ack, d.Outcome)
		return d.Rec.Prior
	}
	none := provision.MAC{}
	rec := bound(host(21), client(0x77), 2)
	rec.Device, rec.Port = 1, 2
	assert.Equal(t, client(0x77), take(stranger, rec))
	assert.Equal(t, none, take(stranger, with(rec, func(r *lease.Record) { r.Expires = testNow })), "it had run out")
	assert.Equal(t, none, take(stranger, with(rec, func(r *lease.Record) { r.State = lease.StateReleased })), "it was given up, as it seems")
	assert.Equal(t, none, take(client(0x77), rec), "it was the client's own")
	assert.Equal(t, client(0x78), take(client(0x77), fought()), "a renewal")
	assert.Equal(t, none, take(client(0x77), with(fought(), func(r *lease.Record) { r.Expires = testNow })), "back after the lease had ended")

	keyed := func(_ *Request, o *Options) { o.ClientKey = ClientKeyID }
	same := with(fought(), func(r *lease.Record) { r.ClientID = lease.Hex("\x00a") })
	assert.Equal(t, client(0x78), take(stranger, same, keyed), "the client's next card")
	other := with(rec, func(r *lease.Record) { r.ClientID = lease.Hex("\x00b") })
	assert.Equal(t, none, take(client(0x77), other, keyed), "another client of the same card takes it from nobody else")
	assert.Equal(t, client(0x77), take(stranger, other, keyed), "another card")
}

// A card that starts from the network, and what starts after it, are clients of their own where identifiers tell clients: none fights
// with another on the same card over the address of its line.
func TestOneCardWithSeveralIdentifiers(t *testing.T) {
	keyed := func(_ *Request, o *Options) { o.ClientKey = ClientKeyID }
	for name, tc := range map[string]struct {
		mac  provision.MAC
		o82  []byte
		want netip.Addr
	}{
		"on a line": {stranger, port(switch1, 2), host(21)},
	} {
		t.Run(name, func(t *testing.T) {
			tab := leases()
			for _, id := range []string{"\x00rom", "\x00ipxe", "\x00system"} {
				q := wire.Query{Type: wire.Discover, MAC: tc.mac, GIAddr: relayIP, Option82: tc.o82, Options: []wire.Option{clientID([]byte(id)...)}}
				d := run(t, q, tab, keyed)
				assert.Equal(t, outcome.Offer, d.Outcome, id)
				assert.Equal(t, tc.want, d.YourIP, id)
				q.Type, q.Options = wire.Request, append(q.Options, requested(tc.want), chosen(serverIP))
				d = run(t, q, tab, keyed)
				require.Equal(t, outcome.Ack, d.Outcome, id)
				assert.Zero(t, d.Rec.Prior, id)
				tab.Store(d.Rec)
			}
			other := wire.Query{Type: wire.Discover, MAC: client(0x99), GIAddr: relayIP, Option82: tc.o82, Options: []wire.Option{clientID([]byte("\x00other")...)}}
			if tc.o82 != nil {
				assert.Equal(t, outcome.Offer, run(t, other, tab, keyed).Outcome, "a new router")
			}
		})
	}
}

func TestWaitingAllocatesNothing(t *testing.T) {
	opts := testOptions()
	cfg, err := Compile(opts)
	require.NoError(t, err)
	snap, tab := world(t), leases(fought())
	pools := fill(t, cfg, snap, tab)
	r := &Request{Ifindex: 3, Served: true, Local: serverIP}
	q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2)}
	r.P.Read(q.Append(nil))
	var d Decision
	Decide(&d, testNow, r, snap, tab, pools, cfg)
	require.Equal(t, outcome.TakeoverDamped, d.Outcome)
	assert.Zero(t, testing.AllocsPerRun(100, func() { Decide(&d, testNow, r, snap, tab, pools, cfg) }))
}
