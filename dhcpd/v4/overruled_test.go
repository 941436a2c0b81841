package v4

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A customer whose MAC in the ERP is changed under a live lease, by each message of the old router and the new one.

// changed is the ERP's data after somebody gave 192.0.2.81 (found by MAC) and 192.0.2.11 (port 1) to fresh.
func changed(t testing.TB, change ...func(*provision.Input)) *provision.Snapshot {
	t.Helper()
	in := provision.Input{
		Source: provision.SourceDirect, FetchedAt: testNow.Add(-time.Second), Devices: world(t).Devices(),
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: fresh, Device: 1, Port: 1},
			{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: fresh},
			{Subscriber: 9, Addresses: provision.Hosts4(host(91)), MAC: fresh, VLAN: 7},
		},
	}
	for _, c := range change {
		c(&in)
	}
	snap, _ := provision.Build(in)
	return snap
}

var was, fresh = client(0x18), client(0xfe)

// held is the lease of the client that the ERP had for an address until lately.
func held(a netip.Addr, sub provision.SubscriberID) lease.Record {
	r := bound(a, was, sub)
	r.Ifindex, r.Interface, r.Expires = 3, "eth0", testNow.Add(50*time.Minute)
	r.ERP.Direct = lease.ERPMAC{MAC: was, At: r.Start.UnixNano()}
	return r
}

func decideWith(t testing.TB, snap *provision.Snapshot, q wire.Query, tab *lease.Table, change ...func(*Request, *Options)) Decision {
	t.Helper()
	r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
	opts := testOptions()
	for _, f := range change {
		f(r, &opts)
	}
	r.P.Read(q.Append(nil))
	cfg, err := Compile(opts)
	require.NoError(t, err)
	r.P.Ingress = cfg.line.Ingress(r.P.Ingress.Name)
	return decideAt(testNow, r, snap, tab, fill(t, cfg, snap, tab), cfg)
}

