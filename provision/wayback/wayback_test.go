package wayback

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type fakeKernel struct {
	ways   map[netip.Addr][]string
	filter map[string]int
	err    error
}

func (k *fakeKernel) Ways(to netip.Addr, _ string) ([]string, error) { return k.ways[to], k.err }
func (k *fakeKernel) Filter(iface string) (int, error)               { return k.filter[iface], k.err }

func TestFind(t *testing.T) {
	relay := netip.MustParseAddr("192.0.2.7")
	both := []Interface{{"eth1", true}, {"eth2", true}}
	for _, tt := range []struct {
		name   string
		filter [2]int // of eth1, eth2
		by     string
		on     string // where it was heard
		served []Interface
		want   string // where it is dropped
	}{
		{"strict, the route leads back", [2]int{1, 1}, "eth2", "eth2", both, ""},
		{"strict, one of several routes leads back", [2]int{1, 1}, "eth1 eth2", "eth2", both, ""},
		{"strict, it leads elsewhere", [2]int{0, 1}, "eth1", "eth2", both, "eth2"},
		{"off, it leads elsewhere", [2]int{1, 0}, "eth1", "eth2", both, ""},
		{"loose, it leads elsewhere", [2]int{0, 2}, "eth1", "eth2", both, ""},
		{"loose, it leads elsewhere, and there is no address", [2]int{0, 2}, "eth1", "eth2", []Interface{{"eth2", false}}, "eth2"},
		{"loose, no route", [2]int{0, 2}, "", "eth2", both, "eth2"},
		{"strict, no route", [2]int{0, 1}, "", "eth2", both, "eth2"},
		{"off, no route", [2]int{1, 0}, "", "eth2", both, ""},
		{"heard where nothing is served", [2]int{1, 1}, "eth1", "eth3", both, ""},
		{"not heard, it may come by the route", [2]int{1, 1}, "eth1", "", both, ""},
		{"not heard, one interface takes it", [2]int{0, 1}, "eth0", "", both, ""},
		{"not heard, none takes it", [2]int{1, 1}, "eth0", "", both, "eth1"},
		{"not heard, none is served", [2]int{1, 1}, "eth0", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &fakeKernel{ways: map[netip.Addr][]string{relay: strings.Fields(tt.by)}, filter: map[string]int{"eth1": tt.filter[0], "eth2": tt.filter[1]}}
			got, err := Find(k, []Relay{{relay, tt.on}}, tt.served)
			require.NoError(t, err)
			if tt.want == "" {
				assert.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			assert.Equal(t, tt.want, got[0].On)
			assert.Contains(t, got[0].Text, "the kernel drops its packets (rp_filter")
		})
	}
}

func TestRelays(t *testing.T) {
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	now := time.Now()
	got := Relays([]netip.Addr{at(1), at(2), at(3), at(3), at(9)}, []Heard{
		{Relay{at(1), "eth1"}, at(1), now.Add(-time.Minute)}, {Relay{at(1), "eth2"}, at(1), now}, {Relay{at(5), "eth3"}, at(9), now.Add(-time.Hour)},
	})
	assert.Equal(t, []Relay{{at(1), "eth2"}, {at(5), "eth3"}, {Source: at(2)}, {Source: at(3)}}, got)
}

func TestCheckerTellsOnce(t *testing.T) {
	relay := netip.MustParseAddr("192.0.2.7")
	k := &fakeKernel{ways: map[netip.Addr][]string{relay: {"eth0"}}, filter: map[string]int{"eth1": 1}}
	var log bytes.Buffer
	c := New(k, func() []Relay { return []Relay{{relay, "eth1"}} }, func() []Interface { return []Interface{{"eth1", true}} }, slog.New(slog.NewTextHandler(&log, nil)))
	assert.Empty(t, c.Findings())
	c.look()
	c.look()
	require.Len(t, c.Findings(), 1)
	assert.Equal(t, 1, strings.Count(log.String(), "the kernel drops the packets of a relay"))
	k.err = errors.New("netlink")
	c.look()
	assert.Len(t, c.Findings(), 1, "what was found last")
	k.err, k.filter["eth1"] = nil, 0
	c.look()
	assert.Empty(t, c.Findings())
}
