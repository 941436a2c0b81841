package v4

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Which MAC the ERP is told of, and of which it is not, since another client is found by it.
func TestForeignMACs(t *testing.T) {
	plain := provision.Line{Subscriber: 66, Addresses: provision.Hosts4(host(11)), Device: 1, Port: 1, VLAN: 9}
	erp := func(more ...provision.Line) *provision.Snapshot {
		snap, _ := provision.Build(provision.Input{
			Source: provision.SourceDirect, FetchedAt: testNow.Add(-time.Second), KeepVacant: true, Devices: afterReport().Devices(), Lines: append([]provision.Line{plain}, more...),
		})
		return snap
	}
	row := func(change func(*provision.Line)) provision.Line {
		l := provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied}
		change(&l)
		return l
	}
	same := func(*provision.Line) {}
	onPort := func(l *provision.Line) { l.Device, l.Port = 1, 8 }
	here := atPort(bound(host(11), copied, 66), 1)
	theirs := atPort(bound(host(81), copied, 8), 8)
	byMAC := atPort(bound(host(81), copied, 8), 40)
	lodger := atPort(guest(host(201), copied), 40)
	owns := with(guest(host(211), copied), func(r *lease.Record) { r.Pool, r.Subscriber = "flats", 23 })
	vacantAt := func(n uint32) provision.Line { return provision.Line{Subscriber: 23, Device: 1, Port: n} }
	flat := func(s *provision.Snapshot, n byte) lease.Record {
		return atPort(with(owns, func(r *lease.Record) { r.Key = keyOf(s, 23) }), n)
	}
	inVLAN := func(n uint16) provision.Line {
		return provision.Line{Subscriber: 9, Addresses: provision.Hosts4(host(91)), VLAN: n}
	}
	byVLAN := func(o *Options) {
		o.Match, o.VLANInterfaces = []MatchKind{MatchOption82, MatchVLAN + MatchMAC}, []string{"vlan{vlan}"}
	}
	byLine := func(o *Options) { o.Match = []MatchKind{MatchOption82} }
	type answer struct {
		owner   provision.SubscriberID
		ip      netip.Addr
		foreign bool
	}
	for _, tc := range []struct {
		name   string
		snap   *provision.Snapshot
		leases []lease.Record
		change func(*Options)
		want   answer
	}{
		{"nobody else has it", erp(), nil, nil, answer{}},
		{"a customer without a port", erp(row(same)), nil, nil, answer{8, host(81), true}},
		{"a customer without a port, who is found by nothing", erp(row(same)), nil, byLine, answer{}},
		{"another row of the same customer", erp(row(func(l *provision.Line) { l.Subscriber = 66 })), nil, nil, answer{}},
		{"a customer without a port and an address", erp(provision.Line{Subscriber: 23, MAC: copied}), nil, nil, answer{owner: 23, foreign: true}},
		{"a customer in a VLAN, which does not count", erp(row(func(l *provision.Line) { l.VLAN = 7 })), nil, nil, answer{8, host(81), true}},
		{"a customer in a VLAN of its own", erp(row(func(l *provision.Line) { l.VLAN = 7 })), nil, byVLAN, answer{}},
		{"a customer in a VLAN of several, and the row is in another", erp(row(func(l *provision.Line) { l.VLAN = 7 }), inVLAN(7)), nil, byVLAN, answer{}},
		{"a customer in a VLAN of several, and the row is in it", erp(row(func(l *provision.Line) { l.VLAN = 9 }), inVLAN(9)), nil, byVLAN, answer{8, host(81), true}},
		{"a customer of a port, who has no lease", erp(row(onPort)), nil, nil, answer{}},
		{"a customer of a port with the same MAC, who is there", erp(row(onPort)), []lease.Record{theirs}, nil, answer{}},
		{"a customer of a port, whose line nobody can tell", erp(row(onPort)), []lease.Record{byMAC}, nil, answer{8, host(81), true}},
		{"a customer of a port, whose line nobody could tell", erp(row(onPort)), []lease.Record{with(byMAC, func(r *lease.Record) { r.Expires = testNow })}, nil, answer{}},
		{"a customer who moved here, and gave its lease up", erp(row(onPort)), []lease.Record{with(byMAC, func(r *lease.Record) { r.State, r.Renewed, r.Expires = lease.StateReleased, testNow, testNow })}, nil, answer{}},
		{"a guest", erp(), []lease.Record{lodger}, nil, answer{0, host(201), true}},
		{"a guest whose lease is over", erp(), []lease.Record{with(lodger, func(r *lease.Record) { r.Expires = testNow })}, nil, answer{}},
		{"a guest of this very line", erp(), []lease.Record{atPort(lodger, 1)}, nil, answer{}},
		{"a guest whose MAC the ERP has for this customer", erp(row(func(l *provision.Line) { l.Subscriber = 66 })), []lease.Record{lodger}, nil, answer{}},
		{"a guest, where nobody is found by a MAC", erp(), []lease.Record{lodger}, byLine, answer{}},
		{"a customer of a vacant port", erp(vacantAt(8)), []lease.Record{flat(erp(vacantAt(8)), 8)}, nil, answer{}},
		{"a customer of a vacant port, who is elsewhere", erp(vacantAt(8)), []lease.Record{flat(erp(vacantAt(8)), 40)}, nil, answer{23, host(211), true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := testOptions()
			o.Unknown, o.Pools = UnknownGuest, []Pool{flats(), guests()}
			if tc.change != nil {
				tc.change(&o)
			}
			cfg, err := Compile(o)
			assert.NoError(t, err)
			packet := provision.Packet{Interface: "eth0", Relay: relayIP, Option82: hex.EncodeToString(port(switch1, 1))}
			for name, r := range map[string]provision.MACReport{
				"with its lease":           {Subscriber: 66},
				"before its lease":         {Subscriber: 66, Packet: packet},
				"of an older usher's kind": {},
			} {
				r.IP, r.MAC, r.At = host(11), copied, testNow
				list := tc.leases
				if name != "before its lease" {
					list = append(list[:len(list):len(list)], here)
				}
				var got answer
				got.owner, got.ip, got.foreign = cfg.Foreign(&r, testNow, tc.snap, leases(list...))
				assert.Equal(t, tc.want, got, name)
			}
		})
	}
}
