package dhcpd

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

func TestExplainMatching(t *testing.T) {
	snap := vlanWorld(t)
	opts := testOptions()
	opts.Match = []v4.MatchKind{v4.MatchOption82 | v4.MatchMAC, v4.MatchVLAN, v4.MatchClientID, v4.MatchMAC}
	opts.VLANInterfaces, opts.TrustedInterfaces = []string{"vlan{vlan}"}, []string{"core"}
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New()})
	require.NoError(t, err)
	e := s.Explain(Query{MAC: stranger, Interface: "vlan200"})
	assert.Equal(t, outcome.Offer, e.Outcome)
	assert.Equal(t, "vlan", e.MatchedBy)
	assert.EqualValues(t, 200, e.VLAN)
	mac51 := client(0x51)
	e = s.Explain(Query{MAC: stranger, ClientID: append([]byte{255, 0, 0, 0, 1, 0, 3, 0, 1}, mac51[:]...)})
	assert.Equal(t, "client_id", e.MatchedBy)
	assert.Equal(t, host(51), e.YourIP)
	assert.Equal(t, "iaid 00000001 duid-ll ethernet 00:00:5e:00:53:51", e.ClientID)
	assert.False(t, e.Swap, "the ERP has the identifier's MAC")
	e = s.Explain(Query{MAC: client(0x11), Option82: port(switch1, 1), Interface: "core"})
	assert.Equal(t, "option82+mac", e.MatchedBy)
	e = s.Explain(Query{MAC: stranger, Option82: port(switch1, 1), Interface: "eth9"})
	assert.Equal(t, outcome.Option82Untrusted, e.Outcome)
	assert.Zero(t, e.Device)
	e = s.Explain(Query{MAC: stranger, Option82: port(switch1, 1), Interface: "vlan200"})
	assert.Equal(t, "vlan", e.MatchedBy, "what the client writes itself takes nothing away")
}

// A client whose lease was given behind a relay is elsewhere on a wire of ours, as its DISCOVER from there shows.
func TestExplainOfClientThatMovedFromItsRelay(t *testing.T) {
	rec := bound(host(11), client(0x11), 1)
	rec.Expires = time.Now().Add(time.Hour)
	rec.GIAddr, rec.Option82, rec.Interface = ip("198.51.100.1"), port(switch1, 1), "core"
	snap := world(t)
	s, err := New(testOptions(), Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: leases(rec)})
	require.NoError(t, err)
	for _, from := range []netip.Addr{netip.IPv4Unspecified(), host(11)} { // no DISCOVER comes from an address without a relay
		e := s.Explain(Query{MAC: client(0x11), Interface: "eth0", Source: from})
		assert.Equal(t, outcome.MACElsewhere, e.Outcome, from)
	}
	e := s.Explain(Query{MAC: client(0x11), GIAddr: rec.GIAddr, Option82: rec.Option82})
	assert.Equal(t, outcome.Offer, e.Outcome)
}
