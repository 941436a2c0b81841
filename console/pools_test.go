package console

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

func testPool() dhcpd.PoolStatus {
	return dhcpd.PoolStatus{
		Name: "guests", For: "guests", First: ip("198.51.100.200"), Last: ip("198.51.100.209"), WarnAt: 0.7, Full: true, Used: 0.75,
		Counts:       pool.Counts{Size: 8, Free: 2, Offered: 1, Leased: 4, Quarantined: 1, Bound: 2},
		PoolCounters: dhcpd.PoolCounters{Exhausted: 3, Probes: 9, Conflicts: 1, Declines: 2},
	}
}

// fakePools is one pool with the addresses given.
type fakePools []dhcpd.PoolAddress

func (f fakePools) Pools() []dhcpd.PoolStatus { return []dhcpd.PoolStatus{testPool()} }

func (f fakePools) PoolAddress(a netip.Addr) (dhcpd.PoolAddress, bool) {
	for _, p := range f {
		if p.IP == a {
			return p, true
		}
	}
	return dhcpd.PoolAddress{}, false
}

func (f fakePools) PoolAddresses(string) []dhcpd.PoolAddress { return f }

func TestExplainTellsOfPools(t *testing.T) {
	w := newWorld(t)
	guest := mac(t, "00:00:5e:00:53:99")
	until := w.now.Add(time.Minute)
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, n}) }
	w.Pools = fakePools{
		{Pool: "guests", For: "guests", IP: at(200), State: "leased", Holder: guest.Owner(), Until: until},
		{Pool: "guests", For: "guests", IP: at(201), State: "free"},
		{Pool: "guests", For: "guests", IP: at(202), State: "free", Holder: guest.Owner()},
		{Pool: "guests", For: "guests", IP: at(203), State: "quarantined", Until: until},
		{Pool: "guests", For: "guests", IP: at(204), State: "leased", Bound: true, Holder: guest.Owner(), Until: until},
		{Pool: "guests", For: "guests", IP: at(205), State: "reserved"},
	}
	w.Leases = fakeLeases{
		{IP: at(200), MAC: guest, Pool: "guests", State: lease.StateBound, Expires: until},
		{IP: at(203), MAC: mac(t, "00:00:5e:00:53:98"), Pool: "guests", State: lease.StateQuarantined, Expires: until},
	}
	for q, want := range map[string]string{
		"198.51.100.200":    "It is within pool guests, for guests, and leased to 00:00:5e:00:53:99 until " + stamp(until) + ".",
		"198.51.100.201":    "It is within pool guests, for guests, and free.",
		"198.51.100.202":    "and free; 00:00:5e:00:53:99 had it last.",
		"198.51.100.203":    "and in quarantine until " + stamp(until) + ", because somebody uses it to whom it was not given.",
		"198.51.100.204":    "but bound by the ERP, so no client of the pool gets it.",
		"198.51.100.205":    "but it is the network's, the broadcast's or the gateway's and goes to nobody.",
		"00:00:5e:00:53:99": "It has 198.51.100.200 of pool guests until " + stamp(until) + ".",
		"00:00:5e:00:53:98": "It declined 198.51.100.203 of pool guests, which is in quarantine until " + stamp(until) + ".",
	} {
		x, err := w.explain(t.Context(), q)
		require.NoError(t, err)
		assert.Contains(t, x.Summary, want, q)
	}
	x, err := w.explain(t.Context(), "198.51.100.11")
	require.NoError(t, err)
	assert.Nil(t, x.Pool)
	assert.NotContains(t, x.Summary, "pool")
}

func TestPoolsOverTheSocket(t *testing.T) {
	w := newWorld(t)
	client := serveWorld(t, w)
	v, err := client.Pools(t.Context(), "")
	require.NoError(t, err)
	assert.Empty(t, v.Pools)
	_, err = client.Pools(t.Context(), "guests")
	assert.ErrorContains(t, err, `no pool "guests": there is none (dhcp.pools)`)

	w = newWorld(t)
	w.Pools = fakePools{{Pool: "guests", IP: ip("198.51.100.200"), State: "leased"}}
	client = serveWorld(t, w)
	v, err = client.Pools(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, []dhcpd.PoolStatus{testPool()}, v.Pools)
	assert.Nil(t, v.Addresses)
	v, err = client.Pools(t.Context(), "guests")
	require.NoError(t, err)
	assert.Len(t, v.Addresses, 1)
	_, err = client.Pools(t.Context(), "gests")
	assert.ErrorContains(t, err, `no pool "gests": there is guests`)
	st, err := client.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []dhcpd.PoolStatus{testPool()}, st.DHCP.Pools)
}
