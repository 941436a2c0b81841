package dhcpd

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
)

// odd are options, after those of the message itself, that some client sends with another length
// than the RFCs give them. The message type is among them where it is odd itself.
var odd = map[string]string{
	"type of two bytes": "\x35\x02\x01\x01", "type twice": "\x35\x01\x01\x35\x01\x03", "empty type": "\x35\x00", "type zero": "\x35\x01\x00",
	"empty 50": "\x35\x01\x01\x32\x00", "short 50": "\x35\x01\x01\x32\x02\xc0\x00", "long 50": "\x35\x01\x01\x32\x05\xc0\x00\x02\x65\x00",
	"empty 54": "\x35\x01\x01\x36\x00", "short 54": "\x35\x01\x01\x36\x01\x7f", "long 54": "\x35\x01\x01\x36\x05\xc0\x00\x02\x05\x00",
	"empty 52": "\x35\x01\x01\x34\x00", "52 of two bytes": "\x35\x01\x01\x34\x02\x03\x03", "52 of 0": "\x35\x01\x01\x34\x01\x00", "52 of 4": "\x35\x01\x01\x34\x01\x04",
	"empty 51": "\x35\x01\x01\x33\x00", "short 51": "\x35\x01\x01\x33\x02\x00\x01", "empty 57": "\x35\x01\x01\x39\x00", "short 57": "\x35\x01\x01\x39\x01\x05",
	"empty 12": "\x35\x01\x01\x0c\x00", "empty 55": "\x35\x01\x01\x37\x00", "empty 60": "\x35\x01\x01\x3c\x00", "empty 61": "\x35\x01\x01\x3d\x00",
	"61 of one byte": "\x35\x01\x01\x3d\x01\x05", "empty 77": "\x35\x01\x01\x4d\x00", "empty 81": "\x35\x01\x01\x51\x00", "empty 82": "\x35\x01\x01\x52\x00",
	"80 of one byte": "\x35\x01\x01\x50\x01\x01", "empty 116": "\x35\x01\x01\x74\x00", "empty 124": "\x35\x01\x01\x7c\x00", "empty 125": "\x35\x01\x01\x7d\x00",
	"empty 121": "\x35\x01\x01\x79\x00", "empty 43": "\x35\x01\x01\x2b\x00", "empty 56": "\x35\x01\x01\x38\x00", "empty 93": "\x35\x01\x01\x5d\x00",
}

// raw is a packet of a client, through the relay at giaddr, with the very bytes of its options.
func raw(xid byte, giaddr netip.Addr, rest string) []byte {
	q := wire.Query{XID: 0x0b0b0b00 | uint32(xid), MAC: client(xid), GIAddr: giaddr}
	b := q.Append(nil)
	return append(append(b[:240], rest...), wire.OptEnd)
}

// askAll returns what each client was told, by the last byte of its xid. It sends all packets, and
// after them a plain DISCOVER until that one is answered: what was not answered by then is not.
func askAll(t *testing.T, c *net.UDPConn, server netip.AddrPort, giaddr netip.Addr, packets map[byte]string) map[byte]*dhcpv4.DHCPv4 {
	t.Helper()
	const sentinel = 0xff
	got, buf := map[byte]*dhcpv4.DHCPv4{}, make([]byte, 2048)
	read := func(until time.Time) {
		require.NoError(t, c.SetReadDeadline(until))
		for got[sentinel] == nil {
			n, _, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if r, err := dhcpv4.FromBytes(bytes.Clone(buf[:n])); err == nil {
				got[r.TransactionID[3]] = r
			}
		}
	}
	ready := func(what string) {
		t.Helper()
		delete(got, sentinel)
		for limit := time.Now().Add(20 * time.Second); got[sentinel] == nil; {
			require.True(t, time.Now().Before(limit), what)
			_, err := c.WriteToUDPAddrPort(raw(sentinel, giaddr, "\x35\x01\x01"), server)
			require.NoError(t, err)
			read(time.Now().Add(300 * time.Millisecond))
		}
	}
	ready("the server is not up")
	for _, xid := range slices.Sorted(maps.Keys(packets)) {
		_, err := c.WriteToUDPAddrPort(raw(xid, giaddr, packets[xid]), server)
		require.NoError(t, err)
	}
	ready("the server fell over a packet")
	return got
}

// oddWorld is a world where each client of the odd packets has an address by its MAC.
func oddWorld() (erp provision.Input, packets map[byte]string, names []string) {
	names, packets = slices.Sorted(maps.Keys(odd)), map[byte]string{}
	for i, name := range names {
		packets[byte(i)] = odd[name]
		erp.Lines = append(erp.Lines, provision.Line{Subscriber: provision.SubscriberID(i + 1), MAC: client(byte(i)), Addresses: provision.Hosts4(host(byte(100 + i)))})
	}
	erp.Lines = append(erp.Lines, provision.Line{Subscriber: 999, MAC: client(0xff), Addresses: provision.Hosts4(host(250))})
	return erp, packets, names
}

