package dhcpd

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// sends has a relay send a DISCOVER from an address, and waits until the server has seen it.
func (s *site) sends(giaddr, from netip.Addr) {
	s.t.Helper()
	seen := s.events.Seen()
	q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: giaddr}
	_, err := listenUDP(s.t, from, 0).WriteToUDPAddrPort(q.Append(nil), s.addr)
	require.NoError(s.t, err)
	require.Eventually(s.t, func() bool { return s.events.Seen() > seen }, 10*time.Second, time.Millisecond)
}

func sendersOf(st senders.Status) (all []string) {
	for _, x := range append(append([]senders.Sender{}, st.Relays...), st.Switches...) {
		all = append(all, fmt.Sprintf("%v %v %v %s %d", x.State, x.GIAddr, x.Source, x.Interface, x.Packets))
	}
	return all
}

// Packets over sockets: every relay is remembered with its reason, and a reload that pastes the lines changes what is thought of it.
func TestSendersOverSockets(t *testing.T) {
	opts := loopbackOptions(67, 68)
	opts.TrustedInterfaces = []string{line.NoInterface}
	s := startSite(t, filepath.Join(t.TempDir(), "state.db"), opts)
	own, other, third := ip("127.0.0.1"), ip("127.0.0.3"), ip("127.0.0.4")
	s.sends(loopRelay, loopRelay)
	s.sends(loopRelay, other)
	s.sends(loopRelay, other)
	s.sends(third, third)
	s.sends(loopRelay, own)
	s.sends(subscriberIP, third)
	assert.ElementsMatch(t, []string{
		"relay 127.0.0.2 127.0.0.2 lo 1",
		"unlisted_source 127.0.0.2 127.0.0.3 lo 2",
		"relay_untrusted 127.0.0.4 127.0.0.4 lo 1",
		"relay_no_source 127.0.0.2 127.0.0.1 lo 1",
		"relay_subscriber 192.0.2.21 127.0.0.4 lo 1",
	}, sendersOf(s.server.Senders()))
	warned := s.server.Senders().Warnings
	require.Len(t, warned, 1)
	assert.Equal(t, senders.SourcesUnchecked, warned[0].Kind)
	assert.Equal(t, []string{"relays: [127.0.0.2, 127.0.0.3]", "check_relay_source: true"}, warned[0].Paste)

	opts.Relays, opts.CheckRelaySource = append(opts.Relays, netip.PrefixFrom(other, 32)), line.SourceListed
	opts.Listen = s.server.generation.Load().listen
	require.NoError(t, s.server.Reload(opts))
	assert.Empty(t, s.server.Senders().Warnings)
	assert.Contains(t, sendersOf(s.server.Senders()), "relay 127.0.0.2 127.0.0.3 lo 2", "by the configuration of now")
	s.sends(loopRelay, other)
	assert.Contains(t, sendersOf(s.server.Senders()), "relay 127.0.0.2 127.0.0.3 lo 3", "it is one relay before and after")
	require.NoError(t, s.stop())
}

