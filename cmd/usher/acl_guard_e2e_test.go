package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// guardedWorld has two customers on interfaces of the router itself, guarded by
// MAC (direct0, where anybody may be) and by interface (per10, a VLAN of its own).
func guardedWorld(t *testing.T) (w *world, direct, per miniature.Home) {
	t.Helper()
	return guardedWorldWith(t, "")
}

// guardedWorldWith has more keys of acl.
func guardedWorldWith(t *testing.T, acl string) (w *world, direct, per miniature.Home) {
	t.Helper()
	w = startWorld(t, miniature.Options{Homes: 1, Interfaces: []string{`"direct*"`, `"per*"`},
		Subnets: `    - {prefix: 192.0.2.0/25, gateway: 192.0.2.1, lease_time: 10m}
    - {prefix: 192.0.2.128/25, gateway: 192.0.2.129, lease_time: 10m}
  match: [option82, vlan, mac]
  vlan_interfaces: ["per{vlan}"]
  unknown_clients: guest
  pools:
    - {name: guests, range: 192.0.2.100-192.0.2.120, for: guests, probe: false}
`,
		Extra: "acl: {source_guard: {direct: [direct0], vlan: [\"per*\"]}, verify_interval: 1h" + acl + "}\n",
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
	direct = place("direct", "direct0", "192.0.2.1", "192.0.2.10", emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x51})
	per = place("per", "per10", "192.0.2.129", "192.0.2.130", emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x52})
	require.NoError(t, w.StartAgent(t.Context()))
	return w, direct, per
}

