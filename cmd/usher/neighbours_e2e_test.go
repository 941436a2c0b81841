package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// A subscriber with static settings and a router that the ERP does not know: its
// MAC gets into the ERP without a single DHCP packet.
func TestKernelStaticSubscriberIsReported(t *testing.T) {
	t.Parallel()
	u := startUnnumbered(t, 2, "acl: {enabled: false}\nneighbours: {enabled: true, interfaces: [\"cust*\"], min_time: 1s}\n")
	a, known := u.subs[0], u.subs[1]
	for _, h := range u.subs {
		require.NoError(t, u.Router.IP("route", "add", h.IP.String()+"/32", "dev", h.Port))
	}
	require.NoError(t, a.Host.IP("link", "set", "dev", "eth0", "address", "00:00:5e:00:53:aa"))
	require.NoError(t, u.StartAgent(t.Context()))
	for _, h := range u.subs {
		require.NoError(t, h.Host.IP("addr", "add", h.IP.String()+"/24", "dev", "eth0"))
		require.NoError(t, h.Host.IP("route", "add", "default", "via", "192.0.2.1"))
		// The router asks for the subscriber and is answered: that is a confirmation.
		u.pings(t, u.Router, h.IP.String())
	}
	macInERP := func(h miniature.Home) emulator.MAC {
		c, ok := u.ERP.Customer(h.ID)
		require.True(t, ok)
		return c.Addresses[0].MAC
	}
	eventually(t, 15*time.Second, "the ERP has the MAC", func() (bool, error) {
		return macInERP(a) == emulator.MAC{0, 0, 0x5e, 0, 0x53, 0xaa}, nil
	})
	require.Equal(t, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x21}, macInERP(known))
	// It is counted when the ERP's answer has come, which is after the ERP has it.
	eventually(t, 5*time.Second, "the report is counted", func() (bool, error) { return u.status(t).Outbox.Sent > 0, nil })
	require.EqualValues(t, 1, u.status(t).Outbox.Sent)
}

// sharedWire is a world whose interface cust1, guarded by MAC, leads to a switch where
// several customers with static settings are.
type sharedWire struct {
	*world
	sw *lab.Host
	n  int
}

func startSharedWire(t *testing.T, dhcp string) *sharedWire {
	t.Helper()
	return startSharedWireWith(t, miniature.Options{
		DHCP:  dhcp,
		Extra: "acl: {source_guard: {direct: [cust1]}}\nneighbours: {enabled: true, interfaces: [\"cust*\"], min_time: 1s}\n",
	})
}

// startSharedWireWith makes one with more options.
func startSharedWireWith(t *testing.T, o miniature.Options) *sharedWire {
	t.Helper()
	o.Homes, o.Interfaces = 1, []string{`"cust*"`}
	o.Subnets = "    - {prefix: 192.0.2.0/24, gateway: 192.0.2.1, lease_time: 10m}\n"
	w := worldWithoutRelay(t, o)
	s := &sharedWire{world: w}
	var err error
	s.sw, err = w.Lab.Host("lan")
	require.NoError(t, err)
	require.NoError(t, s.sw.IP("link", "add", "br0", "type", "bridge"))
	require.NoError(t, s.sw.IP("link", "set", "dev", "br0", "up"))
	s.join(t, w.Router, "cust1")
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.1/24", "dev", "cust1"))
	return s
}

// join plugs an interface of a host into the switch.
func (s *sharedWire) join(t *testing.T, h *lab.Host, name string) {
	t.Helper()
	s.n++
	port := fmt.Sprintf("p%d", s.n)
	require.NoError(t, s.Lab.Wire(s.sw, port, h, name))
	require.NoError(t, s.sw.IP("link", "set", "dev", port, "master", "br0"))
}

