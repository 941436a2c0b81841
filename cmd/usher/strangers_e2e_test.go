package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// This file has strangers write what only an honest peer may say, to the whole agent with its ERP and its kernel.

// outcomes returns how often packets ended in each way.
func (w *world) outcomes(t *testing.T) map[string]uint64 {
	t.Helper()
	n := map[string]uint64{}
	for _, o := range w.status(t).DHCP.Outcomes {
		n[o.Outcome] += o.Count
	}
	return n
}

// portOf returns the option 82 of a port of a switch, which the switch's MAC names.
func portOf(t *testing.T, remote emulator.MAC, port byte) [][]byte {
	t.Helper()
	info, err := probe.RelayInfo([]byte{0, 4, 0, 100, 0, port}, append([]byte{0, 6}, remote[:]...))
	require.NoError(t, err)
	return [][]byte{info}
}

// renews has a bound udhcpc renew, and waits until it has the same address again.
func renews(t *testing.T, p *lab.Process, ip netip.Addr) {
	t.Helper()
	was := strings.Count(p.Log(), "renew ip=")
	require.NoError(t, p.Signal(syscall.SIGUSR1))
	logged(t, p, "renew ip=", was+1)
	for _, l := range strings.Split(p.Log(), "\n") {
		if strings.HasPrefix(l, "renew ip=") || strings.HasPrefix(l, "bound ip=") {
			require.Contains(t, l, " ip="+ip.String()+" ")
		}
	}
	require.NotContains(t, p.Log(), "nak")
}

// leasedTo returns the MAC that has the lease of an address.
func (w *world) leasedTo(t *testing.T, ip netip.Addr) emulator.MAC {
	t.Helper()
	x, err := w.Client.Explain(t.Context(), ip.String())
	require.NoError(t, err)
	require.Len(t, x.Leases, 1)
	require.Equal(t, "bound", x.Leases[0].State.String())
	return emulator.MAC(x.Leases[0].MAC)
}