func TestOperatorsWordByMACAlone(t *testing.T) {
	discover := func(mac provision.MAC) wire.Query { return wire.Query{Type: wire.Discover, MAC: mac} }
	request := func(mac provision.MAC, o ...wire.Option) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, Options: append(o, requested(host(81)))}
	}
	renew := func(mac provision.MAC) wire.Query { return wire.Query{Type: wire.Request, MAC: mac, CIAddr: host(81)} }
	alone := func(in *provision.Input) { in.Lines = in.Lines[1:2] }
	fighting := func(r *lease.Record) { r.Prior, r.Start = client(0x55), testNow.Add(-time.Minute) }
	ownID := func(q wire.Query) wire.Query {
		q.Options = append(q.Options, wire.Option{Code: wire.OptClientID, Value: append([]byte{1}, fresh[:]...)})
		return q
	}
	byID := func(_ *Request, o *Options) { o.Match = []MatchKind{MatchClientID} }
	for _, tc := range []struct {
		name   string
		q      wire.Query
		rec    func(*lease.Record)
		snap   func(*provision.Input)
		change func(*Request, *Options)
		want   string
	}{
		{"the old one's renewal", renew(was), nil, nil, nil, "nak_overruled by broadcast ends"},
		{"its reboot", request(was), nil, nil, nil, "nak_overruled by broadcast ends"},
		{"its REQUEST of an offer", request(was, chosen(serverIP)), nil, nil, nil, "nak_not_bound by broadcast ends"},
		{"its DISCOVER", discover(was), nil, nil, nil, "unknown_client"},
		{"its renewal after its lease", renew(was), func(r *lease.Record) { r.Expires = testNow }, nil, nil, "nak_overruled by broadcast"},
		{"the old one is refused with on_binding_change: shorten, too", renew(was), nil, nil, func(_ *Request, o *Options) { o.BindingChange = BindingShorten }, "nak_overruled by broadcast ends"},
		{"the new one", discover(fresh), nil, nil, nil, "offer 192.0.2.81 by frame"},
		{"its REQUEST", request(fresh, chosen(serverIP)), nil, nil, nil, "ack 192.0.2.81 by frame fact"},
		{"its reboot", request(fresh), nil, nil, nil, "ack 192.0.2.81 by frame fact"},
		{"no fight: the ERP decides", discover(fresh), fighting, nil, nil, "offer 192.0.2.81 by frame"},
		{"no fight: its REQUEST", request(fresh, chosen(serverIP)), fighting, nil, nil, "ack 192.0.2.81 by frame fact"},
		{"the new MAC in an identifier", ownID(discover(stranger)), nil, nil, byID, "offer 192.0.2.81 by frame"},
		{"whatever mac_change says", discover(fresh), nil, nil, func(_ *Request, o *Options) { o.MACChange = MACRefuse }, "offer 192.0.2.81 by frame"},

		// What is no word.
		{"an older ERP MAC", renew(was), func(r *lease.Record) { r.ERP.Direct.MAC = fresh }, nil, nil, "ack 192.0.2.81 by unicast to 192.0.2.81:68 renew"},
		{"an older ERP MAC: the other one waits", discover(fresh), func(r *lease.Record) { r.ERP.Direct.MAC = fresh }, nil, nil, "port_full"},
		{"our own report", renew(was), func(r *lease.Record) { r.ERP.Sent[0] = fresh }, nil, nil, "ack 192.0.2.81 by unicast to 192.0.2.81:68 renew"},
		{"an empty MAC", renew(was), nil, func(in *provision.Input) { alone(in); in.Lines[0].MAC = provision.MAC{} }, nil, "ack 192.0.2.81 by unicast to 192.0.2.81:68 renew report"},
		{"another source", renew(was), nil, func(in *provision.Input) { alone(in); in.Source = provision.SourceComposed }, nil, "ack 192.0.2.81 by unicast to 192.0.2.81:68 renew"},
		{"a fetch from before", renew(was), nil, func(in *provision.Input) { alone(in); in.FetchedAt = testNow.Add(-2 * time.Hour) }, nil, "ack 192.0.2.81 by unicast to 192.0.2.81:68 renew"},
		{"a record that knows nothing of the ERP", renew(was), func(r *lease.Record) { r.ERP = lease.ERPMACs{} }, nil, nil, "ack 192.0.2.81 by unicast to 192.0.2.81:68 renew"},
		{"the same: the other one waits", discover(fresh), func(r *lease.Record) { r.ERP = lease.ERPMACs{} }, alone, nil, "port_full"},
		{"a port alone", renew(was), nil, func(in *provision.Input) {
			alone(in)
			in.Lines[0].MAC, in.Lines[0].Device, in.Lines[0].Port = was, 1, 9
		}, nil, "ack 192.0.2.81 by unicast to 192.0.2.81:68 fact"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := held(host(81), 8)
			if tc.rec != nil {
				tc.rec(&rec)
			}
			if tc.snap == nil {
				tc.snap = alone
			}
			if tc.change == nil {
				tc.change = func(*Request, *Options) {}
			}
			assert.Equal(t, tc.want, told(decideWith(t, changed(t, tc.snap), tc.q, leases(rec), tc.change)))
		})
	}
}

