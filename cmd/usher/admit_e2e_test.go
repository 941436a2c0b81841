package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

const admitConfig = `acl: {source_guard: {vlan: ["cust*"]}, verify_interval: 1h}
routes:
  enabled: true
  interfaces: ["cust*"]
`

// wireEnd is the customers' end of a wire: any number of clients of their own MAC are on it.
type wireEnd struct {
	*lab.Host
	dhcp    *net.UDPConn
	arp, ip int // packet sockets
	ifindex int
	router  [8]byte // its MAC, as a packet socket has it
}

func openWireEnd(t *testing.T, router *lab.Host, h miniature.Home) *wireEnd {
	t.Helper()
	w := &wireEnd{Host: h.Host}
	require.NoError(t, router.Do(func() error {
		f, err := net.InterfaceByName(h.Port)
		if err == nil {
			copy(w.router[:], f.HardwareAddr)
		}
		return err
	}))
	// The way of 255.255.255.255. Without an address the kernel answers no ARP in the clients' place.
	require.NoError(t, h.Host.IP("route", "add", "default", "dev", "eth0"))
	packets := func(protocol uint16) (int, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: w.ifindex})
	}
	conn, err := h.Host.ListenPacket("0.0.0.0:68")
	require.NoError(t, err)
	w.dhcp = conn.(*net.UDPConn)
	require.NoError(t, h.Host.Do(func() error {
		f, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		w.ifindex = f.Index
		if w.arp, err = packets(arpProtocol()); err != nil {
			return err
		}
		w.ip, err = packets(0)
		return err
	}))
	t.Cleanup(func() { _ = errors.Join(w.dhcp.Close(), unix.Close(w.arp), unix.Close(w.ip)) })
	return w
}

func arpProtocol() uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], unix.ETH_P_ARP)
	return binary.NativeEndian.Uint16(b[:])
}

func ipProtocol() uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], unix.ETH_P_IP)
	return binary.NativeEndian.Uint16(b[:])
}

// takes has a client take its address; in the moment that the ACK is there it announces itself by ARP (RFC 5227) and sends a packet.
func (w *wireEnd) takes(t *testing.T, mac net.HardwareAddr, a netip.Addr) {
	t.Helper()
	p, err := dhcpv4.New(dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())))
	require.NoError(t, err)
	four := a.As4()
	announce := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac...)
	announce = append(append(append(announce, four[:]...), 0, 0, 0, 0, 0, 0), four[:]...)
	packet := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, four[0], four[1], four[2], four[3], 192, 0, 2, 1}
	var sum uint32
	for i := 0; i < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum>>16+sum&0xffff))
	packet = append(packet, 0, 9, 0, 9, 0, 8, 0, 0)
	all := unix.SockaddrLinklayer{Protocol: arpProtocol(), Ifindex: w.ifindex, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	router := unix.SockaddrLinklayer{Protocol: ipProtocol(), Ifindex: w.ifindex, Halen: 6, Addr: w.router}

	_, err = w.dhcp.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort("255.255.255.255:67"))
	require.NoError(t, err)
	require.NoError(t, w.dhcp.SetReadDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 2048)
	for {
		n, _, err := w.dhcp.ReadFromUDPAddrPort(buf)
		require.NoError(t, err, "%s is not answered", a)
		if n < 240 || [4]byte(buf[4:8]) != p.TransactionID {
			continue
		}
		require.NoError(t, unix.Sendto(w.arp, announce, 0, &all))
		require.NoError(t, unix.Sendto(w.ip, packet, 0, &router))
		r, err := dhcpv4.FromBytes(buf[:n])
		require.NoError(t, err)
		require.Equal(t, dhcpv4.MessageTypeAck, r.MessageType())
		require.Equal(t, a.String(), r.YourIPAddr.String())
		return
	}
}

