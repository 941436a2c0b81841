package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// unnumbered is a world whose router has customers on interfaces of its own,
// without an address there: the gateway is on its loopback.
type unnumbered struct {
	*world
	subs []home
}

const unnumberedConfig = `acl: {enabled: false}
routes:
  enabled: true
  interfaces: ["cust*"]
`

func startUnnumbered(t *testing.T, n int, extra string) *unnumbered {
	t.Helper()
	w := startWorld(t, worldOptions{
		noRelay: true, homes: 1, interfaces: []string{`"cust*"`},
		subnets: "    - {prefix: 192.0.2.0/24, gateway: 192.0.2.1, lease_time: 10m}\n", extra: extra,
	})
	u := &unnumbered{world: w}
	require.NoError(t, w.router.IP("addr", "add", "192.0.2.1/32", "dev", "lo"))
	for i := range n {
		host, err := w.lab.Host(fmt.Sprintf("sub%d", i+1))
		require.NoError(t, err)
		h := home{host: host, port: fmt.Sprintf("cust%d", i+1), ip: netip.AddrFrom4([4]byte{192, 0, 2, byte(17 + i)}),
			mac: fmt.Sprintf("00:00:5e:00:53:%02x", 0x20+i)}
		u.plug(t, h)
		mac := emulator.MAC{0, 0, 0x5e, 0, 0x53, byte(0x20 + i)}
		h.id, err = w.erp.AddCustomer(emulator.Customer{Login: host.Name, FullName: host.Name, State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: h.ip, MAC: mac}}})
		require.NoError(t, err)
		u.subs = append(u.subs, h)
	}
	return u
}

// plug wires a home to its port of the router.
func (u *unnumbered) plug(t *testing.T, h home) {
	t.Helper()
	require.NoError(t, u.lab.Wire(u.router, h.port, h.host, "eth0"))
	require.NoError(t, h.host.IP("link", "set", "dev", "eth0", "address", h.mac))
	require.NoError(t, u.router.Sysctl("net.ipv4.conf."+h.port+".proxy_arp", "1"))
}

// route gives what the kernel has for an address, as the ip command prints it.
func (u *unnumbered) route(t *testing.T, h home) string {
	t.Helper()
	out, err := u.router.Output(t.Context(), "ip", "-4", "route", "show", h.ip.String()+"/32")
	require.NoError(t, err)
	return strings.TrimSpace(out)
}

func (u *unnumbered) waitRoute(t *testing.T, h home, port string) {
	t.Helper()
	want := ""
	if port != "" {
		want = fmt.Sprintf("%s dev %s proto 207 scope link", h.ip, port)
	}
	eventually(t, 10*time.Second, fmt.Sprintf("the route of %s is %q", h.ip, want), func() (bool, error) {
		return u.route(t, h) == want, nil
	})
}

func (u *unnumbered) bound(t *testing.T, h home, args ...string) *lab.Process {
	t.Helper()
	p, err := u.dhcpClient(h, args...)
	require.NoError(t, err)
	logged(t, p, "bound ip="+h.ip.String(), 1)
	return p
}

// pings proves the way there and back, through the router.
func (u *unnumbered) pings(t *testing.T, from *lab.Host, to string) {
	t.Helper()
	_, err := from.Output(t.Context(), "ping", "-c", "1", "-W", "2", to)
	require.NoError(t, err)
}

