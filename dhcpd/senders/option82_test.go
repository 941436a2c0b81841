package senders

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// relayed notes n packets of a relay, with option 82 or without.
func (d *desk) relayed(n int, giaddr, source string, with bool) {
	d.t.Helper()
	q := wire.Query{Type: wire.Discover, MAC: [6]byte{2, 0, 0, 0, 0, 7}, GIAddr: ip(giaddr)}
	if with {
		q.Option82 = []byte{1, 1, 7}
	}
	for range n {
		r := &v4.Request{Served: true, Ifindex: 2}
		r.P.Read(q.Append(nil))
		r.P.From, r.P.Ingress = netip.AddrPortFrom(ip(source), 67), d.cfg.Line().Ingress("eth0")
		d.judge(r)
		d.Note(d.now, r, d.cfg)
	}
}

// inserting lists relays and those whose option 82 is believed.
func inserting(list ...string) func(*v4.Options) {
	return func(o *v4.Options) {
		o.Relays, o.TrustedInterfaces = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, []string{line.NoInterface}
		o.CheckRelaySource, o.Option82Relays = line.SourceListed, list
	}
}

// infosOf returns what is told of relays' option 82 as "giaddr option82 with without".
func infosOf(all []Sender) []string {
	out := []string{}
	for _, s := range all {
		out = append(out, fmt.Sprintf("%v %v %d %d", s.GIAddr, s.Option82, s.With, s.Without))
	}
	return out
}

// Each relay tells how many packets had option 82, and what is thought of it by the configuration of now; the counters what was thought when they came.
func TestOption82OfRelays(t *testing.T) {
	d := newDesk(t, inserting("10.0.0.1"))
	d.relayed(7, "10.0.0.1", "10.0.0.1", true)
	d.relayed(5, "10.0.0.2", "10.0.1.2", true)
	d.relayed(3, "10.0.0.3", "10.0.0.3", false)
	d.relayed(2, "10.9.0.1", "172.16.0.1", true) // refused
	st := d.status()
	assert.Equal(t, []string{"10.9.0.1 none 0 0", "10.0.0.1 listed 7 0", "10.0.0.2 untrusted 5 0", "10.0.0.3 none 0 3"}, infosOf(st.Relays))
	assert.Equal(t, []Info{{v4.InfoNone, 3}, {v4.InfoListed, 7}, {v4.InfoUnsaid, 0}, {v4.InfoUntrusted, 5}}, st.Option82)
	assert.Equal(t, []string{"option82_relays: [10.0.0.1, 10.0.0.2, 10.0.1.2]"}, st.Relays[2].PasteTrust)
	assert.Empty(t, st.Relays[1].PasteTrust)
	assert.Empty(t, st.Relays[3].PasteTrust)
	assert.Empty(t, st.Warnings)
	assert.Zero(t, st.Mixed)
	require.Len(t, d.logged(), 2, "the refused one, and the one whose option 82 is left out of account, once")

	d.reload(inserting("10.0.0.1", "10.0.0.2", "10.0.1.2")) // as it was to be pasted
	st = d.status()
	assert.Equal(t, []string{"10.9.0.1 none 0 0", "10.0.0.1 listed 7 0", "10.0.0.2 listed 5 0", "10.0.0.3 none 0 3"}, infosOf(st.Relays))
	assert.Equal(t, uint64(5), st.Option82[v4.InfoUntrusted].Packets, "as it was when they came")
	d.relayed(1, "10.0.0.2", "10.0.1.2", true)
	assert.Equal(t, uint64(8), d.status().Option82[v4.InfoListed].Packets)
	assert.Empty(t, d.logged())
}

func TestOption82OfRelaysIsAskedFor(t *testing.T) {
	d := newDesk(t, inserting())
	st := d.status()
	require.Len(t, st.Warnings, 1)
	assert.Equal(t, AnybodyInserts, st.Warnings[0].Kind)
	assert.Contains(t, st.Warnings[0].Text, "None was seen yet.")
	assert.Equal(t, []string{"option82_relays: none"}, st.Warnings[0].Paste)

	d.relayed(7, "10.0.0.2", "10.0.1.2", true)
	d.relayed(7, "10.0.0.1", "10.0.0.1", true)
	d.relayed(3, "10.0.0.3", "10.0.0.3", false)
	st = d.status()
	require.Len(t, st.Warnings, 1)
	assert.Equal(t, []string{"option82_relays: [10.0.0.1, 10.0.0.2, 10.0.1.2]"}, st.Warnings[0].Paste, "those that brought it")
	assert.Equal(t, []string{"option82_relays: none"}, st.Warnings[0].Or)
	assert.Equal(t, []string{
		`msg="option 82 is believed of a relay only because dhcp.option82_relays is left out" reason=option82_unsaid giaddr=10.0.0.2 source=10.0.1.2:67 interface=eth0 paste="option82_relays: [10.0.0.2, 10.0.1.2]" or="option82_relays: none"`,
		`msg="option 82 is believed of a relay only because dhcp.option82_relays is left out" reason=option82_unsaid giaddr=10.0.0.1 source=10.0.0.1:67 interface=eth0 paste="option82_relays: [10.0.0.1, 10.0.0.2, 10.0.1.2]" or="option82_relays: none"`,
	}, d.logged())

	d.reload(inserting("10.0.0.1", "10.0.0.2", "10.0.1.2"))
	st = d.status()
	assert.Empty(t, st.Warnings, "pasted")
	assert.Equal(t, []string{"10.0.0.1 listed 7 0", "10.0.0.2 listed 7 0", "10.0.0.3 none 0 3"}, infosOf(st.Relays), "and believed as before")
	d.reload(func(o *v4.Options) { inserting()(o); o.Match = []v4.MatchKind{v4.MatchMAC} })
	assert.Empty(t, d.status().Warnings, "nobody asks option 82")
}