// unbound reads how many packets the source guard has dropped.
func (w *world) unbound(t *testing.T) int {
	t.Helper()
	m := regexp.MustCompile(`counter packets (\d+) bytes \d+ drop`).FindStringSubmatch(w.nft(t, "list", "chain", "inet", "usher", "unbound"))
	require.NotNil(t, m)
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

// ping tells whether a host gets an echo, from an address of its own.
func ping(t *testing.T, h *lab.Host, from, to string) bool {
	t.Helper()
	_, err := h.Output(t.Context(), "ping", "-c1", "-W1", "-I", from, to)
	return err == nil
}

func TestKernelSourceGuard(t *testing.T) {
	t.Parallel()
	w, direct, per := guardedWorld(t)
	for _, h := range []miniature.Home{direct, per} {
		require.NoError(t, w.Lease(t.Context(), h), "DHCP passes the guard")
		require.True(t, ping(t, h.Host, h.IP.String(), miniature.InternetIP), "the rightful client passes")
	}
	require.Zero(t, w.unbound(t))

	t.Run("a spoofed address is dropped and counted", func(t *testing.T) {
		for _, h := range []miniature.Home{direct, per} {
			before := w.unbound(t)
			spoofed := h.IP.Next().Next().String()
			require.NoError(t, h.Host.IP("addr", "add", spoofed+"/32", "dev", "eth0"))
			require.False(t, ping(t, h.Host, spoofed, miniature.InternetIP))
			require.Equal(t, before+1, w.unbound(t))
			require.True(t, ping(t, h.Host, h.IP.String(), miniature.InternetIP))
		}
	})
	t.Run("of another subscriber too", func(t *testing.T) {
		require.NoError(t, per.Host.IP("addr", "add", direct.IP.String()+"/32", "dev", "eth0"))
		require.False(t, ping(t, per.Host, direct.IP.String(), miniature.InternetIP))
	})
	t.Run("IPv6 is not looked at", func(t *testing.T) {
		// Until duplicate address detection is done, neither end has an address to speak from.
		for h, dev := range map[*lab.Host]string{w.Router: "direct0", direct.Host: "eth0"} {
			eventually(t, 10*time.Second, dev+" has its link-local address", func() (bool, error) {
				out, err := h.Output(t.Context(), "ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link", "-tentative")
				return out != "", err
			})
		}
		_, err := direct.Host.Output(t.Context(), "ping", "-6", "-c1", "-W2", "-I", "eth0", "ff02::1")
		require.NoError(t, err, "neighbour discovery and multicast go on")
	})
	t.Run("a foreign MAC with the right address is dropped", func(t *testing.T) {
		require.NoError(t, direct.Host.IP("link", "set", "dev", "eth0", "address", "00:00:5e:00:53:66"))
		before := w.unbound(t)
		require.False(t, ping(t, direct.Host, direct.IP.String(), miniature.InternetIP))
		require.Equal(t, before+1, w.unbound(t))
	})
	t.Run("a guest gets in by its lease, with its first packet", func(t *testing.T) {
		script := filepath.Join(w.Dir, "first.sh")
		require.NoError(t, os.WriteFile(script, []byte(firstPacketScript), 0o755))
		const clients = 8
		for i := range clients {
			mac := fmt.Sprintf("00:00:5e:00:53:%02x", 0x70+i)
			require.NoError(t, direct.Host.IP("link", "set", "dev", "eth0", "down"))
			require.NoError(t, direct.Host.IP("link", "set", "dev", "eth0", "address", mac))
			require.NoError(t, direct.Host.IP("link", "set", "dev", "eth0", "up"))
			p, err := direct.Host.Start("udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", script, "-t", "10", "-T", "1")
			require.NoError(t, err)
			eventually(t, 15*time.Second, "the client has tried its address", func() (bool, error) {
				return strings.Contains(p.Log(), "first packet"), nil
			})
			require.Contains(t, p.Log(), "first packet answered", "client %d", i)
		}
		require.Contains(t, w.nft(t, "list", "set", "inet", "usher", "bound_direct"), "00:00:5e:00:53:77")
		require.NoError(t, direct.Host.IP("route", "replace", "default", "via", "192.0.2.1"))
		require.Equal(t, "refused", tcp(direct.Host, miniature.EchoAddr), "a guest reaches no more than DNS and its garden")
		ip, _, _ := strings.Cut(strings.TrimSpace(lastBound(t, w)), " ")
		out, code := w.usherOn(t, "acl", "show", ip)
		require.Zero(t, code, out)
		require.Contains(t, out, "wanted guests, in the kernel guests")
		require.Contains(t, out, "it is one of a pool for guests")
	})
	t.Run("reload: off and on again", func(t *testing.T) {
		good, err := os.ReadFile(w.ConfigPath())
		require.NoError(t, err)
		spoofed := per.IP.Next().Next().String()
		reload := func(config string) {
			require.NoError(t, os.WriteFile(w.ConfigPath(), []byte(config), 0o600))
			require.NoError(t, w.Agent.Signal(syscall.SIGHUP))
		}
		reload(strings.ReplaceAll(string(good), "source_guard", "exempt: {addresses: ["+spoofed+"]}, source_guard"))
		eventually(t, 5*time.Second, "an exempt address passes", func() (bool, error) { return ping(t, per.Host, spoofed, miniature.InternetIP), nil })
		reload(strings.ReplaceAll(string(good), "direct: [direct0], vlan: [\"per*\"]", ""))
		eventually(t, 5*time.Second, "the guard is off", func() (bool, error) {
			return !strings.Contains(w.nft(t, "list", "table", "inet", "usher"), "chain source"), nil
		})
		reload(string(good))
		eventually(t, 5*time.Second, "the guard is on", func() (bool, error) { return !ping(t, per.Host, spoofed, miniature.InternetIP), nil })
		require.True(t, ping(t, per.Host, per.IP.String(), miniature.InternetIP))
	})
	t.Run("a release takes the element away where the line is vouched for, unless the ERP binds it", func(t *testing.T) {
		holds := func(set, text string) bool {
			return strings.Contains(w.nft(t, "list", "set", "inet", "usher", set), text)
		}
		require.True(t, holds("bound_vlan", per.IP.String()))
		require.True(t, holds("bound_direct", direct.IP.String()))
		// The guest's wire is everybody's, who can write its MAC: its element stays until the lease ends.
		p, err := w.DHCPClient(miniature.Home{Host: direct.Host}, "-R")
		require.NoError(t, err)
		guest := boundTo(t, p, 1)
		const itsMAC = "00:00:5e:00:53:77"
		require.True(t, holds("bound_direct", guest.String()+" . "+itsMAC))
		// Others give the lease back in its name: from another wire nothing comes of it, on the same one nobody can tell.
		var far *probe.UDP
		require.NoError(t, per.Host.Do(func() (err error) {
			far, err = probe.OpenUnicast(netip.AddrPortFrom(per.IP, 68), "", netip.MustParseAddrPort("192.0.2.1:67"))
			return err
		}))
		defer far.Close()
		var near *probe.Link
		require.NoError(t, direct.Host.Do(func() (err error) {
			near, err = probe.OpenLink("eth0", net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x66})
			return err
		}))
		defer near.Close()
		for _, f := range []struct {
			port          probe.Port
			kind          probe.Kind
			outcome, left string
		}{
			{far, probe.Release, "release_unknown", "bound"}, {far, probe.Decline, "decline_unknown", "bound"},
			{near, probe.Decline, "pool_declined", "declined"}, {near, probe.Release, "pool_released", "released"},
		} {
			before := w.outcomes(t)[f.outcome]
			q := probe.Query{Kind: f.kind, MAC: net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x77}, ServerID: netip.MustParseAddr("192.0.2.1")}
			if q.ClientIP = guest; f.kind == probe.Decline {
				q.ClientIP, q.RequestedIP = netip.Addr{}, guest
			}
			client := probe.Client{Port: f.port, Timeout: 10 * time.Millisecond}
			_, err := client.Ask(t.Context(), q)
			require.NoError(t, err)
			eventually(t, 5*time.Second, f.outcome, func() (bool, error) { return w.outcomes(t)[f.outcome] == before+1, nil })
			w.leaseState(t, guest, f.left)
			require.True(t, holds("bound_direct", guest.String()+" . "+itsMAC), f.outcome)
		}
		renews(t, p, guest)
		w.leaseState(t, guest, "bound")
		require.NoError(t, p.Signal(syscall.SIGTERM))
		w.leaseState(t, guest, "released")
		require.True(t, w.keptUntil(t, guest).After(time.Now()))

		require.NoError(t, per.Host.IP("addr", "flush", "dev", "eth0"))
		p, err = w.DHCPClient(per, "-R")
		require.NoError(t, err)
		eventually(t, 15*time.Second, "bound", func() (bool, error) { return strings.Contains(p.Log(), "bound ip="), nil })
		require.NoError(t, p.Signal(syscall.SIGTERM))
		eventually(t, 3*time.Second, "the element is gone", func() (bool, error) { return !holds("bound_vlan", per.IP.String()), nil })
		require.True(t, holds("bound_direct", direct.IP.String()), "bound by the ERP with its MAC")
		require.True(t, holds("bound_direct", guest.String()+" . 00:00:5e:00:53:77"), "kept")
	})
	t.Run("a new interface of a pattern is guarded", func(t *testing.T) {
		host, err := w.Lab.Host("late")
		require.NoError(t, err)
		require.NoError(t, w.Lab.Wire(host, "eth0", w.Router, "per11"))
		require.NoError(t, w.Router.IP("addr", "add", "203.0.113.129/25", "dev", "per11"))
		require.NoError(t, host.IP("addr", "add", "203.0.113.130/25", "dev", "eth0"))
		eventually(t, 2*time.Second, "it is guarded", func() (bool, error) { return !ping(t, host, "203.0.113.130", "203.0.113.129"), nil })
	})
}

// lastBound returns the address of the newest acknowledgement.
func lastBound(t *testing.T, w *world) string {
	t.Helper()
	for _, e := range w.status(t).DHCP.Events {
		if e.Type == "request" && e.YourIP.IsValid() {
			return e.YourIP.String()
		}
	}
	t.Fatal("nobody was acknowledged")
	return ""
}

// firstPacketScript pings the gateway in the moment the address is there.
const firstPacketScript = `#!/bin/sh
case "$1" in
deconfig)
	ip -4 addr flush dev "$interface"
	ip link set dev "$interface" up
	;;
bound)
	ip -4 addr replace "$ip/$mask" dev "$interface"
	if ping -c1 -W1 "${router%% *}" >/dev/null; then echo "first packet answered"; else echo "first packet lost"; fi
	;;
esac
`
