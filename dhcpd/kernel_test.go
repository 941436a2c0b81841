package dhcpd

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// needKernel skips a test that may not make namespaces, unless that must not happen.
func needKernel(t *testing.T, tools ...string) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = tool
		}
	}
	switch {
	case missing == "":
	case os.Getenv("USHER_REQUIRE_KERNEL") == "1":
		t.Fatalf("needs %s", missing)
	default:
		t.Skipf("needs %s", missing)
	}
}

// cable is a router and a customer's router, each in a namespace, on one veth pair.
type cable struct {
	t      *testing.T
	router string // names of the namespaces; the interface is eth0 in both
	cpe    string
}

func newCable(t *testing.T) *cable {
	t.Helper()
	id := fmt.Sprintf("ud%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	c := &cable{t: t, router: id + "-r", cpe: id + "-c"}
	for _, ns := range []string{c.router, c.cpe} {
		c.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		c.ip("-n", ns, "link", "set", "lo", "up")
	}
	c.ip("-n", c.router, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", c.cpe)
	c.ip("-n", c.cpe, "link", "set", "eth0", "address", stranger.String())
	for _, ns := range []string{c.router, c.cpe} {
		c.ip("-n", ns, "link", "set", "eth0", "up")
	}
	return c
}

func (c *cable) ip(args ...string) {
	c.t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(c.t, err, "ip %s: %s", strings.Join(args, " "), out)
}

// in runs f on a thread that is in a namespace. The thread is thrown away, so
// it never comes back to other goroutines.
func in(ns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		h, err := netns.GetFromName(ns)
		if err == nil {
			err = netns.Set(h)
			_ = h.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (c *cable) serve(opts Options, path string) *site {
	c.t.Helper()
	return c.serveInput(opts, siteInput(), path)
}

func (c *cable) serveInput(opts Options, erp provision.Input, path string) *site {
	c.t.Helper()
	return startSiteWith(c.t, path, opts, erp, func(s *Server) error { return in(c.router, s.Listen) })
}

func kernelOptions() Options {
	opts := loopbackOptions(67, 68)
	opts.Listen = netip.MustParseAddrPort("0.0.0.0:67")
	opts.Subnets[0].DNS = []netip.Addr{host(3)}
	opts.CommitTimeout = 10 * time.Second // a slow disk of the test's host makes no other outcome
	return opts
}

// udhcpc runs a real client once; it gives what the client told its script.
func (c *cable) udhcpc(s *site, args ...string) string {
	c.t.Helper()
	dir := c.t.TempDir()
	out := filepath.Join(dir, "told")
	script := filepath.Join(dir, "script")
	require.NoError(c.t, os.WriteFile(script, fmt.Appendf(nil, `#!/bin/sh
case "$1" in
deconfig) ip addr flush dev "$interface" ;;
bound|renew)
	ip addr replace "$ip/$mask" dev "$interface"
	echo "$1 $ip/$mask via $router dns $dns lease $lease from $serverid" >> %s ;;
nak) echo "$1" >> %s ;;
esac
`, out, out), 0o700))
	ctx, cancel := context.WithTimeout(c.t.Context(), 15*time.Second)
	defer cancel()
	all := append([]string{"netns", "exec", c.cpe, "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", script}, args...)
	cmd := exec.CommandContext(ctx, "ip", all...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	err := cmd.Run()
	require.NoError(c.t, err, "udhcpc: %s\nevents: %+v", log.String(), s.events.Find(EventFilter{}))
	told, err := os.ReadFile(out)
	require.NoError(c.t, err, "udhcpc: %s", log.String())
	return strings.TrimSpace(string(told))
}

// A real client without an address gets its own through a switch that inserts
// option 82, by a frame to its MAC, and by broadcast if it asks for that.
func TestKernelClientWithoutAddress(t *testing.T) {
	needKernel(t, "ip", "udhcpc")
	opt82 := "0x52:" + hex.EncodeToString(port(switch1, 2))
	for _, tc := range []struct {
		name    string
		address string // of the router's interface
		args    []string
		want    string
	}{
		{"link-layer unicast", "192.0.2.5/24", nil, "192.0.2.5"},
		{"broadcast", "192.0.2.5/24", []string{"-B"}, "192.0.2.5"},
		{"interface without an address", "", nil, "192.0.2.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCable(t)
			if tc.address != "" {
				c.ip("-n", c.router, "addr", "add", tc.address, "dev", "eth0")
			}
			s := c.serve(kernelOptions(), filepath.Join(t.TempDir(), "state.db"))
			told := c.udhcpc(s, append(tc.args, "-x", opt82)...)
			assert.Equal(t, "bound 192.0.2.21/24 via 192.0.2.1 dns 192.0.2.3 lease 3600 from "+tc.want, told)
			require.NoError(t, s.stop())
			events := s.events.Find(EventFilter{MAC: stranger})
			require.Len(t, events, 2, "%+v", events)
			assert.Equal(t, outcome.Ack, events[0].Outcome)
			assert.Equal(t, outcome.Offer, events[1].Outcome)
			assert.Equal(t, "eth0", events[0].Interface)
			require.Len(t, s.journal.reports, 1, "the ERP is to learn the MAC")
		})
	}
}

// A client that was off for longer than its lease names the old address in ciaddr of whatever it sends, from 0.0.0.0. It has no
// address and answers no ARP: only a frame to its MAC reaches it.
func TestKernelOldAddressInCIAddr(t *testing.T) {
	needKernel(t, "ip")
	mac, old, server := provision.MAC{2, 0, 0, 0, 0, 0x17}, ip("198.51.100.17"), netip.MustParseAddrPort("198.51.100.1:67")
	bound := provision.Input{Lines: []provision.Line{{Subscriber: 2, Addresses: provision.Hosts4(old), MAC: mac}}}
	for name, erp := range map[string]provision.Input{"bound": bound, "of a pool": siteInput()} {
		t.Run(name, func(t *testing.T) {
			c := newCable(t)
			c.ip("-n", c.router, "addr", "add", "198.51.100.1/24", "dev", "eth0")
			c.ip("-n", c.cpe, "link", "set", "eth0", "address", mac.String())
			opts := kernelOptions()
			opts.Subnets[0].Prefix, opts.Subnets[0].Gateway, opts.Subnets[0].DNS = netip.MustParsePrefix("198.51.100.0/24"), server.Addr(), nil
			opts.Unknown, opts.Pools = v4.UnknownGuest, []v4.Pool{{Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: old, Last: old}, LeaseTime: time.Minute, WarnAt: 0.9}}
			s := c.serveInput(opts, erp, filepath.Join(t.TempDir(), "state.db"))
			var cpe *net.UDPConn
			var tap *probe.Tap
			require.NoError(t, in(c.cpe, func() (err error) {
				lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
					return errors.Join(raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "eth0") }), err)
				}}
				pc, err := lc.ListenPacket(t.Context(), "udp4", "0.0.0.0:68")
				if err != nil {
					return err
				}
				cpe = pc.(*net.UDPConn)
				tap, err = probe.OpenTap("eth0")
				return err
			}))
			t.Cleanup(func() { assert.NoError(t, errors.Join(cpe.Close(), tap.Close())) })
			for _, m := range []struct {
				options string
				want    dhcpv4.MessageType
			}{
				{"3501013d07010200000000173204c6336411ff", dhcpv4.MessageTypeOffer},
				{"3501033d07010200000000173204c63364113604c6336401ff", dhcpv4.MessageTypeAck},
				{"3501033d07010200000000173204c6336411ff", dhcpv4.MessageTypeAck}, // INIT-REBOOT
				{"3501083d0701020000000017ff", dhcpv4.MessageTypeAck},             // INFORM
			} {
				raw, err := hex.DecodeString("010106001758c71eba200000c633641100000000000000000000000002000000001700000000000000000000" +
					strings.Repeat("00", 64+128) + "63825363" + m.options)
				require.NoError(t, err)
				_, err = cpe.WriteToUDPAddrPort(raw, netip.MustParseAddrPort("255.255.255.255:67"))
				require.NoError(t, err)
				var got probe.Packet
				for got.From != server {
					got, err = tap.Receive(time.Now().Add(5 * time.Second))
					require.NoError(t, err, "no answer to %s: %+v", m.options, s.events.Find(EventFilter{}))
					if got.Sent {
						require.Equal(t, netip.IPv4Unspecified(), got.From.Addr())
					}
				}
				reply, err := dhcpv4.FromBytes(got.Payload)
				require.NoError(t, err)
				assert.Equal(t, m.want, reply.MessageType())
				assert.Equal(t, mac.String(), got.ToMAC.String())
				assert.Equal(t, netip.AddrPortFrom(old, 68), got.To)
			}
			require.NoError(t, s.stop())
		})
	}
}

