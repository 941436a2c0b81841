package main

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

const internetIPv6 = "2001:db8:ffff::1"

// addIPv6 gives a host an address of a /64 with the router at its end, and answers there.
func addIPv6(t *testing.T, w *world, h *lab.Host, dev, network string) {
	t.Helper()
	require.NoError(t, w.Router.IP("addr", "add", network+"fffe/64", "dev", dev, "nodad"))
	require.NoError(t, h.Sysctl("net.ipv6.conf.eth0.accept_dad", "0"))
	require.NoError(t, h.IP("addr", "add", network+"1/64", "dev", "eth0", "nodad"))
	require.NoError(t, h.IP("-6", "route", "add", "default", "via", network+"fffe"))
	ln, err := h.Listen(net.JoinHostPort(network+"1", "443"))
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
}

// over6 says what becomes of IPv6 from one host to another: a connection and a ping.
func over6(t *testing.T, h *lab.Host, ip string) string {
	t.Helper()
	c, err := h.Dial(net.JoinHostPort(ip, "443"), 3*time.Second)
	if err == nil {
		_ = c.Close()
	}
	_, pingErr := h.Output(t.Context(), "ping", "-6", "-n", "-c1", "-W1", ip)
	if pingErr != nil {
		return outcome(err) + ", no echo"
	}
	return outcome(err) + ", echo"
}

