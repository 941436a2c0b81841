package console

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
)

func TestParseSubject(t *testing.T) {
	m := mac(t, "00:00:5e:00:53:11")
	tests := map[string]struct {
		want subject
		bad  bool
	}{
		"198.51.100.11":        {want: subject{kind: "ip", ip: ip("198.51.100.11")}},
		" 198.51.100.11 ":      {want: subject{kind: "ip", ip: ip("198.51.100.11")}},
		"::ffff:198.51.100.11": {want: subject{kind: "ip", ip: ip("198.51.100.11")}},
		"00:00:5e:00:53:11":    {want: subject{kind: "mac", mac: m}},
		"00-00-5E-00-53-11":    {want: subject{kind: "mac", mac: m}},
		"0000.5e00.5311":       {want: subject{kind: "mac", mac: m}},
		"00005e005311":         {want: subject{kind: "mac", mac: m}},
		"001122334455":         {want: subject{kind: "mac", mac: mac(t, "00:11:22:33:44:55")}},
		"1001":                 {want: subject{kind: "customer", id: 1001}},
		"0":                    {bad: true},
		"-5":                   {bad: true},
		"":                     {bad: true},
		"2001:db8::1":          {bad: true},
		"ff:ff:ff:ff:ff:ff":    {bad: true},
		"smith":                {bad: true},
		"99999999999999999999": {bad: true},
	}
	for q, tt := range tests {
		t.Run(q, func(t *testing.T) {
			got, err := parseSubject(q)
			if tt.bad {
				require.ErrorIs(t, err, errQuery)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

// TestSummary is the answer to "why did this subscriber get no address?".
func TestSummary(t *testing.T) {
	leaseOf11 := func(t *testing.T) lease.Record {
		return lease.Record{
			IP: ip("198.51.100.11"), MAC: mac(t, "00:00:5e:00:53:11"), Subscriber: 1001, State: lease.StateBound,
			GIAddr: ip("192.0.2.70"), Option82: lease.Hex{1, 2, 3, 4}, Renewed: testStart.Add(-time.Hour),
		}
	}
	tests := map[string]struct {
		query   string
		arrange func(t *testing.T, w *world)
		want    string
	}{
		"answered": {
			query: "1001",
			arrange: func(t *testing.T, w *world) {
				w.packet(dhcpd.Event{Time: w.now.Add(-3 * time.Second), Type: wire.Request, Outcome: outcome.Ack, Subscriber: 1001, YourIP: ip("198.51.100.11"), MAC: mac(t, "00:00:5e:00:53:11")})
			},
			want: "Customer 1001 (active) is bound to 198.51.100.11 on port ge-0/0/1 of sw-west-1, MAC 00:00:5e:00:53:11 (and 1 address more). " +
				"Its newest packet, 3s ago, was a REQUEST with the outcome ack: " + outcome.Ack.Explain(),
		},
		"port is taken": {
			query: "1003",
			arrange: func(t *testing.T, w *world) {
				w.dhcp.answer.Outcome = outcome.PortFull
				w.packet(dhcpd.Event{Time: w.now.Add(-90 * time.Second), Outcome: outcome.PortFull, Device: 7, Port: 3, MAC: mac(t, "00:00:5e:00:53:99")})
			},
			want: "Customer 1003 (stop) is bound to 198.51.100.13 on port 3 of sw-west-1, no MAC known yet. " +
				"Its newest packet, 1m 30s ago, was a DISCOVER with the outcome port_full: " + outcome.PortFull.Explain() + " " +
				"Ask who else is on this port; give the subscriber a second address in the ERP, or wait for the other client's lease to end. " +
				"Customer 1003 is stopped, so its forwarded IPv4 traffic is dropped.",
		},
		"two devices fight": {
			query: "198.51.100.13",
			arrange: func(t *testing.T, w *world) {
				has, wants := mac(t, "00:00:5e:00:53:b2"), mac(t, "00:00:5e:00:53:a1")
				w.dhcp.answer = dhcpd.Explanation{Outcome: outcome.TakeoverDamped, YourIP: ip("198.51.100.13"), Rival: has, Until: w.now.Add(time.Minute)}
				w.packet(dhcpd.Event{Time: w.now.Add(-time.Second), Outcome: outcome.TakeoverDamped, Device: 7, Port: 3, MAC: wants, YourIP: ip("198.51.100.13"), Rival: has, Subscriber: 1003})
			},
			want: "Customer 1003 (stop) is bound to 198.51.100.13 on port 3 of sw-west-1, no MAC known yet. " +
				"Its newest packet, 1s ago, was a DISCOVER with the outcome takeover_damped: " + outcome.TakeoverDamped.Explain() + " " +
				"00:00:5e:00:53:b2 has the address, 00:00:5e:00:53:a1 wants it. " +
				"Find out which of the two devices is to have the address and take the other off the line, or give the subscriber a second address in the ERP. " +
				"00:00:5e:00:53:a1 may have it from " + stamp(testStart.Add(3*time.Minute)) + " on. " +
				"Customer 1003 is stopped, so its forwarded IPv4 traffic is dropped.",
		},
		"a renewal from elsewhere": {
			query: "198.51.100.11",
			arrange: func(t *testing.T, w *world) {
				m := mac(t, "00:00:5e:00:53:11")
				var rule v4.Rule
				require.NoError(t, rule.UnmarshalText([]byte("extend_elsewhere")))
				away := dhcpd.Event{Type: wire.Request, Outcome: outcome.MACElsewhere, Rule: rule, MAC: m, YourIP: ip("198.51.100.11"), Subscriber: 1001,
					Source: netip.MustParseAddrPort("198.51.100.99:68"), GIAddr: ip("192.0.2.71"), Interface: "eth9"}
				away.Time = w.now.Add(-9 * time.Second)
				w.packet(away)
				away.Time = w.now.Add(-2 * time.Second)
				w.packet(away)
				w.packet(dhcpd.Event{Time: w.now.Add(-time.Second), Type: wire.Request, Outcome: outcome.Ack, Subscriber: 1001, YourIP: ip("198.51.100.11"), MAC: m})
			},
			want: "Customer 1001 (active) is bound to 198.51.100.11 on port ge-0/0/1 of sw-west-1, MAC 00:00:5e:00:53:11. " +
				"Its newest packet, 1s ago, was a REQUEST with the outcome ack: " + outcome.Ack.Explain() + " " +
				"2 renewals from elsewhere were left alone, the newest 2s ago from 00:00:5e:00:53:11 at 198.51.100.99:68 through relay 192.0.2.71 on eth9.",
		},
		"what decided": {
			query: "00:00:5e:00:53:11",
			arrange: func(t *testing.T, w *world) {
				var rule v4.Rule
				require.NoError(t, rule.UnmarshalText([]byte("extend_elsewhere")))
				w.packet(dhcpd.Event{Time: w.now.Add(-time.Second), Type: wire.Request, Outcome: outcome.MACElsewhere, Rule: rule, MAC: mac(t, "00:00:5e:00:53:11")})
			},
			want: "Customer 1001 (active) is bound to 198.51.100.11 on port ge-0/0/1 of sw-west-1, MAC 00:00:5e:00:53:11. " +
				"Its newest packet, 1s ago, was a REQUEST with the outcome mac_elsewhere: " + outcome.MACElsewhere.Explain() + " " +
				"What decided is extend_elsewhere: The client's lease was given elsewhere than where the renewal comes from, and is live, or its address of no use there: it is left alone. " +
				Advice(outcome.MACElsewhere) + " A DISCOVER now would have the outcome offer: " + outcome.Offer.Explain() + " " +
				"1 renewal from elsewhere was left alone, the newest 1s ago from 00:00:5e:00:53:11.",
		},
		"refused before, offered now": {
			query: "00:00:5e:00:53:11",
			arrange: func(t *testing.T, w *world) {
				w.packet(dhcpd.Event{Time: w.now.Add(-time.Minute), Outcome: outcome.NotReady, MAC: mac(t, "00:00:5e:00:53:11")})
			},
			want: "Customer 1001 (active) is bound to 198.51.100.11 on port ge-0/0/1 of sw-west-1, MAC 00:00:5e:00:53:11. " +
				"Its newest packet, 1m 0s ago, was a DISCOVER with the outcome not_ready: " + outcome.NotReady.Explain() + " " +
				"See in the status why there is no snapshot: the ERP's address, its key, its answer. " +
				"A DISCOVER now would have the outcome offer: " + outcome.Offer.Explain(),
		},
		"never seen, others are": {
			query: "198.51.100.12",
			arrange: func(t *testing.T, w *world) {
				w.packet(dhcpd.Event{Time: w.now.Add(-5 * time.Second), Outcome: outcome.Offer, Subscriber: 1001, YourIP: ip("198.51.100.11"), MAC: mac(t, "00:00:5e:00:53:11")})
			},
			want: "Customer 1002 (pause) is bound to 198.51.100.12 on port 2 of sw-west-1, MAC 00:00:5e:00:53:12. " +
				"No packet from it was seen since 2026-03-01 12:00:00 UTC; the last packet of anybody came 5s ago. Look at the cable, the VLAN and the relay on its way. " +
				"A DISCOVER of 00:00:5e:00:53:12 now would have the outcome offer: " + outcome.Offer.Explain() + " " +
				"Customer 1002 is paused, so its forwarded IPv4 traffic is refused.",
		},
		"nobody seen at all": {
			query: "198.51.100.13",
			want: "Customer 1003 (stop) is bound to 198.51.100.13 on port 3 of sw-west-1, no MAC known yet. " +
				"No packet from it was seen since 2026-03-01 12:00:00 UTC; the last packet of anybody: none either. Look whether packets reach this host at all. " +
				"Customer 1003 is stopped, so its forwarded IPv4 traffic is dropped.",
		},
		"leased before the start": {
			query:   "198.51.100.11",
			arrange: func(t *testing.T, w *world) { w.Leases = fakeLeases{leaseOf11(t)} },
			want: "Customer 1001 (active) is bound to 198.51.100.11 on port ge-0/0/1 of sw-west-1, MAC 00:00:5e:00:53:11. " +
				"No packet from it was seen since 2026-03-01 12:00:00 UTC; the last acknowledgement of 198.51.100.11 to 00:00:5e:00:53:11 was at 2026-03-01 11:00:00 UTC. " +
				"A DISCOVER of 00:00:5e:00:53:11 now would have the outcome offer: " + outcome.Offer.Explain(),
		},
		"kernel lags behind": {
			query:   "1002",
			arrange: func(t *testing.T, w *world) { delete(w.kernel, ip("198.51.100.12")); w.DHCP = nil },
			want: "Customer 1002 (pause) is bound to 198.51.100.12 on port 2 of sw-west-1, MAC 00:00:5e:00:53:12. DHCP is switched off (dhcp.enabled). " +
				"Customer 1002 is paused, so its forwarded IPv4 traffic is refused. " +
				"Attention: in the kernel 198.51.100.12 is open, not paused; the next round repairs it.",
		},
		"dry run": {
			query:   "1002",
			arrange: func(_ *testing.T, w *world) { w.enforcer.status.DryRun = true; w.DHCP = nil },
			want: "Customer 1002 (pause) is bound to 198.51.100.12 on port 2 of sw-west-1, MAC 00:00:5e:00:53:12. DHCP is switched off (dhcp.enabled). " +
				"Customer 1002 is paused, so its forwarded IPv4 traffic would be refused, were it not for acl.dry_run.",
		},
		"unknown customer": {
			query:   "4711",
			arrange: func(_ *testing.T, w *world) { w.DHCP = nil },
			want:    "The ERP has no customer 4711, or gives it neither state nor address. DHCP is switched off (dhcp.enabled).",
		},
		"customer without address": {
			query:   "1005",
			arrange: func(_ *testing.T, w *world) { w.DHCP = nil },
			want:    "The ERP binds no address to customer 1005. DHCP is switched off (dhcp.enabled).",
		},
		"unbound address": {
			query:   "198.51.100.200",
			arrange: func(_ *testing.T, w *world) { w.DHCP = nil },
			want:    "The ERP binds 198.51.100.200 to nobody. DHCP is switched off (dhcp.enabled).",
		},
		"unknown MAC": {
			query: "00:00:5e:00:53:fe",
			arrange: func(_ *testing.T, w *world) {
				w.dhcp.answer = dhcpd.Explanation{Outcome: outcome.UnknownClient}
			},
			want: "The ERP binds no address to the MAC 00:00:5e:00:53:fe. " +
				"No packet from it was seen since 2026-03-01 12:00:00 UTC; the last packet of anybody: none either. Look whether packets reach this host at all. " +
				"A DISCOVER of 00:00:5e:00:53:fe now would have the outcome unknown_client: " + outcome.UnknownClient.Explain() + " " +
				"Bind the MAC or the port to an address in the ERP, and see that the relay inserts option 82.",
		},
		"no snapshot": {
			query:   "1001",
			arrange: func(_ *testing.T, w *world) { w.syncer.snapshot = nil; w.DHCP = nil },
			want:    "No bindings have been loaded yet, neither from the ERP nor from disk. DHCP is switched off (dhcp.enabled).",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.syncer.status.ProblemsList = nil
			if tt.arrange != nil {
				tt.arrange(t, w)
			}
			x, err := w.explain(t.Context(), tt.query)
			require.NoError(t, err)
			assert.Equal(t, tt.want, x.Summary)
		})
	}
}

func TestExplainGathersAll(t *testing.T) {
	w := newWorld(t)
	m := mac(t, "00:00:5e:00:53:11")
	w.Leases = fakeLeases{
		{IP: ip("198.51.100.11"), MAC: m, Subscriber: 1001, State: lease.StateBound, Renewed: testStart, GIAddr: ip("192.0.2.70"), Option82: lease.Hex{1, 2}},
		{IP: ip("198.51.100.12"), MAC: mac(t, "00:00:5e:00:53:12"), Subscriber: 1002, State: lease.StateBound},
	}
	w.Outbox = fakeOutbox{Entries: []outbox.Entry{
		{MACReport: provision.MACReport{IP: ip("198.51.100.21"), MAC: mac(t, "00:00:5e:00:53:22")}, Attempts: 2},
		{MACReport: provision.MACReport{IP: ip("198.51.100.12")}},
	}}
	w.syncer.status.ProblemsList = []provision.Problem{
		{Kind: provision.ProblemDuplicateIP, IP: ip("198.51.100.21"), Detail: "address"},
		{Kind: provision.ProblemUnknownState, Subscriber: 1001, Detail: "subscriber"},
		{Kind: provision.ProblemDuplicateMAC, MAC: m, Detail: "mac"},
		{Kind: provision.ProblemPortConflict, Device: 7, Port: 1, Detail: "port"},
		{Kind: provision.ProblemDuplicateDevice, Device: 7, Detail: "device"},
		{Kind: provision.ProblemPortConflict, Device: 7, Port: 2, Detail: "another port"},
		{Kind: provision.ProblemBadRow, Detail: "about nobody"},
		{Kind: provision.ProblemDuplicateIP, IP: ip("198.51.100.12"), Detail: "another address"},
	}
	at := func(s int) time.Time { return testStart.Add(time.Duration(s) * time.Second) }
	w.packet(dhcpd.Event{Time: at(1), XID: 1, Outcome: outcome.Offer, Subscriber: 1001, MAC: m, YourIP: ip("198.51.100.11"), Device: 7, Port: 1})
	w.packet(dhcpd.Event{Time: at(2), XID: 2, Outcome: outcome.PortFull, MAC: mac(t, "00:00:5e:00:53:99"), Device: 7, Port: 1}) // a stranger on the port
	w.packet(dhcpd.Event{Time: at(3), XID: 3, Outcome: outcome.Offer, Subscriber: 1002, Device: 7, Port: 1})                    // somebody else's
	w.packet(dhcpd.Event{Time: at(4), XID: 4, Outcome: outcome.NakNotBound, RequestedIP: ip("198.51.100.21")})
	w.packet(dhcpd.Event{Time: at(5), XID: 5, Outcome: outcome.Offer, Subscriber: 1002, YourIP: ip("198.51.100.12")})
	w.packet(dhcpd.Event{Time: at(6), XID: 6, Outcome: outcome.Ack, Type: wire.Request, Subscriber: 1001, MAC: m, YourIP: ip("198.51.100.11"), GIAddr: ip("192.0.2.70"), Option82: lease.Hex{9, 9}})

	x, err := w.explain(t.Context(), "1001")
	require.NoError(t, err)
	assert.Equal(t, "customer", x.Kind)
	assert.Equal(t, []SubscriberView{{1001, provision.StateActive, true}}, x.Subscribers)
	require.Len(t, x.Bindings, 2)
	assert.Equal(t, BindingView{
		Subscriber: 1001, IP: ip("198.51.100.11"), MAC: m, Device: 7, DeviceName: "sw-west-1", DeviceIP: ip("192.0.2.70"), Port: 1,
		PortName: "ge-0/0/1", VLAN: 100, ACL: ACLView{Want: "open", Have: "open"},
	}, x.Bindings[0])
	require.NotNil(t, x.Bindings[1].Report)
	assert.Equal(t, 2, x.Bindings[1].Report.Attempts)
	require.Len(t, x.Leases, 1)
	assert.Equal(t, ip("198.51.100.11"), x.Leases[0].IP)
	assert.Equal(t, "relay 192.0.2.70, option 82 0102", x.Leases[0].Place)

	var details []string
	for _, p := range x.Problems {
		details = append(details, p.Detail)
	}
	assert.Equal(t, []string{"address", "subscriber", "mac", "port", "device"}, details)

	var xids []uint32
	for _, e := range x.Events {
		xids = append(xids, e.XID)
	}
	assert.Equal(t, []uint32{6, 4, 2, 1}, xids, "newest first, each once, nobody else's")
	assert.Equal(t, outcome.PortFull.Explain(), x.Events[2].Text)
	assert.NotEmpty(t, x.Events[2].Advice)

	require.Len(t, w.dhcp.queries, 1)
	assert.Equal(t, dhcpd.Query{MAC: m, Option82: lease.Hex{9, 9}, GIAddr: ip("192.0.2.70")}, w.dhcp.queries[0], "as the client asked last")
	assert.Equal(t, "offer", x.Would.Outcome)
}

// A lease says where it was given, as the packet told it.
func TestGivenAt(t *testing.T) {
	for want, rec := range map[string]lease.Record{
		"not known":      {Device: 7, Port: 1},
		"interface eth1": {Interface: "eth1"},
		"option 82 01ff": {Option82: lease.Hex{1, 255}},
		"relay 192.0.2.70, interface eth1, circuit-id vlan 100 unit 0 port 3, remote-id mac 00:00:5e:00:53:70": {
			GIAddr: ip("192.0.2.70"), Interface: "eth1", Option82: lease.Hex{1, 6, 0, 4, 0, 100, 0, 3, 2, 8, 0, 6, 0, 0, 0x5e, 0, 0x53, 0x70}},
	} {
		assert.Equal(t, want, givenAt(&rec))
	}
}

// A pool's address is asked about by its customer; a packet that was left alone names nobody.
func TestEventsOfPoolAddresses(t *testing.T) {
	w := newWorld(t)
	m, a := mac(t, "00:00:5e:00:53:51"), ip("198.51.100.151")
	w.Leases = fakeLeases{{IP: a, MAC: m, Subscriber: 1005, Pool: "flats", State: lease.StateBound, Start: testStart, Expires: w.now.Add(time.Hour)}}
	w.packet(dhcpd.Event{Time: testStart.Add(-time.Minute), XID: 1, Outcome: outcome.PoolAck, YourIP: a})
	w.packet(dhcpd.Event{Time: testStart.Add(time.Minute), XID: 2, Outcome: outcome.MACElsewhere, YourIP: a, MAC: m})
	x, err := w.explain(t.Context(), "1005")
	require.NoError(t, err)
	require.Len(t, x.Events, 1, "not of who had it before")
	assert.Equal(t, uint32(2), x.Events[0].XID)
}

func TestExplainACL(t *testing.T) {
	tests := map[string]struct {
		arrange func(w *world)
		want    ACLView
	}{
		"kernel asked":      {nil, ACLView{Want: "paused", Have: "paused"}},
		"by the last round": {func(w *world) { w.Kernel = nil }, ACLView{Want: "paused", Have: "paused"}},
		"not applied yet":   {func(w *world) { w.Kernel = nil; w.enforcer.status.Ready = false }, ACLView{Want: "paused", Have: "unknown", Error: "the ACL has not been applied yet"}},
		"changes pending":   {func(w *world) { w.Kernel = nil; w.enforcer.status.Pending = 3 }, ACLView{Want: "paused", Have: "unknown", Error: "the ACL has not been applied yet"}},
		"kernel complains":  {func(w *world) { w.Kernel = nil; w.enforcer.status.LastError = "no buffer space" }, ACLView{Want: "paused", Have: "unknown", Error: "no buffer space"}},
		"dry run":           {func(w *world) { w.enforcer.status.DryRun = true }, ACLView{Want: "paused", Have: "unknown", Error: "acl.dry_run is true: the kernel is not touched"}},
		"access lists off":  {func(w *world) { w.Enforcer = nil }, ACLView{Want: "open", Have: "unknown", Error: "acl.enabled is false"}},
		"in the wrong set":  {func(w *world) { w.kernel[ip("198.51.100.12")] = "stopped" }, ACLView{Want: "paused", Have: "stopped"}},
		"missing in a set":  {func(w *world) { delete(w.kernel, ip("198.51.100.12")) }, ACLView{Want: "paused", Have: "open"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tt.arrange != nil {
				tt.arrange(w)
			}
			x, err := w.explain(t.Context(), "198.51.100.12")
			require.NoError(t, err)
			require.Len(t, x.Bindings, 1)
			assert.Equal(t, tt.want, x.Bindings[0].ACL)
		})
	}
}

// TestAdviceForEveryDrop: a packet that got no answer because something has to be
// put right says what, and only those do.
func TestAdviceForEveryDrop(t *testing.T) {
	for _, o := range []outcome.Outcome{outcome.Ack, outcome.Offer, outcome.InformAck, outcome.Released} {
		assert.Empty(t, Advice(o), o.String())
	}
	for _, o := range []outcome.Outcome{
		outcome.UnknownClient, outcome.UnknownDevice, outcome.UnknownPort, outcome.PortFull, outcome.NoSubnet,
		outcome.RelayUntrusted, outcome.InterfaceOff, outcome.Option82Double, outcome.Option82Malformed, outcome.SendFailed, outcome.SendFull,
		outcome.LeaseQueryRefused, outcome.MACElsewhere,
	} {
		assert.NotEmpty(t, Advice(o), o.String())
	}
}

func TestEventsAreLimited(t *testing.T) {
	w := newWorld(t)
	for i := range 50 {
		w.packet(dhcpd.Event{Time: testStart.Add(time.Duration(i) * time.Second), XID: uint32(i + 1), Outcome: outcome.Offer, YourIP: ip("198.51.100.11")})
	}
	x, err := w.explain(t.Context(), "198.51.100.11")
	require.NoError(t, err)
	require.Len(t, x.Events, explainEvents)
	assert.Equal(t, uint32(50), x.Events[0].XID)
}

// One read from the socket gives several packets the same time: a renewal and
// the copy of it that a relay sends have the same transaction, too.
func TestPacketsOfOneReadAreAllShown(t *testing.T) {
	w := newWorld(t)
	e := dhcpd.Event{Time: testStart, XID: 7, Outcome: outcome.Ack, Type: wire.Request, YourIP: ip("198.51.100.11")}
	w.packet(e)
	e.GIAddr = ip("192.0.2.70")
	w.packet(e)
	x, err := w.explain(t.Context(), "198.51.100.11")
	require.NoError(t, err)
	require.Len(t, x.Events, 2)
	assert.Equal(t, e.GIAddr, x.Events[0].Relay, "the newer one first")
}

func FuzzExplain(f *testing.F) {
	for _, q := range []string{"1001", "198.51.100.11", "00:00:5e:00:53:11", "", "::", "%", "\x00"} {
		f.Add(q)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, q string) {
		x, err := w.explain(t.Context(), q)
		if (x == nil) == (err == nil) {
			t.Fatalf("explanation %v, error %v", x, err)
		}
	})
}

func TestIPOfEvent(t *testing.T) {
	assert.Equal(t, ip("198.51.100.1"), EventView{YourIP: ip("198.51.100.1"), ClientIP: ip("198.51.100.2")}.IP())
	assert.Equal(t, ip("198.51.100.3"), EventView{RequestedIP: ip("198.51.100.3"), ClientIP: ip("198.51.100.2")}.IP())
	assert.Equal(t, netip.Addr{}, EventView{}.IP())
}

// What the server would do now is asked with all that the client showed last.
func TestWouldAsksAsTheClientDid(t *testing.T) {
	w := newWorld(t)
	m := mac(t, "00:00:5e:00:53:11")
	id := append([]byte{1}, m[:]...)
	w.packet(dhcpd.Event{Time: testStart, Outcome: outcome.VLANShared, MAC: m, Interface: "vlan100", ClientID: id})
	w.dhcp.answer = dhcpd.Explanation{Outcome: outcome.Offer, MatchedBy: "vlan+mac", VLAN: 100, ClientID: "ethernet 00:00:5e:00:53:11"}
	x, err := w.explain(t.Context(), m.String())
	require.NoError(t, err)
	assert.Equal(t, []dhcpd.Query{{MAC: m, Interface: "vlan100", ClientID: id}}, w.dhcp.queries)
	assert.Equal(t, "vlan+mac", x.Would.MatchedBy)
	assert.EqualValues(t, 100, x.Would.VLAN)
	assert.Equal(t, "ethernet 00:00:5e:00:53:11", x.Events[0].ClientID)
}

// Who is held by the fetch guard is told so, by what would happen.
func TestExplainTellsWhatTheGuardHolds(t *testing.T) {
	w := newWorld(t)
	w.syncer.guard.Changes = []syncer.HeldChange{
		{Subscriber: 1001, Change: syncer.ChangeMoved, Because: 1003},
		{Subscriber: 1001, Change: syncer.ChangeBlocked, State: provision.StatePause},
		{Subscriber: 1002, Change: syncer.ChangeOpened, State: provision.StateActive},
		{Subscriber: 9001, Change: syncer.ChangeAdded},
	}
	w.syncer.heldOwners = map[netip.Addr]provision.SubscriberID{ip("198.51.100.91"): 9001}
	for query, want := range map[string][]string{
		"1001": {"Customer 1001 is held by the fetch guard: it would get other addresses, or another port, VLAN or MAC, with one of customer 1003 (usher guard show).",
			"Customer 1001 is held by the fetch guard: it would be paused (usher guard show)."},
		"198.51.100.12": {"Customer 1002 is held by the fetch guard: it would be let in (usher guard show)."},
		"9001":          {"The ERP has no customer 9001, or gives it neither state nor address. Customer 9001 is held by the fetch guard: it would get its first address"},
		"198.51.100.91": {"Customer 9001 is held by the fetch guard: it would get its first address"},
		"1003":          nil,
	} {
		x, err := w.explain(t.Context(), query)
		require.NoError(t, err)
		for _, text := range want {
			assert.Contains(t, x.Summary, text)
		}
		assert.Len(t, x.Held, len(want), query)
	}
}

// A renewal goes past the relay, a DISCOVER does not.
func TestWouldAsksThroughTheRelayAfterARenewalPastIt(t *testing.T) {
	m, a := mac(t, "00:00:5e:00:53:11"), ip("198.51.100.11")
	rec := lease.Record{
		IP: a, MAC: m, Subscriber: 1001, State: lease.StateBound, Renewed: testStart.Add(-2 * time.Hour), Expires: testStart.Add(-time.Hour),
		GIAddr: ip("192.0.2.70"), Option82: lease.Hex{1, 1, 7}, Interface: "core",
	}
	last := dhcpd.Query{MAC: m, Option82: rec.Option82, GIAddr: rec.GIAddr, Interface: "core"}
	renewal := dhcpd.Event{Time: testStart, Type: wire.Request, Outcome: outcome.UnknownClient, MAC: m, ClientIP: a, Source: netip.AddrPortFrom(a, 68), Interface: "eth0"}
	fromNowhere, another := renewal, renewal
	fromNowhere.Source = netip.MustParseAddrPort("0.0.0.0:68")
	another.MAC = mac(t, "00:00:5e:00:53:fe")
	for name, tc := range map[string]struct {
		last dhcpd.Event
		want dhcpd.Query
	}{
		"a renewal past it":        {renewal, last},
		"from no address":          {fromNowhere, dhcpd.Query{MAC: m, Interface: "eth0", Source: netip.IPv4Unspecified()}},
		"a renewal of another MAC": {another, dhcpd.Query{MAC: another.MAC, Interface: "eth0", Source: a}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Leases = fakeLeases{rec}
			w.packet(tc.last)
			_, err := w.explain(t.Context(), a.String())
			require.NoError(t, err)
			assert.Equal(t, []dhcpd.Query{tc.want}, w.dhcp.queries)
		})
	}
}
