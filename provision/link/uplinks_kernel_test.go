package link_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/link"
)

func TestKernelUplinks(t *testing.T) {
	router, err := newLab(t).Host("router")
	require.NoError(t, err)
	ns, err := os.Open(filepath.Join("/run/netns", router.Namespace))
	require.NoError(t, err)
	defer ns.Close()
	ip := func(command string) {
		t.Helper()
		require.NoError(t, router.IP(strings.Fields(command)...))
	}
	for _, name := range []string{"up1", "up2", "up3", "flat"} {
		ip("link add " + name + " type veth peer name peer-" + name)
		ip("link set peer-" + name + " up")
		ip("link set " + name + " up")
	}
	ip("addr add 198.51.100.1/24 dev up1")
	ip("addr add 198.51.101.1/24 dev up2")
	ip("route add 0.0.0.0/1 dev flat")
	uplinks := func() []string {
		t.Helper()
		names, err := link.Uplinks(int(ns.Fd()))
		require.NoError(t, err)
		return names
	}
	require.Empty(t, uplinks(), "half of all is no default route")
	for _, step := range []struct {
		command string
		want    []string
	}{
		{"route add default via 198.51.100.2", []string{"up1"}},
		{"route add blackhole 240.0.0.0/4", []string{"up1"}},
		{"-6 route add 2000::/3 dev up3", []string{"up1", "up3"}},
		{"-6 route del 2000::/3 dev up3", []string{"up1"}},
		{"-6 route add default dev up3", []string{"up1", "up3"}},
		{"-6 route add unreachable 4000::/3", []string{"up1", "up3"}},
		{"route replace default nexthop via 198.51.100.2 nexthop via 198.51.101.2", []string{"up1", "up2", "up3"}},
		{"-6 route add default dev flat metric 4096", []string{"up1", "up2", "up3"}}, // in use by nobody
		{"route del default", []string{"up3"}},
		{"link set up3 down", []string{"flat"}},
		{"link del flat", nil},
	} {
		ip(step.command)
		require.Equal(t, step.want, uplinks(), step.command)
	}
	_, err = link.Uplinks(1 << 20) // no such namespace
	require.Error(t, err, "what cannot be asked is not known")
}

func BenchmarkUplinks(b *testing.B) {
	for b.Loop() {
		_, _ = link.Uplinks(0)
	}
}