// An option of a wrong length costs no client its answer.
func TestOddOptionsAreAnswered(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	erp, packets, names := oddWorld()
	s := startSiteWith(t, filepath.Join(t.TempDir(), "state.db"), loopbackOptions(portOf(relay), 68), erp, (*Server).Listen)
	got := askAll(t, relay, s.addr, loopRelay, packets)
	for i, name := range names {
		r := got[byte(i)]
		if name == "empty type" || name == "type zero" {
			assert.Nil(t, r, "%s: nobody knows what it wants", name)
			continue
		}
		if assert.NotNil(t, r, name) {
			assert.Equal(t, dhcpv4.MessageTypeOffer, r.MessageType(), name)
			assert.Equal(t, host(byte(100+i)).String(), r.YourIPAddr.String(), name)
			assert.NotEmpty(t, r.Router(), "%s: it is told as much as one without", name)
		}
	}
	id, mine := "\x36\x05\x7f\x00\x00\x01\x00", func(a netip.Addr) string { return "\x32\x04" + string(a.AsSlice()) }
	for name, p := range map[string]string{
		"SELECTING with a long server id":    "\x35\x01\x03" + id + mine(host(250)),
		"SELECTING with a long address":      "\x35\x01\x03\x36\x04\x7f\x00\x00\x01\x32\x05\xc0\x00\x02\xfa\x00",
		"INIT-REBOOT with an empty 54":       "\x35\x01\x03\x36\x00" + mine(host(250)),
		"INIT-REBOOT with an empty 50, too":  "\x35\x01\x03\x32\x00" + mine(host(250)),
		"INIT-REBOOT of a type of two bytes": "\x35\x02\x03\x03" + mine(host(250)),
	} {
		_, err := relay.WriteToUDPAddrPort(raw(0xff, loopRelay, p), s.addr)
		require.NoError(t, err)
		require.NoError(t, relay.SetReadDeadline(time.Now().Add(5*time.Second)))
		buf := make([]byte, 2048)
		n, _, err := relay.ReadFromUDPAddrPort(buf)
		require.NoError(t, err, name)
		r, err := dhcpv4.FromBytes(buf[:n])
		require.NoError(t, err)
		assert.Equal(t, "ACK 192.0.2.250", fmt.Sprint(r.MessageType(), " ", r.YourIPAddr), name)
	}
}

