package link_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/route"
)

const protocol = 207

func openRoutes(t testing.TB, h *lab.Host) *link.Routes {
	t.Helper()
	ns, err := os.Open(filepath.Join("/run/netns", h.Namespace))
	require.NoError(t, err)
	r, err := link.OpenRoutes(link.RouteOptions{Protocol: protocol, NetNS: int(ns.Fd())})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, r.Close())
		_ = ns.Close()
	})
	return r
}

// cables returns a host that has interfaces c0, c1, ... with the numbers of their links.
func cables(t testing.TB, l *lab.Lab, n int) (*lab.Host, []int) {
	t.Helper()
	h, err := l.Host("router")
	require.NoError(t, err)
	far, err := l.Host("far")
	require.NoError(t, err)
	var index []int
	for i := range n {
		require.NoError(t, l.Wire(h, fmt.Sprintf("c%d", i), far, fmt.Sprintf("f%d", i)))
	}
	links, err := openRoutes(t, h).Links(context.Background())
	require.NoError(t, err)
	for i := range n {
		for _, k := range links {
			if k.Name == fmt.Sprintf("c%d", i) {
				require.True(t, k.Up)
				index = append(index, k.Index)
			}
		}
	}
	require.Len(t, index, n)
	return h, index
}

// ipRoutes returns the host routes of table main as the ip command prints them, sorted.
func ipRoutes(t testing.TB, h *lab.Host, args ...string) []string {
	t.Helper()
	out, err := h.Output(t.Context(), "ip", append([]string{"-4", "route", "show"}, args...)...)
	require.NoError(t, err)
	var list []string
	for line := range strings.Lines(out) {
		list = append(list, strings.TrimSpace(line))
	}
	sort.Strings(list)
	return list
}

func hostRoute(last byte, ifindex int) route.Route {
	return route.Route{Addr: netip.AddrFrom4([4]byte{198, 51, 100, last}), Ifindex: ifindex, Table: 254}
}

func apply(t testing.TB, r *link.Routes, changes ...route.Change) []error {
	t.Helper()
	results, err := r.Apply(t.Context(), changes)
	require.NoError(t, err)
	return results
}

