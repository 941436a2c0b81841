package provision

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestByVLAN(t *testing.T) {
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	snap, _ := Build(Input{Bindings: []Binding{
		{Subscriber: 1, IP: at(12), VLAN: 100},
		{Subscriber: 1, IP: at(11), VLAN: 100},
		{Subscriber: 2, IP: at(21), VLAN: 200},
		{Subscriber: 3, IP: at(31), VLAN: 200},
		{Subscriber: 2, IP: at(22), VLAN: 200}, // shared stays shared
		{Subscriber: 4, IP: at(41), VLAN: 4094},
		{Subscriber: 5, IP: at(51), VLAN: 4095},
		{Subscriber: 6, IP: at(61)},
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
			for _, r := range rows {
				got = append(got, r.IP.As4()[3])
			}
			assert.Equal(t, tc.want, got)
		})
	}
	assert.Zero(t, testing.AllocsPerRun(10, func() { snap.ByVLAN(100) }))
	rows, shared := (*Snapshot)(nil).ByVLAN(100)
	assert.Empty(t, rows)
	assert.False(t, shared)
}