// What ISC dhcpd and dnsmasq both answer is answered here, too; they are asked, not remembered.
func TestKernelOddOptionsAreReadAsOthersDo(t *testing.T) {
	needKernel(t, "ip", "dhcpd", "dnsmasq")
	erp, packets, names := oddWorld()
	l, err := lab.New("odd", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	router, err := l.Host("r")
	require.NoError(t, err)
	relay, err := l.Host("c")
	require.NoError(t, err)
	require.NoError(t, l.Wire(router, "eth0", relay, "eth0"))
	require.NoError(t, router.IP("addr", "add", "192.0.2.5/24", "dev", "eth0"))
	require.NoError(t, relay.IP("addr", "add", "192.0.2.6/24", "dev", "eth0"))
	pc, err := relay.ListenPacket("192.0.2.6:67")
	require.NoError(t, err)
	t.Cleanup(func() { _ = pc.Close() })
	conn, server := pc.(*net.UDPConn), netip.MustParseAddrPort("192.0.2.5:67")

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "dhcpd.conf"), []byte("authoritative; ping-check false; default-lease-time 600;\nsubnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.100 192.0.2.250; option routers 192.0.2.1; }\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "leases"), nil, 0o644))
	others := map[string]map[byte]*dhcpv4.DHCPv4{}
	for _, command := range [][]string{
		{"dhcpd", "-4", "-f", "-cf", dir + "/dhcpd.conf", "-lf", dir + "/leases", "-pf", dir + "/pid", "eth0"},
		{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping", "--dhcp-range=192.0.2.100,192.0.2.250", "--dhcp-leasefile=" + dir + "/dnsmasq", "--pid-file=" + dir + "/dpid", "--user=root"},
	} {
		p, err := router.Start(command[0], command[1:]...)
		require.NoError(t, err)
		others[command[0]] = askAll(t, conn, server, netip.MustParseAddr("192.0.2.6"), packets)
		p.Kill()
		<-p.Done()
	}

	opts := kernelOptions()
	opts.Relays = []netip.Prefix{netip.MustParsePrefix("192.0.2.6/32")}
	startSiteWith(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, func(s *Server) error { return router.Do(s.Listen) })
	ours := askAll(t, conn, server, netip.MustParseAddr("192.0.2.6"), packets)
	var silent []string
	for i, name := range names {
		answers := func(m map[byte]*dhcpv4.DHCPv4) bool { return m[byte(i)] != nil }
		if !answers(others["dhcpd"]) || !answers(others["dnsmasq"]) {
			silent = append(silent, name)
			continue
		}
		assert.True(t, answers(ours), "%s: both others answer", name)
	}
	assert.Equal(t, "empty 61, empty type, type zero", strings.Join(silent, ", "), "what one of the others leaves without an answer")
}

// The classes of option 60 and 77 are chosen whichever way a client writes its text.
func TestTextsOfClassesOnTheWire(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	opts := loopbackOptions(portOf(relay), 68)
	opts.Classes = []options.Class{
		{Name: "stb", Match: options.ClassMatch{VendorClass: "stb1"}, OptionSet: options.OptionSet{BootFile: "stb.img"}},
		{Name: "pxe", Match: options.ClassMatch{UserClass: "iPXE"}, OptionSet: options.OptionSet{BootFile: "pxe.img"}},
	}
	erp, _, _ := oddWorld()
	s := startSiteWith(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, (*Server).Listen)
	texts := []string{
		"\x3c\x04stb1", "\x3c\x05stb1\x00", "\x3c\x04othe\x3c\x04stb1", "\x3c\x05stb1\x00\x3c\x04othe", "\x3c\x02st\x3c\x02b1",
		"\x4d\x04iPXE", "\x4d\x05iPXE\x00", "\x4d\x05\x04iPXE", "\x4d\x06\x05iPXE\x00", "\x4d\x03foo\x4d\x04iPXE",
		"\x3c\x04stb2",
	}
	want := []string{"stb.img", "stb.img", "stb.img", "stb.img", "stb.img", "pxe.img", "pxe.img", "pxe.img", "pxe.img", "pxe.img", ""}
	packets := map[byte]string{}
	for i, text := range texts {
		packets[byte(i)] = "\x35\x01\x01" + text
	}
	got := askAll(t, relay, s.addr, loopRelay, packets)
	for i, text := range texts {
		if assert.NotNil(t, got[byte(i)], "%q", text) {
			assert.Equal(t, want[i], got[byte(i)].BootFileName, "%q", text)
		}
	}
}

// Subnets of two addresses and of one are served: no address of theirs is the network's or the broadcast's.
func TestSmallSubnets(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	opts := loopbackOptions(portOf(relay), 68)
	opts.Subnets = nil
	var erp provision.Input
	for _, n := range []struct{ prefix, gateway, client string }{
		{"198.51.100.0/31", "198.51.100.0", "198.51.100.1"}, {"198.51.100.2/31", "198.51.100.3", "198.51.100.2"}, {"198.51.100.255/32", "198.51.100.0", "198.51.100.255"},
		{"192.0.2.0/24", "192.0.2.1", "192.0.2.250"},
	} {
		p := netip.MustParsePrefix(n.prefix)
		opts.Subnets = append(opts.Subnets, v4.Subnet{Prefix: p, Gateway: ip(n.gateway), LeaseTime: time.Hour})
		erp.Subnets, erp.Reserved = append(erp.Subnets, p), append(erp.Reserved, ip(n.gateway))
		i := byte(len(erp.Lines))
		if n.client == "192.0.2.250" {
			i = 0xff
		}
		erp.Lines = append(erp.Lines, provision.Line{Subscriber: provision.SubscriberID(i) + 1, MAC: client(i), Addresses: provision.Hosts4(ip(n.client))})
	}
	// Guests get what is left: of a /31 without a gateway both, of a /32 the one.
	opts.Subnets = append(opts.Subnets, v4.Subnet{Prefix: netip.MustParsePrefix("203.0.113.4/31"), LeaseTime: time.Hour})
	opts.Unknown = v4.UnknownGuest
	opts.Pools = []v4.Pool{{Name: "two", Kind: v4.PoolGuests, Range: v4.RangeOf(netip.MustParsePrefix("203.0.113.4/31")), LeaseTime: time.Hour, Links: []netip.Prefix{netip.PrefixFrom(loopRelay, 32)}}}
	opts.Options.Options = line.Options{Relays: []netip.Prefix{netip.PrefixFrom(loopRelay, 32)}, Option82Relays: []string{line.EveryRelay}}
	s := startSiteWith(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, (*Server).Listen)

	discover := "\x35\x01\x01"
	got := askAll(t, relay, s.addr, loopRelay, map[byte]string{0: discover, 1: discover, 2: discover, 10: discover, 11: discover})
	told := func(i byte) string {
		r := got[i]
		if r == nil {
			return "silence"
		}
		return fmt.Sprint(r.YourIPAddr, " ", net.IP(r.SubnetMask()), " ", r.Router())
	}
	assert.Equal(t, "198.51.100.1 255.255.255.254 [198.51.100.0]", told(0))
	assert.Equal(t, "198.51.100.2 255.255.255.254 [198.51.100.3]", told(1))
	assert.Equal(t, "198.51.100.255 255.255.255.255 [198.51.100.0]", told(2))
	guests := []string{told(10), told(11)}
	slices.Sort(guests)
	assert.Equal(t, []string{"203.0.113.4 255.255.255.254 []", "203.0.113.5 255.255.255.254 []"}, guests)
}