// A network of relays is listed. A bound subscriber elsewhere in the network sends one packet as if
// it were one of them: a REQUEST for the neighbour's address, with the option 82 of the neighbour's port and
// a MAC of its own. It is not answered, and neither lease nor ERP change.
func TestKernelSubscriberPosesAsARelay(t *testing.T) {
	t.Parallel()
	relayIP, serverIP := netip.MustParseAddr("10.0.0.10"), netip.MustParseAddr("10.0.0.1")
	thiefIP, thiefMAC := netip.MustParseAddr("100.64.0.9"), emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x09}
	w := startWorld(t, miniature.Options{
		Homes: 2, Interfaces: []string{"direct0", "relay2"},
		Subnets: "    - {prefix: 100.64.0.0/24, gateway: 100.64.0.1, lease_time: 10m}\n",
	})
	// That the ERP binds the address is all that tells it from a relay's.
	w.configure(t, map[string]string{"relays": "[" + miniature.GatewayIP + ", 10.0.0.0/24]", "check_relay_source": "", "subscriber_interfaces": ""})
	victim, other := w.setMAC(t, 0, 0x11), w.setMAC(t, 1, 0x12)
	thief, err := w.Lab.Host("thief")
	require.NoError(t, err)
	require.NoError(t, w.Lab.Wire(thief, "eth0", w.Router, "direct0"))
	require.NoError(t, w.Router.IP("addr", "add", "100.64.0.1/24", "dev", "direct0"))
	require.NoError(t, thief.IP("link", "set", "dev", "eth0", "address", thiefMAC.String()))
	_, err = w.ERP.AddCustomer(emulator.Customer{Login: "thief", FullName: "thief", State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: thiefIP, MAC: thiefMAC}}})
	require.NoError(t, err)
	relay, err := w.Lab.Host("relay2")
	require.NoError(t, err)
	require.NoError(t, w.Lab.Wire(relay, "eth0", w.Router, "relay2"))
	require.NoError(t, w.Router.IP("addr", "add", "10.0.0.9/30", "dev", "relay2"))
	require.NoError(t, relay.IP("addr", "add", relayIP.String()+"/30", "dev", "eth0"))
	require.NoError(t, relay.IP("route", "add", "default", "via", "10.0.0.9"))
	require.NoError(t, w.StartAgent(t.Context()))

	p, err := w.DHCPClient(victim)
	require.NoError(t, err)
	require.Equal(t, victim.IP, boundTo(t, p, 1))
	mac, err := miniature.LearnedMAC(t.Context(), w.ERP, victim.ID, victim.IP)
	require.NoError(t, err)
	require.Equal(t, victim.MAC, mac.String())
	require.NoError(t, w.Lease(t.Context(), miniature.Home{Host: thief, IP: thiefIP}))

	atRelay, err := relay.ListenPacket(netip.AddrPortFrom(relayIP, 67).String())
	require.NoError(t, err)
	defer atRelay.Close()
	server := netip.AddrPortFrom(serverIP, 67)
	asRelay := probe.Query{GIAddr: relayIP, RelayInfo: portOf(t, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x01}, 1)}
	steal := asRelay
	steal.Kind, steal.RequestedIP, steal.ServerID = probe.Selecting, victim.IP, serverIP
	before := w.outcomes(t)
	for i, from := range []uint16{67, 68, 40067} {
		conn, err := thief.ListenPacket(netip.AddrPortFrom(thiefIP, from).String())
		require.NoError(t, err)
		defer conn.Close()
		steal.MAC = net.HardwareAddr{0, 0, 0x5e, 0, 0x53, byte(0x61 + i)} // each one is below its client's limit
		packets := w.status(t).DHCP.Packets
		client := probe.Client{Port: probe.NewUDP(conn.(*net.UDPConn), server), Timeout: 100 * time.Millisecond}
		s, err := client.Ask(t.Context(), steal)
		require.NoError(t, err)
		require.Equal(t, probe.Silence, s.Answer)
		eventually(t, 10*time.Second, "the packet has its outcome", func() (bool, error) { return w.status(t).DHCP.Packets > packets, nil })
	}

	t.Run("it is refused and counted", func(t *testing.T) {
		after := w.outcomes(t)
		require.Equal(t, before["ack"], after["ack"])
		require.Equal(t, before["ack_before_commit"], after["ack_before_commit"])
		require.EqualValues(t, 3, after["relay_subscriber"]-before["relay_subscriber"])
		require.EqualValues(t, 0, before["relay_subscriber"])
		seen := map[string]bool{}
		for _, e := range w.status(t).DHCP.Events {
			seen[e.Outcome+" "+e.Source.String()] = true
		}
		for _, from := range []string{"100.64.0.9:67", "100.64.0.9:68", "100.64.0.9:40067"} {
			require.True(t, seen["relay_subscriber "+from], from)
		}
	})
	t.Run("nothing comes to the relay whose address was written", func(t *testing.T) {
		_, err := probe.NewUDP(atRelay.(*net.UDPConn), server).Receive(time.Now().Add(100 * time.Millisecond))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
	t.Run("the lease is the neighbour's", func(t *testing.T) {
		require.Equal(t, victim.MAC, w.leasedTo(t, victim.IP).String())
	})
	t.Run("the ERP has the neighbour's MAC", func(t *testing.T) {
		// Reports are sent one after another: when this one has come, one of before would have.
		require.NoError(t, w.Lease(t.Context(), other))
		mac, err := miniature.LearnedMAC(t.Context(), w.ERP, other.ID, other.IP)
		require.NoError(t, err)
		require.Equal(t, other.MAC, mac.String())
		require.Equal(t, victim.MAC, erpMAC(w.ERP, victim.IP))
		require.Equal(t, thiefMAC.String(), erpMAC(w.ERP, thiefIP))
	})
	t.Run("the neighbour renews", func(t *testing.T) { renews(t, p, victim.IP) })
	t.Run("the relay itself is believed", func(t *testing.T) {
		// So nothing else was wrong with the packet.
		ask := asRelay
		ask.Kind, ask.MAC = probe.Discover, net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x71}
		client := probe.Client{Port: probe.NewUDP(atRelay.(*net.UDPConn), server), Timeout: 5 * time.Second}
		s, err := client.Ask(t.Context(), ask)
		require.NoError(t, err)
		require.Equal(t, probe.Offered, s.Answer)
		require.Equal(t, victim.IP, s.Address())
	})
}

