package link_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/link/lab"
)

// watch starts a Watch on a host.
func watch(t *testing.T, h *lab.Host) *link.Watch {
	t.Helper()
	return watchWith(t, h, link.WatchOptions{})
}

func watchWith(t *testing.T, h *lab.Host, o link.WatchOptions) *link.Watch {
	t.Helper()
	ns, err := os.Open(filepath.Join("/run/netns", h.Namespace))
	require.NoError(t, err)
	o.NetNS = int(ns.Fd())
	w, err := link.OpenWatch(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.NoError(t, w.Close())
		_ = ns.Close()
	})
	return w
}

func becomes(t *testing.T, w *link.Watch, what string, ok func(*provision.Interfaces) bool) {
	t.Helper()
	require.Eventually(t, func() bool { return ok(w.View()) }, 10*time.Second, time.Millisecond, what)
}

func TestKernelWatchFollowsInterfaces(t *testing.T) {
	l := newLab(t)
	h, err := l.Host("router")
	require.NoError(t, err)
	other, err := l.Host("other")
	require.NoError(t, err)
	require.NoError(t, h.IP("addr", "add", "192.0.2.9/32", "dev", "lo"))
	w := watch(t, h)
	lo := w.View().ByName("lo")
	require.NotNil(t, lo, "the first view is whole")
	require.True(t, lo.Loopback)
	require.True(t, w.View().Holds(netip.MustParseAddr("192.0.2.9")))
	require.False(t, w.View().Holds(netip.MustParseAddr("192.0.2.1")))

	require.NoError(t, l.Wire(h, "eth0", other, "eth0"))
	becomes(t, w, "an interface made later", func(v *provision.Interfaces) bool {
		f := v.ByName("eth0")
		return f != nil && f.Up && f.Kind == "veth" && !f.MAC.IsZero() && v.ByIndex(f.Index) == f
	})
	index := w.View().ByName("eth0").Index
	require.Same(t, lo, w.View().ByName("lo"), "what did not change stays the same")

	require.NoError(t, h.IP("link", "property", "add", "dev", "eth0", "altname", "enp3s0"))
	becomes(t, w, "its other name", func(v *provision.Interfaces) bool { return v.AltNames()["enp3s0"] == "eth0" })
	require.Nil(t, w.View().ByName("enp3s0"))
	require.NoError(t, h.IP("link", "property", "del", "dev", "eth0", "altname", "enp3s0"))
	becomes(t, w, "its other name taken away", func(v *provision.Interfaces) bool { return len(v.AltNames()) == 0 })

	require.NoError(t, h.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	becomes(t, w, "its address", func(v *provision.Interfaces) bool {
		return v.ByIndex(index).Addr() == netip.MustParseAddr("192.0.2.1") && v.Holds(netip.MustParseAddr("192.0.2.1"))
	})
	require.NoError(t, h.IP("link", "set", "eth0", "down"))
	becomes(t, w, "down", func(v *provision.Interfaces) bool { return !v.ByIndex(index).Up })
	require.NoError(t, h.IP("link", "set", "eth0", "name", "wan0"))
	becomes(t, w, "its new name", func(v *provision.Interfaces) bool { return v.ByIndex(index).Name == "wan0" })

	// A port that leaves a bridge is not gone.
	require.NoError(t, h.IP("link", "add", "br0", "type", "bridge"))
	require.NoError(t, h.IP("link", "set", "wan0", "master", "br0"))
	require.NoError(t, h.IP("link", "set", "wan0", "nomaster"))
	require.NoError(t, h.IP("link", "del", "br0"))
	becomes(t, w, "the bridge is gone", func(v *provision.Interfaces) bool { return v.ByName("br0") == nil && v.Len() >= 2 })
	require.NotNil(t, w.View().ByIndex(index))

	require.NoError(t, h.IP("link", "del", "wan0"))
	becomes(t, w, "gone with its address", func(v *provision.Interfaces) bool {
		return v.ByIndex(index) == nil && !v.Holds(netip.MustParseAddr("192.0.2.1"))
	})
	require.NoError(t, h.IP("link", "add", "mv0", "type", "veth", "peer", "name", "mv1"))
	require.NoError(t, h.IP("link", "add", "link", "mv0", "name", "top", "type", "macvlan"))
	becomes(t, w, "macvlan with its parent", func(v *provision.Interfaces) bool {
		f, under := v.ByName("top"), v.ByName("mv0")
		return f != nil && f.Kind == "macvlan" && f.Parent == under.Index
	})
	require.NotZero(t, w.Status().Changes)
	require.Zero(t, w.Status().Resyncs)
}

// Hundreds at once, and as many gone: the view ends up as the kernel has it.
func TestKernelWatchManyInterfaces(t *testing.T) {
	l := newLab(t)
	h, err := l.Host("router")
	require.NoError(t, err)
	w := watch(t, h)
	base := w.View().Len()
	const pairs = 250
	var add, del strings.Builder
	for i := range pairs {
		fmt.Fprintf(&add, "link add a%d type veth peer name b%d\nlink set a%d up\naddr add 198.51.100.%d/32 dev a%d\n", i, i, i, i, i)
		fmt.Fprintf(&del, "link del a%d\n", i)
	}
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	require.NoError(t, h.IP("-batch", script("add", add.String())))
	becomes(t, w, "all are there, up, with their addresses", func(v *provision.Interfaces) bool {
		if v.Len() != base+2*pairs {
			return false
		}
		for i := range pairs {
			f := v.ByName(fmt.Sprintf("a%d", i))
			if f == nil || !f.Up || len(f.Addrs) != 1 {
				return false
			}
		}
		return true
	})
	require.NoError(t, h.IP("-batch", script("del", del.String())))
	becomes(t, w, "all are gone", func(v *provision.Interfaces) bool { return v.Len() == base })
	t.Logf("%+v", w.Status())
}

// A buffer that holds a handful of events: most of a burst is lost, and the view
// ends up as the kernel has it all the same, with nothing that happens afterwards to help.
func TestKernelWatchConvergesAfterOverflow(t *testing.T) {
	l := newLab(t)
	h, err := l.Host("router")
	require.NoError(t, err)
	w := watchWith(t, h, link.WatchOptions{}.WithBuffer(2304))
	const links = 40
	var setUp, burst strings.Builder
	for i := range links {
		fmt.Fprintf(&setUp, "link add a%d type veth peer name b%d\n", i, i)
		for range 20 { // three changes of address and flags each
			fmt.Fprintf(&burst, "addr add 198.51.100.%[1]d/32 dev a%[1]d\nlink set a%[1]d up\naddr del 198.51.100.%[1]d/32 dev a%[1]d\nlink set a%[1]d down\n", i)
		}
		fmt.Fprintf(&burst, "addr add 192.0.2.%[1]d/32 dev a%[1]d\nlink set a%[1]d up\nlink set a%[1]d name c%[1]d\n", i)
	}
	run := func(name, text string) {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, h.IP("-batch", path))
	}
	run("setup", setUp.String())
	for round := range 3 {
		run("burst", burst.String())
		becomes(t, w, "as the kernel has it", func(v *provision.Interfaces) bool {
			for i := range links {
				f := v.ByName(fmt.Sprintf("c%d", i))
				if f == nil || !f.Up || len(f.Addrs) != 1 || f.Addrs[0] != netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32) {
					return false
				}
			}
			return v.Len() == 2*links+1
		})
		require.NotZero(t, w.Status().Resyncs, "nothing was lost")
		if round < 2 {
			var back strings.Builder
			for i := range links {
				fmt.Fprintf(&back, "link set c%[1]d down\nlink set c%[1]d name a%[1]d\naddr flush dev a%[1]d\n", i)
			}
			run("back", back.String())
		}
	}
	t.Logf("%+v", w.Status())
}
