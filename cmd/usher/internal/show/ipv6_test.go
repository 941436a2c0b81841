package show

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// Status tells of leases whose MACs were not heard, and that nobody is heard.
func TestStatusTellsOfTheUnheard(t *testing.T) {
	st := access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}}
	require.Equal(t, "[[ IPv6 of the blocked: by MAC on eth1]]", fmt.Sprint(ipv6Rows(false, st)))
	st.Unheard = access.UnheardMACs{Count: 1, First: []access.Unheard{{IP: netip.MustParseAddr("192.0.2.7"), MAC: provision.MAC{2}, Interface: "eth1"}}, Deaf: "operation not permitted"}
	text := fmt.Sprint(ipv6Rows(false, st))
	require.Contains(t, text, "02:00:00:00:00:00")
	require.Contains(t, text, "ARP cannot be heard")
	require.Contains(t, text, "operation not permitted")
}
