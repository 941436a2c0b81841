package main

import (
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/userside/emulator"
)

const networkdPath = "/lib/systemd/systemd-networkd"

// Real clients behind a real relay: a first lease, a reboot that asks for the
// old address, renewals by unicast past the relay at T1, and the release.
func TestKernelPeersClients(t *testing.T) {
	t.Parallel()
	needKernel(t, "dhclient", "dhcpcd", networkdPath, "unshare")
	w := startWorld(t, worldOptions{homes: 4, times: shortTimes("2s", "50s")})
	require.NoError(t, w.startAgent(t.Context()))
	t.Run("all", func(t *testing.T) {
		t.Run("dhclient", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 0, 0x11)
			c := w.watchHome(t, h)
			p := w.dhclient(t, h.host)
			logged(t, p, "bound to "+h.ip.String(), 1)
			p.Kill()
			p = w.dhclient(t, h.host)
			logged(t, p, "bound to "+h.ip.String(), 1)
			require.NotContains(t, p.Log(), "DHCPDISCOVER")
			logged(t, p, "bound to "+h.ip.String(), 2) // T1
			w.sees(t, "a renewal past the relay", h.ip, renewedPastRelay)
			p.Kill()
			r := w.dhclient(t, h.host, "-r")
			require.NoError(t, r.Wait(t.Context()))
			w.leaseState(t, h.ip, "released")
			c.golden(t, "dhclient")
		})
		t.Run("udhcpc", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 1, 0x12)
			c := w.watchHome(t, h)
			p, err := w.dhcpClient(h)
			require.NoError(t, err)
			logged(t, p, "bound ip="+h.ip.String(), 1)
			p.Kill()
			p, err = w.dhcpClient(h, "-R", "-r", h.ip.String()) // its way to ask for the old address: in the DISCOVER
			require.NoError(t, err)
			logged(t, p, "bound ip="+h.ip.String(), 1)
			c.golden(t, "udhcpc")
			w.renewAndRelease(t, h, p) // it does not look at T1
			w.sees(t, "a renewal past the relay", h.ip, renewedPastRelay)
		})
		t.Run("dhcpcd", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 2, 0x13)
			c := w.watchHome(t, h)
			p := w.dhcpcd(t, h.host)
			logged(t, p, "leased "+h.ip.String(), 1)
			w.sees(t, "a renewal past the relay", h.ip, renewedPastRelay)
			p.Kill() // power cut
			require.NoError(t, h.host.IP("addr", "flush", "dev", "eth0"))
			p = w.dhcpcd(t, h.host)
			logged(t, p, "leased "+h.ip.String(), 1)
			require.NotContains(t, p.Log(), "soliciting a DHCP lease")
			eventually(t, 10*time.Second, "dhcpcd releases", func() (bool, error) {
				_ = p.Signal(syscall.SIGALRM) // now and then it overlooks one
				x, err := w.client.Explain(t.Context(), h.ip.String())
				return err == nil && len(x.Leases) == 1 && x.Leases[0].State.String() == "released", err
			})
			c.golden(t, "dhcpcd")
		})
		t.Run("systemd-networkd", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 3, 0x14)
			c := w.watchHome(t, h)
			p := w.networkd(t, h.host)
			logged(t, p, "DHCPv4 address "+h.ip.String(), 1)
			w.sees(t, "a renewal past the relay", h.ip, renewedPastRelay)
			require.NoError(t, p.Signal(syscall.SIGTERM))
			w.leaseState(t, h.ip, "released")
			c.golden(t, "networkd")
		})
	})
}