// A client on a direct wire writes the option 82 of its neighbour's port. Where no switch is trusted
// it is who its MAC says, gets its option 82 back, and the source guard lets in who was let in before.
func TestKernelClientWritesOption82(t *testing.T) {
	t.Parallel()
	switchMAC := emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x02}
	thiefIP := netip.MustParseAddr("192.0.2.12")
	for _, c := range []struct{ name, trusted string }{
		{"trusted nowhere", "none"},
		{"trusted elsewhere", "[cust9]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSharedWire(t, "")
			s.configure(t, map[string]string{"trusted_interfaces": c.trusted})
			device, err := s.ERP.AddDevice(emulator.Device{Name: "snooping", MAC: switchMAC, Ports: []emulator.Port{{Number: 1, Index: 1, Name: "1"}}})
			require.NoError(t, err)
			id, err := s.ERP.AddCustomer(emulator.Customer{Login: "neighbour", FullName: "neighbour", State: emulator.StateActive,
				Addresses: []emulator.Address{{IP: staticIP, MAC: staticMAC}}, Links: []emulator.Link{{Device: device, Port: 1}}})
			require.NoError(t, err)
			thiefID := s.customer(t, "thief", thiefIP, thiefMAC)
			fresh := s.customer(t, "fresh", freshIP, emulator.MAC{})
			neighbour := miniature.Home{Host: s.host(t, "neighbour", staticMAC, netip.Addr{}), IP: staticIP}
			thief := miniature.Home{Host: s.host(t, "thief", thiefMAC, netip.Addr{}), IP: thiefIP}
			trunk, err := s.Lab.Host("trunk")
			require.NoError(t, err)
			require.NoError(t, s.Lab.Wire(trunk, "eth0", s.Router, "cust9"))
			require.NoError(t, s.StartAgent(t.Context()))
			p, err := s.DHCPClient(neighbour)
			require.NoError(t, err)
			require.Equal(t, staticIP, boundTo(t, p, 1))
			require.NoError(t, s.Lease(t.Context(), thief))

			// asks sends a message with the option 82 of the neighbour's port.
			asks := func(h *lab.Host, q probe.Query, mac emulator.MAC, patience time.Duration) probe.Step {
				t.Helper()
				q.MAC, q.RelayInfo = mac[:], portOf(t, switchMAC, 1)
				var link *probe.Link
				require.NoError(t, h.Do(func() (err error) {
					link, err = probe.OpenLink("eth0", q.MAC)
					return err
				}))
				defer link.Close()
				client := probe.Client{Port: link, Timeout: patience}
				step, err := client.Ask(t.Context(), q)
				require.NoError(t, err)
				return step
			}
			server := netip.MustParseAddr("192.0.2.1")
			discover := probe.Query{Kind: probe.Discover, RequestedIP: staticIP}
			selecting := probe.Query{Kind: probe.Selecting, RequestedIP: staticIP, ServerID: server}
			renewing := probe.Query{Kind: probe.Renewing, ClientIP: staticIP}

			offer := asks(thief.Host, discover, thiefMAC, 5*time.Second)
			require.Equal(t, probe.Offered, offer.Answer)
			require.Equal(t, thiefIP, offer.Address(), "its MAC says who it is")
			require.Equal(t, portOf(t, switchMAC, 1)[0], offer.Reply.Options.Get(dhcpv4.OptionRelayAgentInformation))
			require.Equal(t, probe.Naked, asks(thief.Host, selecting, thiefMAC, 5*time.Second).Answer)
			require.Equal(t, probe.Naked, asks(thief.Host, renewing, thiefMAC, 5*time.Second).Answer)
			before := s.outcomes(t)["option82_untrusted"]
			require.Equal(t, probe.Silence, asks(thief.Host, discover, freshMAC, 100*time.Millisecond).Answer)
			eventually(t, 10*time.Second, "nobody is found for a MAC that the ERP lacks", func() (bool, error) {
				return s.outcomes(t)["option82_untrusted"] == before+1, nil
			})
			saysLess := s.outcomes(t)["says_less"]
			require.Equal(t, probe.Silence, asks(thief.Host, selecting, freshMAC, 100*time.Millisecond).Answer)
			eventually(t, 10*time.Second, "it may be a copy of what the switch adds option 82 to", func() (bool, error) {
				return s.outcomes(t)["says_less"] == saysLess+1, nil
			})

			require.Equal(t, staticMAC, s.leasedTo(t, staticIP))
			require.Equal(t, thiefMAC, s.leasedTo(t, thiefIP))
			require.Equal(t, probe.Acked, asks(neighbour.Host, renewing, staticMAC, 5*time.Second).Answer, "a switch adds it to a renewal")
			renews(t, p, staticIP)
			// Reports are sent one after another: when the one of a MAC seen by ARP has come, those of before would have.
			s.host(t, "fresh", emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x72}, freshIP)
			eventually(t, 20*time.Second, "the ERP has the first MAC of another one", func() (bool, error) {
				ping(t, s.Router, "192.0.2.1", freshIP.String())
				return s.macInERP(t, fresh) == emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x72}, nil
			})
			eventually(t, 5*time.Second, "it is recorded", func() (bool, error) { return len(s.reports(t)) > 0, nil })
			require.Len(t, s.reports(t), 1)
			require.Equal(t, staticMAC, s.macInERP(t, id))
			require.Equal(t, thiefMAC, s.macInERP(t, thiefID))
			for _, m := range []emulator.MAC{thiefMAC, freshMAC} {
				require.False(t, s.bound(t, staticIP, m))
			}
			require.True(t, s.bound(t, staticIP, staticMAC))
			require.True(t, ping(t, neighbour.Host, staticIP.String(), miniature.InternetIP))

			if c.trusted != "none" { // so nothing else was wrong with the packet
				offer := asks(trunk, discover, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x71}, 5*time.Second)
				require.Equal(t, probe.Offered, offer.Answer)
				require.Equal(t, staticIP, offer.Address())
			}
		})
	}
}

