package config

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPoolsOfTheFile(t *testing.T) {
	c, err := Parse("pools.yaml", []byte(head+`
dhcp:
  relays: [192.0.2.7]
  check_relay_source: true
  trusted_interfaces: none
  option82_relays: all
  unknown_clients: guest
  subnets: [{prefix: 198.51.100.0/24, lease_time: 8h}, {prefix: 203.0.113.0/24}]
  pools:
    - {name: guests, range: 198.51.100.200 - 198.51.100.250}
    - {name: more, range: 203.0.113.0/25, lease_time: 5m, links: [198.51.100.0/24, 192.0.2.1]}
    - {name: dynamic, range: 198.51.100.128/26, for: guests}
    - {name: flats, range: 203.0.113.128/26, for: subscribers}
`), testEnv())
	require.NoError(t, err)
	assert.Empty(t, c.Warnings)
	require.Len(t, c.DHCP.Pools, 4)
	assert.Equal(t, "1h0m0s", c.DHCP.Pools[3].LeaseTime.String())
	assert.True(t, c.SubscriberPools())
	assert.Equal(t, "2m0s", c.DHCP.Pools[0].LeaseTime.String())
	assert.Equal(t, "5m0s", c.DHCP.Pools[1].LeaseTime.String())
	assert.Equal(t, "198.51.100.128-198.51.100.191", rangeText(c.DHCP.Pools[2].Range))
	assert.Equal(t, "[198.51.100.0/24 192.0.2.1/32]", formatted(c.DHCP.Pools[1].Links))
	assert.Equal(t, "[{198.51.100.200 198.51.100.250} {203.0.113.0 203.0.113.127} {198.51.100.128 198.51.100.191}]", formatted(c.GuestRanges()))
}

// The ACL holds back so many guests: more of them are said to pass.
func TestMoreGuestsThanTheACLHolds(t *testing.T) {
	for bits, warned := range map[int]bool{14: false, 13: true} {
		c, err := Parse("pools.yaml", fmt.Appendf(nil, head+`
dhcp:
  relays: [192.0.2.7]
  check_relay_source: true
  trusted_interfaces: none
  option82_relays: all
  unknown_clients: guest
  subnets: [{prefix: 10.0.0.0/8}]
  pools: [{name: guests, range: 10.8.0.0/%d}]
`, bits), testEnv())
		require.NoError(t, err)
		if !warned {
			assert.Empty(t, c.Warnings)
			continue
		}
		require.Len(t, c.Warnings, 1)
		assert.Contains(t, c.Warnings[0].Reason, "524288 addresses together; a guest in one behind the first 262144 is not held back by the ACL")
	}
}

func TestGuestPoolsWithoutGuestsAreWarnedOf(t *testing.T) {
	c, err := Parse("pools.yaml", []byte(head+`
dhcp:
  relays: [192.0.2.7]
  check_relay_source: true
  trusted_interfaces: none
  option82_relays: all
  subnets: [{prefix: 198.51.100.0/24}]
  pools: [{name: guests, range: 198.51.100.200-198.51.100.250}]
`), testEnv())
	require.NoError(t, err)
	assert.False(t, c.SubscriberPools())
	require.Len(t, c.Warnings, 1)
	assert.Contains(t, c.Warnings[0].Reason, "dhcp.unknown_clients is not guest")
}

func formatted(v any) string { return fmt.Sprint(v) }
