package dhcpd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// guests are four addresses for unknown clients, on the wire of 192.0.2.0/24
// and behind the relays of 198.51.100.0/24.
func guests() Pool {
	return Pool{
		Name: "guests", Kind: PoolGuests, First: host(200), Last: host(203), LeaseTime: 2 * time.Minute,
		Links: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, WarnAt: 0.75,
		OptionSet: OptionSet{DNS: []netip.Addr{host(5)}, CaptivePortal: "https://portal.example.net/api"},
	}
}

func withGuests(_ *request, o *Options) {
	o.Unknown, o.Pools = UnknownGuest, []Pool{guests()}
}

// guest is a lease of the pool, a minute from its end.
func guest(a netip.Addr, mac provision.MAC) lease.Record {
	r := bound(a, mac, 0)
	r.Pool = "guests"
	return r
}

func with(r lease.Record, change func(*lease.Record)) lease.Record {
	change(&r)
	return r
}

func TestPoolDecisions(t *testing.T) {
	const toRelay = " by relay to 198.51.100.1:67"
	relayed := func(typ wire.MessageType, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40), Options: more}
	}
	direct := func(typ wire.MessageType, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: stranger, Options: more}
	}
	renewing := func(a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a}
	}
	full := leases(guest(host(200), client(1)), guest(host(201), client(2)), guest(host(202), client(3)), guest(host(203), client(4)))
	known := relayed(wire.Request, chosen(serverIP), requested(host(200)))
	known.Option82, known.MAC = port(switch1, 1), client(0x11)
	silent := func(_ *request, o *Options) { o.Unknown = UnknownSilence }
	nak := func(_ *request, o *Options) { o.Unknown = UnknownNak }
	elsewhere := func(r *request, _ *Options) { r.local = ip("203.0.113.1") }
	for _, tc := range []struct {
		name   string
		q      wire.Query
		leases *lease.Table
		want   string
		change func(*request, *Options)
	}{
		// 203 is where the hash of stranger points.
		{"unknown port", relayed(wire.Discover), nil, "pool_offer 192.0.2.203" + toRelay + " hold", nil},
		{"unknown client, directly attached", direct(wire.Discover), nil, "pool_offer 192.0.2.203 by frame hold", nil},
		{"the wish is heard", direct(wire.Discover, requested(host(202))), nil, "pool_offer 192.0.2.202 by frame hold", nil},
		{"the earlier address comes first", direct(wire.Discover, requested(host(202))), leases(guest(host(201), stranger)), "pool_offer 192.0.2.201 by frame hold", nil},
		{"also when it ran out", direct(wire.Discover), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(-time.Hour) })), "pool_offer 192.0.2.201 by frame hold", nil},
		{"not one that another has", direct(wire.Discover, requested(host(202))), leases(guest(host(202), client(1))), "pool_offer 192.0.2.203 by frame hold", nil},
		{"not one in quarantine", direct(wire.Discover, requested(host(202))), leases(with(guest(host(202), stranger), func(r *lease.Record) { r.State = lease.StateQuarantined })), "pool_offer 192.0.2.203 by frame hold", nil},
		{"not one of a customer whose binding is gone but whose lease lives", direct(wire.Discover, requested(host(202))), leases(bound(host(202), client(1), 9)), "pool_offer 192.0.2.203 by frame hold", nil},
		{"exhausted", direct(wire.Discover), full, "pool_exhausted", nil},
		{"another wire", direct(wire.Discover), nil, "no_pool", elsewhere},
		{"silence", direct(wire.Discover), nil, "unknown_client", silent},
		{"nak keeps silent to DISCOVER", direct(wire.Discover), nil, "unknown_client", nak},
		{"a full port is no guest", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 4)}, leases(bound(host(41), client(0x41), 4), bound(host(42), client(0x42), 5)), "port_full", nil},
		{"a customer gets his own", wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{requested(host(200))}}, nil, "offer 192.0.2.11" + toRelay, nil},

		{"selecting", direct(wire.Request, chosen(serverIP), requested(host(201))), nil, "pool_ack 192.0.2.201 by frame pool", nil},
		{"selecting what another has", direct(wire.Request, chosen(serverIP), requested(host(201))), leases(guest(host(201), client(1))), "nak_other_client by broadcast", nil},
		{"selecting outside", direct(wire.Request, chosen(serverIP), requested(host(199))), nil, "nak_not_bound by broadcast", nil},
		{"selecting on another wire", direct(wire.Request, chosen(ip("203.0.113.1")), requested(host(201))), nil, "nak_not_bound by broadcast", elsewhere},
		{"selecting by a customer", known, nil, "nak_wrong_address 192.0.2.11" + toRelay, nil},
		{"selecting, other server", direct(wire.Request, chosen(host(9)), requested(host(201))), nil, "not_for_us", nil},
		{"selecting, nak", direct(wire.Request, chosen(serverIP), requested(host(201))), nil, "nak_unknown by broadcast", nak},

		{"init-reboot", direct(wire.Request, requested(host(201))), leases(guest(host(201), stranger)), "pool_ack 192.0.2.201 by frame pool", nil},
		{"init-reboot after the end", direct(wire.Request, requested(host(201))), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(-time.Hour) })), "pool_ack 192.0.2.201 by frame pool", nil},
		{"init-reboot, no record", direct(wire.Request, requested(host(201))), nil, "init_reboot_unknown", nil},
		{"init-reboot, wrong network", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "nak_not_bound by broadcast", nil},
		{"init-reboot, wrong network, not authoritative", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "init_reboot_unknown", func(_ *request, o *Options) { o.Authoritative = false }},
		{"init-reboot, wrong network, silence", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "init_reboot_unknown", silent},
		{"init-reboot, nak", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "nak_unknown by broadcast", nak},

		{"renewing", renewing(host(201)), leases(guest(host(201), stranger)), "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool", nil},
		{"renewing from the same place", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Ifindex, r.Interface = 3, "eth0" })), "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool-renew", nil},
		{"renewing past the relay", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.GIAddr = relayIP })), "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool-renew", elsewhere},
		{"renewing on another wire", renewing(host(201)), leases(guest(host(201), stranger)), "nak_not_bound by broadcast", elsewhere},
		{"renewing another's", renewing(host(201)), leases(guest(host(201), client(1))), "nak_other_client by broadcast", nil},
		{"renewing without a record", renewing(host(201)), nil, "renew_unknown", nil},
		{"renewing one in quarantine", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.State = lease.StateQuarantined })), "nak_other_client by broadcast", nil},
		{"renewing when guests are not served any more", renewing(host(201)), leases(guest(host(201), stranger)), "nak_not_bound by broadcast", silent},
		{"renewing when the pool is gone", renewing(host(201)), leases(guest(host(201), stranger)), "nak_not_bound by broadcast", func(_ *request, o *Options) { o.Pools[0].First = host(202) }},
		{"renewing, by now the ERP knows the MAC", wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(201)}, leases(guest(host(201), client(0x11))), "nak_wrong_address 192.0.2.11 by broadcast", nil},
		{"rebinding, by now the ERP knows the port", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201), GIAddr: relayIP, Option82: port(switch1, 2)}, leases(guest(host(201), stranger)), "nak_wrong_address 192.0.2.21" + toRelay, nil},
		{"rebinding, by now the ERP knows the port, shorten", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201), GIAddr: relayIP, Option82: port(switch1, 2)}, leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(time.Hour) })), "nak_wrong_address 192.0.2.21" + toRelay, func(_ *request, o *Options) { o.BindingChange = BindingShorten }},
		{"renewing past the relay, by now the ERP knows the port", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.GIAddr, r.Device, r.Port = relayIP, 1, 2 })), "nak_not_bound by broadcast", nil},
		{"rebinding through the relay, nak", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201), GIAddr: relayIP, Option82: port(switch1, 40)}, nil, "nak_unknown" + toRelay, nak},
		{"renewing past the relay, nak", renewing(host(201)), nil, "renew_unknown", nak},

		{"release", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(201)}, leases(guest(host(201), stranger)), "pool_released 192.0.2.201 release", nil},
		{"release of another's", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(201)}, leases(guest(host(201), client(1))), "release_unknown", nil},
		{"decline", direct(wire.Decline, requested(host(201))), leases(guest(host(201), stranger)), "pool_declined 192.0.2.201 quarantine", nil},
		{"decline of another's", direct(wire.Decline, requested(host(201))), leases(guest(host(201), client(1))), "decline_unknown", nil},
		{"decline after the end", direct(wire.Decline, requested(host(201))), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow })), "decline_unknown", nil},
		{"decline of nothing", direct(wire.Decline, requested(host(201))), nil, "decline_unknown", nil},
		{"inform", wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(201)}, leases(guest(host(201), stranger)), "inform_ack 192.0.2.201 by unicast to 192.0.2.201:68", nil},
		{"inform by hand", wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(201)}, nil, "inform_unknown", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			changes := []func(*request, *Options){withGuests}
			if tc.change != nil {
				changes = append(changes, tc.change)
			}
			assert.Equal(t, tc.want, told(run(t, tc.q, tc.leases, changes...)))
		})
	}
}

