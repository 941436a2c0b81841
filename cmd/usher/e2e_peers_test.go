package main

import (
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

const networkdPath = "/lib/systemd/systemd-networkd"

// Real clients behind a real relay: a first lease, a reboot that asks for the
// old address, renewals by unicast past the relay at T1, and the release.
func TestKernelPeersClients(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "dhclient", "dhcpcd", networkdPath, "unshare")
	w := startWorld(t, miniature.Options{Homes: 4, Times: shortTimes("2s", "50s")})
	require.NoError(t, w.StartAgent(t.Context()))
	t.Run("all", func(t *testing.T) {
		t.Run("dhclient", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 0, 0x11)
			c := w.watchHome(t, h)
			p := w.dhclient(t, h.Host)
			logged(t, p, "bound to "+h.IP.String(), 1)
			p.Kill()
			p = w.dhclient(t, h.Host)
			logged(t, p, "bound to "+h.IP.String(), 1)
			require.NotContains(t, p.Log(), "DHCPDISCOVER")
			logged(t, p, "bound to "+h.IP.String(), 2) // T1
			w.sees(t, "a renewal past the relay", h.IP, renewedPastRelay)
			p.Kill()
			r := w.dhclient(t, h.Host, "-r")
			require.NoError(t, r.Wait(t.Context()))
			w.leaseState(t, h.IP, "released")
			c.golden(t, "dhclient")
		})
		t.Run("udhcpc", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 1, 0x12)
			c := w.watchHome(t, h)
			p, err := w.DHCPClient(h)
			require.NoError(t, err)
			logged(t, p, "bound ip="+h.IP.String(), 1)
			p.Kill()
			p, err = w.DHCPClient(h, "-R", "-r", h.IP.String()) // its way to ask for the old address: in the DISCOVER
			require.NoError(t, err)
			logged(t, p, "bound ip="+h.IP.String(), 1)
			c.golden(t, "udhcpc")
			w.renewAndRelease(t, h, p) // it does not look at T1
			w.sees(t, "a renewal past the relay", h.IP, renewedPastRelay)
		})
		t.Run("dhcpcd", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 2, 0x13)
			c := w.watchHome(t, h)
			p := w.dhcpcd(t, h.Host)
			logged(t, p, "leased "+h.IP.String(), 1)
			w.sees(t, "a renewal past the relay", h.IP, renewedPastRelay)
			p.Kill() // power cut
			require.NoError(t, h.Host.IP("addr", "flush", "dev", "eth0"))
			p = w.dhcpcd(t, h.Host)
			logged(t, p, "leased "+h.IP.String(), 1)
			require.NotContains(t, p.Log(), "soliciting a DHCP lease")
			eventually(t, 10*time.Second, "dhcpcd releases", func() (bool, error) {
				_ = p.Signal(syscall.SIGALRM) // now and then it overlooks one
				x, err := w.Client.Explain(t.Context(), h.IP.String())
				return err == nil && len(x.Leases) == 1 && x.Leases[0].State.String() == "released", err
			})
			c.golden(t, "dhcpcd")
		})
		t.Run("systemd-networkd", func(t *testing.T) {
			t.Parallel()
			h := w.setMAC(t, 3, 0x14)
			c := w.watchHome(t, h)
			p := w.networkd(t, h.Host)
			logged(t, p, "DHCPv4 address "+h.IP.String(), 1)
			w.sees(t, "a renewal past the relay", h.IP, renewedPastRelay)
			require.NoError(t, p.Signal(syscall.SIGTERM))
			w.leaseState(t, h.IP, "released")
			c.golden(t, "networkd")
		})
	})
}

// A client whose server is away asks everybody at T2, through the relay, and
// keeps its address when the server is back.
func TestKernelPeersRebindAfterTheServerWasAway(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "dhclient")
	w := startWorld(t, miniature.Options{Homes: 1, Times: shortTimes("2s", "4s")})
	require.NoError(t, w.StartAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	p := w.dhclient(t, h.Host)
	logged(t, p, "bound to "+h.IP.String(), 1)
	w.Agent.Kill()
	c := w.watchHome(t, h)
	broadcast := "DHCPREQUEST for " + h.IP.String() + " on eth0 to 255.255.255.255"
	logged(t, p, broadcast, strings.Count(p.Log(), broadcast)+1)
	require.NoError(t, w.StartAgent(t.Context()))
	w.sees(t, "the rebinding client is acknowledged", h.IP, rebound)
	logged(t, p, "bound to "+h.IP.String(), 2)
	p.Kill()
	c.golden(t, "rebind")
}