func TestKernelRoutes(t *testing.T) {
	l := newLab(t)
	h, c := cables(t, l, 2)
	r := openRoutes(t, h)
	add := func(rt route.Route) route.Change {
		return route.Change{Op: provision.OpAdd, Route: rt}
	}
	remove := func(rt route.Route) route.Change {
		return route.Change{Op: provision.OpRemove, Route: rt}
	}
	have := func() []route.Route {
		routes, err := r.Routes(t.Context())
		require.NoError(t, err)
		return routes
	}

	require.Empty(t, have())
	require.Equal(t, []error{nil, nil}, apply(t, r, add(hostRoute(1, c[0])), add(hostRoute(2, c[1]))))
	require.Equal(t, []string{"198.51.100.1 dev c0 proto 207 scope link", "198.51.100.2 dev c1 proto 207 scope link"}, ipRoutes(t, h))
	require.ElementsMatch(t, []route.Route{hostRoute(1, c[0]), hostRoute(2, c[1])}, have())

	// Again changes nothing; what is not there is removed all the same.
	require.Equal(t, []error{nil, nil}, apply(t, r, add(hostRoute(1, c[0])), remove(hostRoute(9, c[0]))))
	require.Len(t, ipRoutes(t, h), 2)

	// A move: in between there are both.
	require.Equal(t, []error{nil}, apply(t, r, add(hostRoute(1, c[1]))))
	require.Len(t, have(), 3)
	require.Equal(t, []error{nil}, apply(t, r, remove(hostRoute(1, c[0]))))
	require.Equal(t, []string{"198.51.100.1 dev c1 proto 207 scope link", "198.51.100.2 dev c1 proto 207 scope link"}, ipRoutes(t, h))

	// Others' routes to the same destination stay and are not listed.
	require.NoError(t, h.IP("route", "append", "198.51.100.1/32", "dev", "c0", "proto", "static"))
	require.NoError(t, h.IP("route", "add", "198.51.100.64/26", "dev", "c0", "proto", "207"))
	require.Len(t, have(), 2)
	require.Equal(t, []error{nil, nil, nil}, apply(t, r, remove(hostRoute(1, c[0])), add(hostRoute(1, c[0])), remove(hostRoute(1, c[1]))))
	require.Equal(t, []string{"198.51.100.1 dev c0 proto 207 scope link", "198.51.100.1 dev c0 proto static scope link"}, ipRoutes(t, h, "198.51.100.1/32"))
	require.Equal(t, []error{nil}, apply(t, r, remove(hostRoute(1, c[0]))))
	require.Equal(t, []string{"198.51.100.1 dev c0 proto static scope link"}, ipRoutes(t, h, "198.51.100.1/32"))

	// Another table, another metric.
	other := route.Route{Addr: hostRoute(3, 0).Addr, Ifindex: c[0], Table: 1000, Metric: 7}
	apply(t, r, add(other))
	require.Equal(t, []string{"198.51.100.3 dev c0 proto 207 scope link metric 7"}, ipRoutes(t, h, "table", "1000"))
	require.Contains(t, have(), other)
	apply(t, r, remove(other))
	require.NotContains(t, have(), other)

	// A subnet behind a host, which may come with the same send; its removal leaves the host's.
	subnet := route.Route{Addr: netip.MustParseAddr("203.0.113.8"), Bits: 29, Via: hostRoute(4, 0).Addr, Ifindex: c[1], Table: 254}
	require.Equal(t, []error{nil, nil}, apply(t, r, add(subnet), add(hostRoute(4, c[1]))))
	require.Equal(t, []string{"203.0.113.8/29 via 198.51.100.4 dev c1 proto 207 onlink"}, ipRoutes(t, h, "203.0.113.8/29"))
	require.Contains(t, have(), subnet)
	require.Equal(t, []error{nil, nil}, apply(t, r, add(subnet), remove(route.Route{Addr: subnet.Addr, Bits: 29, Via: hostRoute(5, 0).Addr, Ifindex: c[1], Table: 254})))
	require.Contains(t, have(), subnet)
	require.Equal(t, []error{nil, nil}, apply(t, r, remove(subnet), remove(hostRoute(4, c[1]))))
	require.Empty(t, ipRoutes(t, h, "203.0.113.8/29"))

	// One that fails does not hold the others; more than one batch.
	require.NoError(t, h.IP("link", "set", "c0", "down"))
	changes := []route.Change{add(hostRoute(4, c[0])), add(hostRoute(5, 9999))}
	for i := range 1200 {
		changes = append(changes, add(route.Route{Addr: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), Ifindex: c[1], Table: 254}))
	}
	results := apply(t, r, changes...)
	require.ErrorIs(t, results[0], route.ErrNoLink)
	require.ErrorIs(t, results[1], route.ErrNoLink)
	for _, err := range results[2:] {
		require.NoError(t, err)
	}
	require.Len(t, have(), 1201)

	// All of a batch fail, and the next one works.
	for i := range changes {
		changes[i].Route.Ifindex = 9999
	}
	for _, err := range apply(t, r, changes...) {
		require.ErrorIs(t, err, route.ErrNoLink)
	}
	require.Equal(t, []error{nil}, apply(t, r, remove(hostRoute(2, c[1]))))
	require.Len(t, have(), 1200)
}

// waitEvent returns the first event for which ok is true.
func waitEvent(t *testing.T, events <-chan route.Event, what string, ok func(route.Event) bool) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case ev := <-events:
			if ok(ev) {
				return
			}
		case <-limit:
			t.Fatal("no event: " + what)
		}
	}
}