// Two devices on a port with one address: the first swap is served and reported at once. Who then comes back waits until T1, and the ERP is not told
// again within the hour; operators see both MACs.
func TestKernelTwoDevicesAtOnePort(t *testing.T) {
	t.Parallel()
	const renewTime = 4 * time.Second
	w := startWorld(t, miniature.Options{Homes: 1, Times: shortTimes("4s", "50s")})
	first := w.setMAC(t, 0, 0x21)
	rival, err := w.Lab.Host("rival")
	require.NoError(t, err)
	second := miniature.Home{Host: rival, IP: first.IP, MAC: "00:00:5e:00:53:22"}
	require.NoError(t, first.Host.IP("link", "add", "rival0", "link", "eth0", "address", second.MAC, "type", "macvlan", "mode", "bridge"))
	require.NoError(t, first.Host.IP("link", "set", "dev", "rival0", "netns", rival.Namespace))
	require.NoError(t, rival.IP("link", "set", "dev", "rival0", "name", "eth0"))
	require.NoError(t, rival.IP("link", "set", "dev", "eth0", "up"))
	require.NoError(t, w.StartAgent(t.Context()))
	told := func(mac string) {
		t.Helper()
		eventually(t, 10*time.Second, "the ERP has "+mac, func() (bool, error) { return erpMAC(w.ERP, first.IP) == mac, nil })
	}

	p, err := w.DHCPClient(first)
	require.NoError(t, err)
	require.Equal(t, first.IP, boundTo(t, p, 1))
	told(first.MAC)
	q, err := w.DHCPClient(second)
	require.NoError(t, err)
	require.Equal(t, first.IP, boundTo(t, q, 1))
	told(second.MAC)
	require.Equal(t, second.MAC, w.leasedTo(t, first.IP).String())

	require.NoError(t, p.Signal(syscall.SIGUSR1)) // the old one renews
	w.refused(t, first.MAC, "takeover_damped")
	x, err := w.Client.Explain(t.Context(), first.IP.String())
	require.NoError(t, err)
	require.Contains(t, x.Summary, second.MAC+" has the address, "+first.MAC+" wants it.")
	require.Contains(t, p.Log(), "\nnak")
	require.Regexp(t, `usher_dhcp_packets_total\{[^}]*outcome="takeover_damped"[^}]*\} [1-9]`, w.metrics(t))

	require.Equal(t, first.IP, boundTo(t, p, 2), "after T1 it gets the address")
	x, err = w.Client.Explain(t.Context(), first.IP.String())
	require.NoError(t, err)
	taken := map[string]time.Time{} // when each got it last by taking an offer
	for _, e := range slices.Backward(x.Events) {
		if acked(e) && !e.ClientIP.IsValid() {
			taken[e.MAC.String()] = e.Time
		}
	}
	require.GreaterOrEqual(t, taken[first.MAC].Sub(taken[second.MAC]), renewTime)
	eventually(t, 10*time.Second, "the report waits", func() (bool, error) {
		return strings.Contains(w.metrics(t), `usher_outbox_results_total{result="damped"} 1`), nil
	})
	require.Equal(t, second.MAC, erpMAC(w.ERP, first.IP))
	require.Equal(t, 2, w.ERP.Calls()["customer.set_mac_by_ip"], "the first MAC, and one change")
}