func TestKernelRoutesOfLeases(t *testing.T) {
	u := startUnnumbered(t, 2, unnumberedConfig)
	require.NoError(t, u.startAgent(t.Context()))
	a, b := u.subs[0], u.subs[1]

	// The ACK brings the route; the first packet goes both ways.
	require.Empty(t, u.route(t, a))
	pa := u.bound(t, a)
	u.waitRoute(t, a, "cust1")
	u.pings(t, a.host, worldInternet)
	pb := u.bound(t, b, "-R")
	u.waitRoute(t, b, "cust2")
	u.pings(t, a.host, b.ip.String()) // neighbours of one subnet, by proxy ARP
	st := u.status(t)
	require.Equal(t, 2, st.Routes.Installed)
	require.Empty(t, st.Routes.Findings)
	metrics, err := u.router.Output(t.Context(), "curl", "-s", "http://"+worldConsole+"/metrics")
	require.NoError(t, err)
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "usher_route_delay_seconds") {
			t.Log(strings.TrimSpace(line)) // from ACK to route
		}
	}
	require.Contains(t, metrics, "usher_route_delay_seconds_count 2")
	require.Contains(t, metrics, `usher_routes{state="installed"} 2`)

	// Somebody deletes it: it comes back, and so it does after the link flapped.
	require.NoError(t, u.router.IP("route", "del", a.ip.String()+"/32"))
	u.waitRoute(t, a, "cust1")
	require.NoError(t, u.router.IP("link", "set", "cust1", "down"))
	u.waitRoute(t, a, "")
	require.NoError(t, u.router.IP("link", "set", "cust1", "up"))
	u.waitRoute(t, a, "cust1")
	u.pings(t, a.host, worldInternet)
	require.EqualValues(t, 1, u.status(t).Routes.DriftMissing)

	// Killed: the routes stay and carry packets; started again, the agent adopts them.
	u.agent.Kill()
	u.waitRoute(t, a, "cust1")
	u.pings(t, a.host, worldInternet)
	require.NoError(t, u.startAgent(t.Context()))
	eventually(t, 10*time.Second, "the route is adopted", func() (bool, error) {
		r := u.status(t).Routes
		return r.Adopted == 2 && r.Installed == 2 && r.Added+r.Removed == 0, nil
	})

	// The release takes it away, a foreign route stays.
	require.NoError(t, u.router.IP("route", "add", "192.0.2.99/32", "dev", "cust1", "proto", "static"))
	require.NoError(t, pb.Stop(2*time.Second))
	u.waitRoute(t, b, "")

	// What changed while no agent ran is mended.
	require.NoError(t, u.agent.Stop(5*time.Second))
	require.NoError(t, u.router.IP("route", "add", b.ip.String()+"/32", "dev", "cust2", "proto", "207")) // its lease is released
	require.NoError(t, u.startAgent(t.Context()))
	u.waitRoute(t, b, "")
	require.Equal(t, fmt.Sprintf("%s dev cust1 proto 207 scope link", a.ip), u.route(t, a))
	st = u.status(t)
	require.Equal(t, 2, st.Routes.Adopted)
	require.EqualValues(t, []uint64{0, 1}, []uint64{st.Routes.Added, st.Routes.Removed})

	// The customer plugs into another port: the interface of the old one goes away
	// and comes back with another number, the new one has the route.
	pa.Kill()
	require.NoError(t, u.router.IP("link", "del", "cust1"))
	u.waitRoute(t, a, "")
	moved := a
	moved.port = "cust3"
	u.plug(t, moved)
	u.bound(t, moved)
	u.waitRoute(t, moved, "cust3")
	u.pings(t, moved.host, worldInternet)

	// On exit they stay.
	require.NoError(t, u.agent.Stop(5*time.Second))
	u.waitRoute(t, moved, "cust3")
	out, err := u.router.Output(t.Context(), "ip", "-4", "route", "show", "proto", "207")
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(out, "\n"), "%s", out)
}

// A client that moves while its old port stays up: the route is at no time
// missing, since the new one is added before the old one is removed.
func TestKernelRouteMovesWithThePort(t *testing.T) {
	u := startUnnumbered(t, 1, unnumberedConfig)
	require.NoError(t, u.startAgent(t.Context()))
	a := u.subs[0]
	p := u.bound(t, a)
	u.waitRoute(t, a, "cust1")
	p.Kill()

	elsewhere, err := u.lab.Host("elsewhere")
	require.NoError(t, err)
	moved := home{host: elsewhere, port: "cust9", ip: a.ip, mac: a.mac}
	u.plug(t, moved)
	monitor, err := u.router.Start("stdbuf", "-oL", "ip", "-4", "monitor", "route")
	require.NoError(t, err)
	eventually(t, 5*time.Second, "the monitor listens", func() (bool, error) {
		err := u.router.IP("route", "add", "192.0.2.98/32", "dev", "cust1", "proto", "static")
		err = errors.Join(err, u.router.IP("route", "del", "192.0.2.98/32"))
		return strings.Contains(monitor.Log(), "192.0.2.98"), err
	})
	u.bound(t, moved)
	u.waitRoute(t, moved, "cust9")
	u.pings(t, elsewhere, worldInternet)
	eventually(t, 5*time.Second, "both changes are told", func() (bool, error) {
		return strings.Contains(monitor.Log(), "Deleted "+a.ip.String()+" dev cust1"), nil
	})
	added, deleted := strings.Index(monitor.Log(), a.ip.String()+" dev cust9"), strings.Index(monitor.Log(), "Deleted "+a.ip.String()+" dev cust1")
	require.GreaterOrEqual(t, added, 0)
	require.Less(t, added, deleted, "%s", monitor.Log())
}

// With routes.dry_run the routing table stays as it is, and the status says what would be.
func TestKernelRoutesDryRun(t *testing.T) {
	u := startUnnumbered(t, 1, unnumberedConfig+"  dry_run: true\n")
	require.NoError(t, u.router.Sysctl("net.ipv4.conf.cust1.proxy_arp", "0"))
	require.NoError(t, u.startAgent(t.Context()))
	agent, a := u.agent, u.subs[0]
	u.bound(t, a)
	eventually(t, 5*time.Second, "the lease is seen", func() (bool, error) {
		st, err := u.client.Status(context.WithoutCancel(t.Context()))
		return err == nil && st.Routes != nil && st.Routes.Want == 1 && len(st.Routes.Findings) == 1, nil
	})
	require.Empty(t, u.route(t, a))
	out, err := u.router.Output(t.Context(), u.program, "status", "--socket", u.socket())
	require.NoError(t, err)
	require.Contains(t, out, "dry run: 1 leases would have a route")
	require.Contains(t, out, "cust1: subscribers cannot reach others of their own subnet")
	require.NoError(t, agent.Signal(syscall.SIGTERM))
	<-agent.Done()
	require.Empty(t, u.route(t, a))
}
