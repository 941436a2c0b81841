package emulator

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGeneratorIsDeterministic(t *testing.T) {
	a := open(t, Options{Customers: 3000, Seed: 7})
	b := open(t, Options{Customers: 3000, Seed: 7, Now: func() time.Time { return testNow.AddDate(1, 0, 0) }})
	sameData(t, a, b)
	other := open(t, Options{Customers: 3000, Seed: 8})
	require.NotEqual(t, a.Customers(), other.Customers())
}

func TestGenerator(t *testing.T) {
	const n = 20000
	e := open(t, Options{Customers: n, Seed: 1})
	all := e.Customers()
	require.Len(t, all, n)
	devices := map[int64]Device{}
	deviceMACs, deviceIPs := map[MAC]bool{}, map[netip.Addr]bool{}
	for _, d := range e.Devices() {
		devices[d.ID] = d
		deviceMACs[d.MAC], deviceIPs[d.IP] = true, true
		require.True(t, netip.MustParsePrefix("10.0.0.0/8").Contains(d.IP))
		require.GreaterOrEqual(t, len(d.Ports), 24)
		require.NotEmpty(t, d.Uplinks)
	}
	require.Len(t, deviceMACs, len(devices), "MACs of switches are unique")
	require.Len(t, deviceIPs, len(devices))

	subnets := e.Subnets()
	for i, p := range subnets {
		require.Equal(t, p.Masked(), p)
		require.True(t, netip.MustParsePrefix("100.64.0.0/10").Contains(p.Addr()))
		require.False(t, i > 0 && p.Overlaps(subnets[i-1]))
	}
	states := map[State]int{}
	seen := map[string]int{}
	addrs, macs := map[netip.Addr]int{}, map[MAC]int{}
	for _, c := range all {
		states[c.State]++
		count := func(name string, ok bool) {
			if ok {
				seen[name]++
			}
		}
		withIP, withMAC, onlyMAC := 0, 0, false
		for _, a := range c.Addresses {
			if !a.MAC.IsZero() {
				macs[a.MAC]++
			}
			if !a.IP.IsValid() {
				onlyMAC = true
				continue
			}
			addrs[a.IP]++
			withIP++
			if !a.MAC.IsZero() {
				withMAC++
			}
			i := slices.IndexFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a.IP) })
			require.GreaterOrEqual(t, i, 0, "%v is in no subnet", a.IP)
			p := subnets[i]
			require.NotContains(t, []netip.Addr{p.Addr(), p.Addr().Next(), ipFrom(lastAddress(p))}, a.IP, "network, gateway and broadcast are free")
		}
		for _, l := range c.Links {
			d, ok := devices[l.Device]
			require.True(t, ok)
			require.NotEmpty(t, d.portName(l.Port))
			require.NotContains(t, d.Uplinks, l.Port)
		}
		count("no MAC", withIP > 0 && withMAC == 0)
		count("several", withIP > 1)
		count("no port", len(c.Links) == 0)
		count("MAC only", onlyMAC)
		count("former", c.Former)
		count("potential", c.Potential)
		count("disabled", c.Disabled)
		count("escaped", strings.Contains(c.FullName, "&"))
		count("first cross", len(c.Links) > 0 && c.Links[0].Cross == 301)
		count("second cross", len(c.Links) > 0 && c.Links[0].Cross == 302)
		count("no address", len(c.Addresses) == 0)
	}
	duplicates := slices.DeleteFunc(slices.Collect(maps.Values(addrs)), func(n int) bool { return n == 1 })
	require.Equal(t, []int{2}, duplicates)
	require.Empty(t, slices.DeleteFunc(slices.Collect(maps.Values(macs)), func(n int) bool { return n == 1 }))
	share := func(n int) float64 { return float64(n) / float64(len(all)) }
	assert.InDelta(t, 0.92, share(states[StateActive]), 0.01)
	assert.InDelta(t, 0.05, share(states[StatePause]), 0.01)
	assert.InDelta(t, 0.03, share(states[StateStop]), 0.01)
	assert.InDelta(t, 0.15, share(seen["no MAC"]), 0.01)
	assert.InDelta(t, 0.03, share(seen["several"]), 0.01)
	assert.InDelta(t, 0.04, share(seen["no port"]), 0.01)
	assert.InDelta(t, 0.005, share(seen["MAC only"]), 0.003)
	for _, one := range []string{"former", "potential", "disabled", "escaped", "no address", "first cross", "second cross"} {
		assert.Equal(t, 1, seen[one], one)
	}
}

// What is generated besides the network agrees with itself, and the first
// customers have a bit of everything.
func TestGeneratorExtras(t *testing.T) {
	e := open(t, Options{Customers: 2000, Seed: 1})
	moves, messages, services, marks := int64(0), int64(0), 0, 0
	for i, c := range e.Customers() {
		services += len(c.Services)
		marks += len(c.Marks)
		for j, m := range c.Movements {
			moves++
			require.Equal(t, moves, m.ID)
			after := c.BalanceCents
			if j+1 < len(c.Movements) {
				after = c.Movements[j+1].BeforeCents
				require.True(t, m.At.Before(c.Movements[j+1].At))
			}
			require.Equal(t, after, m.BeforeCents+m.AmountCents, "customer %d", c.ID)
		}
		for _, m := range c.Messages {
			messages++
			require.Equal(t, messages, m.ID)
			require.Equal(t, m.ToCustomer, m.Employee != 0)
		}
		if i < plainExtras {
			require.NotEmpty(t, c.Movements)
			require.NotEmpty(t, c.Services)
		}
		require.Contains(t, []string{"10", "11", "12", "13", "14"}, c.Tariff)
	}
	require.Greater(t, moves, int64(500))
	require.Greater(t, messages, int64(50))
	require.Greater(t, services, 200)
	require.Greater(t, marks, 100)
	// New ones get ids of their own.
	do(t, e, "msg_add", "customer_id=1001&text=x")
	c := customer(t, e, 1001)
	require.Equal(t, messages+1, c.Messages[len(c.Messages)-1].ID)
	do(t, e, "change_balance", "customer_id=1001&amount=1&comment=x")
	c = customer(t, e, 1001)
	require.Equal(t, moves+1, c.Movements[len(c.Movements)-1].ID)
}

// Any number of customers, also few, makes a sound data set whose VLANs are few.
func TestGeneratorSizes(t *testing.T) {
	for _, n := range []int{1, 2, 19, 20, 100, 101, 1000, 1001, 6000, 60000} {
		d := generate(5, n)
		require.Len(t, d.customers, n)
		require.LessOrEqual(t, len(d.vlans), 80, "%d customers", n)
		require.True(t, slices.IsSortedFunc(d.customers, func(a, b *Customer) int { return int(a.ID - b.ID) }))
		for _, c := range d.customers {
			if err := c.validate(); err != nil {
				require.NoError(t, err)
			}
		}
	}
	require.Equal(t, &dataset{}, generate(5, 0))
}