// Where somebody vouches for the line a typing error in the ERP cuts nobody off, and is not overwritten either.
func TestOperatorsWordOnALine(t *testing.T) {
	relayed := func(q wire.Query) wire.Query { q.GIAddr, q.Option82 = relayIP, port(switch1, 1); return q }
	discover := func(mac provision.MAC) wire.Query { return relayed(wire.Query{Type: wire.Discover, MAC: mac}) }
	selecting := func(mac provision.MAC) wire.Query {
		return relayed(wire.Query{Type: wire.Request, MAC: mac, Options: []wire.Option{requested(host(11)), chosen(serverIP)}})
	}
	renew := func(mac provision.MAC) wire.Query { return wire.Query{Type: wire.Request, MAC: mac, CIAddr: host(11)} }
	const toRelay = " by relay to 198.51.100.1:67"
	modes := func(m MACChange) func(*Request, *Options) { return func(_ *Request, o *Options) { o.MACChange = m } }
	rec := with(held(host(11), 1), func(r *lease.Record) {
		r.Device, r.Port, r.GIAddr, r.Option82 = 1, 1, relayIP, port(switch1, 1)
	})
	fighting := with(rec, func(r *lease.Record) { r.Prior, r.Start = client(0x55), testNow.Add(-time.Minute) })
	known := with(rec, func(r *lease.Record) { r.ERP.Direct.MAC = fresh })
	for _, tc := range []struct {
		name   string
		q      wire.Query
		rec    lease.Record
		change func(*Request, *Options)
		want   string
	}{
		{"the old one goes on", relayed(renew(was)), rec, modes(MACAccept), "ack 192.0.2.11" + toRelay + " renew"},
		{"past the relay, too", renew(was), rec, modes(MACAccept), "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew"},
		{"it begins anew", selecting(was), rec, modes(MACAccept), "ack 192.0.2.11" + toRelay + " renew"},
		{"its lease was over", selecting(was), with(rec, func(r *lease.Record) { r.Expires = testNow }), modes(MACAccept), "ack 192.0.2.11" + toRelay + " renew"},
		{"it is answered where the ERP is waited for", selecting(was), rec, modes(MACReport), "ack 192.0.2.11" + toRelay + " renew"},
		{"not where the ERP alone decides", selecting(was), rec, modes(MACRefuse), "mac_refused 192.0.2.11"},
		{"the new one appears", selecting(fresh), rec, modes(MACAccept), "ack 192.0.2.11" + toRelay + " fact"},
		{"in a fight, too", selecting(fresh), fighting, modes(MACAccept), "ack 192.0.2.11" + toRelay + " fact"},
		{"the MAC that was there before waits", discover(fresh), with(fighting, func(r *lease.Record) { r.ERP.Direct.MAC = fresh }), modes(MACAccept), "takeover_damped 192.0.2.11"},
		{"another router is another matter", selecting(stranger), rec, modes(MACAccept), "ack 192.0.2.11" + toRelay + " fact report"},
		{"without a word of the operator it is reported", relayed(renew(was)), known, modes(MACAccept), "ack 192.0.2.11" + toRelay + " renew report"},
		{"by MAC alone the new one takes nothing from a line", wire.Query{Type: wire.Discover, MAC: fresh}, rec, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82, MatchMAC} }, "port_full"},
		{"on an unreadable line neither", wire.Query{Type: wire.Discover, MAC: fresh, GIAddr: relayIP, Option82: []byte{1, 1, 9}}, rec, modes(MACAccept), "port_full"},
		{"a line with which the MAC must agree vouches for no other one", renew(was), rec, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC, MatchMAC} }, "nak_overruled by broadcast"},
		{"where both must agree the new one gets it at the line", discover(fresh), rec, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC, MatchMAC} }, "offer 192.0.2.11" + toRelay},
		{"by MAC alone it takes nothing from the line there either", wire.Query{Type: wire.Discover, MAC: fresh}, rec, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC, MatchMAC} }, "port_full"},
		{"nor on an unreadable line", wire.Query{Type: wire.Discover, MAC: fresh, GIAddr: relayIP, Option82: []byte{1, 1, 9}}, rec, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC, MatchMAC} }, "port_full"},
		{"until that lease is over", wire.Query{Type: wire.Discover, MAC: fresh}, with(rec, func(r *lease.Record) { r.Expires = testNow }), func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC, MatchMAC} }, "offer 192.0.2.11 by frame"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			snap := changed(t, func(in *provision.Input) { in.Lines = in.Lines[:1] })
			assert.Equal(t, tc.want, told(decideWith(t, snap, tc.q, leases(tc.rec), tc.change)))
			if _, ours := tc.rec.Overruled(snap); !ours || tc.q.MAC != was || tc.q.Type != wire.Request {
				return
			}
			o := testOptions()
			tc.change(nil, &o)
			cfg, err := Compile(o)
			require.NoError(t, err)
			assert.Equal(t, strings.HasPrefix(tc.want, "ack"), cfg.Spares(&tc.rec, snap), "what status says")
		})
	}

	vlan := with(held(host(91), 9), func(r *lease.Record) { r.Interface = "vlan7" })
	onVLAN := func(r *Request, o *Options) {
		r.P.Ingress.Name, o.VLANInterfaces, o.Match = "vlan7", []string{"vlan{vlan}"}, []MatchKind{MatchVLAN, MatchMAC}
	}
	elsewhere := func(r *Request, o *Options) { onVLAN(r, o); r.P.Ingress.Name = "eth0" }
	snap := changed(t, func(in *provision.Input) { in.Lines = in.Lines[2:] })
	renewal := wire.Query{Type: wire.Request, MAC: was, CIAddr: host(91)}
	assert.Equal(t, "ack 192.0.2.91 by unicast to 192.0.2.91:68 renew", told(decideWith(t, snap, renewal, leases(vlan), onVLAN)))
	assert.Equal(t, "port_full", told(decideWith(t, snap, wire.Query{Type: wire.Discover, MAC: fresh}, leases(vlan), elsewhere)))
	assert.Equal(t, "offer 192.0.2.91 by frame", told(decideWith(t, snap, wire.Query{Type: wire.Discover, MAC: fresh}, leases(vlan), onVLAN)))
	both := func(r *Request, o *Options) { elsewhere(r, o); o.Match = []MatchKind{MatchVLAN | MatchMAC, MatchMAC} }
	assert.Equal(t, "port_full", told(decideWith(t, snap, wire.Query{Type: wire.Discover, MAC: fresh}, leases(vlan), both)))
	in := func(r *Request, o *Options) { both(r, o); r.P.Ingress.Name = "vlan7" }
	assert.Equal(t, "offer 192.0.2.91 by frame", told(decideWith(t, snap, wire.Query{Type: wire.Discover, MAC: fresh}, leases(vlan), in)))
}

