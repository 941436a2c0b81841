package provision_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func TestByVLAN(t *testing.T) {
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	snap, _ := provision.Build(provision.Input{Lines: []provision.Line{
		{Subscriber: 1, Addresses: provision.Hosts4(at(12)), VLAN: 100},
		{Subscriber: 1, Addresses: provision.Hosts4(at(11)), VLAN: 100},
		{Subscriber: 2, Addresses: provision.Hosts4(at(21)), VLAN: 200},
		{Subscriber: 3, Addresses: provision.Hosts4(at(31)), VLAN: 200},
		{Subscriber: 2, Addresses: provision.Hosts4(at(22)), VLAN: 200}, // shared stays shared
		{Subscriber: 4, Addresses: provision.Hosts4(at(41)), VLAN: 4094},
		{Subscriber: 5, Addresses: provision.Hosts4(at(51)), VLAN: 4095},
		{Subscriber: 6, Addresses: provision.Hosts4(at(61))},
	}})
	for _, tc := range []struct {
		name   string
		vlan   uint16
		want   []byte
		shared bool
	}{
		{"two addresses of one subscriber, by address", 100, []byte{11, 12}, false},
		{"two subscribers", 200, nil, true},
		{"the last VLAN", 4094, []byte{41}, false},
		{"reserved", 4095, nil, false},
		{"none", 0, nil, false},
		{"nobody's", 300, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rows, shared := snap.ByVLAN(tc.vlan)
			assert.Equal(t, tc.shared, shared)
			var got []byte
			for _, r := range provisiontest.Rows(rows) {
				got = append(got, ipOf(&r).As4()[3])
			}
			assert.Equal(t, tc.want, got)
		})
	}
	assert.Zero(t, testing.AllocsPerRun(10, func() { snap.ByVLAN(100) }))
	rows, shared := (*provision.Snapshot)(nil).ByVLAN(100)
	assert.Zero(t, rows.Len())
	assert.False(t, shared)
}
