package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

const (
	officeNet  = "10.20.30.8/29"
	officeHost = "10.20.30.9"
	officeFree = "10.20.30.14" // nobody has it
)

// subnetWorld has a customer on an interface of the router, guarded by MAC, whose own router has an office behind it, and another
// customer on an interface of a VLAN.
func subnetWorld(t *testing.T, bindings string) (w *world, owner, other miniature.Home, office *lab.Host) {
	t.Helper()
	w = startWorld(t, miniature.Options{Homes: 1, Interfaces: []string{`"direct*"`, `"per*"`},
		Subnets: `    - {prefix: 192.0.2.0/25, gateway: 192.0.2.1, lease_time: 10m}
    - {prefix: 192.0.2.128/25, gateway: 192.0.2.129, lease_time: 10m}
    - {prefix: 10.20.30.0/24, gateway: 10.20.30.254, lease_time: 10m}
  match: [option82, vlan, mac]
  vlan_interfaces: ["per{vlan}"]
`,
		Extra: `acl: {source_guard: {direct: [direct0], vlan: ["per*"]}, verify_interval: 1h}
routes: {enabled: true, interfaces: ["direct*", "per*"], customer_subnets: true}
`,
	})
	place := func(name, iface, gateway, ip string, mac emulator.MAC) miniature.Home {
		host, err := w.Lab.Host(name)
		require.NoError(t, err)
		require.NoError(t, w.Lab.Wire(host, "eth0", w.Router, iface))
		require.NoError(t, w.Router.IP("addr", "add", gateway+"/25", "dev", iface))
		h := miniature.Home{Host: host, IP: netip.MustParseAddr(ip), MAC: mac.String()}
		require.NoError(t, host.IP("link", "set", "dev", "eth0", "address", h.MAC))
		h.ID, err = w.ERP.AddCustomer(emulator.Customer{Login: name, FullName: name, State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: h.IP, MAC: mac}}})
		require.NoError(t, err)
		return h
	}
	owner = place("owner", "direct0", "192.0.2.1", "192.0.2.10", emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x51})
	other = place("other", "per10", "192.0.2.129", "192.0.2.130", emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x52})
	office, err := w.Lab.Host("office")
	require.NoError(t, err)
	require.NoError(t, w.Lab.Wire(office, "eth0", owner.Host, "lan"))
	require.NoError(t, owner.Host.IP("addr", "add", "10.20.30.10/29", "dev", "lan"))
	require.NoError(t, owner.Host.Sysctl("net.ipv4.ip_forward", "1"))
	require.NoError(t, office.IP("addr", "add", officeHost+"/29", "dev", "eth0"))
	require.NoError(t, office.IP("route", "add", "default", "via", "10.20.30.10"))
	b, err := os.ReadFile(w.ConfigPath())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.ConfigPath(), bytes.Replace(b, []byte("userside:\n"), []byte("userside:\n  bindings: "+bindings+"\n"), 1), 0o600))
	require.NoError(t, w.StartAgent(t.Context()))
	for _, h := range []miniature.Home{owner, other} {
		require.NoError(t, w.Lease(t.Context(), h))
	}
	return w, owner, other, office
}

// inERP calls an action of the ERP.
func (w *world) inERP(t *testing.T, args ...string) {
	t.Helper()
	out, err := w.Router.Output(t.Context(), w.Program, append(args, "--config", w.ConfigPath())...)
	require.NoError(t, err, out)
}

// pingSoon waits until a host gets an echo, or none, and returns how long that took.
func pingSoon(t *testing.T, h *lab.Host, from, to string, want bool) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, 10*time.Second, from+" to "+to, func() (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		out, _ := h.Output(ctx, "ping", "-c1", "-W0.3", "-I", from, to)
		return strings.Contains(out, " 1 received") == want, nil
	})
	return time.Since(began)
}