// A row with a port is never given by MAC at another port that the ERP knows. Its MAC gets it at its own port, and at one that the ERP does not have,
// which is counted, as long as no lease of it is live elsewhere. A row without a port is found by its MAC at each of them.
func TestKernelByMACAtOtherPorts(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, miniature.Options{Homes: 2})
	w.configure(t, map[string]string{"match": "[option82+mac, mac]"})
	host, err := w.Lab.Host("nowhere") // at a port that the ERP does not have
	require.NoError(t, err)
	require.NoError(t, w.Lab.Wire(host, "eth0", w.Access, "ge9"))
	require.NoError(t, w.Access.IP("addr", "add", miniature.GatewayIP+"/32", "dev", "ge9"))
	w.Homes = append(w.Homes, miniature.Home{Host: host, Port: "ge9"})
	require.NoError(t, w.StartRelay(t.Context()))
	const own, other, unknown = 0, 1, 2
	ip, mac, free := w.Homes[own].IP, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x31}, netip.MustParseAddr("198.51.100.60")
	require.NoError(t, w.ERP.SetIPMAC(ip, mac))
	freeMAC := emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x32}
	_, err = w.ERP.AddCustomer(emulator.Customer{Login: "free", FullName: "without a port", State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: free, MAC: freeMAC}}})
	require.NoError(t, err)
	require.NoError(t, w.StartAgent(t.Context()))

	at := func(home int, mac emulator.MAC) *lab.Process {
		t.Helper()
		p, err := w.DHCPClient(w.setMAC(t, home, mac[5]))
		require.NoError(t, err)
		return p
	}
	gets := func(home int, mac emulator.MAC, ip netip.Addr) {
		t.Helper()
		p := at(home, mac)
		require.Equal(t, ip, boundTo(t, p, 1))
		p.Kill()
	}
	elsewhere := func() uint64 { t.Helper(); return w.status(t).DHCP.ByMAC.Elsewhere }
	given := func(line string) (n uint64) {
		t.Helper()
		for _, c := range w.status(t).DHCP.ByMAC.Given {
			if c.Line == line {
				n = c.Acks
			}
		}
		return n
	}
	getsNothing := func(home int) {
		t.Helper()
		before := elsewhere()
		p := at(home, mac)
		eventually(t, 20*time.Second, "some of its packets lead to nothing", func() (bool, error) { return elsewhere() >= before+3, nil })
		p.Kill()
		require.NotContains(t, p.Log(), "bound ip=")
		require.Equal(t, elsewhere(), w.outcomes(t)["mac_elsewhere"])
		require.Regexp(t, fmt.Sprintf(`usher_dhcp_packets_total\{[^}]*outcome="mac_elsewhere"[^}]*\} %d\n`, elsewhere()), w.metrics(t))
		x, err := w.Client.Explain(t.Context(), mac.String())
		require.NoError(t, err)
		require.Equal(t, "mac_elsewhere", x.Would.Outcome)
		require.Equal(t, "10.0.0.2", x.Would.Source.String())
		require.Equal(t, miniature.GatewayIP, x.Would.Relay.String())
		require.Contains(t, x.Would.Circuit, w.Homes[home].Port)
		e := x.Events[0]
		require.Equal(t, "mac_elsewhere", e.Outcome)
		require.Equal(t, "10.0.0.2:67", e.Source.String())
		require.Equal(t, miniature.GatewayIP, e.Relay.String())
		out, code := w.usherOn(t, "explain", mac.String())
		require.Zero(t, code, out)
		for _, want := range []string{"a DISCOVER would end in mac_elsewhere", "discover mac_elsewhere", "from 10.0.0.2:67, relay " + miniature.GatewayIP + ", on access", w.Homes[home].Port} {
			require.Contains(t, out, want)
		}
		out, code = w.usherOn(t, "status")
		require.Zero(t, code, out)
		require.Contains(t, out, fmt.Sprintf("refused, mac_elsewhere: %d packets", elsewhere()))
	}

	getsNothing(other) // of nobody's lease yet
	require.Zero(t, given("unknown_port"))
	gets(unknown, mac, ip)
	require.EqualValues(t, 1, given("unknown_port"))
	getsNothing(other) // nor of the one that it has at the port that nobody knows
	gets(own, mac, ip)
	require.EqualValues(t, 1, given("unknown_port"))
	getsNothing(unknown) // while its lease is live at its own
	getsNothing(other)
	out, code := w.usherOn(t, "leases", "drop", ip.String(), "--yes")
	require.Zero(t, code, out)
	getsNothing(other)
	gets(unknown, mac, ip)
	require.EqualValues(t, 2, given("unknown_port"))
	require.Equal(t, mac, w.leasedTo(t, ip))

	before := elsewhere()
	for _, home := range []int{other, own, unknown, other} {
		gets(home, freeMAC, free)
	}
	require.Equal(t, before, elsewhere(), "a row without a port is nowhere else")
	require.Equal(t, freeMAC, w.leasedTo(t, free))
	require.Zero(t, w.ERP.Calls()["customer.set_mac_by_ip"])
}
