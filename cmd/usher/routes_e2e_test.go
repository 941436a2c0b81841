package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// unnumbered is a world whose router has customers on interfaces of its own,
// without an address there: the gateway is on its loopback.
type unnumbered struct {
	*world
	subs []miniature.Home
}

const unnumberedConfig = `acl: {enabled: false}
routes:
  enabled: true
  interfaces: ["cust*"]
`

func startUnnumbered(t *testing.T, n int, extra string) *unnumbered {
	t.Helper()
	w := worldWithoutRelay(t, miniature.Options{
		Homes: 1, Interfaces: []string{`"cust*"`},
		Subnets: "    - {prefix: 192.0.2.0/24, gateway: 192.0.2.1, lease_time: 10m}\n", Extra: extra,
	})
	u := &unnumbered{world: w}
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.1/32", "dev", "lo"))
	for i := range n {
		host, err := w.Lab.Host(fmt.Sprintf("sub%d", i+1))
		require.NoError(t, err)
		h := miniature.Home{Host: host, Port: fmt.Sprintf("cust%d", i+1), IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(17 + i)}),
			MAC: fmt.Sprintf("00:00:5e:00:53:%02x", 0x20+i)}
		u.plug(t, h)
		mac := emulator.MAC{0, 0, 0x5e, 0, 0x53, byte(0x20 + i)}
		h.ID, err = w.ERP.AddCustomer(emulator.Customer{Login: host.Name, FullName: host.Name, State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: h.IP, MAC: mac}}})
		require.NoError(t, err)
		u.subs = append(u.subs, h)
	}
	return u
}

// plug wires a home to its port of the router.
func (u *unnumbered) plug(t *testing.T, h miniature.Home) {
	t.Helper()
	require.NoError(t, u.Lab.Wire(u.Router, h.Port, h.Host, "eth0"))
	require.NoError(t, h.Host.IP("link", "set", "dev", "eth0", "address", h.MAC))
	require.NoError(t, u.Router.Sysctl("net.ipv4.conf."+h.Port+".proxy_arp", "1"))
	for _, iface := range []string{"all", h.Port} { // whatever the test's host has
		require.NoError(t, u.Router.Sysctl("net.ipv4.conf."+iface+".rp_filter", "0"))
	}
}

// route returns what the kernel has for an address, as the ip command prints it.
func (u *unnumbered) route(t *testing.T, h miniature.Home) string {
	t.Helper()
	out, err := u.Router.Output(t.Context(), "ip", "-4", "route", "show", h.IP.String()+"/32")
	require.NoError(t, err)
	return strings.TrimSpace(out)
}

func (u *unnumbered) waitRoute(t *testing.T, h miniature.Home, port string) {
	t.Helper()
	want := ""
	if port != "" {
		want = fmt.Sprintf("%s dev %s proto 207 scope link", h.IP, port)
	}
	eventually(t, 10*time.Second, fmt.Sprintf("the route of %s is %q", h.IP, want), func() (bool, error) {
		return u.route(t, h) == want, nil
	})
}

func (u *unnumbered) bound(t *testing.T, h miniature.Home, args ...string) *lab.Process {
	t.Helper()
	p, err := u.DHCPClient(h, args...)
	require.NoError(t, err)
	logged(t, p, "bound ip="+h.IP.String(), 1)
	return p
}

// pings proves the way there and back, through the router.
func (u *unnumbered) pings(t *testing.T, from *lab.Host, to string) {
	t.Helper()
	_, err := from.Output(t.Context(), "ping", "-c", "1", "-W", "2", to)
	require.NoError(t, err)
}