// A customer's subnet behind his own router is his: let in where he is, routed to him, blocked and opened with him in both directions, and of nobody
// else's sources.
func TestKernelSubnetOfACustomer(t *testing.T) {
	t.Parallel()
	for _, bindings := range []string{"direct", "composed"} {
		t.Run(bindings, func(t *testing.T) {
			w, owner, other, office := subnetWorld(t, bindings)
			require.False(t, ping(t, office, officeHost, miniature.InternetIP), "nobody's yet")
			w.inERP(t, "customer", "ip-subnet-add", "--customer-id", strconv.FormatInt(owner.ID, 10), "--ip", "10.20.30.8", "--subnet", "29")
			pingSoon(t, office, officeHost, miniature.InternetIP, true)
			require.True(t, ping(t, w.Internet, miniature.InternetIP, officeHost), "also when the internet begins")
			out, err := w.Router.Output(t.Context(), "ip", "route", "show", officeNet)
			require.NoError(t, err)
			require.Contains(t, out, "via 192.0.2.10 dev direct0 proto 207")

			require.NoError(t, other.Host.IP("addr", "add", officeFree+"/32", "dev", "eth0"))
			before := w.unbound(t)
			require.False(t, ping(t, other.Host, officeFree, miniature.InternetIP), "another customer has no source from it")
			require.Greater(t, w.unbound(t), before)

			for _, st := range []provision.State{provision.StatePause, provision.StateStop} {
				w.setState(t, owner, st)
				require.Less(t, pingSoon(t, office, officeHost, miniature.InternetIP, false), time.Second)
				require.False(t, reaches(office))
				require.False(t, ping(t, w.Internet, miniature.InternetIP, officeHost), "nothing comes in either")
				require.False(t, ping(t, w.Internet, miniature.InternetIP, "10.20.30.10"))
				require.True(t, ping(t, other.Host, other.IP.String(), miniature.InternetIP))

				what := map[provision.State]string{provision.StatePause: "paused", provision.StateStop: "stopped"}[st]
				out, code := w.usherOn(t, "explain", officeFree)
				require.Zero(t, code, out)
				require.Contains(t, out, "It lies in the subnet "+officeNet+" of customer "+strconv.FormatInt(owner.ID, 10))
				require.Contains(t, out, "wanted "+what+", in the kernel "+what)
				out, code = w.usherOn(t, "acl", "show", strconv.FormatInt(owner.ID, 10))
				require.Zero(t, code, out)
				require.Contains(t, out, officeNet)
				require.NotContains(t, out, "refused: 0 packets, 0 bytes\n\n")
				require.Contains(t, w.nft(t, "list", "set", "inet", "usher", what+"_29"), "10.20.30.8")

				w.setState(t, owner, provision.StateActive)
				require.Less(t, pingSoon(t, office, officeHost, miniature.InternetIP, true), time.Second)
				require.True(t, ping(t, w.Internet, miniature.InternetIP, officeHost))
			}
			out, code := w.usherOn(t, "acl", "verify")
			require.Zero(t, code, out)
			require.NotContains(t, w.nft(t, "list", "table", "inet", "usher"), "paused_29", "a comparison takes empty sets away")

			out, code = w.usherOn(t, "explain", "10.20.30.8")
			require.Zero(t, code, out)
			require.Contains(t, out, "The ERP binds 10.20.30.8 to nobody.", "the first address is no client's")
			w.inERP(t, "customer", "ip-subnet-delete", "--customer-id", strconv.FormatInt(owner.ID, 10), "--ip", "10.20.30.8")
			pingSoon(t, office, officeHost, miniature.InternetIP, false)
			eventually(t, 10*time.Second, "its route goes", func() (bool, error) {
				out, err := w.Router.Output(t.Context(), "ip", "route", "show", officeNet)
				return out == "", err
			})
		})
	}
}

// A customer who has a network of the router for himself has it in the ERP as his subnet, with the router's own address in it: all of it
// is blocked and opened with him, the router goes on being reached, and no route is made.
func TestKernelSubnetWithItsGateway(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 1, Interfaces: []string{`"direct*"`},
		Subnets: "    - {prefix: 10.20.30.8/29, gateway: 10.20.30.9, lease_time: 10m}\n",
		Extra:   "routes: {enabled: true, interfaces: [\"direct*\"], customer_subnets: true}\n",
	})
	host, err := w.Lab.Host("business")
	require.NoError(t, err)
	require.NoError(t, w.Lab.Wire(host, "eth0", w.Router, "direct0"))
	require.NoError(t, w.Router.IP("addr", "add", "10.20.30.9/29", "dev", "direct0"))
	mac := emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x51}
	h := miniature.Home{Host: host, IP: netip.MustParseAddr("10.20.30.10"), MAC: mac.String()}
	require.NoError(t, host.IP("link", "set", "dev", "eth0", "address", h.MAC))
	h.ID, err = w.ERP.AddCustomer(emulator.Customer{Login: "business", FullName: "business", State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: h.IP, MAC: mac}, {Net: netip.MustParsePrefix("10.20.30.8/29")}}})
	require.NoError(t, err)
	require.NoError(t, w.StartAgent(t.Context()))
	require.NoError(t, w.Lease(t.Context(), h))
	const server = "10.20.30.12" // the ERP knows it by the subnet alone
	require.NoError(t, host.IP("addr", "add", server+"/29", "dev", "eth0"))
	require.True(t, ping(t, host, server, miniature.InternetIP))

	for state, what := range map[provision.State]string{provision.StatePause: "paused", provision.StateStop: "stopped"} {
		w.setState(t, h, state)
		pingSoon(t, host, server, miniature.InternetIP, false)
		require.False(t, ping(t, w.Internet, miniature.InternetIP, server))
		require.False(t, ping(t, host, h.IP.String(), miniature.InternetIP))
		require.True(t, ping(t, host, server, "10.20.30.9"), "the router is not his")
		require.True(t, ping(t, w.Internet, miniature.InternetIP, "10.20.30.9"))
		out, code := w.usherOn(t, "explain", strconv.FormatInt(h.ID, 10))
		require.Zero(t, code, out)
		flat := strings.Join(strings.Fields(out), " ")
		require.Contains(t, flat, "The subnet 10.20.30.8/29 is its own but for the gateway, which the configuration has")
		require.Contains(t, flat, "So is all of 10.20.30.8/29 that is nobody else's, in both directions.")
		require.Contains(t, w.nft(t, "list", "set", "inet", "usher", what+"_30"), "10.20.30.12")
		w.setState(t, h, provision.StateActive)
		pingSoon(t, host, server, miniature.InternetIP, true)
	}
	out, err := w.Router.Output(t.Context(), "ip", "route", "show", "10.20.30.8/29", "proto", "207")
	require.NoError(t, err)
	require.Empty(t, out)
}