// host adds a host with a MAC, and with an address unless that is invalid.
func (s *sharedWire) host(t *testing.T, name string, mac emulator.MAC, ip netip.Addr) *lab.Host {
	t.Helper()
	h, err := s.Lab.Host(name)
	require.NoError(t, err)
	s.join(t, h, "eth0")
	require.NoError(t, h.IP("link", "set", "dev", "eth0", "address", mac.String()))
	if ip.IsValid() {
		require.NoError(t, h.IP("addr", "add", ip.String()+"/24", "dev", "eth0"))
	}
	return h
}

func (s *sharedWire) customer(t *testing.T, name string, ip netip.Addr, mac emulator.MAC) (id int64) {
	t.Helper()
	id, err := s.ERP.AddCustomer(emulator.Customer{Login: name, FullName: name, State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: ip, MAC: mac}}})
	require.NoError(t, err)
	return id
}

func (s *sharedWire) macInERP(t *testing.T, id int64) emulator.MAC {
	t.Helper()
	c, ok := s.ERP.Customer(id)
	require.True(t, ok)
	return c.Addresses[0].MAC
}

// neighbours reads how often an outcome was counted.
func (s *sharedWire) neighbours(t *testing.T, outcome string) int {
	t.Helper()
	m := regexp.MustCompile(`usher_neighbours_total\{outcome="` + outcome + `"\} (\d+)`).FindStringSubmatch(s.metrics(t))
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

// bound reports whether the source guard lets an address in with a MAC.
func (s *sharedWire) bound(t *testing.T, ip netip.Addr, mac emulator.MAC) bool {
	t.Helper()
	return strings.Contains(s.nft(t, "list", "set", "inet", "usher", "bound_direct"), ip.String()+" . "+mac.String())
}

// reports returns the audit records of MACs that the ERP was told.
func (s *sharedWire) reports(t *testing.T) (out []audit.Record) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, "state", "audit.jsonl"))
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	for line := range bytes.Lines(b) {
		var r audit.Record
		require.NoError(t, json.Unmarshal(line, &r), "%s", line)
		if r.Act == audit.SetMAC {
			out = append(out, r)
		}
	}
	return out
}

// claim has a host say by ARP that it has an address: to everybody, as when an address
// is new (RFC 5227 section 2.3), in a question for the router, and as an answer to the router that did
// not ask. By the last two the router's kernel has an entry, and takes it for reachable.
func (s *sharedWire) claim(h *lab.Host, mac emulator.MAC, ip netip.Addr) error {
	var router net.HardwareAddr
	if err := s.Router.Do(func() error {
		i, err := net.InterfaceByName("cust1")
		if err == nil {
			router = i.HardwareAddr
		}
		return err
	}); err != nil {
		return err
	}
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	packet := func(op uint16, to net.HardwareAddr, target netip.Addr) []byte {
		b := append(append([]byte{}, to...), mac[:]...)
		b = binary.BigEndian.AppendUint16(append(b, 8, 6, 0, 1, 8, 0, 6, 4), op)
		b = append(append(b, mac[:]...), ip.AsSlice()...)
		return append(append(b, to...), target.AsSlice()...)
	}
	return h.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, b := range [][]byte{
			packet(1, everybody, ip),
			packet(1, everybody, netip.MustParseAddr("192.0.2.1")),
			packet(2, router, netip.MustParseAddr("192.0.2.1")),
		} {
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
				return err
			}
		}
		return nil
	})
}

var (
	staticIP  = netip.MustParseAddr("192.0.2.10")
	freshIP   = netip.MustParseAddr("192.0.2.11")
	staticMAC = emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x10}
	thiefMAC  = emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x66}
	freshMAC  = emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x11}
)