// A renewal is unicast and has no option 82: the lease record answers it, also
// after the server was started anew.
func TestKernelRenewalAfterRestart(t *testing.T) {
	needKernel(t, "ip", "udhcpc")
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "192.0.2.5/24", "dev", "eth0")
	path := filepath.Join(t.TempDir(), "state.db")
	s := c.serve(kernelOptions(), path)
	c.udhcpc(s, "-x", "0x52:"+hex.EncodeToString(port(switch1, 2)))
	require.NoError(t, s.stop())

	s = c.serve(kernelOptions(), path)
	var cpe *net.UDPConn
	require.NoError(t, in(c.cpe, func() (err error) {
		cpe, err = net.ListenUDP("udp4", &net.UDPAddr{IP: subscriberIP.AsSlice(), Port: 68})
		return err
	}))
	defer cpe.Close()
	s.addr = netip.MustParseAddrPort("192.0.2.5:67")
	ack := s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(subscriberIP.AsSlice())))
	assert.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
	assert.Equal(t, subscriberIP.String(), ack.YourIPAddr.String())
	assert.Equal(t, "192.0.2.5", ack.ServerIdentifier().String())

	// The answer comes from the address that was asked, also if it is not the first one.
	c.ip("-n", c.router, "addr", "add", "192.0.2.6/24", "dev", "eth0")
	s.addr = netip.MustParseAddrPort("192.0.2.6:67")
	ack = s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(subscriberIP.AsSlice())))
	assert.Equal(t, "192.0.2.6", ack.ServerIdentifier().String())

	// Server ids of this host are ours on whatever interface the client asks; others are not.
	c.ip("-n", c.router, "addr", "add", "198.51.100.77/32", "dev", "lo")
	ack = s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(subscriberIP.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(198, 51, 100, 77)))))
	assert.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
	_, err := cpe.WriteToUDPAddrPort(packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(subscriberIP.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(198, 51, 100, 78)))).ToBytes(), s.addr)
	require.NoError(t, err)
	s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(subscriberIP.AsSlice())))
	require.NoError(t, s.stop())
	events := s.events.Find(EventFilter{MAC: stranger})
	require.Len(t, events, 5)
	assert.Equal(t, outcome.NotForUs, events[1].Outcome)
}