func TestKernelRoutesOfLeases(t *testing.T) {
	t.Parallel()
	u := startUnnumbered(t, 2, unnumberedConfig)
	// Each interface is one customer's: it vouches for who is there, so that a release ends the lease.
	u.configure(t, map[string]string{"match": "[option82, vlan, mac]", "vlan_interfaces": `["cust{vlan}"]`})
	require.NoError(t, u.StartAgent(t.Context()))
	a, b := u.subs[0], u.subs[1]

	// The ACK brings the route; the first packet goes both ways.
	require.Empty(t, u.route(t, a))
	pa := u.bound(t, a)
	u.waitRoute(t, a, "cust1")
	u.pings(t, a.Host, miniature.InternetIP)
	pb := u.bound(t, b, "-R")
	u.waitRoute(t, b, "cust2")
	u.pings(t, a.Host, b.IP.String()) // neighbours of one subnet, by proxy ARP
	st := u.status(t)
	require.Equal(t, 2, st.Routes.Installed)
	require.Empty(t, st.Routes.Findings)
	metrics, err := u.Router.Output(t.Context(), "curl", "-s", "http://"+miniature.ConsoleAddr+"/metrics")
	require.NoError(t, err)
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "usher_route_delay_seconds") {
			t.Log(strings.TrimSpace(line)) // from ACK to route
		}
	}
	require.Contains(t, metrics, "usher_route_delay_seconds_count 2")
	require.Contains(t, metrics, `usher_routes{state="installed"} 2`)

	// Somebody deletes it: it comes back, and so it does after the link flapped.
	require.NoError(t, u.Router.IP("route", "del", a.IP.String()+"/32"))
	u.waitRoute(t, a, "cust1")
	require.NoError(t, u.Router.IP("link", "set", "cust1", "down"))
	u.waitRoute(t, a, "")
	require.NoError(t, u.Router.IP("link", "set", "cust1", "up"))
	u.waitRoute(t, a, "cust1")
	u.pings(t, a.Host, miniature.InternetIP)
	require.EqualValues(t, 1, u.status(t).Routes.DriftMissing)

	// Killed: the routes stay and carry packets; started again, the agent adopts them.
	u.Agent.Kill()
	u.waitRoute(t, a, "cust1")
	u.pings(t, a.Host, miniature.InternetIP)
	require.NoError(t, u.StartAgent(t.Context()))
	eventually(t, 10*time.Second, "the route is adopted", func() (bool, error) {
		r := u.status(t).Routes
		return r.Adopted == 2 && r.Installed == 2 && r.Added+r.Removed == 0, nil
	})

	// The release takes it away, a foreign route stays.
	require.NoError(t, u.Router.IP("route", "add", "192.0.2.99/32", "dev", "cust1", "proto", "static"))
	require.NoError(t, pb.Stop(2*time.Second))
	u.waitRoute(t, b, "")

	// What changed while no agent ran is mended.
	require.NoError(t, u.Agent.Stop(5*time.Second))
	require.NoError(t, u.Router.IP("route", "add", b.IP.String()+"/32", "dev", "cust2", "proto", "207")) // its lease is released
	require.NoError(t, u.StartAgent(t.Context()))
	u.waitRoute(t, b, "")
	require.Equal(t, fmt.Sprintf("%s dev cust1 proto 207 scope link", a.IP), u.route(t, a))
	st = u.status(t)
	require.Equal(t, 2, st.Routes.Adopted)
	require.EqualValues(t, []uint64{0, 1}, []uint64{st.Routes.Added, st.Routes.Removed})

	// The customer plugs into another port: the interface of the old one goes away
	// and comes back with another number, the new one has the route.
	pa.Kill()
	require.NoError(t, u.Router.IP("link", "del", "cust1"))
	u.waitRoute(t, a, "")
	moved := a
	moved.Port = "cust3"
	u.plug(t, moved)
	u.bound(t, moved)
	u.waitRoute(t, moved, "cust3")
	u.pings(t, moved.Host, miniature.InternetIP)

	// On exit they stay.
	require.NoError(t, u.Agent.Stop(5*time.Second))
	u.waitRoute(t, moved, "cust3")
	out, err := u.Router.Output(t.Context(), "ip", "-4", "route", "show", "proto", "207")
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(out, "\n"), "%s", out)
}