func TestPoolAddressesOfTheERPAreNotGiven(t *testing.T) {
	ofERP := func(_ *request, o *Options) {
		withGuests(nil, o)
		o.Pools[0].First, o.Pools[0].Last = host(30), host(34) // 31, 32 and 33 are bound in world
	}
	for n := byte(30); n <= 34; n++ {
		d := run(t, wire.Query{Type: wire.Discover, MAC: stranger, Options: []wire.Option{requested(host(n))}}, nil, ofERP)
		require.Contains(t, []netip.Addr{host(30), host(34)}, d.yourIP)
		d = run(t, wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(n)}, leases(guest(host(n), stranger)), ofERP)
		if n == 30 || n == 34 {
			require.Equal(t, OutcomePoolAck, d.outcome)
		} else {
			require.Equal(t, OutcomeNakNotBound, d.outcome, "bound while it was leased")
		}
	}
}

func TestPoolOptions(t *testing.T) {
	d := run(t, wire.Query{Type: wire.Discover, MAC: stranger}, nil, withGuests)
	q := wire.Query{Type: wire.Discover, MAC: stranger}
	var p wire.Packet
	require.NoError(t, p.Parse(q.Append(nil)))
	lib, err := dhcpv4.FromBytes(d.reply.Append(nil, &p))
	require.NoError(t, err)
	assert.Equal(t, "[192.0.2.5]", fmt.Sprint(lib.DNS()), "the pool's")
	assert.Equal(t, "[192.0.2.1]", fmt.Sprint(lib.Router()), "the subnet's")
	assert.Equal(t, "example.net", lib.DomainName(), "the subnet's")
	assert.Equal(t, "https://portal.example.net/api", string(lib.Options.Get(dhcpv4.GenericOptionCode(114))))
	assert.Equal(t, 2*time.Minute, lib.IPAddressLeaseTime(0))
	assert.Equal(t, time.Minute, lib.IPAddressRenewalTime(0))
	assert.Equal(t, 105*time.Second, lib.IPAddressRebindingTime(0))
}