// What changes in the ERP or at the customer while a lease lives.
func TestKernelPeersChanges(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "dhclient")
	w := startWorld(t, miniature.Options{Homes: 5, Times: shortTimes("2s", "50s")})
	require.NoError(t, w.StartAgent(t.Context()))
	w.Homes[0] = w.setMAC(t, 0, 0x11)

	t.Run("port move", func(t *testing.T) {
		// The customer of port 1 moves to port 2 and back comes another one.
		h, other := w.Homes[0], w.Homes[1]
		p := w.dhclient(t, h.Host)
		logged(t, p, "bound to "+h.IP.String(), 1)
		p.Kill()
		c := w.watchHome(t, h)
		require.NoError(t, w.ERP.Link(h.ID, w.Device, 2))
		require.NoError(t, w.ERP.Link(other.ID, w.Device, 1))
		w.bound(t, other.IP, 1)
		p = w.dhclient(t, h.Host) // INIT-REBOOT with the old address
		logged(t, p, "bound to "+other.IP.String(), 1)
		require.Contains(t, p.Log(), "DHCPNAK")
		p.Kill()
		c.golden(t, "port-move")
	})
	t.Run("reservation change under a live lease", func(t *testing.T) {
		h := w.setMAC(t, 2, 0x13)
		next := netip.MustParseAddr("198.51.100.39")
		p := w.dhclient(t, h.Host)
		logged(t, p, "bound to "+h.IP.String(), 1)
		began := time.Now()
		require.NoError(t, w.ERP.AddIP(h.ID, next, emulator.MAC{}))
		require.NoError(t, w.ERP.RemoveIP(h.ID, h.IP))
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
		p, err := w.DHCPClient(h)
		require.NoError(t, err)
		logged(t, p, "bound ip="+h.IP.String(), 1)
		p.Kill() // the old box is unplugged without a word
		h = w.setMAC(t, 3, 0x99)
		c := w.watchHome(t, h)
		p, err = w.DHCPClient(h)
		require.NoError(t, err)
		logged(t, p, "bound ip="+h.IP.String(), 1)
		p.Kill()
		eventually(t, 10*time.Second, "the ERP has the new MAC", func() (bool, error) {
			got, _ := w.ERP.Customer(h.ID)
			return got.Addresses[0].MAC.String() == h.MAC, nil
		})
		c.golden(t, "router-swap")
	})
	t.Run("decline of an address in use", func(t *testing.T) {
		h := w.setMAC(t, 4, 0x15)
		c := w.watchHome(t, h)
		// Somebody on the customer's wire has set the address by hand.
		require.NoError(t, w.Access.IP("addr", "add", h.IP.String()+"/32", "dev", h.Port))
		p, err := w.DHCPClient(h, "-a", "-A", "1")
		require.NoError(t, err)
		w.sees(t, "the DECLINE", h.IP, func(e console.EventView) bool { return e.Type == "decline" && e.Outcome == "declined" })
		require.NoError(t, w.Access.IP("addr", "del", h.IP.String()+"/32", "dev", h.Port))
		logged(t, p, "bound ip="+h.IP.String(), 1) // the binding is the ERP's word: the same address again
		p.Kill()
		c.golden(t, "decline")
	})
}

// bound waits until the agent's snapshot has an address on a port.
func (w *world) bound(t *testing.T, ip netip.Addr, port uint32) {
	t.Helper()
	eventually(t, 10*time.Second, "the agent knows of the change", func() (bool, error) {
		x, err := w.Client.Explain(t.Context(), ip.String())
		return err == nil && len(x.Bindings) == 1 && x.Bindings[0].Port == port, err
	})
}