// On an interface that nobody vouches for others may be, who write the client's MAC into a
// release: the route stays until the lease ends.
func TestKernelRouteOfAReleasedLease(t *testing.T) {
	t.Parallel()
	u := startUnnumbered(t, 1, unnumberedConfig)
	config, err := os.ReadFile(u.ConfigPath())
	require.NoError(t, err)
	short := strings.ReplaceAll(string(config), "lease_time: 10m", "lease_time: 1m")
	require.NoError(t, os.WriteFile(u.ConfigPath(), []byte(short), 0o600))
	require.NoError(t, u.StartAgent(t.Context()))
	a := u.subs[0]
	p := u.bound(t, a, "-R")
	u.waitRoute(t, a, "cust1")
	require.NoError(t, p.Signal(syscall.SIGTERM))
	u.leaseState(t, a.IP, "released")
	ends := u.keptUntil(t, a.IP)
	u.waitRoute(t, a, "cust1")
	eventually(t, time.Until(ends)+10*time.Second, "the lease is over, and so is its route", func() (bool, error) { return u.route(t, a) == "", nil })
	require.False(t, time.Now().Before(ends), "not before the lease is over")
}

// A client that moves while its old port stays up: the route is at no time
// missing, since the new one is added before the old one is removed.
func TestKernelRouteMovesWithThePort(t *testing.T) {
	t.Parallel()
	u := startUnnumbered(t, 1, unnumberedConfig)
	require.NoError(t, u.StartAgent(t.Context()))
	a := u.subs[0]
	p := u.bound(t, a)
	u.waitRoute(t, a, "cust1")
	p.Kill()

	elsewhere, err := u.Lab.Host("elsewhere")
	require.NoError(t, err)
	moved := miniature.Home{Host: elsewhere, Port: "cust9", IP: a.IP, MAC: a.MAC}
	u.plug(t, moved)
	monitor, err := u.Router.Start("stdbuf", "-oL", "ip", "-4", "monitor", "route")
	require.NoError(t, err)
	eventually(t, 5*time.Second, "the monitor listens", func() (bool, error) {
		err := u.Router.IP("route", "add", "192.0.2.98/32", "dev", "cust1", "proto", "static")
		err = errors.Join(err, u.Router.IP("route", "del", "192.0.2.98/32"))
		return strings.Contains(monitor.Log(), "192.0.2.98"), err
	})
	u.bound(t, moved)
	u.waitRoute(t, moved, "cust9")
	u.pings(t, elsewhere, miniature.InternetIP)
	eventually(t, 5*time.Second, "both changes are told", func() (bool, error) {
		return strings.Contains(monitor.Log(), "Deleted "+a.IP.String()+" dev cust1"), nil
	})
	added, deleted := strings.Index(monitor.Log(), a.IP.String()+" dev cust9"), strings.Index(monitor.Log(), "Deleted "+a.IP.String()+" dev cust1")
	require.GreaterOrEqual(t, added, 0)
	require.Less(t, added, deleted, "%s", monitor.Log())
}

// With routes.dry_run the routing table stays as it is, and the status says what would be.
func TestKernelRoutesDryRun(t *testing.T) {
	t.Parallel()
	u := startUnnumbered(t, 1, unnumberedConfig+"  dry_run: true\n")
	require.NoError(t, u.Router.Sysctl("net.ipv4.conf.cust1.proxy_arp", "0"))
	require.NoError(t, u.Router.Sysctl("net.ipv4.conf.cust1.rp_filter", "2"))
	require.NoError(t, u.StartAgent(t.Context()))
	agent, a := u.Agent, u.subs[0]
	u.bound(t, a)
	eventually(t, 5*time.Second, "the lease is seen", func() (bool, error) {
		st, err := u.Client.Status(context.WithoutCancel(t.Context()))
		return err == nil && st.Routes != nil && st.Routes.Want == 1 && len(st.Routes.Findings) == 2, nil
	})
	require.Empty(t, u.route(t, a))
	out, err := u.Router.Output(t.Context(), u.Program, "status", "--socket", u.Socket())
	require.NoError(t, err)
	require.Contains(t, out, "dry run: 1 leases would have a route")
	require.Contains(t, out, "cust1: subscribers cannot reach others of their own subnet")
	require.Contains(t, out, "cust1: renewals of a subscriber who moved here are dropped by the kernel")
	require.Contains(t, agent.Log(), `"finding":"rp_filter"`)
	require.NoError(t, agent.Signal(syscall.SIGTERM))
	<-agent.Done()
	require.Empty(t, u.route(t, a))
}