// A list of relays that takes in the address that a relay sends from does not take its option 82 away: it is measured from then on.
func TestPastedRelaysKeepTheirOption82(t *testing.T) {
	old := func(o *v4.Options) { inserting("10.0.0.1")(o); o.CheckRelaySource = line.SourceUnsaid }
	d := newDesk(t, old)
	d.relayed(7, "10.0.0.1", "172.16.0.1", true)
	d.relayed(7, "10.0.0.3", "172.16.0.3", false)
	st := d.status()
	require.Len(t, st.Warnings, 1)
	assert.Equal(t, SourcesUnchecked, st.Warnings[0].Kind)
	assert.Equal(t, []string{"relays: [10.0.0.0/16, 172.16.0.1, 172.16.0.3]", "check_relay_source: true", "option82_relays: [10.0.0.1, 172.16.0.1]"}, st.Warnings[0].Paste)
	d.reload(func(o *v4.Options) {
		inserting("10.0.0.1", "172.16.0.1")(o)
		o.Relays = append(o.Relays, netip.MustParsePrefix("172.16.0.1/32"), netip.MustParsePrefix("172.16.0.3/32"))
	})
	st = d.status()
	assert.Empty(t, st.Warnings)
	assert.Equal(t, []string{"10.0.0.1 listed 7 0", "10.0.0.3 none 0 7"}, infosOf(st.Relays))
}

// A relay that sends both kinds is named: it passes on what clients write, or stopped to insert. Nothing is decided by that.
func TestRelaysThatSendBothKinds(t *testing.T) {
	d := newDesk(t, inserting(line.EveryRelay))
	d.relayed(40, "10.0.0.1", "10.0.0.1", true)
	d.relayed(40, "10.0.0.2", "10.0.0.2", true)
	assert.Zero(t, d.status().Mixed)
	d.now = d.now.Add(time.Hour)
	d.relayed(3, "10.0.0.2", "10.0.0.2", false)
	stopped := d.now
	d.now = d.now.Add(time.Hour)
	d.relayed(1, "10.0.0.2", "10.0.0.2", true)
	st := d.status()
	assert.Equal(t, 1, st.Mixed)
	require.Len(t, st.Warnings, 1)
	assert.Equal(t, MixedOption82, st.Warnings[0].Kind)
	assert.Contains(t, st.Warnings[0].Text, "others have none: 10.0.0.2 (41 with, 3 without). Such a relay")
	assert.NotContains(t, st.Warnings[0].Text, "10.0.0.1")
	require.Equal(t, "10.0.0.2 listed 41 3", infosOf(st.Relays)[0], "it is believed all the same")
	assert.True(t, stopped.Equal(st.Relays[0].LastBare))
	assert.True(t, d.now.Equal(st.Relays[0].LastSeen))

	for i := range maxMixed + 2 {
		a := fmt.Sprintf("10.0.1.%d", i)
		d.relayed(1, a, a, true)
		d.relayed(1, a, a, false)
	}
	st = d.status()
	assert.Equal(t, maxMixed+3, st.Mixed)
	assert.Contains(t, st.Warnings[0].Text, " and 3 more. Such")
	d.reload(func(o *v4.Options) { inserting(line.EveryRelay)(o); o.Match = []v4.MatchKind{v4.MatchMAC} })
	assert.Empty(t, d.status().Warnings, "nobody asks option 82")
}

// A client behind another relay wrote the giaddr of one whose option 82 is believed, or that other one is the second on the way: then it belongs on the list.
func TestBorrowedGiaddr(t *testing.T) {
	d := newDesk(t, inserting("10.0.0.1"))
	d.relayed(2, "10.0.0.1", "10.0.0.2", true)
	d.relayed(2, "10.0.0.1", "10.0.0.3", false)
	st := d.status()
	assert.Equal(t, []string{"relay_source 10.0.0.1 10.0.0.2 eth0 2", "relay_source 10.0.0.1 10.0.0.3 eth0 2"}, told(st.Relays))
	assert.Equal(t, []string{"option82_relays: [10.0.0.1, 10.0.0.2]"}, st.Relays[0].Paste)
	assert.Contains(t, d.logged()[0], `reason=relay_source giaddr=10.0.0.1 source=10.0.0.2:67 interface=eth0 paste="option82_relays: [10.0.0.1, 10.0.0.2]"`)
	d.reload(inserting("10.0.0.1", "10.0.0.2"))
	assert.Equal(t, []string{"relay_source 10.0.0.1 10.0.0.3 eth0 2", "relay 10.0.0.1 10.0.0.2 eth0 2"}, told(d.status().Relays))

	d.relayed(1, "10.0.0.1", "172.16.0.1", true) // in neither list
	assert.Equal(t, []string{"relays: [10.0.0.0/16, 172.16.0.1]", "option82_relays: [10.0.0.1, 10.0.0.2, 172.16.0.1]"}, d.status().Relays[1].Paste)
}