// The server goes away between OFFER and REQUEST; the one that comes after it
// acknowledges what the one before offered.
func TestKernelPeersRestartBetweenOfferAndRequest(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, miniature.Options{Homes: 1})
	require.NoError(t, w.StartAgent(t.Context()))
	c := &capture{}
	c.watch(t, "at the router", w.Router, "access", "")
	relay, err := w.Access.ListenPacket(miniature.GatewayIP + ":67")
	require.NoError(t, err)
	defer relay.Close()
	client := w.relayClient(relay)
	q := probe.Query{Kind: probe.Discover, MAC: []byte{0, 0, 0x5e, 0, 0x53, 0x17}, GIAddr: netip.MustParseAddr(miniature.GatewayIP), RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}
	offer, err := client.Ask(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, probe.Offered, offer.Answer)
	w.Agent.Kill()
	require.NoError(t, w.StartAgent(t.Context()))
	q.Kind, q.RequestedIP, q.ServerID = probe.Selecting, offer.Address(), offer.ServerID()
	ack, err := client.Ask(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, probe.Acked, ack.Answer)
	require.Equal(t, w.Homes[0].IP, ack.Address())

	// What the forger and the wrong client get.
	for _, x := range []struct {
		name string
		q    probe.Query
		want probe.Answer
	}{
		{"two option 82", probe.Query{Kind: probe.Discover, RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}, {1, 3, 'g', 'e', '2'}}}, probe.Silence},
		{"a cut option 82", probe.Query{Kind: probe.Discover, RelayInfo: [][]byte{{1, 9, 'g', 'e', '1'}}}, probe.Silence},
		{"another server was chosen", probe.Query{Kind: probe.Selecting, RequestedIP: w.Homes[0].IP, ServerID: netip.MustParseAddr("192.0.2.99"), RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}, probe.Silence},
		{"another address", probe.Query{Kind: probe.InitReboot, RequestedIP: netip.MustParseAddr("198.51.100.99"), RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}, probe.Naked},
		{"inform", probe.Query{Kind: probe.Inform, ClientIP: w.Homes[0].IP, RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}}}, probe.Acked},
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
	t.Parallel()
	labtest.Need(t, "dnsmasq")
	w := worldWithoutRelay(t, miniature.Options{Homes: 1})
	h := w.setMAC(t, 0, 0x11)
	require.NoError(t, w.ERP.SetIPMAC(h.IP, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x11}))
	require.NoError(t, w.StartAgent(t.Context()))
	relay, err := w.Access.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-facility=-",
		"--pid-file="+filepath.Join(w.Dir, "dnsmasq.pid"), "--user=root", "--log-dhcp", "--dhcp-relay="+miniature.GatewayIP+",10.0.0.1")
	require.NoError(t, err)
	logged(t, relay, "DHCP relay from "+miniature.GatewayIP+" to 10.0.0.1", 1)
	c := w.watchHome(t, h)
	p, err := w.DHCPClient(h, "-R")
	require.NoError(t, err)
	logged(t, p, "bound ip="+h.IP.String(), 1)
	c.golden(t, "dnsmasq-relay")
	w.renewAndRelease(t, h, p)
}

// The switch relays to a second relay, that relays to the router: giaddr and
// option 82 are the first one's, and the answer goes to it.
func TestKernelPeersChainOfTwoRelays(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 1, Chain: true})
	require.NoError(t, w.StartAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	c := w.watchHome(t, h)
	p, err := w.DHCPClient(h)
	require.NoError(t, err)
	logged(t, p, "bound ip="+h.IP.String(), 1)
	p.Kill()
	_, err = h.Host.Output(t.Context(), "ping", "-c1", "-W2", miniature.InternetIP)
	require.NoError(t, err)
	c.golden(t, "chain-of-relays")
}

