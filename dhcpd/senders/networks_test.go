package senders

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
)

func numbered(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(n), 0}), 24)
}

// apart are clients in one of the numbered networks with addresses of another.
func apart(client, address int) v4.OtherNetwork {
	return v4.OtherNetwork{Client: numbered(client), Address: numbered(address)}
}

// networksDesk serves n numbered networks.
func networksDesk(t testing.TB, n int, shared ...v4.SharedNetwork) *desk {
	return newDesk(t, func(o *v4.Options) {
		o.Subnets, o.SharedNetworks = nil, shared
		for i := range n {
			o.Subnets = append(o.Subnets, v4.Subnet{Prefix: numbered(i), LeaseTime: time.Hour})
		}
	})
}

func TestNetworksApart(t *testing.T) {
	street := v4.SharedNetwork{Name: "street 7", Prefixes: []netip.Prefix{numbered(0), numbered(1)}}
	d := networksDesk(t, 6, street)
	note := func(n v4.OtherNetwork, all ...outcome.Outcome) {
		for _, o := range all {
			d.NoteNetworks(d.now, n, o, d.cfg)
			d.now = d.now.Add(time.Second)
		}
	}
	note(apart(0, 2), outcome.Offer, outcome.Ack, outcome.AckBeforeCommit)
	note(apart(0, 4), outcome.SendFailed, outcome.SendFull)
	note(apart(3, 4), outcome.WrongNetwork, outcome.NakWrongNetwork, outcome.NotAuthoritative, outcome.WrongNetwork)
	note(apart(1, 5), outcome.Ack)
	note(v4.OtherNetwork{}, outcome.Ack, outcome.WrongNetwork)
	note(apart(0, 1), outcome.WrongNetwork) // from before they were joined

	told := func() (out []string) {
		for _, n := range d.status().Networks {
			out = append(out, fmt.Sprintf("%s %s %d %d %s", n.Client, n.Address, n.Given, n.Refused, n.Paste))
		}
		return out
	}
	const given = `shared_networks: [{name: "street 7", prefixes: [100.64.0.0/24, 100.64.1.0/24, 100.64.2.0/24, 100.64.5.0/24]}`
	assert.Equal(t, []string{
		"100.64.0.0/24 100.64.2.0/24 2 0 " + given + "]",
		"100.64.1.0/24 100.64.5.0/24 1 0 " + given + "]",
		"100.64.3.0/24 100.64.4.0/24 0 4 " + given + ", {prefixes: [100.64.3.0/24, 100.64.4.0/24]}]",
	}, told())
	at := d.status().Networks[0]
	assert.Equal(t, [2]time.Time{testNow.Add(time.Second), testNow.Add(2 * time.Second)}, [2]time.Time{at.FirstSeen, at.LastSeen}, "an OFFER is none yet")
	assert.Equal(t, 1, strings.Count(d.log.String(), "network=100.64.0.0/24 addresses=100.64.2.0/24"), "told once: %s", d.log.String())
	assert.Zero(t, strings.Count(d.log.String(), "100.64.3.0/24"), "who moved is no news")

	// What is pasted is taken, and ends it.
	d.reload(func(o *v4.Options) {
		o.Subnets = nil
		for i := range 6 {
			o.Subnets = append(o.Subnets, v4.Subnet{Prefix: numbered(i), LeaseTime: time.Hour})
		}
		o.SharedNetworks = []v4.SharedNetwork{{Prefixes: []netip.Prefix{numbered(0), numbered(1), numbered(2), numbered(5)}}, {Prefixes: []netip.Prefix{numbered(3), numbered(4)}}}
	})
	assert.Empty(t, told())
	d.reload(nil) // neither are networks that are not served any more
	assert.Empty(t, told())
}

// Two shared networks that a client joins become one.
func TestPasteJoinsSharedNetworks(t *testing.T) {
	one := v4.SharedNetwork{Prefixes: []netip.Prefix{numbered(0), numbered(1)}}
	two := v4.SharedNetwork{Name: "b1", Prefixes: []netip.Prefix{numbered(2)}}
	d := networksDesk(t, 4, one, two)
	assert.Equal(t, "shared_networks: [{name: b1, prefixes: [100.64.0.0/24, 100.64.1.0/24, 100.64.2.0/24]}]", sharedLine(d.cfg, apart(2, 1)))
	assert.Equal(t, []v4.SharedNetwork{one, two}, d.cfg.SharedNetworks(), "the configuration stays as it is")
}

// The memory is bounded, and what is known costs nothing.
func TestNetworksAreBounded(t *testing.T) {
	d := networksDesk(t, 100)
	for i := range 99 {
		d.NoteNetworks(d.now, apart(i, i+1), outcome.WrongNetwork, d.cfg)
	}
	require.Len(t, d.status().Networks, maxPairs)
	n := apart(0, 1)
	assert.Zero(t, testing.AllocsPerRun(100, func() { d.NoteNetworks(d.now, n, outcome.Ack, d.cfg) }))
}