// A client whose server is away asks everybody at T2, through the relay, and
// keeps its address when the server is back.
func TestKernelPeersRebindAfterTheServerWasAway(t *testing.T) {
	t.Parallel()
	needKernel(t, "dhclient")
	w := startWorld(t, worldOptions{homes: 1, times: shortTimes("2s", "4s")})
	require.NoError(t, w.startAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	p := w.dhclient(t, h.host)
	logged(t, p, "bound to "+h.ip.String(), 1)
	w.agent.Kill()
	c := w.watchHome(t, h)
	broadcast := "DHCPREQUEST for " + h.ip.String() + " on eth0 to 255.255.255.255"
	logged(t, p, broadcast, strings.Count(p.Log(), broadcast)+1)
	require.NoError(t, w.startAgent(t.Context()))
	w.sees(t, "the rebinding client is acknowledged", h.ip, rebound)
	logged(t, p, "bound to "+h.ip.String(), 2)
	p.Kill()
	c.golden(t, "rebind")
}

// What changes in the ERP or at the customer while a lease lives.
func TestKernelPeersChanges(t *testing.T) {
	t.Parallel()
	needKernel(t, "dhclient")
	w := startWorld(t, worldOptions{homes: 5, times: shortTimes("2s", "50s")})
	require.NoError(t, w.startAgent(t.Context()))
	w.homes[0] = w.setMAC(t, 0, 0x11)

	t.Run("port move", func(t *testing.T) {
		// The customer of port 1 moves to port 2 and back comes another one.
		h, other := w.homes[0], w.homes[1]
		p := w.dhclient(t, h.host)
		logged(t, p, "bound to "+h.ip.String(), 1)
		p.Kill()
		c := w.watchHome(t, h)
		require.NoError(t, w.erp.Link(h.id, w.device, 2))
		require.NoError(t, w.erp.Link(other.id, w.device, 1))
		w.bound(t, other.ip, 1)
		p = w.dhclient(t, h.host) // INIT-REBOOT with the old address
		logged(t, p, "bound to "+other.ip.String(), 1)
		require.Contains(t, p.Log(), "DHCPNAK")
		p.Kill()
		c.golden(t, "port-move")
	})
	t.Run("reservation change under a live lease", func(t *testing.T) {
		h := w.setMAC(t, 2, 0x13)
		next := netip.MustParseAddr("198.51.100.39")
		p := w.dhclient(t, h.host)
		logged(t, p, "bound to "+h.ip.String(), 1)
		began := time.Now()
		require.NoError(t, w.erp.AddIP(h.id, next, emulator.MAC{}))
		require.NoError(t, w.erp.RemoveIP(h.id, h.ip))
		w.bound(t, next, 3)
		c := w.watchHome(t, h)
		logged(t, p, "bound to "+next.String(), 1)
		p.Kill()
		require.Contains(t, p.Log(), "DHCPNAK")
		t.Logf("the new address was there %v after the change in the ERP (T1 2s, poll 1s)", time.Since(began))
		c.golden(t, "reservation-change")
	})
	t.Run("customer router swap", func(t *testing.T) {
		h := w.setMAC(t, 3, 0x14)
		p, err := w.dhcpClient(h)
		require.NoError(t, err)
		logged(t, p, "bound ip="+h.ip.String(), 1)
		p.Kill() // the old box is unplugged without a word
		h = w.setMAC(t, 3, 0x99)
		c := w.watchHome(t, h)
		p, err = w.dhcpClient(h)
		require.NoError(t, err)
		logged(t, p, "bound ip="+h.ip.String(), 1)
		p.Kill()
		eventually(t, 10*time.Second, "the ERP has the new MAC", func() (bool, error) {
			got, _ := w.erp.Customer(h.id)
			return got.Addresses[0].MAC.String() == h.mac, nil
		})
		c.golden(t, "router-swap")
	})
	t.Run("decline of an address in use", func(t *testing.T) {
		h := w.setMAC(t, 4, 0x15)
		c := w.watchHome(t, h)
		// Somebody on the customer's wire has set the address by hand.
		require.NoError(t, w.access.IP("addr", "add", h.ip.String()+"/32", "dev", h.port))
		p, err := w.dhcpClient(h, "-a", "-A", "1")
		require.NoError(t, err)
		w.sees(t, "the DECLINE", h.ip, func(e console.EventView) bool { return e.Type == "decline" && e.Outcome == "declined" })
		require.NoError(t, w.access.IP("addr", "del", h.ip.String()+"/32", "dev", h.port))
		logged(t, p, "bound ip="+h.ip.String(), 1) // the binding is the ERP's word: the same address again
		p.Kill()
		c.golden(t, "decline")
	})
}

// bound waits until the agent's snapshot has an address on a port.
func (w *world) bound(t *testing.T, ip netip.Addr, port uint32) {
	t.Helper()
	eventually(t, 10*time.Second, "the agent knows of the change", func() (bool, error) {
		x, err := w.client.Explain(t.Context(), ip.String())
		return err == nil && len(x.Bindings) == 1 && x.Bindings[0].Port == port, err
	})
}

// The server goes away between OFFER and REQUEST; the one that comes after it
// acknowledges what the one before offered.
func TestKernelPeersRestartBetweenOfferAndRequest(t *testing.T) {
	w := startWorld(t, worldOptions{homes: 1, noRelay: true})
	require.NoError(t, w.startAgent(t.Context()))
	c := &capture{}
	c.watch(t, "at the router", w.router, "access", "")
	relay, err := w.access.ListenPacket(worldGateway + ":67")
	require.NoError(t, err)
	defer relay.Close()
	client := w.relayClient(relay)
	q := probe.Query{Kind: probe.Discover, MAC: []byte{0, 0, 0x5e, 0, 0x53, 0x17}, GIAddr: netip.MustParseAddr(worldGateway), RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}
	offer, err := client.Ask(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, probe.Offered, offer.Answer)
	w.agent.Kill()
	require.NoError(t, w.startAgent(t.Context()))
	q.Kind, q.RequestedIP, q.ServerID = probe.Selecting, offer.Address(), offer.ServerID()
	ack, err := client.Ask(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, probe.Acked, ack.Answer)
	require.Equal(t, w.homes[0].ip, ack.Address())

	// What the forger and the wrong client get.
	for _, x := range []struct {
		name string
		q    probe.Query
		want probe.Answer
	}{
		{"two option 82", probe.Query{Kind: probe.Discover, RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}, {1, 3, 'g', 'e', '2'}}}, probe.Silence},
		{"a cut option 82", probe.Query{Kind: probe.Discover, RelayInfo: [][]byte{{1, 9, 'g', 'e', '1'}}}, probe.Silence},
		{"another server was chosen", probe.Query{Kind: probe.Selecting, RequestedIP: w.homes[0].ip, ServerID: netip.MustParseAddr("192.0.2.99"), RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}, probe.Silence},
		{"another address", probe.Query{Kind: probe.InitReboot, RequestedIP: netip.MustParseAddr("198.51.100.99"), RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}, probe.Naked},
		{"inform", probe.Query{Kind: probe.Inform, ClientIP: w.homes[0].ip, RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}, probe.Acked},
	} {
		x.q.MAC, x.q.GIAddr = q.MAC, q.GIAddr
		short := client
		if x.want == probe.Silence {
			short.Timeout = 300 * time.Millisecond
		}
		s, err := short.Ask(t.Context(), x.q)
		require.NoError(t, err)
		require.Equal(t, x.want, s.Answer, x.name)
	}
	c.golden(t, "restart-between-offer-and-request")
}