func TestCompilePoolsReportsMistakes(t *testing.T) {
	o := testOptions()
	g := guests()
	other := g
	other.Name, other.First, other.Last = "other", host(203), host(210)
	nowhere := g
	nowhere.Name, nowhere.First, nowhere.Last = "nowhere", ip("10.0.0.1"), ip("10.0.0.9")
	short := g
	short.Name, short.LeaseTime, short.First, short.Last = "short", time.Second, host(220), host(221)
	o.Pools = []Pool{g, other, nowhere, short, {Name: "kind"}}
	o.Unknown, o.Quarantine = 9, -1
	_, err := compile(o)
	for _, want := range []string{`pool "other": has the name of pool "guests" or overlaps it`, `pool "nowhere": 10.0.0.1-10.0.0.9 is not within one subnet`,
		`pool "short": lease time 1s`, `pool "kind": want a name, and the kind guests`, "unknown clients 9", "quarantine -1ns"} {
		assert.ErrorContains(t, err, want)
	}
}

// poolRig is a rig whose handler serves guests; the snapshot can be exchanged.
func poolRig(t testing.TB, j *journal) (*rig, *atomic.Pointer[provision.Snapshot]) {
	t.Helper()
	var snap atomic.Pointer[provision.Snapshot]
	snap.Store(world(t))
	r := &rig{out: &sink{}, j: j, n: &counter{}, log: NewEventLog(1000)}
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "state.db"), 0o600, &bbolt.Options{NoSync: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	tab, err := lease.Open(db)
	require.NoError(t, err)
	o := testOptions()
	withGuests(nil, &o)
	deps := Deps{Snapshot: snap.Load, Leases: tab, Observer: Observers{r.n, r.log}, Log: slog.New(slog.DiscardHandler)}
	if j != nil {
		deps.Journal = j
	}
	r.s, err = New(o, deps)
	require.NoError(t, err)
	r.c = newCommitter(r.s, r.out)
	r.h = newHandler(r.s, r.c, r.out, nil)
	done := make(chan error, 1)
	go func() { done <- r.c.run() }()
	r.end = func() error {
		close(r.c.queue)
		return <-done
	}
	return r, &snap
}

