package dhcpd

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// What may become of a live lease when another client wants its address. Each case is what
// clients send one after the other, with what comes of it.
func TestLiveLeaseOfAnother(t *testing.T) {
	const router, next = 0x77, 0x78
	a := host(210)
	at := func(n byte, q wire.Query) wire.Query { q.GIAddr, q.Option82 = relayIP, port(switch1, n); return q }
	named := func(id []byte, q wire.Query) wire.Query {
		q.Options = append(q.Options, clientID(id...))
		return q
	}
	discover := func(mac byte) wire.Query {
		return wire.Query{Type: wire.Discover, MAC: client(mac), Options: []wire.Option{requested(a)}}
	}
	rapid := func(mac byte) wire.Query {
		q := discover(mac)
		q.Options = append(q.Options, wire.Option{Code: 80})
		return q
	}
	selecting := func(mac byte, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: client(mac), Options: []wire.Option{chosen(serverIP), requested(a)}}
	}
	reboot := func(mac byte, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: client(mac), Options: []wire.Option{requested(a)}}
	}
	renew := func(mac byte, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: client(mac), CIAddr: a}
	}
	release := func(mac byte, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Release, MAC: client(mac), CIAddr: a}
	}
	id := func(mac byte) []byte { m := client(mac); return append([]byte{1}, m[:]...) }
	cpe := []byte("\x00cpe")

	flats := func(o *Options) { o.RapidCommit, o.Pools = true, []v4.Pool{flats()} }
	andGuests := func(o *Options) { flats(o); o.Unknown, o.Pools = v4.UnknownGuest, append(o.Pools, guests()) }
	byID := func(o *Options) { flats(o); o.Match = []v4.MatchKind{v4.MatchMAC, v4.MatchClientID} }
	keyed := func(o *Options) { flats(o); o.ClientKey = v4.ClientKeyID }
	keyedGuests := func(o *Options) { withGuests(o); o.ClientKey = v4.ClientKeyID }
	shorten := func(o *Options) { o.BindingChange = v4.BindingShorten }

	type packet struct {
		q    wire.Query
		want string
		gone bool          // first the ERP forgets the bindings of subscriber 1
		wait time.Duration // before it is sent
	}
	for _, tc := range []struct {
		name    string
		options func(*Options)
		sent    []packet
	}{
		{"the ERP's MAC elsewhere takes nothing from the router on the line", andGuests, []packet{
			{q: at(27, discover(router)), want: "pool_offer 192.0.2.210"},
			{q: at(27, selecting(router, a)), want: "pool_ack 192.0.2.210"},
			{q: discover(0xa7), want: "port_full"},
			{q: at(99, discover(0xa7)), want: "port_full"},
			{q: rapid(0xa7), want: "port_full"},
			{q: selecting(0xa7, a), want: "says_less"}, // it may be the copy without the line of what the relay forwards
			{q: reboot(0xa7, a), want: "port_full"},
			{q: renew(0xa7, a), want: "nak_other_client"},
			{q: release(0xa7, a), want: "release_unknown"},
			{q: renew(router, a), want: "pool_ack 192.0.2.210"},
		}},
		{"on the line it does, and the old router is told", flats, []packet{
			{q: at(27, discover(router)), want: "pool_offer 192.0.2.210"},
			{q: at(27, selecting(router, a)), want: "pool_ack 192.0.2.210"},
			{q: at(27, discover(0xa7)), want: "pool_offer 192.0.2.210"},
			{q: at(27, selecting(0xa7, a)), want: "pool_ack 192.0.2.210"},
			{q: renew(router, a), want: "nak_other_client"},
		}},
		{"an identifier with the ERP's MAC in it takes nothing from who has that MAC", byID, []packet{
			{q: discover(0xa3), want: "pool_offer 192.0.2.210"},
			{q: selecting(0xa3, a), want: "pool_ack 192.0.2.210"},
			{q: named(id(0xa3), discover(router)), want: "port_full"},
			{q: named(id(0xa3), rapid(router)), want: "port_full"},
			{q: named(id(0xa3), selecting(router, a)), want: "nak_not_bound"},
			{q: named(id(0xa3), reboot(router, a)), want: "port_full"},
			{q: named(id(0xa3), release(router, a)), want: "release_unknown"},
			{q: renew(0xa3, a), want: "pool_ack 192.0.2.210"},
		}},
		{"the ERP's MAC takes nothing from who was found by its identifier, but gets it after that", byID, []packet{
			{q: named(id(0xa3), discover(router)), want: "pool_offer 192.0.2.210"},
			{q: named(id(0xa3), selecting(router, a)), want: "pool_ack 192.0.2.210"},
			{q: discover(0xa3), want: "port_full"},
			{q: selecting(0xa3, a), want: "nak_not_bound"},
			{q: discover(0xa3), want: "pool_offer 192.0.2.210", wait: 10*time.Minute + leaseSlack},
		}},
		{"a pool knows a client by its MAC: another identifier renews, before and after the other router asked", keyed, []packet{
			{q: named(cpe, at(20, discover(router))), want: "pool_offer 192.0.2.210"},
			{q: named(cpe, at(20, selecting(router, a))), want: "pool_ack 192.0.2.210"},
			{q: at(20, discover(next)), want: "pool_offer 192.0.2.210"},
			{q: at(20, selecting(next, a)), want: "pool_ack 192.0.2.210"},
			{q: named(cpe, renew(router, a)), want: "nak_other_client"},
			{q: at(20, discover(router)), want: "takeover_damped"},
			{q: at(20, selecting(router, a)), want: "nak_other_client"},
			{q: at(20, discover(router)), want: "pool_offer 192.0.2.210", wait: 5 * time.Minute},
			{q: at(20, selecting(router, a)), want: "pool_ack 192.0.2.210"},
			{q: named(cpe, renew(router, a)), want: "pool_ack 192.0.2.210"},
			{q: renew(next, a), want: "nak_other_client"},
		}},
		{"an identifier that many have ends no lease of a pool", keyedGuests, []packet{
			{q: named(cpe, selecting(router, host(201))), want: "pool_ack 192.0.2.201"},
			{q: named(cpe, release(next, host(201))), want: "release_unknown"},
			{q: selecting(0x79, host(201)), want: "nak_other_client"},
			{q: named(cpe, renew(router, host(201))), want: "pool_ack 192.0.2.201"},
			{q: release(router, host(201)), want: "pool_released 192.0.2.201"},
		}},
		{"a lease is shortened for who has it, not for the router before it", shorten, []packet{
			{q: discover(0x11), want: "offer 192.0.2.11"},
			{q: selecting(0x11, host(11)), want: "ack 192.0.2.11"},
			{q: at(1, discover(router)), want: "offer 192.0.2.11"},
			{q: at(1, selecting(router, host(11))), want: "ack 192.0.2.11"},
			{q: renew(0x11, host(11)), want: "nak_other_client", gone: true},
			{q: at(1, renew(0x11, host(11))), want: "nak_other_client"},
			{q: renew(router, host(11)), want: "ack_shortened 192.0.2.11"},
			{q: renew(0x11, host(11)), want: "nak_other_client"},
			{q: renew(router, host(11)), want: "nak_not_bound"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, snap := poolRig(t, &journal{})
				defer func() { require.NoError(t, r.end()) }()
				snap.Store(vacants(t))
				o := testOptions()
				tc.options(&o)
				require.NoError(t, r.s.Reload(o))
				for i, p := range tc.sent {
					if p.gone {
						snap.Store(without(t, snap.Load(), 1))
					}
					time.Sleep(p.wait + time.Second)
					r.ask(p.q)
					synctest.Wait()
					got := r.h.ev.Outcome.String()
					if d := &r.h.d; d.YourIP.IsValid() && (d.Reply.Type == wire.Offer || d.Reply.Type == wire.Ack || d.Change == v4.ChangeRelease) {
						got += " " + d.YourIP.String()
					}
					require.Equal(t, p.want, got, "packet %d", i+1)
				}
			})
		})
	}
}

// without is a snapshot without the bindings of a subscriber.
func without(t testing.TB, snap *provision.Snapshot, id provision.SubscriberID) *provision.Snapshot {
	t.Helper()
	in := provision.Input{KeepVacant: true, Devices: snap.Devices()}
	for l := range snap.Lines().All() {
		if l.Subscriber != id {
			in.Lines = append(in.Lines, *l)
		}
	}
	out, _ := provision.Build(in)
	return out
}