// A real relay adds option 82 with the name of its interface; the switch is
// found by the relay's address. The client then renews past the relay.
func TestKernelRelay(t *testing.T) {
	needKernel(t, "ip", "udhcpc", "dhcrelay")
	c := newCable(t)
	relay := c.router + "l"
	c.ip("netns", "add", relay)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", relay).Run() })
	// cpe eth0 - relay eth2, relay up0 - router eth0
	c.ip("-n", c.cpe, "link", "del", "eth0")
	c.ip("-n", c.cpe, "link", "add", "eth0", "address", stranger.String(), "type", "veth", "peer", "name", "eth2", "netns", relay)
	c.ip("-n", c.router, "link", "add", "eth0", "type", "veth", "peer", "name", "up0", "netns", relay)
	for _, l := range [][2]string{{c.cpe, "eth0"}, {relay, "eth2"}, {relay, "up0"}, {c.router, "eth0"}} {
		c.ip("-n", l[0], "link", "set", l[1], "up")
	}
	c.ip("-n", relay, "addr", "add", "192.0.2.1/24", "dev", "eth2")
	c.ip("-n", relay, "addr", "add", "198.51.100.11/24", "dev", "up0")
	c.ip("netns", "exec", relay, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	c.ip("-n", c.router, "addr", "add", "198.51.100.5/24", "dev", "eth0")
	c.ip("-n", c.router, "route", "add", "192.0.2.0/24", "via", "198.51.100.11")
	opts := kernelOptions()
	opts.Relays = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	erp := siteInput()
	erp.Devices[0].IP = host(1) // the relay is the switch
	s := c.serveInput(opts, erp, filepath.Join(t.TempDir(), "state.db"))

	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", relay, "dhcrelay", "-d", "-a", "-4",
		"-id", "eth2", "-iu", "up0", "-pf", filepath.Join(t.TempDir(), "pid"), "198.51.100.5")
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	stop := sync.OnceFunc(func() { cancel(); _ = cmd.Wait() })
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("dhcrelay: %s", log.String())
		}
	})
	// udhcpc asks once a second until the relay is up.
	told := c.udhcpc(s)
	assert.Equal(t, "bound 192.0.2.21/24 via 192.0.2.1 dns 192.0.2.3 lease 3600 from 198.51.100.5", told)
	var ack []Event // an event is logged after its reply was sent
	require.Eventually(t, func() bool { ack = s.events.Find(EventFilter{Outcome: outcome.Ack}); return len(ack) > 0 }, 5*time.Second, time.Millisecond)
	require.Len(t, ack, 1)
	assert.Equal(t, "192.0.2.1", ack[0].GIAddr.String())
	assert.EqualValues(t, 1, ack[0].Device)
	assert.Contains(t, string(ack[0].Option82), "eth2")

	stop() // the renewal goes past the relay
	c.ip("-n", c.cpe, "route", "add", "default", "via", "192.0.2.1")
	var cpe *net.UDPConn
	require.NoError(t, in(c.cpe, func() (err error) {
		cpe, err = net.ListenUDP("udp4", &net.UDPAddr{IP: subscriberIP.AsSlice(), Port: 68})
		return err
	}))
	defer cpe.Close()
	s.addr = netip.MustParseAddrPort("198.51.100.5:67")
	renewed := s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(subscriberIP.AsSlice())))
	assert.Equal(t, dhcpv4.MessageTypeAck, renewed.MessageType())
	require.NoError(t, s.stop())
}