// Asked about a client whose packet would be refused, explain says so.
func TestExplainSaysWhoIsRefused(t *testing.T) {
	opts := loopbackOptions(67, 68)
	opts.CheckRelaySource = line.SourceListed
	opts.SubscriberInterfaces, opts.TrustedInterfaces = []string{"br-flats"}, []string{"core"}
	opts.Relays, opts.Option82Relays = append(opts.Relays, netip.MustParsePrefix("127.0.0.5/32")), []string{loopRelay.String()}
	s := startSite(t, filepath.Join(t.TempDir(), "state.db"), opts)
	for _, tc := range []struct {
		name    string
		q       Query
		want    outcome.Outcome
		by      v4.Voucher
		ignored bool
	}{
		{"the relay itself", Query{GIAddr: loopRelay, Option82: port(switch1, 2)}, outcome.Offer, v4.VoucherRelay, false},
		{"by a listed address", Query{GIAddr: loopRelay, Source: loopRelay, Option82: port(switch1, 2)}, outcome.Offer, v4.VoucherRelay, false},
		{"by an unlisted one", Query{GIAddr: loopRelay, Source: ip("127.0.0.3"), Option82: port(switch1, 2)}, outcome.RelaySource, 0, false},
		{"by one of this host", Query{GIAddr: loopRelay, Source: ip("127.0.0.1"), Option82: port(switch1, 2)}, outcome.RelayNoSource, 0, false},
		{"by a subscriber's", Query{GIAddr: loopRelay, Source: subscriberIP, Option82: port(switch1, 2)}, outcome.RelaySubscriber, 0, false},
		{"another relay", Query{GIAddr: ip("127.0.0.4"), Option82: port(switch1, 2)}, outcome.RelayUntrusted, 0, false},
		{"a subscribers' wire", Query{GIAddr: loopRelay, Source: ip("127.0.0.3"), Interface: "br-flats"}, outcome.RelayInterface, 0, false},
		{"without a relay the source says nothing", Query{Source: subscriberIP, Option82: port(switch1, 2), Interface: "core"}, outcome.Offer, v4.VoucherSwitch, false},
		{"a relay whose option 82 is not trusted", Query{GIAddr: ip("127.0.0.5"), Option82: port(switch1, 2)}, outcome.Option82Untrusted, v4.VoucherRelay, true},
		{"option 82 that is not trusted", Query{Option82: port(switch1, 2), Interface: "br-flats"}, outcome.Option82Untrusted, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := s.server.Explain(tc.q)
			assert.Equal(t, tc.want, e.Outcome)
			assert.Equal(t, tc.by, e.VouchedBy)
			assert.Equal(t, tc.ignored, e.Untrusted)
		})
	}
	require.NoError(t, s.stop())
}

// broadcast has a client send a packet to everybody, and waits until the server has seen it.
func (k *customer) broadcast(t *testing.T, s *site, q wire.Query) {
	t.Helper()
	seen := s.events.Seen()
	require.Eventually(t, func() bool {
		_, err := k.conn.WriteToUDPAddrPort(q.Append(nil), netip.MustParseAddrPort("255.255.255.255:67"))
		return err == nil // else the wire is not up yet
	}, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return s.events.Seen() > seen }, 10*time.Second, time.Millisecond)
}

// On real interfaces: a client that writes option 82 itself, or poses as a relay, is seen on its own one.
func TestKernelSendersPerInterface(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	flat, core := c.wire("flat0"), c.wire("core0")
	w := watchIn(t, c.router)
	opts := kernelOptions()
	s := startSiteIn(t, c, w, opts)
	forged := wire.Query{Type: wire.Discover, MAC: stranger, Option82: port(switch1, 2)}
	posed := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: loopRelay}
	flat.broadcast(t, s, forged)
	core.broadcast(t, s, forged)
	flat.broadcast(t, s, posed)
	assert.ElementsMatch(t, []string{
		"any_switch invalid IP invalid IP flat0 1", "any_switch invalid IP invalid IP core0 1", "relay_subscriber 127.0.0.2 192.0.2.21 flat0 1",
	}, sendersOf(s.server.Senders()))
	warned := s.server.Senders().Warnings
	require.Len(t, warned, 1)
	assert.Equal(t, []string{"trusted_interfaces: [core0, flat0]"}, warned[0].Paste)
	assert.Equal(t, []string{"trusted_interfaces: none"}, warned[0].Or)

	opts.TrustedInterfaces = []string{"core0"}
	require.NoError(t, s.server.Reload(opts))
	flat.broadcast(t, s, forged)
	core.broadcast(t, s, forged)
	assert.ElementsMatch(t, []string{
		"option82_untrusted invalid IP invalid IP flat0 2", "trusted_interface invalid IP invalid IP core0 2", "relay_subscriber 127.0.0.2 192.0.2.21 flat0 1",
	}, sendersOf(s.server.Senders()))
	assert.Empty(t, s.server.Senders().Warnings)
	assert.Equal(t, outcome.Option82Untrusted, s.events.Find(EventFilter{Outcome: outcome.Option82Untrusted, Limit: 1})[0].Lost)
	require.NoError(t, s.stop())
}