// dnsmasq as the relay adds no option 82, so customers are found by MAC.
func TestKernelPeersDnsmasqRelay(t *testing.T) {
	needKernel(t, "dnsmasq")
	w := startWorld(t, worldOptions{homes: 1, noRelay: true})
	h := w.setMAC(t, 0, 0x11)
	require.NoError(t, w.erp.SetIPMAC(h.ip, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x11}))
	require.NoError(t, w.startAgent(t.Context()))
	relay, err := w.access.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-facility=-",
		"--pid-file="+filepath.Join(w.dir, "dnsmasq.pid"), "--user=root", "--log-dhcp", "--dhcp-relay="+worldGateway+",10.0.0.1")
	require.NoError(t, err)
	logged(t, relay, "DHCP relay from "+worldGateway+" to 10.0.0.1", 1)
	c := w.watchHome(t, h)
	p, err := w.dhcpClient(h, "-R")
	require.NoError(t, err)
	logged(t, p, "bound ip="+h.ip.String(), 1)
	c.golden(t, "dnsmasq-relay")
	w.renewAndRelease(t, h, p)
}

// The switch relays to a second relay, that relays to the router: giaddr and
// option 82 are the first one's, and the answer goes to it.
func TestKernelPeersChainOfTwoRelays(t *testing.T) {
	w := startWorld(t, worldOptions{homes: 1, chain: true})
	require.NoError(t, w.startAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	c := w.watchHome(t, h)
	p, err := w.dhcpClient(h)
	require.NoError(t, err)
	logged(t, p, "bound ip="+h.ip.String(), 1)
	p.Kill()
	_, err = h.host.Output(t.Context(), "ping", "-c1", "-W2", worldInternet)
	require.NoError(t, err)
	c.golden(t, "chain-of-relays")
}

// Clients without a relay, on every kind of interface that the router may have towards them.
func TestKernelPeersDirect(t *testing.T) {
	kinds := []struct {
		name   string
		prefix string // the router is the first address
		wire   func(*testing.T, *world, home)
	}{
		{"veth", "192.0.2.0/28", func(t *testing.T, w *world, h home) {
			require.NoError(t, w.lab.Wire(h.host, "eth0", w.router, "dveth"))
			require.NoError(t, w.router.IP("addr", "add", "192.0.2.1/28", "dev", "dveth"))
		}},
		{"unnumbered", "192.0.2.16/28", func(t *testing.T, w *world, h home) {
			require.NoError(t, w.lab.Wire(h.host, "eth0", w.router, "dunnum"))
			require.NoError(t, w.router.IP("addr", "add", "192.0.2.17/32", "dev", "lo"))
			require.NoError(t, w.router.IP("route", "add", "192.0.2.18/32", "dev", "dunnum"))
		}},
		{"bridge", "192.0.2.32/28", func(t *testing.T, w *world, h home) {
			require.NoError(t, w.lab.Wire(h.host, "eth0", w.router, "bport"))
			require.NoError(t, w.router.IP("link", "add", "dbridge", "type", "bridge"))
			require.NoError(t, w.router.IP("link", "set", "dev", "bport", "master", "dbridge"))
			require.NoError(t, w.router.IP("link", "set", "dev", "dbridge", "up"))
			require.NoError(t, w.router.IP("addr", "add", "192.0.2.33/28", "dev", "dbridge"))
		}},
		{"macvlan", "192.0.2.48/28", func(t *testing.T, w *world, h home) {
			require.NoError(t, w.lab.Wire(h.host, "eth0", w.router, "lower"))
			// Otherwise the interface below, which is not served, answers ARP for the address too.
			require.NoError(t, w.router.Sysctl("net.ipv4.conf.lower.arp_ignore", "1"))
			require.NoError(t, w.router.IP("link", "add", "dmacvlan", "link", "lower", "type", "macvlan", "mode", "bridge"))
			require.NoError(t, w.router.IP("link", "set", "dev", "dmacvlan", "up"))
			require.NoError(t, w.router.IP("addr", "add", "192.0.2.49/28", "dev", "dmacvlan"))
		}},
	}
	var subnets strings.Builder
	for _, k := range kinds {
		p := netip.MustParsePrefix(k.prefix)
		subnets.WriteString("    - {prefix: " + k.prefix + ", gateway: " + p.Addr().Next().String() + ", lease_time: 10m}\n")
	}
	w := startWorld(t, worldOptions{homes: 0, noRelay: true, interfaces: []string{`"d*"`}, subnets: subnets.String()})
	homes := make([]home, len(kinds))
	for i, k := range kinds {
		host, err := w.lab.Host(k.name)
		require.NoError(t, err)
		gateway := netip.MustParsePrefix(k.prefix).Addr().Next()
		h := home{host: host, ip: gateway.Next()}
		k.wire(t, w, h)
		mac := emulator.MAC{0, 0, 0x5e, 0, 0x53, byte(0x41 + i)}
		h.mac = mac.String()
		require.NoError(t, host.IP("link", "set", "dev", "eth0", "address", h.mac))
		h.id, err = w.erp.AddCustomer(emulator.Customer{Login: k.name, FullName: k.name, State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: h.ip, MAC: mac}}})
		require.NoError(t, err)
		homes[i] = h
	}
	require.NoError(t, w.startAgent(t.Context()))
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			h := homes[i]
			c := &capture{}
			c.watch(t, "at the customer", h.host, "eth0", h.mac)
			p, err := w.dhcpClient(h, "-R")
			require.NoError(t, err)
			logged(t, p, "bound ip="+h.ip.String(), 1)
			c.golden(t, "direct-"+k.name)
			_, err = h.host.Output(t.Context(), "ping", "-c1", "-W2", worldInternet)
			require.NoError(t, err)
			w.renewAndRelease(t, h, p)
		})
	}
}

