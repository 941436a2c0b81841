package show

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
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

// What becomes of IPv6 of the blocked is told in each mode, and so is each reason why some of it passes.
func TestIPv6Rows(t *testing.T) {
	shared := func(n int) (out access.SharedMACs) {
		for i := range n {
			out.First = append(out.First, access.SharedMAC{MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, byte(i + 1)}, Blocked: 1001, Other: provision.SubscriberID(2001 + i)})
		}
		out.Count = n
		return out
	}
	for name, tt := range map[string]struct {
		st   access.IPv6Status
		want []string
	}{
		"ignored":              {access.IPv6Status{Mode: access.IPv6Ignored, Direct: []string{"eth1"}, Trouble: "x"}, []string{"IPv6 is not looked at (acl.ipv6)"}},
		"not forwarded":        {access.IPv6Status{Mode: access.IPv6NotForwarded, Trouble: "x"}, nil},
		"no interface":         {access.IPv6Status{Mode: access.IPv6Blocked}, []string{"IPv6 of the blocked passes: no interface of subscribers is named (dhcp.subscriber_interfaces, acl.source_guard)"}},
		"by MAC":               {access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1", "eth2"}}, []string{"IPv6 of the blocked: by MAC on eth1, eth2"}},
		"by interface":         {access.IPv6Status{Mode: access.IPv6Blocked, Interfaces: 40}, []string{"IPv6 of the blocked: by interface on 40"}},
		"by MAC and interface": {access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Interfaces: 40}, []string{"IPv6 of the blocked: by MAC on eth1, by interface on 40"}},
		"uplinks": {
			access.IPv6Status{Mode: access.IPv6Blocked, Interfaces: 40, Uplinks: []string{"eth1.10", "eth1.11"}},
			[]string{
				"IPv6 of the blocked: by interface on 40",
				"IPv6 on eth1.10, eth1.11 is not blocked by the interface: a default route leads there",
			},
		},
		"trouble": {
			access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Trouble: "this kernel has no egress chains (Linux 5.16 and later have them): operation not supported"},
			[]string{
				"IPv6 of the blocked: by MAC on eth1",
				"IPv6 to their MACs passes: this kernel has no egress chains (Linux 5.16 and later have",
				"them): operation not supported",
			},
		},
		"a shared MAC": {
			access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Shared: shared(1)},
			[]string{
				"IPv6 of the blocked: by MAC on eth1",
				"IPv6 of 00:00:5e:00:53:01 passes: customer 1001 is blocked, customer 2001 has the MAC too and is not",
			},
		},
		"more shared MACs than are shown": {
			access.IPv6Status{Mode: access.IPv6Blocked, Direct: []string{"eth1"}, Shared: shared(5)},
			[]string{
				"IPv6 of the blocked: by MAC on eth1",
				"IPv6 of 00:00:5e:00:53:01 passes: customer 1001 is blocked, customer 2001 has the MAC too and is not",
				"IPv6 of 00:00:5e:00:53:02 passes: customer 1001 is blocked, customer 2002 has the MAC too and is not",
				"IPv6 of 00:00:5e:00:53:03 passes: customer 1001 is blocked, customer 2003 has the MAC too and is not",
				"and 2 more MACs",
			},
		},
		"deaf, where nothing goes by MACs": {
			access.IPv6Status{Mode: access.IPv6Blocked, Interfaces: 40, Unheard: access.UnheardMACs{Deaf: "operation not permitted"}},
			[]string{"IPv6 of the blocked: by interface on 40"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var want [][]string
			for _, line := range tt.want {
				want = append(want, []string{"", line})
			}
			assert.Equal(t, want, ipv6Rows(false, tt.st))
		})
	}
}
