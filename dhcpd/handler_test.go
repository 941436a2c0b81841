package dhcpd

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A MAC that is to be reported first goes to the journal without a lease, and
// nothing is sent, whether the disk takes it or not.
func TestReportBeforeAnswer(t *testing.T) {
	for _, broken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			j := &journal{}
			if broken {
				j.fail(errors.New("disk"))
			}
			r := newRig(t, j)
			opts := testOptions()
			opts.MACChange = v4.MACReport
			require.NoError(t, r.s.Reload(opts))
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{clientID([]byte("\x00cpe")...)}}
			r.ask(q)
			require.NoError(t, r.end())
			assert.Empty(t, r.out.all())
			assert.Zero(t, r.dirty())
			assert.Zero(t, r.s.deps.Leases.Counts(time.Now()).Bound)
			assert.Equal(t, map[string]int{"discover mac_reported": 1}, r.n.get())
			events := r.log.Find(EventFilter{})
			require.Len(t, events, 1)
			assert.Equal(t, lease.Hex("\x00cpe"), events[0].ClientID, "the log has its own copy")
			if broken {
				assert.Empty(t, j.groups)
				return
			}
			require.Len(t, j.groups, 1)
			require.Len(t, j.groups[0], 1)
			assert.Zero(t, j.groups[0][0].Lease)
			assert.Equal(t, &provision.MACReport{IP: host(11), MAC: stranger, Subscriber: 1, At: events[0].Time, Packet: packetOf(1, "discover_has")}, j.groups[0][0].Report)
		})
	}
}

// packetOf is the evidence that a packet from a port of switch1 is, which its relay forwards.
func packetOf(n byte, rule string) provision.Packet {
	return provision.Packet{
		Source: netip.AddrPortFrom(relayIP, 67), Relay: relayIP, Option82: lease.Hex(port(switch1, n)).String(), Device: 1, Port: uint32(n),
		VouchedBy: "relay", MatchedBy: "option82", Rule: rule,
	}
}

// An event says what decided, since when the record of its client says so, and what was given on a line that nobody
// vouches for. Explain says the same of what would be.
func TestEvidenceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		newest := func() Event { return r.log.Find(EventFilter{Limit: 1})[0] }
		discover := func(n byte) wire.Query {
			return wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, n)}
		}
		r.ask(discover(99))
		assert.Equal(t, v4.StrayUnknownPort, newest().Stray)
		assert.Zero(t, newest().Since)
		would := r.s.Explain(Query{MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 99)})
		assert.Equal(t, v4.StrayUnknownPort, would.Stray)
		assert.Equal(t, "discover_has", would.Rule.String())
		assert.Zero(t, would.Since)

		begin := time.Now()
		r.ask(selectingOn(1, client(0x11), host(11)))
		assert.Equal(t, outcome.Ack, newest().Outcome)
		assert.Zero(t, newest().Stray)
		time.Sleep(10 * time.Minute)
		r.ask(wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)})
		assert.Equal(t, "extend_kept", newest().Rule.String())
		assert.True(t, begin.Equal(newest().Since), "%s", newest().Since)
		would = r.s.Explain(Query{MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1)})
		assert.True(t, begin.Equal(would.Since), "%s", would.Since)
		assert.Equal(t, v4.VoucherRelay, would.VouchedBy)

		r.ask(discover(99))
		assert.Equal(t, outcome.MACElsewhere, newest().Outcome, "while its lease is live")
		assert.Zero(t, newest().Stray, "it was given nothing")
		strays := r.log.Find(EventFilter{Stray: true})
		require.Len(t, strays, 1)
		assert.Equal(t, lease.Hex(port(switch1, 99)), strays[0].Option82)
		require.NoError(t, r.end())
	})
}

// A client that is found by its MAC does not hide that its port is not.
func TestLostOption82IsTold(t *testing.T) {
	r := newRig(t, nil)
	for _, tc := range []struct {
		opt82 []byte
		match []v4.MatchKind
		want  outcome.Outcome
	}{
		{port(switch1, 9), nil, outcome.UnknownPort},
		{port(stranger, 9), nil, outcome.UnknownDevice},
		{port(switch1, 9), []v4.MatchKind{v4.MatchMAC}, 0},
		{port(switch1, 1), nil, 0},
		{nil, nil, 0},
	} {
		opts := testOptions()
		opts.Match = tc.match
		require.NoError(t, r.s.Reload(opts))
		r.ask(wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: tc.opt82})
		e := r.log.Find(EventFilter{Limit: 1})[0]
		assert.Equal(t, outcome.Offer, e.Outcome)
		assert.Equal(t, tc.want, e.Lost)
	}
	assert.Len(t, r.log.Find(EventFilter{Lost: true}), 2)
	assert.NoError(t, r.end())
}
