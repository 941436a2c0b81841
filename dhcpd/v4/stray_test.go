package v4

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision/lease"
)

// What is given by MAC on a line that does not say so is told apart from what a line vouches for.
func TestStray(t *testing.T) {
	known, portless := client(0x11), client(0x81)
	relayed := func(q wire.Query, opt82 []byte) wire.Query { q.GIAddr, q.Option82 = relayIP, opt82; return q }
	discover := wire.Query{Type: wire.Discover, MAC: known}
	renew := wire.Query{Type: wire.Request, MAC: known, CIAddr: host(11)}
	nowhere := wire.Query{Type: wire.Discover, MAC: portless}
	on := func(r lease.Record, n byte) lease.Record {
		r.GIAddr, r.Option82 = relayIP, port(switch1, n)
		return r
	}
	here, there := on(bound(host(11), known, 1), 1), on(bound(host(81), portless, 8), 1)
	there.Interface = "eth7"
	byMAC := func(_ *Request, o *Options) { o.Match = []MatchKind{MatchMAC} }
	byID := func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82, MatchClientID} }
	untrusted := func(_ *Request, o *Options) { o.TrustedInterfaces = []string{line.NoInterface} }
	ether := clientID(append([]byte{1}, known[:]...)...)
	for _, tc := range []struct {
		name   string
		q      wire.Query
		tab    *lease.Table
		change func(*Request, *Options)
		want   Stray
	}{
		{"a port that the ERP does not have", relayed(discover, port(switch1, 99)), nil, nil, StrayUnknownPort},
		{"a switch that it does not have", relayed(discover, port(client(0xee), 1)), nil, nil, StrayUnknownDevice},
		{"nobody can read it", relayed(discover, append([]byte{1, 2, 0, 5, 2, 6}, switch1[:]...)), nil, nil, StrayUnread},
		{"an ACK of it", relayed(wire.Query{Type: wire.Request, MAC: known, Options: []wire.Option{chosen(serverIP), requested(host(11))}}, port(switch1, 99)), nil, nil, StrayUnknownPort},
		{"by an identifier", relayed(wire.Query{Type: wire.Discover, MAC: stranger, Options: []wire.Option{ether}}, port(switch1, 99)), nil, byID, StrayUnknownPort},
		{"its lease goes on, and was given elsewhere", relayed(renew, port(switch1, 99)), leases(here), nil, StrayUnknownPort},
		{"its lease goes on where it was given", relayed(renew, port(switch1, 99)), leases(on(here, 99)), nil, StrayUnknownPort},
		{"of a snooping switch", wire.Query{Type: wire.Discover, MAC: known, Option82: port(switch1, 99)}, nil, nil, StrayUnknownPort},
		{"that switch is not believed", wire.Query{Type: wire.Discover, MAC: known, Option82: port(switch1, 99)}, nil, untrusted, StrayNone},
		{"the port is its own", relayed(discover, port(switch1, 1)), nil, nil, StrayNone},
		{"no line is told", discover, nil, nil, StrayNone},
		{"a renewal past the relay", renew, leases(here), nil, StrayNone},
		{"ports do not count", relayed(discover, port(switch1, 99)), nil, byMAC, StrayNone},
		{"it is not given", relayed(discover, port(switch1, 99)), leases(here), nil, StrayNone},
		{"a row without a port, for the first time", relayed(nowhere, port(switch1, 99)), nil, nil, StrayNone},
		{"one on another line than before", relayed(nowhere, port(switch1, 99)), leases(there), nil, StrayMoved},
		{"one on another wire than before", nowhere, leases(with(bound(host(81), portless, 8), func(r *lease.Record) { r.Interface = "eth7" })), nil, StrayMoved},
		{"one where it was before", relayed(nowhere, port(switch1, 1)), leases(there), nil, StrayNone},
		{"one that another client had", relayed(nowhere, port(switch1, 99)), leases(with(there, func(r *lease.Record) { r.MAC, r.Expires = stranger, testNow })), nil, StrayNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			change := tc.change
			if change == nil {
				change = func(*Request, *Options) {}
			}
			d := run(t, tc.q, tc.tab, change)
			assert.Equal(t, tc.want, d.Evidence.Stray, "%s", told(d))
			given := d.Reply.Type == wire.Offer || d.Reply.Type == wire.Ack
			assert.Equal(t, tc.name != "it is not given", given, "%s", told(d))
		})
	}
}

func TestStrayVLANsAndVacantLines(t *testing.T) {
	d := decideIn(t, "vlan400", wire.Query{Type: wire.Discover, MAC: client(0x31)}, nil, nil)
	assert.Equal(t, "offer 192.0.2.31 by frame", told(d))
	assert.Equal(t, StrayUnknownVLAN, d.Evidence.Stray)
	assert.Zero(t, decideIn(t, "vlan400", wire.Query{Type: wire.Discover, MAC: client(0x31)}, nil, order(MatchMAC)).Evidence.Stray, "VLANs do not count")
	assert.Zero(t, decideIn(t, "eth0", wire.Query{Type: wire.Discover, MAC: client(0x31)}, nil, nil).Evidence.Stray, "no VLAN is told")

	opts := testOptions()
	opts.Pools = []Pool{flats()}
	cfg, err := Compile(opts)
	require.NoError(t, err)
	snap, tab := vacants(t), lease.New()
	for n, want := range map[byte]Stray{99: StrayUnknownPort, 27: StrayNone} {
		r := &Request{Ifindex: 3, Served: true, Local: serverIP}
		q := wire.Query{Type: wire.Discover, MAC: client(0xa7), GIAddr: relayIP, Option82: port(switch1, n)}
		r.P.Read(q.Append(nil))
		d := decideAt(testNow, r, snap, tab, fill(t, cfg, snap, tab), cfg)
		assert.Equal(t, "pool_offer", d.Outcome.String())
		assert.Equal(t, want, d.Evidence.Stray, "port %d", n)
	}
}

func TestStrayWords(t *testing.T) {
	for s := range Strays() {
		text, err := json.Marshal(s)
		require.NoError(t, err)
		back := Strays()
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, s, back)
		assert.Equal(t, s == StrayNone, s.Explain() == "", s)
	}
	var s Stray
	require.Error(t, s.UnmarshalText([]byte("invalid")))
	assert.Equal(t, "invalid", Strays().String())
}

// Each row says for people what it is, and says it once.
func TestRulesSayWhatTheyAre(t *testing.T) {
	said := map[string]string{}
	for i := range rules {
		r := Rule(i + 1)
		assert.Regexp(t, `^[A-Z].+\.$`, r.Explain(), r)
		assert.Empty(t, said[r.Explain()], "%s says the same", r)
		said[r.Explain()] = r.String()
	}
	assert.Empty(t, Rule(0).Explain())
	assert.Empty(t, Rule(len(rules)+1).Explain())
}
