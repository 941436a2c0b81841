package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/access"
)

// Each client that waits to be heard is asked in its turn, however many there are.
func TestAskedByTurns(t *testing.T) {
	var list []access.Unheard
	for i := range 2*askAtOnce + 10 {
		list = append(list, access.Unheard{IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
	}
	var last netip.Addr
	asked := map[netip.Addr]int{}
	for range 3 {
		for _, u := range turn(list, &last) {
			asked[u.IP]++
		}
	}
	require.Len(t, asked, len(list))
	for ip, n := range asked {
		require.Equal(t, 1, n, ip)
	}
	require.Equal(t, list[:askAtOnce], turn(list, &last), "from the beginning")
	require.Equal(t, list[:3], turn(list[:3], &last), "those after the last one are gone")
	require.Empty(t, turn(nil, &last))
}

// Who was given an address just now may be trying it out, and is not asked.
func TestFreshLeasesAreNotAsked(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(n byte, age time.Duration) access.Unheard {
		return access.Unheard{IP: netip.AddrFrom4([4]byte{192, 0, 2, n}), Renewed: now.Add(-age)}
	}
	list := []access.Unheard{at(1, 0), at(2, askAfter-1), at(3, askAfter), at(4, time.Hour), at(5, -time.Hour)}
	require.Equal(t, []access.Unheard{at(3, askAfter), at(4, time.Hour), at(5, -time.Hour)}, settled(list, now))
	require.Empty(t, settled(nil, now))
}