// IPv6 of a customer with both families ends with his state, in both directions, and so
// does what is said of it; the router's own goes on, and so does a neighbour's.
func TestKernelIPv6OfAPausedCustomer(t *testing.T) {
	t.Parallel()
	w, direct, per := guardedWorld(t)
	require.NoError(t, w.Lease(t.Context(), direct))
	require.NoError(t, w.Lease(t.Context(), per))
	addIPv6(t, w, direct.Host, "direct0", "2001:db8:1::")
	addIPv6(t, w, per.Host, "per10", "2001:db8:2::")
	addIPv6(t, w, w.Internet, "internet", "2001:db8:ffff::")
	require.NotContains(t, w.nft(t, "list", "ruleset"), "chain ipv6", "who forwards no IPv6 has no rule for it")
	require.NoError(t, w.Router.Sysctl("net.ipv6.icmp.ratelimit", "0")) // each try is to have its refusal
	require.NoError(t, w.Router.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	eventually(t, 20*time.Second, "all have found each other", func() (bool, error) { // once the router's link-local addresses are tried out
		return over6(t, direct.Host, internetIPv6) == "ok, echo" && over6(t, per.Host, internetIPv6) == "ok, echo" && over6(t, w.Internet, "2001:db8:1::1") == "ok, echo", nil
	})
	for _, h := range []miniature.Home{direct, per} {
		w.setState(t, h, provision.StatePause)
	}
	eventually(t, 30*time.Second, "IPv6 of the paused is looked at on a host that forwards it now", func() (bool, error) {
		return over6(t, direct.Host, internetIPv6) == "refused, no echo" && over6(t, per.Host, internetIPv6) == "refused, no echo", nil
	})
	assert.Equal(t, "silence, no echo", over6(t, w.Internet, "2001:db8:1::1"), "to who is on a wire with others")
	assert.Equal(t, "refused, no echo", over6(t, w.Internet, "2001:db8:2::1"), "to who is alone on an interface")
	for h, router := range map[*lab.Host]string{direct.Host: "2001:db8:1::fffe", per.Host: "2001:db8:2::fffe"} {
		require.NoError(t, h.IP("-6", "neigh", "flush", "all"))
		assert.Equal(t, "refused, echo", over6(t, h, router), "the router is reached: nobody listens there")
	}
	require.NoError(t, w.Router.IP("-6", "neigh", "flush", "all"))
	assert.Equal(t, "ok, echo", over6(t, w.Router, "2001:db8:1::1"))

	out, code := w.usherOn(t, "explain", strconv.FormatInt(direct.ID, 10))
	require.Zero(t, code, out)
	flat := strings.Join(strings.Fields(out), " ")
	assert.Contains(t, flat, "is paused, so its forwarded IPv4 traffic is refused. IPv6 from and to the MAC "+direct.MAC+" is blocked too, on direct0; another MAC walks around that.")
	out, code = w.usherOn(t, "explain", strconv.FormatInt(per.ID, 10))
	require.Zero(t, code, out)
	assert.Contains(t, strings.Join(strings.Fields(out), " "), "So is its IPv6, by the interface per10: nobody is known behind it who is not blocked.")
	assert.Equal(t, []string{"direct0"}, w.status(t).ACL.IPv6.Direct)
	out, code = w.usherOn(t, "acl", "verify")
	require.Zero(t, code, out)
	text, code := w.usherOn(t, "acl", "show", "--as-nft")
	require.Zero(t, code, text)
	assert.Contains(t, text, "chain egress_direct0")

	// Once a default route leads there, everybody is behind that interface, whatever the ERP has of one customer.
	require.NoError(t, w.Router.IP("-6", "route", "add", "default", "dev", "per10"))
	eventually(t, 15*time.Second, "an uplink is not blocked", func() (bool, error) { return over6(t, per.Host, internetIPv6) == "ok, echo", nil })
	out, code = w.usherOn(t, "explain", strconv.FormatInt(per.ID, 10))
	require.Zero(t, code, out)
	assert.Contains(t, strings.Join(strings.Fields(out), " "), "On per10 its IPv6 passes: a default route leads there, so that interface is never blocked.")
	assert.Equal(t, []string{"per10"}, w.status(t).ACL.IPv6.Uplinks)
	require.NoError(t, w.Router.IP("-6", "route", "del", "default"))
	eventually(t, 90*time.Second, "it is none any more, for a minute", func() (bool, error) { return over6(t, per.Host, internetIPv6) == "refused, no echo", nil })

	w.setState(t, direct, provision.StateActive)
	assert.Equal(t, "ok, echo", over6(t, direct.Host, internetIPv6), "one of them is active again")
	assert.Equal(t, "ok, echo", over6(t, w.Internet, "2001:db8:1::1"))
	assert.Equal(t, "refused, no echo", over6(t, per.Host, internetIPv6))
	w.setState(t, direct, provision.StateStop)
	assert.Equal(t, "silence, no echo", over6(t, direct.Host, internetIPv6))
	assert.Equal(t, "silence, no echo", over6(t, w.Internet, "2001:db8:1::1"))

	require.NoError(t, w.Router.Sysctl("net.ipv6.conf.all.forwarding", "0"))
	eventually(t, 15*time.Second, "the rules go where no IPv6 is forwarded", func() (bool, error) {
		rules := w.nft(t, "list", "ruleset")
		return !strings.Contains(rules, "chain ipv6") && !strings.Contains(rules, "netdev"), nil
	})
}

// Where IPv6 is not to be looked at, it passes whoever is blocked, and no rule and no table is there for it.
func TestKernelIPv6IsIgnored(t *testing.T) {
	t.Parallel()
	w, direct, per := guardedWorldWith(t, ", ipv6: ignore")
	require.NoError(t, w.Lease(t.Context(), direct))
	require.NoError(t, w.Lease(t.Context(), per))
	addIPv6(t, w, direct.Host, "direct0", "2001:db8:1::")
	addIPv6(t, w, per.Host, "per10", "2001:db8:2::")
	addIPv6(t, w, w.Internet, "internet", "2001:db8:ffff::")
	require.NoError(t, w.Router.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	passes := func(why string) {
		t.Helper()
		for h, ip := range map[*lab.Host]string{direct.Host: "2001:db8:1::1", per.Host: "2001:db8:2::1"} {
			assert.Equal(t, "ok, echo", over6(t, h, internetIPv6), "%s: from %s", why, h.Name)
			assert.Equal(t, "ok, echo", over6(t, w.Internet, ip), "%s: to %s", why, h.Name)
		}
	}
	eventually(t, 20*time.Second, "all have found each other", func() (bool, error) {
		return over6(t, direct.Host, internetIPv6) == "ok, echo" && over6(t, per.Host, internetIPv6) == "ok, echo" &&
			over6(t, w.Internet, "2001:db8:1::1") == "ok, echo" && over6(t, w.Internet, "2001:db8:2::1") == "ok, echo", nil
	})
	for _, st := range []provision.State{provision.StatePause, provision.StateStop} {
		for _, h := range []miniature.Home{direct, per} {
			w.setState(t, h, st)
			require.False(t, reaches(h.Host), "IPv4 of %s", h.Host.Name)
		}
		passes(st.String())
		out, code := w.usherOn(t, "acl", "verify") // a whole round with IPv6 forwarded
		require.Zero(t, code, out)
		passes(st.String() + ", after a round")
		rules := w.nft(t, "list", "ruleset")
		assert.NotContains(t, rules, "chain ipv6")
		assert.NotContains(t, rules, "netdev")
		for _, set := range []string{"ipv6_direct", "stopped_mac", "paused_mac", "stopped_ifname", "paused_ifname"} {
			assert.Zero(t, w.inSet(t, set), set)
			assert.NotContains(t, rules, "@"+set)
		}
	}
	assert.Equal(t, access.IPv6Ignored, w.status(t).ACL.IPv6.Mode)
	out, code := w.usherOn(t, "status")
	require.Zero(t, code, out)
	assert.Contains(t, out, "IPv6 is not looked at (acl.ipv6)")
}

// takesAnother has a client take an address of a pool under a MAC that is not its own, and speak ARP for it with that one, all in frames of its own.
func (w *wireEnd) takesAnother(t *testing.T, mac net.HardwareAddr) netip.Addr {
	t.Helper()
	answer := func(p *dhcpv4.DHCPv4, want dhcpv4.MessageType) *dhcpv4.DHCPv4 {
		_, err := w.dhcp.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort("255.255.255.255:67"))
		require.NoError(t, err)
		require.NoError(t, w.dhcp.SetReadDeadline(time.Now().Add(10*time.Second)))
		buf := make([]byte, 2048)
		for {
			n, _, err := w.dhcp.ReadFromUDPAddrPort(buf)
			require.NoError(t, err, "no %s", want)
			if r, err := dhcpv4.FromBytes(buf[:n]); err == nil && r.TransactionID == p.TransactionID && r.MessageType() == want {
				return r
			}
		}
	}
	discover, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true))
	require.NoError(t, err)
	request, err := dhcpv4.NewRequestFromOffer(answer(discover, dhcpv4.MessageTypeOffer), dhcpv4.WithBroadcast(true))
	require.NoError(t, err)
	ip := netip.AddrFrom4([4]byte(answer(request, dhcpv4.MessageTypeAck).YourIPAddr.To4()))
	four := ip.As4()
	announce := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac...)
	announce = append(append(append(announce, four[:]...), 0, 0, 0, 0, 0, 0), four[:]...)
	require.NoError(t, unix.Sendto(w.arp, announce, 0, &unix.SockaddrLinklayer{Protocol: arpProtocol(), Ifindex: w.ifindex, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}))
	return ip
}