// Clients without a relay, on every kind of interface that the router may have towards them.
func TestKernelPeersDirect(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name   string
		prefix string // the router is the first address
		wire   func(*testing.T, *world, miniature.Home)
	}{
		{"veth", "192.0.2.0/28", func(t *testing.T, w *world, h miniature.Home) {
			require.NoError(t, w.Lab.Wire(h.Host, "eth0", w.Router, "dveth"))
			require.NoError(t, w.Router.IP("addr", "add", "192.0.2.1/28", "dev", "dveth"))
		}},
		{"unnumbered", "192.0.2.16/28", func(t *testing.T, w *world, h miniature.Home) {
			require.NoError(t, w.Lab.Wire(h.Host, "eth0", w.Router, "dunnum"))
			require.NoError(t, w.Router.IP("addr", "add", "192.0.2.17/32", "dev", "lo"))
			require.NoError(t, w.Router.IP("route", "add", "192.0.2.18/32", "dev", "dunnum"))
		}},
		{"bridge", "192.0.2.32/28", func(t *testing.T, w *world, h miniature.Home) {
			require.NoError(t, w.Lab.Wire(h.Host, "eth0", w.Router, "bport"))
			require.NoError(t, w.Router.IP("link", "add", "dbridge", "type", "bridge"))
			require.NoError(t, w.Router.IP("link", "set", "dev", "bport", "master", "dbridge"))
			require.NoError(t, w.Router.IP("link", "set", "dev", "dbridge", "up"))
			require.NoError(t, w.Router.IP("addr", "add", "192.0.2.33/28", "dev", "dbridge"))
		}},
		{"macvlan", "192.0.2.48/28", func(t *testing.T, w *world, h miniature.Home) {
			require.NoError(t, w.Lab.Wire(h.Host, "eth0", w.Router, "lower"))
			// Otherwise the interface below, which is not served, answers ARP for the address too.
			require.NoError(t, w.Router.Sysctl("net.ipv4.conf.lower.arp_ignore", "1"))
			require.NoError(t, w.Router.IP("link", "add", "dmacvlan", "link", "lower", "type", "macvlan", "mode", "bridge"))
			require.NoError(t, w.Router.IP("link", "set", "dev", "dmacvlan", "up"))
			require.NoError(t, w.Router.IP("addr", "add", "192.0.2.49/28", "dev", "dmacvlan"))
		}},
	}
	var subnets strings.Builder
	for _, k := range kinds {
		p := netip.MustParsePrefix(k.prefix)
		subnets.WriteString("    - {prefix: " + k.prefix + ", gateway: " + p.Addr().Next().String() + ", lease_time: 10m}\n")
	}
	w := worldWithoutRelay(t, miniature.Options{Homes: 0, Interfaces: []string{`"d*"`}, Subnets: subnets.String()})
	homes := make([]miniature.Home, len(kinds))
	for i, k := range kinds {
		host, err := w.Lab.Host(k.name)
		require.NoError(t, err)
		gateway := netip.MustParsePrefix(k.prefix).Addr().Next()
		h := miniature.Home{Host: host, IP: gateway.Next()}
		k.wire(t, w, h)
		mac := emulator.MAC{0, 0, 0x5e, 0, 0x53, byte(0x41 + i)}
		h.MAC = mac.String()
		require.NoError(t, host.IP("link", "set", "dev", "eth0", "address", h.MAC))
		h.ID, err = w.ERP.AddCustomer(emulator.Customer{Login: k.name, FullName: k.name, State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: h.IP, MAC: mac}}})
		require.NoError(t, err)
		homes[i] = h
	}
	require.NoError(t, w.StartAgent(t.Context()))
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			h := homes[i]
			c := &capture{}
			c.watch(t, "at the customer", h.Host, "eth0", h.MAC)
			p, err := w.DHCPClient(h, "-R")
			require.NoError(t, err)
			logged(t, p, "bound ip="+h.IP.String(), 1)
			c.golden(t, "direct-"+k.name)
			_, err = h.Host.Output(t.Context(), "ping", "-c1", "-W2", miniature.InternetIP)
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
	labtest.Need(t, "dhclient")
	w := startWorld(t, miniature.Options{
		Homes: 1, Times: "lease_time: 10m\n      renew_time: 2s\n      rebind_time: 9m", Subnets: "  on_binding_change: shorten\n",
	})
	require.NoError(t, w.StartAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	next := netip.MustParseAddr("198.51.100.39")
	p := w.dhclient(t, h.Host)
	logged(t, p, "bound to "+h.IP.String(), 1)
	require.NoError(t, w.ERP.AddIP(h.ID, next, emulator.MAC{}))
	require.NoError(t, w.ERP.RemoveIP(h.ID, h.IP))
	w.bound(t, next, 1)
	w.sees(t, "the short lease", h.IP, func(e console.EventView) bool { return e.Outcome == "ack_shortened" && !e.Relay.IsValid() })
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