func discoverBy(mac provision.MAC) wire.Query {
	return wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: port(switch1, 40)}
}

func selectBy(mac provision.MAC, a netip.Addr) wire.Query {
	q := discoverBy(mac)
	q.Type, q.Options = wire.Request, []wire.Option{chosen(serverIP), requested(a)}
	return q
}

// last gives the newest reply.
func (r *rig) last() sentReply {
	all := r.out.all()
	return all[len(all)-1]
}

// join is DISCOVER and REQUEST; it gives the address.
func (r *rig) join(t testing.TB, mac provision.MAC) netip.Addr {
	t.Helper()
	r.ask(discoverBy(mac))
	require.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
	a := r.last().yourIP
	r.ask(selectBy(mac, a))
	synctest.Wait()
	time.Sleep(time.Second)
	require.Equal(t, wire.Ack, r.last().kind)
	require.Equal(t, a, r.last().yourIP)
	return a
}

func TestPoolLeaseIsOnDiskBeforeTheAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: 500 * time.Millisecond})
		r.ask(discoverBy(stranger))
		a := r.last().yourIP
		begin := time.Now()
		r.ask(selectBy(stranger, a))
		time.Sleep(499 * time.Millisecond)
		synctest.Wait()
		require.Len(t, r.out.all(), 1, "no ACK before the record is on disk, however slow the disk is")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Len(t, r.out.all(), 2)
		assert.Equal(t, "guests", r.j.groups[0][0].Lease.Pool)
		assert.Equal(t, begin.Add(2*time.Minute), r.j.groups[0][0].Lease.Expires)
		assert.Nil(t, r.j.groups[0][0].Report, "a guest's MAC is nothing for the ERP")
		// A renewal moves the expiry, so it waits as well.
		time.Sleep(time.Minute)
		renew := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a}
		r.ask(renew)
		synctest.Wait()
		require.Len(t, r.out.all(), 2)
		time.Sleep(time.Second)
		require.Len(t, r.out.all(), 3)
		assert.Equal(t, []int{1, 1}, r.j.sizes())
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"discover pool_offer": 1, "request pool_ack": 2}, r.n.get())
	})
}

func TestFailingDiskGivesNoPoolLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		r.j.fail(errors.New("disk full"))
		r.ask(discoverBy(stranger))
		a := r.last().yourIP
		r.ask(selectBy(stranger, a))
		r.ask(selectingOn(2, client(0x77), host(21)))
		time.Sleep(time.Second)
		require.Len(t, r.out.all(), 2, "the offer, and the ACK of a bound address")
		assert.Equal(t, host(21), r.last().yourIP)
		r.j.fail(nil)
		r.ask(selectBy(stranger, a)) // the client asks again
		time.Sleep(time.Second)
		assert.Equal(t, a, r.last().yourIP)
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"discover pool_offer": 1, "request pool_not_durable": 1, "request ack_before_commit": 1, "request pool_ack": 1}, r.n.get())
	})
}

func TestPoolAckComesInTimeOrNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: maxPoolWait + time.Millisecond})
		r.ask(discoverBy(stranger))
		r.ask(selectBy(stranger, r.last().yourIP))
		r.ask(selectingOn(2, client(0x77), host(21))) // behind it in the same queue
		time.Sleep(time.Minute)
		sent := r.out.all()
		require.Len(t, sent, 2)
		assert.Equal(t, host(21), sent[1].yourIP, "bound addresses do not wait for pools")
		assert.Equal(t, 100*time.Millisecond, sent[1].at.Sub(sent[0].at))
		require.NoError(t, r.end())
		assert.Equal(t, 1, r.n.get()["request pool_not_durable"])
	})
}

func TestHangingDiskGivesNoPoolLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: time.Minute})
		r.ask(discoverBy(stranger))
		r.ask(selectBy(stranger, r.last().yourIP))
		synctest.Wait()
		require.ErrorContains(t, r.end(), "lease journal hangs")
		assert.Len(t, r.out.all(), 1)
		assert.Equal(t, 1, r.n.get()["request pool_not_durable"])
		time.Sleep(time.Minute)
	})
}

func TestNoJournalNoPoolLease(t *testing.T) {
	for _, volatile := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			j := &journal{}
			if !volatile {
				j = nil
			}
			r, _ := poolRig(t, j)
			r.s.deps.Volatile = volatile
			r.ask(discoverBy(stranger))
			r.ask(selectBy(stranger, r.last().yourIP))
			time.Sleep(time.Second)
			assert.Len(t, r.out.all(), 1)
			require.NoError(t, r.end())
			assert.Equal(t, 1, r.n.get()["request pool_not_durable"])
		})
	}
}

func TestTwoClientsAreNeverOfferedOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		seen := map[netip.Addr]bool{}
		for n := range byte(4) {
			r.ask(discoverBy(client(n)))
			require.False(t, seen[r.last().yourIP])
			seen[r.last().yourIP] = true
		}
		r.ask(discoverBy(client(5)))
		assert.Equal(t, OutcomePoolExhausted, r.h.ev.Outcome)
		r.ask(discoverBy(client(2))) // asks again: the same
		require.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
		st := r.s.Pools()[0]
		assert.Equal(t, pool.Counts{Size: 4, Offered: 4}, st.Counts)
		assert.EqualValues(t, 1, st.Exhausted)
		assert.True(t, st.Full)
		time.Sleep(offerHold)
		r.ask(discoverBy(client(5)))
		assert.Equal(t, OutcomePoolOffer, r.h.ev.Outcome, "those who did not ask lost their claim")
		assert.False(t, r.s.Pools()[0].Full)
		require.NoError(t, r.end())
	})
}

