package dhcpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/provision/wayback"
)

// sysctl sets a key of net.ipv4.conf of the router.
func (c *cable) sysctl(iface, key, value string) {
	c.t.Helper()
	require.NoError(c.t, in(c.router, func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net/ipv4/conf", iface, key), []byte(value), 0o644)
	}))
}

// rpDrops is how many packets the router's kernel dropped because their way back is another.
func (c *cable) rpDrops() int {
	c.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", c.router, "cat", "/proc/net/netstat").Output()
	require.NoError(c.t, err)
	var names []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if i := slices.Index(names, "IPReversePathFilter"); i >= 0 && f[0] == "TcpExt:" {
			n, err := strconv.Atoi(f[i])
			require.NoError(c.t, err)
			return n
		}
		names = f
	}
	require.Fail(c.t, "no IPReversePathFilter")
	return 0
}

// documented sets what docs/routes.md says, for interfaces of another name.
func (c *cable) documented(pattern string) {
	c.t.Helper()
	page, err := os.ReadFile("../docs/routes.md")
	require.NoError(c.t, err)
	_, lines, ok := strings.Cut(string(page), "`/etc/sysctl.d/60-usher.conf`")
	require.True(c.t, ok)
	lines = strings.Split(lines, "```")[1]
	require.NoError(c.t, in(c.router, func() error {
		for line := range strings.Lines(strings.TrimSpace(lines)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
			if !strings.Contains(key, "/") {
				key = strings.ReplaceAll(key, ".", "/")
			}
			files, err := filepath.Glob("/proc/sys/" + strings.ReplaceAll(key, "eth1.*", pattern))
			if err != nil || len(files) == 0 {
				return fmt.Errorf("%q: %w", line, errors.Join(err, os.ErrNotExist))
			}
			for _, file := range files {
				if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// A subscriber moves to another interface that has no address, and renews there by unicast (T1) and by
// broadcast (T2) while the route leads to the old one. With rp_filter 1 and 2 the kernel drops
// both, which is a finding; with 0, as docs/routes.md has it, both are heard.
func TestKernelMovedSubscriberIsHeard(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "192.0.2.1/32", "dev", "lo")
	for _, iface := range []string{"all", "default", "eth0"} {
		c.sysctl(iface, "rp_filter", "0")
	}
	k := c.wire("cust2")
	c.ip("-n", c.router, "link", "add", "cust1", "type", "veth", "peer", "name", "left1")
	c.ip("-n", c.router, "link", "set", "cust1", "up")
	c.ip("-n", c.router, "link", "set", "left1", "up")
	c.ip("-n", c.router, "route", "add", "192.0.2.21/32", "dev", "cust1")
	mac, err := exec.Command("ip", "netns", "exec", c.router, "cat", "/sys/class/net/cust2/address").Output()
	require.NoError(t, err)
	c.ip("-n", k.ns, "neigh", "replace", "192.0.2.1", "lladdr", strings.TrimSpace(string(mac)), "dev", "eth0")

	ns, err := os.Open("/run/netns/" + c.router)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	routes, err := link.OpenRoutes(link.RouteOptions{Protocol: 207, NetNS: int(ns.Fd())})
	require.NoError(t, err)
	t.Cleanup(func() { _ = routes.Close() })
	s := startSiteIn(t, c, watchIn(t, c.router), kernelOptions())

	heard := func(id dhcpv4.TransactionID) bool {
		return slices.ContainsFunc(s.events.Find(EventFilter{}), func(e Event) bool {
			return e.XID == binary.BigEndian.Uint32(id[:]) && e.Interface == "cust2"
		})
	}
	for _, tc := range []struct {
		all, iface string
		address    bool
		hears      bool
	}{
		{"0", "1", false, false}, {"0", "2", false, false}, {"1", "0", false, false}, {"2", "0", false, false},
		{"0", "1", true, false}, {"0", "2", true, true}, {"0", "0", false, true}, {"2", "1", false, true},
	} {
		what := "all " + tc.all + ", interface " + tc.iface + ", address " + strconv.FormatBool(tc.address)
		c.sysctl("all", "rp_filter", tc.all)
		c.sysctl("cust2", "rp_filter", tc.iface)
		if tc.hears && tc.all != "0" {
			what += ", and then as documented"
			c.documented("cust*")
		}
		if tc.address {
			c.ip("-n", c.router, "addr", "replace", "198.51.100.1/24", "dev", "cust2")
		} else {
			c.ip("-n", c.router, "addr", "flush", "dev", "cust2")
		}
		links, err := routes.Links(context.Background())
		require.NoError(t, err)
		i := slices.IndexFunc(links, func(l route.Link) bool { return l.Name == "cust2" })
		require.GreaterOrEqual(t, i, 0)
		var settings route.LinkSettings
		require.NoError(t, in(c.router, func() (err error) { settings, err = routes.Settings(links[i]); return err }))
		assert.Equal(t, !tc.hears, slices.Contains(route.CheckLink(settings), route.FindingRPFilter), "the finding is there: %s", what)

		for name, to := range map[string]string{"T1": "192.0.2.1:67", "T2": "255.255.255.255:67"} {
			before, p := c.rpDrops(), packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(subscriberIP.AsSlice()))
			_, err := k.conn.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort(to))
			require.NoError(t, err)
			if tc.hears {
				require.Eventually(t, func() bool { return heard(p.TransactionID) }, 10*time.Second, time.Millisecond, "%s: %s", name, what)
				continue
			}
			require.Eventually(t, func() bool { return c.rpDrops() > before }, 10*time.Second, 5*time.Millisecond, "the kernel drops %s: %s", name, what)
			assert.False(t, heard(p.TransactionID), "%s: %s", name, what)
		}
	}
}

// A relay sends by one interface, and the route back leads by another one: with rp_filter 1 the kernel drops its
// packets, and that is found, also where the relay has never been heard.
func TestKernelRelayRoutedAnotherWay(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	for _, iface := range []string{"all", "default", "eth0"} {
		c.sysctl(iface, "rp_filter", "0")
	}
	relay := netip.MustParseAddr("198.51.100.7")
	c.ip("-n", c.router, "addr", "add", "203.0.113.1/24", "dev", "eth0")
	c.ip("-n", c.cpe, "addr", "add", "203.0.113.2/24", "dev", "eth0")
	c.ip("-n", c.cpe, "addr", "add", "198.51.100.7/32", "dev", "lo")
	c.ip("-n", c.router, "link", "add", "up1", "type", "veth", "peer", "name", "up2")
	c.ip("-n", c.router, "link", "set", "up1", "up")
	c.ip("-n", c.router, "link", "set", "up2", "up")
	c.ip("-n", c.router, "addr", "add", "192.0.2.129/25", "dev", "up1")

	opts := kernelOptions()
	opts.Relays = []netip.Prefix{netip.PrefixFrom(relay, 32)}
	links := watchIn(t, c.router)
	s := startSiteIn(t, c, links, opts)
	var conn *net.UDPConn
	require.NoError(t, in(c.cpe, func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: relay.AsSlice(), Port: 67})
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	send := func() dhcpv4.TransactionID {
		t.Helper()
		p := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(relay.AsSlice()),
			dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2)))
		_, err := conn.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort("203.0.113.1:67"))
		require.NoError(t, err)
		return p.TransactionID
	}
	ns, err := os.Open("/run/netns/" + c.router)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	ways, err := link.OpenWays(int(ns.Fd()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = ways.Close() })
	found := func(relays ...wayback.Relay) (out []string) {
		t.Helper()
		require.NoError(t, in(c.router, func() error {
			list, err := wayback.Find(ways, relays, []wayback.Interface{{Name: "eth0", Numbered: true}})
			for _, f := range list {
				out = append(out, fmt.Sprint(f.Source, " on ", f.On, " by ", f.By, " filter ", f.Filter))
			}
			return err
		}))
		return out
	}
	heard := func() (out []wayback.Relay) {
		for _, r := range s.server.Senders().Relays {
			out = append(out, wayback.Relay{Source: r.Source, On: r.Interface})
		}
		return out
	}

	c.ip("-n", c.router, "route", "add", "198.51.100.7/32", "via", "203.0.113.2")
	c.sysctl("eth0", "rp_filter", "1")
	s.offered(send(), "strict, and the route leads back")
	require.Len(t, heard(), 1)
	assert.Empty(t, found(heard()...))

	c.ip("-n", c.router, "route", "replace", "198.51.100.7/32", "via", "192.0.2.130")
	before := c.rpDrops()
	send()
	require.Eventually(t, func() bool { return c.rpDrops() > before }, 10*time.Second, 5*time.Millisecond, "the kernel drops it")
	assert.Equal(t, []string{"198.51.100.7 on eth0 by [up1] filter 1"}, found(heard()...))
	assert.Equal(t, []string{"198.51.100.7 on eth0 by [up1] filter 1"}, found(wayback.Relay{Source: relay}), "not heard: by no interface that is served")

	// Of several next hops each is a way back.
	c.ip("-n", c.router, "route", "replace", "198.51.100.7/32", "nexthop", "via", "192.0.2.130", "nexthop", "via", "203.0.113.2")
	assert.Empty(t, found(heard()...))
	s.offered(send(), "one of two routes leads back")

	// Loose: any route will do, but there must be one.
	c.ip("-n", c.router, "route", "replace", "198.51.100.7/32", "via", "192.0.2.130")
	c.sysctl("eth0", "rp_filter", "2")
	assert.Empty(t, found(heard()...))
	id := send()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(s.events.Find(EventFilter{}), func(e Event) bool { return e.XID == binary.BigEndian.Uint32(id[:]) })
	}, 10*time.Second, time.Millisecond)
	c.ip("-n", c.router, "route", "del", "198.51.100.7/32")
	before = c.rpDrops()
	send()
	require.Eventually(t, func() bool { return c.rpDrops() > before }, 10*time.Second, 5*time.Millisecond, "the kernel drops it")
	assert.Equal(t, []string{"198.51.100.7 on eth0 by [] filter 2"}, found(heard()...))
	c.ip("-n", c.router, "route", "add", "unreachable", "198.51.100.7/32")
	assert.Equal(t, []string{"198.51.100.7 on eth0 by [] filter 2"}, found(heard()...))
}