// claimed counts who answered for an address that is not its own.
func (w *wireEnd) claimed(t *testing.T) (n int) {
	t.Helper()
	buf := make([]byte, 100)
	for {
		k, _, err := unix.Recvfrom(w.arp, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		require.NoError(t, err)
		if k >= 28 && binary.BigEndian.Uint16(buf[6:]) == 2 {
			n++
		}
	}
}

// The route of a lease and its element of the source guard are there before the ACK leaves, for the first one and after a move:
// the router does not answer the client's ARP for its own address, as proxy ARP does for what it would send elsewhere, and the first packet passes.
// An ACK that a slow disk let leave before its commit is ahead of its route as well, and so a round with one shows nothing: then other clients come,
// and move to the other place, until there was a round of each kind without.
func TestKernelRouteAndGuardStandBeforeTheACK(t *testing.T) {
	t.Parallel()
	const clients, tries = 20, 5
	u := startUnnumbered(t, 2, admitConfig)
	u.configure(t, map[string]string{"authoritative": "true"})
	mac := func(i int) emulator.MAC { return emulator.MAC{0, 0, 0x5e, 0, 0x53, byte(0x60 + i)} }
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)}) }
	for i := range clients * tries {
		_, err := u.ERP.AddCustomer(emulator.Customer{Login: addr(i).String(), FullName: "somebody", State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: addr(i), MAC: mac(i)}}})
		require.NoError(t, err)
	}
	for _, h := range u.subs { // at once, and not after up to 0.8 s
		require.NoError(t, u.Router.Sysctl("net.ipv4.neigh."+h.Port+".proxy_delay", "0"))
		require.NoError(t, u.Router.Sysctl("net.ipv4.conf."+h.Port+".rp_filter", "0"))
	}
	require.NoError(t, u.Router.Sysctl("net.ipv4.conf.all.rp_filter", "0"))
	require.NoError(t, u.StartAgent(t.Context()))
	eventually(t, 10*time.Second, "the guard is on", func() (bool, error) {
		return strings.Contains(u.nft(t, "list", "table", "inet", "usher"), "cust2"), nil
	})
	ends := [...]*wireEnd{openWireEnd(t, u.Router, u.subs[0]), openWireEnd(t, u.Router, u.subs[1])}
	const late = "ack_before_commit"
	shown := map[string]bool{}
	for try := 0; try < tries && len(shown) < 2; try++ {
		for place, what := range []string{"the first ACK", "after a move"} {
			end := ends[place]
			end.claimed(t)
			before, dropped := u.outcomes(t), u.unbound(t)
			for i := try * clients; i < (try+1)*clients; i++ {
				m := mac(i)
				end.takes(t, m[:], addr(i))
			}
			var after map[string]uint64
			eventually(t, 5*time.Second, "all ACKs are counted", func() (bool, error) { // which is after they left
				after = u.outcomes(t)
				return after["ack"]+after[late] == before["ack"]+before[late]+clients, nil
			})
			claimed := end.claimed(t)
			dropped = u.unbound(t) - dropped
			assert.Equal(t, clients*(try+1), u.status(t).Routes.Installed)
			if n := after[late] - before[late]; n > 0 {
				t.Logf("%s, try %d: %d of %d ACKs left before their commit", what, try+1, n, clients)
				continue
			}
			shown[what] = true
			assert.Zero(t, claimed, "%s: the router answered for the client's address", what)
			assert.Zero(t, dropped, "%s: first packets dropped by the source guard", what)
		}
	}
	require.Len(t, shown, 2, "in each of %d rounds of a kind some ACK left before its commit, so nothing is shown of the others: the disk is too slow, or ACKs wait for no commit", tries)
	stranger := u.subs[1].Host
	require.NoError(t, stranger.IP("addr", "add", "192.0.2.99/32", "dev", "eth0"))
	dropped := u.unbound(t)
	require.False(t, ping(t, stranger, "192.0.2.99", "192.0.2.1"))
	assert.Greater(t, u.unbound(t), dropped, "the guard does look")
}