// The ERP learns the port of a guest: at the next renewal the client is sent to its own address.
func TestGuestMovesWhenTheERPLearnsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, snap := poolRig(t, &journal{})
		a := r.join(t, stranger)
		in := provision.Input{
			Devices:     []provision.Device{{ID: 1, MAC: switch1}},
			Bindings:    []provision.Binding{{Subscriber: 50, IP: host(50), Device: 1, Port: 40}},
			Subscribers: []provision.Subscriber{{ID: 50, State: provision.StateActive}},
		}
		next, _ := provision.Build(in)
		snap.Store(next)
		q := discoverBy(stranger)
		q.Type, q.CIAddr = wire.Request, a
		r.ask(q)
		assert.Equal(t, OutcomeNakWrongAddress, r.h.ev.Outcome)
		r.ask(discoverBy(stranger))
		assert.Equal(t, host(50), r.last().yourIP)
		// The other way round: a subscriber that vanishes from the ERP is a guest.
		r.ask(selectBy(stranger, host(50)))
		time.Sleep(time.Second)
		snap.Store(world(t))
		q.CIAddr = host(50)
		r.ask(q)
		assert.Equal(t, OutcomeNakNotBound, r.h.ev.Outcome)
		r.ask(discoverBy(stranger))
		assert.Equal(t, a, r.last().yourIP, "what it had as a guest before")
		require.NoError(t, r.end())
	})
}

// An address that the ERP binds while a guest has it: the guest loses it at the
// next renewal, and when the ERP takes the binding back nobody gets the
// address while the customer's lease lives.
func TestAddressBoundWhileLeased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, snap := poolRig(t, &journal{})
		a := r.join(t, stranger)
		in := provision.Input{
			Devices:     []provision.Device{{ID: 1, MAC: switch1}},
			Bindings:    []provision.Binding{{Subscriber: 50, IP: a, Device: 1, Port: 7}},
			Subscribers: []provision.Subscriber{{ID: 50, State: provision.StateActive}},
		}
		next, _ := provision.Build(in)
		snap.Store(next)
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a})
		assert.Equal(t, OutcomeNakNotBound, r.h.ev.Outcome)
		r.ask(discoverBy(stranger))
		assert.NotEqual(t, a, r.last().yourIP)
		customer := selectingOn(7, client(0x70), a)
		r.ask(customer)
		time.Sleep(time.Second)
		require.Equal(t, a, r.last().yourIP)
		require.Equal(t, wire.Ack, r.last().kind)

		snap.Store(world(t))
		for n := range byte(8) {
			q := discoverBy(client(n))
			q.Options = []wire.Option{requested(a)}
			r.ask(q)
			assert.NotEqual(t, a, r.h.ev.YourIP, "the customer may still use it")
		}
		require.NoError(t, r.end())
	})
}

func TestDeclinedPoolAddressIsKeptAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		a := r.join(t, stranger)
		r.ask(wire.Query{Type: wire.Decline, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40), Options: []wire.Option{requested(a), chosen(serverIP)}})
		require.Equal(t, OutcomePoolDeclined, r.h.ev.Outcome)
		b := r.join(t, stranger)
		require.NotEqual(t, a, b)
		slot, ok := r.s.PoolAddress(a)
		require.True(t, ok)
		assert.Equal(t, "quarantined", slot.State)
		assert.EqualValues(t, 1, r.s.Pools()[0].Declines)

		// A new server over the same table knows it too.
		require.NoError(t, r.s.deps.Leases.Flush())
		o := testOptions()
		withGuests(nil, &o)
		again, err := New(o, r.s.deps)
		require.NoError(t, err)
		slot, _ = again.PoolAddress(a)
		assert.Equal(t, "quarantined", slot.State)
		slot, _ = again.PoolAddress(b)
		assert.Equal(t, "leased", slot.State)
		assert.Equal(t, stranger, slot.MAC)
		time.Sleep(time.Hour)
		slot, _ = r.s.PoolAddress(a)
		assert.Equal(t, "free", slot.State)
		require.NoError(t, r.end())
	})
}

func TestReloadKeepsPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		a := r.join(t, stranger)
		r.ask(discoverBy(client(1)))
		offered := r.last().yourIP
		o := testOptions()
		withGuests(nil, &o)
		require.NoError(t, r.s.Reload(o))
		slot, _ := r.s.PoolAddress(offered)
		assert.Equal(t, "offered", slot.State, "an unchanged pool keeps everything")
		o.Pools[0].Last = host(210)
		require.NoError(t, r.s.Reload(o))
		slot, _ = r.s.PoolAddress(a)
		assert.Equal(t, "leased", slot.State, "a changed one keeps its leases")
		assert.Equal(t, 11, r.s.Pools()[0].Size)
		o.Pools = nil
		o.Unknown = UnknownSilence
		require.NoError(t, r.s.Reload(o))
		_, ok := r.s.PoolAddress(a)
		assert.False(t, ok)
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a})
		assert.Equal(t, OutcomeNakNotBound, r.h.ev.Outcome, "the client begins anew")
		require.NoError(t, r.end())
	})
}

func TestPoolWarnsOncePerCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		var log bytes.Buffer
		r.s.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		for n := range byte(4) {
			r.ask(discoverBy(client(n)))
		}
		time.Sleep(offerHold)
		r.s.Pools()
		r.ask(discoverBy(client(1)))
		require.NoError(t, r.end())
		assert.Equal(t, "level=WARN msg=\"pool gets full\" pool=guests used=75% warn_at=75%\n"+
			"level=INFO msg=\"pool has room again\" pool=guests used=0%\n", log.String())
	})
}

func TestExplainTellsThePool(t *testing.T) {
	r, _ := poolRig(t, nil)
	e := r.s.Explain(Query{MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40)})
	assert.Equal(t, OutcomePoolOffer, e.Outcome)
	assert.Equal(t, "guests", e.Pool)
	assert.Equal(t, pool.Counts{Size: 4, Free: 4}, r.s.Pools()[0].Counts, "explaining reserves nothing")
	assert.Empty(t, r.s.PoolAddresses(""))
	require.NoError(t, r.end())
}

