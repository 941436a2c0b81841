package show

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
)

// What came past a block is told by who it was and by what it was; what let nothing pass is not told.
func TestPassedRows(t *testing.T) {
	assert.Empty(t, passedRows(nil))
	assert.Empty(t, passedRows(acl.Ways()), "nothing has passed")
	all, want := acl.Ways(), [][]string(nil)
	for i := range all {
		all[i].Counter = access.Counter{Packets: uint64(i + 1), Bytes: uint64(100 * (i + 1))}
		want = append(want, []string{"", fmt.Sprintf("%s %s: %d packets, %d bytes", all[i].Chain, all[i].What, i+1, 100*(i+1))})
	}
	require.NotEmpty(t, want)
	want[0][0] = "past a block"
	assert.Equal(t, want, passedRows(all), "each way that rules have")
}

// usher acl show prints what passed between the guard and the last comparison.
func TestPrintACLSummary(t *testing.T) {
	want := 3
	s := &console.ACLSummary{Agent: true, Exists: true, Generation: 7,
		Sets:        []console.ACLSetView{{Name: "stopped", Want: &want, Have: 2}, {Name: "refused", Have: 5}},
		GuardDirect: []string{"eth1"}, GuardVLAN: []string{},
		Passed: []acl.Passed{
			{Chain: "forward", What: "maintenance"},
			{Chain: "from_paused", What: "dns", Counter: access.Counter{Packets: 2, Bytes: 130}},
			{Chain: "multicast", What: "garden", Counter: access.Counter{Packets: 200, Bytes: 25600}},
			{Chain: "source", What: "maintenance"},
			{Chain: "unbound", What: "dhcp", Counter: access.Counter{Packets: 1, Bytes: 328}},
		},
		Status: &access.Status{LastVerifiedAt: time.Now().Add(-time.Minute), LastBatchAt: time.Now().Add(-time.Hour), LastBatchChanges: 4},
	}
	var out bytes.Buffer
	require.NoError(t, printACLSummary(&out, s))
	assert.Equal(t, `table         inet usher, generation 7 of the ruleset
set stopped   want 3, have 2
set refused   want -, have 5
source guard  direct: eth1; vlan: -
past a block  from_paused dns: 2 packets, 130 bytes
              multicast garden: 200 packets, 25600 bytes
              unbound dhcp: 1 packets, 328 bytes
compared      1m0s ago
last change   1h0m0s ago, 4 elements
`, out.String())

	out.Reset()
	require.NoError(t, printACLSummary(&out, &console.ACLSummary{Exists: true, Generation: 7, Passed: s.Passed[4:]}))
	assert.Equal(t, `agent         none runs; this is what the kernel has
table         inet usher, generation 7 of the ruleset
source guard  off
past a block  unbound dhcp: 1 packets, 328 bytes
`, out.String(), "without an agent too")
}

// Addresses that no state blocks are named, each with why, and the others are counted.
func TestWithheldRows(t *testing.T) {
	at := func(i byte, why access.Spared) access.Withheld {
		return access.Withheld{IP: netip.AddrFrom4([4]byte{192, 0, 2, i}), Subscriber: 1001, Set: "paused", Why: why}
	}
	assert.Empty(t, withheldRows(false, &access.Status{}))
	var list []access.Withheld
	counts := map[access.Spared]int{}
	for i, why := range access.AllSpared() {
		list, counts[why] = append(list, at(byte(i+1), why)), 1
	}
	list[0].Set, list[1].Subscriber = "stopped", 0
	assert.Equal(t, [][]string{
		{"", "192.0.2.1 of customer 1001 (stopped) is not blocked: it is an address of this router"},
		{"", "192.0.2.2 of a customer by a lease (paused) is not blocked: it is the ERP's address"},
		{"", "192.0.2.3 of customer 1001 (paused) is not blocked: it is a name server"},
		{"", "and 4 more that are never blocked"},
	}, withheldRows(false, &access.Status{Withheld: counts, WithheldList: list}))
	for from, want := range map[int][][]string{
		3: {
			{"", "192.0.2.4 of customer 1001 (paused) is not blocked: it is in a garden"},
			{"", "192.0.2.5 of customer 1001 (paused) is not blocked: it is the gateway of a network"},
			{"", "192.0.2.6 of customer 1001 (paused) is not blocked: it is a DHCP server"},
		},
		6: {{"", "192.0.2.7 of customer 1001 (paused) is not blocked: it is outside acl.networks and dhcp.subnets"}},
	} {
		few := list[from:min(from+3, len(list))]
		assert.Equal(t, want, withheldRows(false, &access.Status{Withheld: map[access.Spared]int{few[0].Why: len(few)}, WithheldList: few}))
	}
	assert.Equal(t, []string{"", "and 997 more that are never blocked"},
		withheldRows(false, &access.Status{Withheld: map[access.Spared]int{access.SparedNetwork: 1000}, WithheldList: list})[3], "the list is bounded, the count is not")
}

// What a status says of the blocks: how many, who is not blocked though he should be, and what the kernel refuses.
func TestPrintStatusOfTheACL(t *testing.T) {
	refused := func(op, set, element string) access.Refused {
		return access.Refused{Op: op, Set: set, Element: element, Error: "no space left on device", Since: time.Now(), Tries: 3}
	}
	a := &access.Status{HaveStopped: 2, HavePaused: 5, Pending: 4, IPv6: access.IPv6Status{Mode: access.IPv6NotForwarded},
		Withheld:     map[access.Spared]int{access.SparedResolver: 1},
		WithheldList: []access.Withheld{{IP: netip.MustParseAddr("192.0.2.53"), Subscriber: 7, Set: "paused", Why: access.SparedResolver}},
		Refused: []access.Refused{refused("add", "paused", "192.0.2.7"), refused("remove", "stopped", "192.0.2.8"),
			refused("add", "paused_29", "192.0.2.8/29"), refused("add", "paused", "192.0.2.9")},
	}
	print := func() string {
		var out bytes.Buffer
		require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, ACL: a}))
		return out.String()
	}
	assert.Equal(t, `agent     ready, version v1, up 0s
snapshot  none
acl       2 stopped, 5 paused in the kernel, 4 changes pending
          192.0.2.53 of customer 7 (paused) is not blocked: it is a name server
          the kernel refuses to add paused 192.0.2.7: no space left on device
          the kernel refuses to remove stopped 192.0.2.8: no space left on device
          the kernel refuses to add paused_29 192.0.2.8/29: no space left on device
`, print())

	*a = access.Status{DryRun: true, WantStopped: 2, WantPaused: 5, IPv6: access.IPv6Status{Mode: access.IPv6Ignored}}
	assert.Equal(t, `agent     ready, version v1, up 0s
snapshot  none
acl       dry run: 2 stopped, 5 paused would be blocked
          IPv6 is not looked at (acl.ipv6)
`, print())
}