// With on_binding_change: shorten a client behind a relay, which would not hear
// a NAK for its renewal past the relay, is given a minute, asks through the relay within
// it, and takes its new address.
func TestKernelPeersReservationChangeShortened(t *testing.T) {
	t.Parallel()
	needKernel(t, "dhclient")
	w := startWorld(t, worldOptions{
		homes: 1, times: "lease_time: 10m\n      renew_time: 2s\n      rebind_time: 9m", subnets: "  on_binding_change: shorten\n",
	})
	require.NoError(t, w.startAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	next := netip.MustParseAddr("198.51.100.39")
	p := w.dhclient(t, h.host)
	logged(t, p, "bound to "+h.ip.String(), 1)
	require.NoError(t, w.erp.AddIP(h.id, next, emulator.MAC{}))
	require.NoError(t, w.erp.RemoveIP(h.id, h.ip))
	w.bound(t, next, 1)
	w.sees(t, "the short lease", h.ip, func(e console.EventView) bool { return e.Outcome == "ack_shortened" && !e.Relay.IsValid() })
	began := time.Now()
	eventually(t, 90*time.Second, "the client moves", func() (bool, error) {
		return strings.Contains(p.Log(), "bound to "+next.String()), nil
	})
	require.Less(t, time.Since(began), 75*time.Second, "within the short lease and a first DISCOVER")
	require.Contains(t, p.Log(), "DHCPNAK")
	w.sees(t, "the refusal through the relay", next, func(e console.EventView) bool {
		return e.Outcome == "nak_wrong_address" && e.Relay.IsValid()
	})
	p.Kill()
}
