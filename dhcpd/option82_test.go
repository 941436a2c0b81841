package dhcpd

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

func TestServerRefusesOption82(t *testing.T) {
	opts := testOptions()
	opts.Option82 = line.Option82{Exact: []line.Option82Exact{{}}}
	_, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	assert.ErrorContains(t, err, "dhcp: option 82: exact")
}

func TestOption82ProfilesOfTheConfiguration(t *testing.T) {
	opts := testOptions()
	own := option82.Profile{Name: "own", Layout: option82.LayoutPort}
	opts.Option82 = line.Option82{
		Profiles: []line.Option82Profile{{Profile: own, Match: line.Option82Match{RemoteID: "*"}}, {Profile: option82.Profile{Name: "other", Layout: option82.LayoutPort}}},
		Default:  []option82.Profile{ready(t, "dlink"), own},
	}
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	require.NoError(t, err)
	got := s.Option82Profiles()
	require.Len(t, got, 1, "once, without ready ones and those for nobody")
	assert.Equal(t, "own", got[0].Name)
}

// A switch named with six characters is found by its name, with real packets; a client
// that takes that name for its MAC does not get what is on the relay's port.
func TestNameOfSixCharactersOverUDP(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	opts := loopbackOptions(portOf(relay), 68)
	either := option82.Profile{Name: "either", Layout: option82.LayoutWrappedUnitPort, Switch: option82.SwitchAny}
	opts.Option82 = line.Option82{Default: []option82.Profile{either}}
	erp := siteInput()
	erp.Lines[0].Subscriber, erp.Lines[0].Addresses = 3, provision.Hosts4(host(31))
	erp.Devices = append(erp.Devices, provision.Device{ID: 2, Name: "core-1"})
	erp.Lines = append(erp.Lines, provision.Line{Subscriber: 2, Addresses: provision.Hosts4(subscriberIP), Device: 2, Port: 2})
	s := startSiteWith(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, (*Server).Listen)
	node := probe.Client{Port: probe.NewUDP(relay, s.addr), Timeout: 5 * time.Second}
	relayInfo := [][]byte{append([]byte{1, 6, 0, 4, 0, 100, 0, 2, 2, 6}, "core-1"...)}

	got, err := node.Lease(t.Context(), probe.Query{MAC: stranger[:], GIAddr: loopRelay, RelayInfo: relayInfo})
	require.NoError(t, err)
	require.Equal(t, subscriberIP, got)

	node.Timeout = 50 * time.Millisecond
	step, err := node.Ask(t.Context(), probe.Query{Kind: probe.Discover, MAC: []byte("core-1"), GIAddr: loopRelay, RelayInfo: relayInfo})
	require.NoError(t, err)
	require.Equal(t, probe.Silence, step.Answer)
	require.Eventually(t, func() bool { return len(s.events.Find(EventFilter{Outcome: outcome.Option82Unread})) == 1 }, 5*time.Second, time.Millisecond)
}

func TestProfilesDoNotAllocate(t *testing.T) {
	snap := world(t)
	opts := testOptions()
	opts.Option82 = line.Option82{
		Profiles: []line.Option82Profile{
			{Profile: ready(t, "snr-ascii"), Match: line.Option82Match{DeviceName: "sw*", RemoteID: "00:00:5e:*"}},
			{Profile: ready(t, "cisco-catalyst"), Match: line.Option82Match{Devices: []provision.DeviceID{1}, GIAddr: []netip.Prefix{netip.PrefixFrom(relayIP, 32)}}},
			{Profile: ready(t, "juniper"), Match: line.Option82Match{Devices: []provision.DeviceID{2}}},
		},
		Exact: []line.Option82Exact{{Value: []byte{1, 2}, Device: 1, Port: 1}},
	}
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New(), Observer: Observers{NewEventLog(16)}})
	require.NoError(t, err)
	h := newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	for _, tc := range []struct {
		name, profile string
		q             wire.Query
	}{
		{"bytes with an offset", "cisco-catalyst", wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), GIAddr: relayIP, Option82: port(switch1, 3)}},
		{"text by template", "juniper", wire.Query{Type: wire.Request, MAC: client(0x71), CIAddr: host(71), GIAddr: relayIP,
			Option82: named("ge-0/0/5:homes", []byte("00:00:5e:00:53:f2:192.0.2.1")...)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.profile == "juniper" { // its switch is known by the profile only: the template reads the remote-id
				o := opts
				o.Option82.Profiles = []line.Option82Profile{{Profile: ready(t, "juniper"), Match: line.Option82Match{RemoteID: "00:00:5e:*"}}}
				require.NoError(t, s.Reload(o))
			}
			g := socket.Datagram{Data: tc.q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
			for range 20 {
				h.handle(time.Now(), g)
			}
			require.Equal(t, outcome.Ack, h.ev.Outcome)
			require.Equal(t, tc.profile, h.d.Match.Loc.Profile)
			assert.Zero(t, testing.AllocsPerRun(200, func() { h.handle(testNow, g) }))
		})
	}
}