// What a record keeps of the ERP begins with its client, and goes on with it.
func TestRecordsKeepTheERPsMAC(t *testing.T) {
	snap := changed(t, func(in *provision.Input) { in.Lines = in.Lines[:1] })
	q := wire.Query{Type: wire.Request, MAC: was, GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{requested(host(11)), chosen(serverIP)}}
	d := decideWith(t, snap, q, lease.New())
	require.True(t, d.Report)
	require.Equal(t, lease.ERPMACs{Direct: lease.ERPMAC{MAC: fresh, At: testNow.UnixNano()}}, d.Rec.ERP)
	require.Equal(t, provision.Replaced{MAC: fresh, Known: true}, d.Rec.Replaced(snap))

	rec := with(held(host(11), 1), func(r *lease.Record) { r.Expires = testNow.Add(-time.Hour); r.ERP.Sent[1] = stranger })
	d = decideWith(t, snap, q, leases(rec))
	require.Equal(t, rec.ERP, d.Rec.ERP, "the same client, also after its lease")
	q.MAC = stranger
	d = decideWith(t, snap, q, leases(rec))
	require.Equal(t, lease.ERPMACs{Direct: lease.ERPMAC{MAC: fresh, At: testNow.UnixNano()}}, d.Rec.ERP, "another client")
	d = decideWith(t, snap, q, lease.New(), func(_ *Request, o *Options) { o.MACChange = MACReport })
	require.Equal(t, "mac_reported 192.0.2.11 report", told(d))
	require.Equal(t, provision.Replaced{MAC: fresh, Known: true}, d.Rec.Replaced(snap), "also where there is no lease yet")
	q.MAC, rec.ERP.Direct.MAC = was, fresh
	d = decideWith(t, snap, q, leases(rec), func(_ *Request, o *Options) { o.MACChange = MACReport })
	require.Equal(t, "mac_reported 192.0.2.11 report", told(d))
	require.Equal(t, rec.ERP, d.Rec.ERP, "or where it is the client's still")
}