// A neighbour who says by ARP that he has another's address gets neither the ERP's
// row nor the element of the source guard, whatever mac_change says; a first MAC is learned under each. He does not
// either while who has leased the address is off.
func TestKernelARPAloneTakesNoAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, change, outcome string }{
		{"accept", "accept", "still_answers"}, {"refuse", "refuse", "refused"}, {"a live lease", "accept", "leased"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSharedWire(t, "  mac_change: "+c.change+"\n")
			id := s.customer(t, "static", staticIP, staticMAC)
			fresh := s.customer(t, "fresh", freshIP, emulator.MAC{})
			static := s.host(t, "static", staticMAC, staticIP)
			thief := s.host(t, "thief", thiefMAC, netip.Addr{})
			s.host(t, "fresh", freshMAC, freshIP)
			require.NoError(t, s.StartAgent(t.Context()))
			require.True(t, s.bound(t, staticIP, staticMAC))
			if c.outcome == "leased" {
				require.NoError(t, s.Lease(t.Context(), miniature.Home{Host: static, IP: staticIP}))
				require.NoError(t, static.IP("link", "set", "dev", "eth0", "down"))
			}

			eventually(t, 30*time.Second, "the claim comes to nothing", func() (bool, error) {
				if m := s.macInERP(t, id); m != staticMAC {
					return false, fmt.Errorf("the ERP was told %s", m)
				}
				return s.neighbours(t, c.outcome) > 0, s.claim(thief, thiefMAC, staticIP)
			})
			require.Zero(t, s.neighbours(t, "reported"))
			require.Empty(t, s.reports(t))
			if c.outcome == "leased" {
				require.Equal(t, staticMAC, s.leasedTo(t, staticIP))
			}
			require.True(t, s.bound(t, staticIP, staticMAC))
			require.False(t, s.bound(t, staticIP, thiefMAC))

			// The echo does not pass the source guard yet; the router has asked for the address, which is enough.
			ping(t, s.Router, "192.0.2.1", freshIP.String())
			eventually(t, 15*time.Second, "the ERP has the first MAC", func() (bool, error) { return s.macInERP(t, fresh) == freshMAC, nil })
			eventually(t, 5*time.Second, "it is recorded", func() (bool, error) { return len(s.reports(t)) == 1, nil })
			e := s.reports(t)[0].Who.Evidence
			require.NotNil(t, e)
			require.NotNil(t, e.ARP)
			require.False(t, e.ARP.Seen.IsZero())
			e.ARP.Seen = time.Time{}
			require.Equal(t, &audit.Evidence{Interface: "cust1", ARP: &audit.ARP{}}, e)
			require.Equal(t, staticMAC, s.macInERP(t, id))
		})
	}
}

// The old router is gone and another one answers in its place: the ERP is told, and
// the source guard follows.
func TestKernelARPFollowsASwappedRouter(t *testing.T) {
	t.Parallel()
	s := startSharedWire(t, "")
	id := s.customer(t, "static", staticIP, staticMAC)
	old := s.host(t, "old", staticMAC, staticIP)
	require.NoError(t, s.StartAgent(t.Context()))
	require.True(t, ping(t, s.Router, "192.0.2.1", staticIP.String()))
	eventually(t, 5*time.Second, "the old router is seen", func() (bool, error) { return s.neighbours(t, "known") > 0, nil })
	require.NoError(t, old.IP("link", "set", "dev", "eth0", "down"))
	swapped := s.host(t, "new", freshMAC, staticIP)
	require.NoError(t, s.claim(swapped, freshMAC, staticIP))
	eventually(t, 15*time.Second, "the ERP has the new MAC", func() (bool, error) {
		return s.macInERP(t, id) == freshMAC, s.claim(swapped, freshMAC, staticIP)
	})
	eventually(t, 5*time.Second, "the source guard follows", func() (bool, error) {
		return s.bound(t, staticIP, freshMAC) && !s.bound(t, staticIP, staticMAC), nil
	})
	r := s.reports(t)
	require.Len(t, r, 1)
	require.Equal(t, provision.MAC(freshMAC), r[0].What.MAC)
	require.NotNil(t, r[0].Who.Evidence)
	require.Equal(t, "cust1", r[0].Who.Evidence.Interface)
	require.Equal(t, provision.MAC(staticMAC), r[0].Who.Evidence.ARP.Silent)
	require.EqualValues(t, 3, r[0].Who.Evidence.ARP.Asked)
}
