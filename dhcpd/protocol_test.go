package dhcpd

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
)

func TestRapidCommit(t *testing.T) {
	q := wire.Query{Type: wire.Discover, MAC: client(0x11), Options: []wire.Option{{Code: wire.OptRapidCommit}}}
	on := func(_ *request, o *Options) { o.RapidCommit = true }
	d := run(t, q, nil, on)
	assert.Equal(t, "ack 192.0.2.11 by frame fact", told(d), "on disk before it leaves, as any ACK")
	assert.True(t, d.reply.RapidCommit)
	assert.EqualValues(t, 3600, d.reply.LeaseTime)

	assert.Equal(t, "offer 192.0.2.11 by frame", told(run(t, q, nil)), "off by default")
	q.Options = nil
	d = run(t, q, nil, on)
	assert.Equal(t, "offer 192.0.2.11 by frame", told(d), "only to clients that ask")
	assert.False(t, d.reply.RapidCommit)
	q.Options, q.MAC = []wire.Option{{Code: wire.OptRapidCommit}}, client(0x99)
	d = run(t, q, nil, on)
	assert.Equal(t, OutcomeUnknownClient, d.outcome)
	assert.False(t, d.reply.RapidCommit)
}

// Clients that miss unicast replies before they have an address, and do not say so.
func TestAlwaysBroadcast(t *testing.T) {
	subnet := func(_ *request, o *Options) { o.Subnets[0].AlwaysBroadcast = true }
	class := func(_ *request, o *Options) {
		o.Classes = []Class{{Name: "old", Match: ClassMatch{VendorClass: "old*"}, AlwaysBroadcast: true}}
	}
	old := []wire.Option{{Code: wire.OptVendorClass, Value: []byte("old-cpe")}}
	for name, tc := range map[string]struct {
		q      wire.Query
		change func(*request, *Options)
		want   string
		flag   bool
	}{
		"subnet":          {wire.Query{Type: wire.Discover, MAC: client(0x11)}, subnet, "offer 192.0.2.11 by broadcast", false},
		"class":           {wire.Query{Type: wire.Discover, MAC: client(0x11), Options: old}, class, "offer 192.0.2.11 by broadcast", false},
		"another class":   {wire.Query{Type: wire.Discover, MAC: client(0x11)}, class, "offer 192.0.2.11 by frame", false},
		"through a relay": {wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP}, subnet, "offer 192.0.2.11 by relay to 198.51.100.1:67", true},
		"renewing":        {wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)}, subnet, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := run(t, tc.q, nil, tc.change)
			assert.Equal(t, tc.want, told(d))
			require.Equal(t, tc.flag, d.reply.Broadcast)
		})
	}
}
