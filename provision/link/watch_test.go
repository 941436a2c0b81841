package link

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

func linkEvent(typ uint16, family uint8, l netlink.Link) *netlink.LinkUpdate {
	u := &netlink.LinkUpdate{Link: l}
	u.Header.Type, u.Family, u.Index = typ, family, int32(l.Attrs().Index)
	return u
}

func attrs(index int, name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Index, a.Name, a.RawFlags = index, name, unix.IFF_UP
	a.HardwareAddr = net.HardwareAddr{0, 0, 0x5e, 0, 0x53, byte(index)}
	return a
}

func cidr(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

// What the kernel says of an interface becomes ours, VLAN tag and parent included.
func TestLinkOfEveryKind(t *testing.T) {
	vlan := &netlink.Vlan{LinkAttrs: attrs(7, "eth1.100"), VlanId: 100}
	vlan.ParentIndex = 3
	veth := &netlink.Veth{LinkAttrs: attrs(8, "cust"), PeerName: "eth0"}
	veth.ParentIndex = 9
	macvlan := &netlink.Macvlan{LinkAttrs: attrs(10, "mv0")}
	macvlan.ParentIndex, macvlan.NetNsID = 3, 2
	down := &netlink.Device{LinkAttrs: attrs(11, "eth2")}
	down.RawFlags, down.HardwareAddr = 0, nil
	lo := &netlink.Device{LinkAttrs: attrs(1, "lo")}
	lo.RawFlags |= unix.IFF_LOOPBACK
	mac := func(n byte) provision.MAC { return provision.MAC{0, 0, 0x5e, 0, 0x53, n} }
	for _, tt := range []struct {
		name string
		link netlink.Link
		want provision.Interface
	}{
		{"vlan", vlan, provision.Interface{Index: 7, Name: "eth1.100", Kind: "vlan", MAC: mac(7), Parent: 3, VLAN: 100, Up: true}},
		{"veth: the other end is no parent", veth, provision.Interface{Index: 8, Name: "cust", Kind: "veth", MAC: mac(8), Up: true}},
		{"macvlan on an interface of another namespace", macvlan, provision.Interface{Index: 10, Name: "mv0", Kind: "macvlan", MAC: mac(10), Up: true}},
		{"down, without a hardware address", down, provision.Interface{Index: 11, Name: "eth2", Kind: "device"}},
		{"loopback", lo, provision.Interface{Index: 1, Name: "lo", Kind: "device", MAC: mac(1), Up: true, Loopback: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newHostState()
			require.True(t, s.link(tt.link))
			require.Equal(t, []provision.Interface{tt.want}, s.list())
			require.False(t, s.link(tt.link), "the same again is no change")
		})
	}
}

func TestEventsAddUp(t *testing.T) {
	s := newHostState()
	eth := &netlink.Device{LinkAttrs: attrs(2, "eth0")}
	names := func() (out []string) {
		for _, f := range s.list() {
			out = append(out, f.Name)
		}
		return out
	}
	require.True(t, s.addr(2, cidr("192.0.2.1/24"), 0, true), "the stream of addresses may be ahead")
	require.Empty(t, names())
	require.True(t, s.linkUpdate(linkEvent(unix.RTM_NEWLINK, unix.AF_UNSPEC, eth)))
	require.False(t, s.linkUpdate(linkEvent(unix.RTM_DELLINK, unix.AF_BRIDGE, eth)), "it left a bridge")
	require.Equal(t, []string{"eth0"}, names())

	renamed := &netlink.Device{LinkAttrs: attrs(2, "wan0")}
	require.True(t, s.linkUpdate(linkEvent(unix.RTM_NEWLINK, unix.AF_UNSPEC, renamed)))
	require.Equal(t, []string{"wan0"}, names())

	// Secondary addresses come behind all primary ones, whenever they came.
	require.True(t, s.addr(2, cidr("192.0.2.2/24"), unix.IFA_F_SECONDARY, true))
	require.True(t, s.addr(2, cidr("198.51.100.1/25"), 0, true))
	require.False(t, s.addr(2, cidr("198.51.100.1/25"), 0, true))
	require.False(t, s.addr(2, cidr("2001:db8::1/64"), 0, true), "IPv4 only")
	p := netip.MustParsePrefix
	require.Equal(t, []netip.Prefix{p("192.0.2.1/24"), p("198.51.100.1/25"), p("192.0.2.2/24")}, s.list()[0].Addrs)
	require.True(t, s.addr(2, cidr("192.0.2.2/24"), 0, true), "promoted")
	require.True(t, s.addr(2, cidr("192.0.2.1/24"), 0, false))
	require.False(t, s.addr(2, cidr("192.0.2.1/24"), 0, false))
	require.Equal(t, []netip.Prefix{p("192.0.2.2/24"), p("198.51.100.1/25")}, s.list()[0].Addrs)

	require.True(t, s.linkUpdate(linkEvent(unix.RTM_DELLINK, unix.AF_UNSPEC, renamed)))
	require.False(t, s.linkUpdate(linkEvent(unix.RTM_DELLINK, unix.AF_UNSPEC, renamed)))
	require.Empty(t, names())
}

// A host that makes or loses one interface of thousands is listed quickly, and
// what did not change stays the same pointer.
func BenchmarkPublish2000(b *testing.B) {
	w := &Watch{state: newHostState()}
	for i := 1; i <= 2000; i++ {
		w.state.link(&netlink.Vlan{LinkAttrs: attrs(i, "eth1."+string(rune('a'+i%26))), VlanId: i})
		w.state.addr(i, cidr("192.0.2.1/32"), 0, true)
	}
	w.publish()
	up := true
	b.ReportAllocs()
	for b.Loop() {
		up = !up
		l := attrs(1000, "flap")
		if !up {
			l.RawFlags = 0
		}
		w.state.link(&netlink.Vlan{LinkAttrs: l, VlanId: 1000})
		w.publish()
	}
	require.EqualValues(b, b.N, w.Status().Changes)
}

// A subscription that breaks, as it does when the kernel has more to say than
// its buffer holds, is made anew; the last view stays until then.
func TestBrokenSubscriptionIsMadeAnew(t *testing.T) {
	w, err := OpenWatch(WatchOptions{})
	require.NoError(t, err)
	before := w.View()
	require.NotNil(t, before.ByName("lo"))
	w.sub.stop()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	require.Eventually(t, func() bool { return w.Status().Resyncs == 1 }, 10*time.Second, time.Millisecond)
	require.Same(t, before.ByName("lo"), w.View().ByName("lo"))
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, w.Close())
}