func TestKernelRouteEvents(t *testing.T) {
	l := newLab(t)
	h, c := cables(t, l, 2)
	r := openRoutes(t, h)
	events := make(chan route.Event, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Watch(ctx, func(ev route.Event) { events <- ev }) }()
	waitEvent(t, events, "the beginning", func(ev route.Event) bool { return ev.Lost })

	// Our own change has no echo: the stranger's comes first.
	apply(t, r, route.Change{Op: provision.OpAdd, Route: hostRoute(1, c[0])})
	require.NoError(t, h.IP("route", "add", "203.0.113.0/24", "dev", "c0", "proto", "static"))
	require.NoError(t, h.IP("route", "del", "198.51.100.1/32", "dev", "c0"))
	waitEvent(t, events, "a route", func(ev route.Event) bool {
		if ev.Link != nil {
			return false // a cable comes up when the kernel has time
		}
		require.NotNil(t, ev.Route)
		require.Equal(t, provision.OpRemove, ev.Op)
		return *ev.Route == hostRoute(1, c[0])
	})
	require.NoError(t, h.IP("link", "set", "c0", "down"))
	waitEvent(t, events, "down", func(ev route.Event) bool {
		return ev.Link != nil && *ev.Link == route.Link{Index: c[0], Name: "c0"}
	})
	require.NoError(t, h.IP("link", "set", "c0", "name", "d0"))
	require.NoError(t, h.IP("link", "set", "d0", "up"))
	waitEvent(t, events, "up by another name", func(ev route.Event) bool {
		return ev.Link != nil && *ev.Link == route.Link{Index: c[0], Name: "d0", Up: true}
	})
	// A port that leaves a bridge is not a link that is gone.
	require.NoError(t, h.IP("link", "add", "br0", "type", "bridge"))
	require.NoError(t, h.IP("link", "set", "c1", "master", "br0"))
	require.NoError(t, h.IP("link", "set", "c1", "nomaster"))
	require.NoError(t, h.IP("link", "del", "d0"))
	waitEvent(t, events, "gone", func(ev route.Event) bool {
		return ev.Link != nil && ev.Link.Gone && assert.Equal(t, c[0], ev.Link.Index)
	})
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// Events that overflow the buffer are told as a gap, and the watch goes on.
func TestKernelRouteEventsOverflow(t *testing.T) {
	l := newLab(t)
	h, c := cables(t, l, 1)
	r := openRoutes(t, h)
	writer := openRoutes(t, h) // a stranger with our number
	hold, gaps, last := make(chan struct{}), make(chan struct{}, 100), make(chan struct{}, 1)
	final := hostRoute(250, c[0])
	wait := func(c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			t.Fatal("no event")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, func(ev route.Event) {
			switch {
			case ev.Lost:
				gaps <- struct{}{}
			case ev.Route != nil && *ev.Route == final:
				last <- struct{}{}
			default:
				<-hold
			}
		})
	}()
	wait(gaps)
	var changes []route.Change
	for i := range 60000 {
		changes = append(changes, route.Change{Op: provision.OpAdd,
			Route: route.Route{Addr: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), Ifindex: c[0], Table: 254}})
	}
	apply(t, writer, changes...)
	close(hold)
	wait(gaps)
	apply(t, writer, route.Change{Op: provision.OpAdd, Route: final})
	wait(last)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestKernelLinkSettings(t *testing.T) {
	l := newLab(t)
	h, c := cables(t, l, 1)
	r := openRoutes(t, h)
	look := func() (s route.LinkSettings) {
		require.NoError(t, h.Do(func() (err error) {
			s, err = r.Settings(route.Link{Index: c[0], Name: "c0", Up: true})
			return err
		}))
		return s
	}
	for key, v := range map[string]string{"all.forwarding": "0", "all.rp_filter": "0", "c0.rp_filter": "0", "all.arp_ignore": "0"} {
		require.NoError(t, h.Sysctl("net.ipv4.conf."+key, v))
	}
	require.Equal(t, route.LinkSettings{Interface: "c0"}, look())
	require.NoError(t, h.Sysctl("net.ipv4.conf.c0.forwarding", "1"))
	require.NoError(t, h.Sysctl("net.ipv4.conf.c0.proxy_arp", "1"))
	require.NoError(t, h.Sysctl("net.ipv4.conf.all.rp_filter", "2"))
	require.NoError(t, h.Sysctl("net.ipv4.conf.c0.arp_ignore", "1"))
	require.Equal(t, route.LinkSettings{Interface: "c0", Forwarding: true, ProxyARP: true, RPFilter: 2, ARPIgnore: 1}, look())
	require.NoError(t, h.IP("addr", "add", "198.51.100.1/32", "dev", "c0"))
	require.True(t, look().Numbered)
	_, err := r.Settings(route.Link{Index: 9999, Name: "nowhere"})
	require.ErrorIs(t, err, os.ErrNotExist)
}
