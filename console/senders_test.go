package console

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision/lease"
)

// manySenders has n refused relays and n listed ones.
func manySenders(n int) senders.Status {
	st := senders.Status{
		Switches: []senders.Sender{{State: senders.AnySwitch, Interface: "eth2", FirstSeen: testStart, LastSeen: testStart, Packets: 7}},
		Counts:   []senders.Count{{State: senders.Relay, Senders: n, Packets: 9}},
		Warnings: []senders.Warning{{Kind: senders.AnybodySwitches, Text: "everybody is a switch", Paste: []string{"trusted_interfaces: [eth2]"}, Or: []string{"trusted_interfaces: none"}}},
	}
	for _, state := range []senders.State{senders.RelaySource, senders.Relay} {
		for i := range n {
			a := netip.AddrFrom4([4]byte{10, byte(state), 0, byte(i)})
			st.Relays = append(st.Relays, senders.Sender{
				State: state, GIAddr: a, Source: a, Interface: "eth0", FirstSeen: testStart, LastSeen: testStart.Add(time.Second),
				Packets: 1, Paste: []string{"relays: [" + a.String() + "]"},
			})
		}
	}
	return st
}

// Who sends is in the status, the first of each kind, and whole by a request of its own.
func TestClientSenders(t *testing.T) {
	w := newWorld(t)
	w.dhcp.senders = manySenders(30)
	c := serveWorld(t, w)
	got, err := c.Senders(t.Context())
	require.NoError(t, err)
	assert.Equal(t, &w.dhcp.senders, got, "nothing is lost on the way")

	st, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Len(t, st.DHCP.Senders.Relays, 2*statusEntries)
	assert.Equal(t, 20, st.DHCP.Senders.More)
	assert.Equal(t, w.dhcp.senders.Warnings, st.DHCP.Senders.Warnings)
	assert.True(t, st.Ready, "a warning is no failure")

	w = newWorld(t)
	w.DHCP = nil
	_, err = serveWorld(t, w).Senders(t.Context())
	var se *StatusError
	require.ErrorAs(t, err, &se)
	assert.Equal(t, http.StatusNotFound, se.Code)
}

// An event tells by which way it came, who vouched for that, and how the client was found.
func TestEventsSayWhoVouched(t *testing.T) {
	w := newWorld(t)
	m := mac(t, "00:00:5e:00:53:11")
	source := netip.MustParseAddrPort("192.0.2.71:67")
	w.packet(dhcpd.Event{Time: testStart, Outcome: outcome.Offer, MAC: m, GIAddr: ip("192.0.2.70"), Source: source, Interface: "eth0", VouchedBy: v4.VoucherSource, MatchedBy: v4.MatchOption82 | v4.MatchMAC, Rule: 1})
	w.packet(dhcpd.Event{Time: testStart, Outcome: outcome.Offer, MAC: m, Interface: "eth1", Option82: lease.Hex{1, 1, 7}, Lost: outcome.Option82Untrusted, MatchedBy: v4.MatchMAC})
	x, err := w.explain(t.Context(), m.String())
	require.NoError(t, err)
	require.Len(t, x.Events, 2)
	w.packet(dhcpd.Event{Time: testStart, Outcome: outcome.Offer, MAC: mac(t, "00:00:5e:00:53:12"), GIAddr: ip("192.0.2.72"), Interface: "eth0", Option82: lease.Hex{1, 1, 7}, Lost: outcome.Option82Untrusted, VouchedBy: v4.VoucherRelay})
	e := x.Events[1]
	assert.Equal(t, source, e.Source)
	assert.Equal(t, "unlisted_source", e.VouchedBy)
	assert.Equal(t, "option82+mac", e.MatchedBy)
	assert.Equal(t, v4.Rule(1).String(), e.Rule)
	assert.Empty(t, e.Lost)
	e = x.Events[0]
	assert.Equal(t, "none", e.VouchedBy)
	assert.Equal(t, "option82_untrusted", e.Lost)

	body := get(t, w, "/").Body.String()
	text := visible(t, body)
	assert.Contains(t, text, "relay 192.0.2.70 source 192.0.2.71:67 eth0 vouched for by unlisted_source, found by option82+mac, decided by: "+v4.Rule(1).String())
	assert.Contains(t, text, "eth1 vouched for by nobody, found by mac, option 82 not trusted on eth1")
	assert.Contains(t, text, "vouched for by relay, option 82 not trusted through relay 192.0.2.72")
	assert.NotContains(t, text, "Option 82 that led to no port", "what is not believed needs no profile")
}

// What the client's packet would lead to is asked with the source that it had, or with the one that is asked for.
func TestWouldAsksWithTheSource(t *testing.T) {
	w := newWorld(t)
	c := serveWorld(t, w)
	m := mac(t, "00:00:5e:00:53:11")
	w.packet(dhcpd.Event{Time: testStart, Outcome: outcome.Offer, MAC: m, GIAddr: ip("192.0.2.70"), Source: netip.MustParseAddrPort("192.0.2.71:67"), Interface: "eth0", VouchedBy: v4.VoucherRelay})
	w.dhcp.answer = dhcpd.Explanation{Outcome: outcome.RelaySource, VouchedBy: v4.VoucherNone}
	x, err := c.Explain(t.Context(), m.String())
	require.NoError(t, err)
	assert.Equal(t, ip("192.0.2.71"), x.Would.Source)
	assert.Equal(t, "none", x.Would.VouchedBy)
	assert.Contains(t, x.Summary, "with the outcome offer")
	assert.Contains(t, x.Summary, "A DISCOVER now would have the outcome relay_source: "+outcome.RelaySource.Explain()+" "+Advice(outcome.RelaySource))

	w.dhcp.answer = dhcpd.Explanation{Outcome: outcome.Offer, VouchedBy: v4.VoucherRelay}
	x, err = c.ExplainFrom(t.Context(), m.String(), ip("192.0.2.99"))
	require.NoError(t, err)
	assert.Equal(t, ip("192.0.2.99"), x.Would.Source)
	assert.Equal(t, "relay", x.Would.VouchedBy)
	assert.NotContains(t, x.Summary, "A DISCOVER now")
	require.Len(t, w.dhcp.queries, 2)
	assert.Equal(t, ip("192.0.2.71"), w.dhcp.queries[0].Source)
	assert.Equal(t, ip("192.0.2.99"), w.dhcp.queries[1].Source)

	_, err = c.ExplainFrom(t.Context(), m.String(), ip("2001:db8::1"))
	require.ErrorContains(t, err, "want an IPv4 address")
}

// Whoever is refused for the way that a packet came learns what to do.
func TestAdviceForEveryRefusal(t *testing.T) {
	for _, s := range senders.States() {
		if o := s.Refused(); o != 0 {
			assert.NotEmpty(t, Advice(o), o.String())
		}
	}
}

func TestPageSaysWhomToBelieve(t *testing.T) {
	w := newWorld(t)
	assert.NotContains(t, visible(t, get(t, w, "/").Body.String()), "Whom to believe")
	w.dhcp.senders = manySenders(1)
	text := visible(t, get(t, w, "/").Body.String())
	assert.Contains(t, text, "Whom to believe everybody is a switch trusted_interfaces: [eth2] or trusted_interfaces: none")
	assert.Contains(t, text, "relay_source 1m 59s ago 10.4.0.0 10.4.0.0 eth0 1 relays: [10.4.0.0]")
	assert.NotContains(t, text, "10.0.0.0", "the listed ones are in the status")
}