// Only the interfaces that are listed are answered on.
func TestKernelInterfaceOff(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "192.0.2.5/24", "dev", "eth0")
	c.ip("-n", c.cpe, "addr", "add", "192.0.2.21/24", "dev", "eth0")
	opts := kernelOptions()
	opts.Interfaces = []string{"vlan*"}
	s := c.serve(opts, filepath.Join(t.TempDir(), "state.db"))
	var cpe *net.UDPConn
	require.NoError(t, in(c.cpe, func() (err error) {
		cpe, err = net.ListenUDP("udp4", &net.UDPAddr{IP: subscriberIP.AsSlice(), Port: 68})
		return err
	}))
	defer cpe.Close()
	s.addr = netip.MustParseAddrPort("192.0.2.5:67")
	inform := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(subscriberIP.AsSlice()))
	_, err := cpe.WriteToUDPAddrPort(inform.ToBytes(), s.addr)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.events.Seen() == 1 }, 5*time.Second, time.Millisecond)
	opts.Interfaces = []string{"eth?"}
	require.NoError(t, s.server.Reload(opts))
	assert.Equal(t, dhcpv4.MessageTypeAck, s.exchange(cpe, inform).MessageType())
	require.NoError(t, s.stop())
	events := s.events.Find(EventFilter{})
	require.Len(t, events, 2)
	assert.Equal(t, outcome.InterfaceOff, events[1].Outcome)
	assert.Equal(t, "eth0", events[1].Interface)
}