// Random clients, time, bindings and disk failures. At no time two live clients
// have one address of the pool, nor one a new lease of an address of the ERP.
func TestPoolInvariants(t *testing.T) {
	for seed := range uint64(long.Times(t, 20, 3000)) {
		synctest.Test(t, func(t *testing.T) { poolWalk(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func poolWalk(t *testing.T, rnd *rand.Rand) {
	r, snap := poolRig(t, &journal{})
	type holder struct {
		mac   provision.MAC
		until time.Time
	}
	holds := map[netip.Addr]holder{} // as the clients see it
	offered := map[provision.MAC]netip.Addr{}
	boundNow := map[netip.Addr]bool{}
	seen := 0
	for range 400 {
		mac := client(byte(rnd.IntN(9)))
		var mine netip.Addr
		for a, h := range holds {
			if h.mac == mac && time.Now().Before(h.until) {
				mine = a
			}
		}
		switch rnd.IntN(10) {
		case 0, 1:
			r.ask(discoverBy(mac))
		case 2, 3, 4:
			if a, ok := offered[mac]; ok {
				r.ask(selectBy(mac, a))
			} else {
				r.ask(selectBy(mac, host(200+byte(rnd.IntN(4)))))
			}
		case 5:
			if mine.IsValid() {
				r.ask(wire.Query{Type: wire.Request, MAC: mac, CIAddr: mine})
			}
		case 6:
			time.Sleep(time.Duration(rnd.IntN(40)) * time.Second)
		case 7:
			if mine.IsValid() {
				typ := []wire.MessageType{wire.Release, wire.Decline}[rnd.IntN(2)]
				q := wire.Query{Type: typ, MAC: mac, GIAddr: relayIP, Option82: port(switch1, 40)}
				if typ == wire.Release {
					q.CIAddr = mine
				} else {
					q.Options = []wire.Option{requested(mine)}
				}
				r.ask(q)
				delete(holds, mine)
			}
		case 8:
			if rnd.IntN(3) == 0 {
				r.j.fail(errors.New("disk"))
			} else {
				r.j.fail(nil)
			}
		case 9:
			in := provision.Input{Devices: []provision.Device{{ID: 1, MAC: switch1}}, Bindings: []provision.Binding{{Subscriber: 1, IP: host(11), Device: 1, Port: 1}}}
			clear(boundNow)
			for n := range byte(4) {
				if rnd.IntN(3) == 0 {
					in.Bindings = append(in.Bindings, provision.Binding{Subscriber: 60, IP: host(200 + n), Device: 1, Port: 9})
					boundNow[host(200+n)] = true
				}
			}
			next, _ := provision.Build(in)
			snap.Store(next)
		}
		synctest.Wait()
		all := r.out.all()
		for _, s := range all[seen:] {
			switch s.kind {
			case wire.Offer:
				require.False(t, boundNow[s.yourIP], "offered an address of the ERP")
				h, taken := holds[s.yourIP]
				require.False(t, taken && h.mac != mac && time.Now().Before(h.until), "offered another's address")
				offered[mac] = s.yourIP
			case wire.Ack:
				require.False(t, boundNow[s.yourIP], "leased an address of the ERP")
				h, taken := holds[s.yourIP]
				require.False(t, taken && h.mac != mac && time.Now().Before(h.until), "two clients on %v", s.yourIP)
				holds[s.yourIP] = holder{mac, time.Now().Add(2 * time.Minute)}
				last := r.j.groups[len(r.j.groups)-1]
				require.Equal(t, s.yourIP, last[len(last)-1].Lease.IP, "not on disk")
			}
		}
		seen = len(all)
	}
	require.NoError(t, r.end())
}

// guestRig is a handler that has a guest renewing; what it hands to the committer is thrown away.
func guestRig(t testing.TB) (*handler, *committer, datagram) {
	t.Helper()
	snap := world(t)
	o := testOptions()
	withGuests(nil, &o)
	s, err := New(o, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New(), Journal: &journal{}, Observer: Observers{NewEventLog(16)}})
	require.NoError(t, err)
	c := newCommitter(s, discard{})
	h := newHandler(s, c, discard{}, nil)
	q := discoverBy(stranger)
	q.Type, q.CIAddr = wire.Request, host(201)
	q.Options = []wire.Option{{Code: 55, Value: []byte{1, 3, 6, 15, 42}}, {Code: 61, Value: []byte{1, 2, 3}}}
	s.deps.Leases.Store(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(time.Hour) }))
	g := datagram{data: q.Append(nil), from: netip.AddrPortFrom(relayIP, 67), ifindex: 3, to: serverIP}
	return h, c, g
}

func (c *committer) throwAway() {
	for len(c.queue) > 0 {
		c.pool.Put(<-c.queue)
	}
}

func TestPoolSteadyStateDoesNotAllocate(t *testing.T) {
	h, c, renew := guestRig(t)
	discover := discoverBy(stranger)
	d := datagram{data: discover.Append(nil), from: netip.AddrPortFrom(relayIP, 67), ifindex: 3, to: serverIP}
	now := testNow
	both := func() {
		now = now.Add(time.Second)
		h.handle(now, renew)
		c.throwAway()
		h.handle(now, d)
	}
	for range 20 {
		both()
	}
	require.Equal(t, OutcomePoolOffer, h.ev.Outcome)
	if !raced {
		require.Zero(t, testing.AllocsPerRun(500, both))
	}
	h.handle(now, renew)
	require.Equal(t, changePoolRenew, h.d.change)
}

func BenchmarkPoolRenewal(b *testing.B) {
	h, c, renew := guestRig(b)
	now := testNow
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		h.handle(now, renew)
		c.throwAway()
	}
}
