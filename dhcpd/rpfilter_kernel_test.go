package dhcpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