// A paused customer who writes a neighbour's MAC into DHCP and ARP, as a guest, cuts nobody off, and stays blocked himself; who has the MAC
// of his lease, as a guest has, is blocked by it, after a restart too.
func TestKernelAWrittenMACCutsNobodyOff(t *testing.T) {
	t.Parallel()
	s := startSharedWireWith(t, miniature.Options{
		DHCP:  "  match: [mac]\n  unknown_clients: guest\n  pools:\n    - {name: guests, range: 192.0.2.100-192.0.2.120, for: guests, probe: false}\n",
		Extra: "acl: {source_guard: {direct: [cust1]}, verify_interval: 1h}\n",
	})
	victim := s.host(t, "victim", staticMAC, staticIP)
	s.customer(t, "victim", staticIP, emulator.MAC{}) // static, and the ERP knows no MAC
	thief := s.host(t, "thief", thiefMAC, netip.Addr{})
	thiefHome := miniature.Home{Host: thief, Port: "cust1", ID: s.customer(t, "thief", freshIP, thiefMAC)}
	guest := s.host(t, "guest", freshMAC, netip.Addr{})
	require.NoError(t, s.StartAgent(t.Context()))
	require.NoError(t, s.Router.Sysctl("net.ipv6.icmp.ratelimit", "0"))
	require.NoError(t, s.Router.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	addIPv6(t, s.world, victim, "cust1", "2001:db8:1::")
	addIPv6(t, s.world, thief, "cust1", "2001:db8:3::")
	addIPv6(t, s.world, guest, "cust1", "2001:db8:4::")
	addIPv6(t, s.world, s.Internet, "internet", "2001:db8:ffff::")
	passes := func(h *lab.Host) func() (bool, error) {
		return func() (bool, error) { return over6(t, h, internetIPv6) == "ok, echo", nil }
	}
	refused := func(h *lab.Host) func() (bool, error) {
		return func() (bool, error) { return over6(t, h, internetIPv6) == "refused, no echo", nil }
	}
	for _, h := range []*lab.Host{victim, thief, guest} {
		eventually(t, 20*time.Second, h.Name+" reaches the internet", passes(h))
	}
	s.setState(t, thiefHome, provision.StatePause)
	eventually(t, 30*time.Second, "the paused one is blocked by the ERP's MAC", refused(thief))

	end := openWireEnd(t, s.Router, thiefHome)
	ip := end.takesAnother(t, staticMAC[:])
	assert.Equal(t, "ok, echo", over6(t, victim, internetIPv6), "whose MAC it is")
	eventually(t, 10*time.Second, "the MAC is left out, and said to be", func() (bool, error) {
		u := s.status(t).ACL.IPv6.Unheard
		return u.Count == 1 && u.First[0].IP == ip && u.First[0].MAC == provision.MAC(staticMAC), nil
	})
	p, err := s.DHCPClient(miniature.Home{Host: guest})
	require.NoError(t, err)
	eventually(t, 15*time.Second, "the guest has a lease", func() (bool, error) { return strings.Contains(p.Log(), "bound ip=192.0.2.1"), nil })
	eventually(t, 30*time.Second, "the guest has the MAC of his lease, and is blocked", refused(guest)) // he is asked 10 s after the ACK
	check := func(why string) {
		t.Helper()
		assert.Equal(t, "ok, echo", over6(t, victim, internetIPv6), "%s: the neighbour", why)
		assert.Equal(t, "ok, echo", over6(t, s.Internet, "2001:db8:1::1"), "%s: to the neighbour", why)
		assert.Equal(t, "refused, no echo", over6(t, thief, internetIPv6), "%s: who wrote his MAC", why)
	}
	check("when the guest is blocked")
	out, _ := s.usherOn(t, "status")
	assert.Contains(t, strings.Join(strings.Fields(out), " "), "MACs of leases of the blocked whose IPv6 passes, for no ARP came from them yet: 1 (first: "+staticMAC.String()+", "+ip.String()+" on cust1)")

	require.NoError(t, guest.Sysctl("net.ipv4.conf.all.arp_ignore", "8")) // he answers nobody any more
	<-s.agentGone()
	require.NoError(t, s.StartAgent(t.Context()))
	eventually(t, 20*time.Second, "the first round", func() (bool, error) { st := s.status(t).ACL; return st.Ready && st.IPv6.Unheard.Count > 0, nil })
	assert.Equal(t, 1, s.status(t).ACL.IPv6.Unheard.Count, "the guest counts as heard")
	assert.Equal(t, "refused, no echo", over6(t, guest, internetIPv6), "the guest stays blocked, and is not heard again")
	check("after a restart")
}
