package v4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision/lease"
)

// asked is the answer to a leasequery as another reader has it; nil: none.
func asked(t *testing.T, q wire.Query, tab *lease.Table, mangle ...func([]byte)) (Decision, *dhcpv4.DHCPv4) {
	t.Helper()
	q.Type = wire.LeaseQuery
	if !q.GIAddr.IsValid() {
		q.GIAddr = relayIP
	}
	raw := q.Append(nil)
	for _, f := range mangle {
		f(raw)
	}
	opts := testOptions()
	opts.LeaseQuery.From = []netip.Prefix{netip.PrefixFrom(relayIP, 32)}
	cfg, err := Compile(opts)
	require.NoError(t, err)
	r := &Request{Served: true, Local: serverIP, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
	r.P.Read(raw)
	d := decideAt(testNow, r, world(t), tab, nil, cfg)
	if d.Reply.Type == 0 {
		return d, nil
	}
	lib, err := dhcpv4.FromBytes(d.AppendReply(nil, &r.P.Packet))
	require.NoError(t, err)
	assert.Equal(t, d.Reply.Type, wire.MessageType(lib.MessageType()))
	assert.Equal(t, serverIP.String(), lib.ServerIdentifier().String())
	assert.Equal(t, "relay to "+relayIP.String()+":67", d.Way.String()+" to "+d.To.String())
	return d, lib
}

func number(lib *dhcpv4.DHCPv4, code uint8) int {
	v := lib.Options.Get(dhcpv4.GenericOptionCode(code))
	if len(v) != 4 {
		return -1
	}
	return int(v[0])<<24 | int(v[1])<<16 | int(v[2])<<8 | int(v[3])
}

func TestLeaseQuery(t *testing.T) {
	one, two, gone := bound(host(11), client(0x11), 1), bound(host(12), client(0x11), 1), expired(host(13), client(0x11), 1)
	one.Option82, one.ClientID = port(switch1, 1), lease.Hex("\x00one")
	one.Renewed, one.Expires = testNow.Add(-10*time.Minute), testNow.Add(50*time.Minute)
	two.Renewed, two.Expires = testNow.Add(-40*time.Minute), testNow.Add(20*time.Minute)
	tab := leases(one, two, gone)
	noMAC := func(b []byte) { b[1], b[2] = 0, 0; clear(b[28:34]) }
	list := func(codes ...byte) []wire.Option {
		return []wire.Option{{Code: wire.OptParameterList, Value: codes}}
	}

	t.Run("by address", func(t *testing.T) {
		d, lib := asked(t, wire.Query{CIAddr: host(11)}, tab, noMAC)
		assert.Equal(t, outcome.LeaseActive, d.Outcome)
		assert.Equal(t, host(11).String(), lib.ClientIPAddr.String())
		assert.True(t, lib.YourIPAddr.IsUnspecified())
		mac := client(0x11)
		assert.Equal(t, mac.String(), lib.ClientHWAddr.String())
		assert.Equal(t, []int{3000, 1200, 2550, 600}, []int{number(lib, 51), number(lib, 58), number(lib, 59), number(lib, 91)}, "what is left")
		assert.Equal(t, port(switch1, 1), lib.Options.Get(dhcpv4.OptionRelayAgentInformation))
		assert.Equal(t, "\x00one", string(lib.Options.Get(dhcpv4.OptionClientIdentifier)))
		assert.Nil(t, lib.Options.Get(dhcpv4.GenericOptionCode(92)), "asked by address there are no others")
		assert.Nil(t, lib.Options.Get(dhcpv4.OptionRouter), "not asked for")
		assert.Equal(t, "192.0.2.11", d.YourIP.String())
	})
	t.Run("only what is asked for, and what the client was told", func(t *testing.T) {
		_, lib := asked(t, wire.Query{CIAddr: host(11), Options: list(51, 3, 6, 1)}, tab)
		assert.Equal(t, 3000, number(lib, 51))
		assert.Equal(t, "192.0.2.1", lib.Router()[0].String())
		assert.Equal(t, "192.0.2.3", lib.DNS()[0].String())
		assert.NotNil(t, lib.Options.Get(dhcpv4.OptionSubnetMask))
		for _, code := range []uint8{58, 59, 61, 82, 91, 92} {
			assert.Nil(t, lib.Options.Get(dhcpv4.GenericOptionCode(code)), "option %d", code)
		}
	})
	t.Run("T1 is over", func(t *testing.T) {
		_, lib := asked(t, wire.Query{CIAddr: host(12)}, tab)
		assert.Equal(t, []int{1200, -1, 750}, []int{number(lib, 51), number(lib, 58), number(lib, 59)})
		assert.Nil(t, lib.Options.Get(dhcpv4.OptionRelayAgentInformation), "its last message had none")
	})
	t.Run("by MAC: the one heard last, and the others", func(t *testing.T) {
		d, lib := asked(t, wire.Query{MAC: client(0x11)}, tab)
		assert.Equal(t, outcome.LeaseActive, d.Outcome)
		assert.Equal(t, host(11).String(), lib.ClientIPAddr.String())
		assert.Equal(t, host(12).AsSlice(), lib.Options.Get(dhcpv4.GenericOptionCode(92)), "not the expired one")
	})
	t.Run("by client identifier, before the MAC", func(t *testing.T) {
		_, lib := asked(t, wire.Query{MAC: client(0x77), Options: []wire.Option{{Code: wire.OptClientID, Value: []byte("\x00one")}}}, tab)
		assert.Equal(t, host(11).String(), lib.ClientIPAddr.String())
		mac := client(0x11)
		assert.Equal(t, mac.String(), lib.ClientHWAddr.String())
	})
	for name, tc := range map[string]struct {
		q    wire.Query
		want outcome.Outcome
		ip   string
	}{
		"expired":                      {wire.Query{CIAddr: host(13)}, outcome.LeaseUnassigned, "192.0.2.13"},
		"never leased":                 {wire.Query{CIAddr: host(200)}, outcome.LeaseUnassigned, "192.0.2.200"},
		"an address from elsewhere":    {wire.Query{CIAddr: ip("10.0.0.1")}, outcome.LeaseUnknown, "10.0.0.1"},
		"a MAC without a lease":        {wire.Query{MAC: client(0x99)}, outcome.LeaseUnknown, "0.0.0.0"},
		"a client id without a lease":  {wire.Query{MAC: client(0x11), Options: []wire.Option{{Code: wire.OptClientID, Value: []byte("x")}}}, outcome.LeaseUnknown, "0.0.0.0"},
		"about nothing":                {wire.Query{}, outcome.RequestIncomplete, ""},
		"of a node that may not":       {wire.Query{CIAddr: host(11), GIAddr: ip("198.51.100.2")}, outcome.LeaseQueryRefused, ""},
		"its option 82 is not echoed":  {wire.Query{CIAddr: host(200), Option82: []byte{1, 1, 1}}, outcome.LeaseUnassigned, "192.0.2.200"},
		"its broken option 82 is none": {wire.Query{CIAddr: host(200), Option82: []byte{1, 9}}, outcome.LeaseUnassigned, "192.0.2.200"},
	} {
		t.Run(name, func(t *testing.T) {
			d, lib := asked(t, tc.q, tab)
			assert.Equal(t, tc.want, d.Outcome)
			if tc.ip == "" {
				assert.Nil(t, lib)
				return
			}
			assert.Equal(t, tc.ip, lib.ClientIPAddr.String())
			for _, code := range []uint8{51, 61, 82, 91, 92} {
				assert.Nil(t, lib.Options.Get(dhcpv4.GenericOptionCode(code)), "option %d", code)
			}
		})
	}
	t.Run("nobody may by default, and not without a relay address", func(t *testing.T) {
		assert.Equal(t, outcome.LeaseQueryRefused, run(t, wire.Query{Type: wire.LeaseQuery, CIAddr: host(11), GIAddr: relayIP}, tab).Outcome)
		assert.Equal(t, outcome.LeaseQueryRefused, run(t, wire.Query{Type: wire.LeaseQuery, CIAddr: host(11)}, tab).Outcome)
	})
}

// The answer keeps to the query's limit, whatever the lease holds.
func TestLeaseQueryFits(t *testing.T) {
	rec := bound(host(11), client(0x11), 1)
	rec.Option82, rec.ClientID = append([]byte{1, 253}, make([]byte, 253)...), make([]byte, 255)
	tab := leases(rec)
	for i := byte(100); i < 190; i++ {
		other := bound(host(i), client(0x11), 1)
		other.Renewed = testNow.Add(-time.Hour)
		tab.Store(other)
	}
	for limit, size := range map[int][]byte{548: nil, 872: {3, 132}, 1472: {5, 220}} {
		q := wire.Query{Type: wire.LeaseQuery, MAC: client(0x11), GIAddr: relayIP}
		if size != nil {
			q.Options = []wire.Option{{Code: wire.OptMaxMessageSize, Value: size}}
		}
		d, lib := asked(t, q, tab)
		require.Equal(t, outcome.LeaseActive, d.Outcome)
		var p wire.Packet
		require.NoError(t, p.Parse(q.Append(nil)))
		assert.LessOrEqual(t, len(d.AppendReply(nil, &p)), limit)
		assert.Equal(t, []byte(rec.Option82), lib.Options.Get(dhcpv4.OptionRelayAgentInformation))
		assert.Equal(t, limit > 548, lib.Options.Get(dhcpv4.OptionClientIdentifier) != nil)
	}
}
