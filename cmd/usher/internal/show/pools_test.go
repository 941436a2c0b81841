package show

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/pool"
)

func TestPrintPools(t *testing.T) {
	a := netip.MustParseAddr("198.51.100.200")
	v := &console.PoolsView{Pools: []dhcpd.PoolStatus{{
		Name: "guests", For: "guests", First: a, Last: a.Next().Next(), Used: 0.5,
		Counts: pool.Counts{Size: 2, Free: 1, Leased: 1, Bound: 1}, PoolCounters: dhcpd.PoolCounters{Exhausted: 7},
	}}}
	var out bytes.Buffer
	require.NoError(t, printPools(&out, v))
	assert.Equal(t, `POOL    FOR     RANGE                          USED  FREE  OFFERED  LEASED  QUARANTINED  BOUND  EXHAUSTED
guests  guests  198.51.100.200-198.51.100.202  50%   1     0        1       0            1      7
`, out.String())

	out.Reset()
	v.Addresses = []dhcpd.PoolAddress{
		{IP: a, State: "leased", Holder: provision.MAC{0, 0, 0x5e, 0, 0x53, 1}.Owner(), Until: time.Now().Add(61 * time.Second)},
		{IP: a.Next(), State: "free", Bound: true},
	}
	require.NoError(t, printPools(&out, v))
	assert.Regexp(t, `198.51.100.200 +leased +00:00:5e:00:53:01 +- +in 1m[01]s\n198.51.100.201 +free, bound by the ERP +- +- +-\n`, out.String())

	out.Reset()
	require.NoError(t, printPools(&out, &console.PoolsView{}))
	assert.Equal(t, "no pools are configured (dhcp.pools)\n", out.String())
}
