package link

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/route"
)

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// fixed returns the header of a message: its bytes and then as many zeros as it takes.
func fixed(n int, b ...byte) []byte { return append(b, make([]byte, n-len(b))...) }

// What the kernel tells of links, routes and neighbours, and whatever else it might
// tell one day: nothing panics, and what is taken is whole.
func FuzzMessages(f *testing.F) {
	host := netip.MustParseAddr("192.0.2.17").AsSlice()
	link := fixed(unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(link[4:], 7)
	f.Add(uint16(unix.RTM_NEWLINK), append(link, attr(unix.IFLA_IFNAME, []byte("eth1.101\x00"))...))
	f.Add(uint16(unix.RTM_NEWLINK), append(link, attr(unix.IFLA_IFNAME, []byte("eth1.101"))...)) // not ended
	routeMsg := fixed(unix.SizeofRtMsg, unix.AF_INET, 32, 0, 0, 254, 207, 0, unix.RTN_UNICAST)
	f.Add(uint16(unix.RTM_NEWROUTE), append(append(append(routeMsg, attr(unix.RTA_DST, host)...), attr(unix.RTA_OIF, u32(7))...), attr(unix.RTA_TABLE, u32(1000))...))
	f.Add(uint16(unix.RTM_DELROUTE), append(routeMsg, attr(unix.RTA_MULTIPATH, host)...))
	neigh := fixed(unix.SizeofNdMsg, unix.AF_INET, 0, 0, 0, 7, 0, 0, 0, unix.NUD_REACHABLE)
	f.Add(uint16(unix.RTM_NEWNEIGH), append(append(neigh, attr(unix.NDA_DST, host)...), attr(unix.NDA_LLADDR, []byte{0, 0, 0x5e, 0, 0x53, 1})...))
	f.Add(uint16(unix.RTM_NEWNEIGH), append(neigh, 200, 0, 1, 0))
	address := fixed(unix.SizeofIfAddrmsg, unix.AF_INET, 24, 0, 0, 7, 0, 0, 0)
	f.Add(uint16(unix.RTM_DELADDR), address)
	f.Add(uint16(unix.RTM_DELADDR), address[:unix.SizeofIfAddrmsg-1])
	r := &Routes{protocol: 207}
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		if ev, ok := r.event(typ, 1, data); ok {
			kinds := 0 // one of them each
			for _, is := range [...]bool{ev.Link != nil, ev.Route != nil, ev.Unnumbered > 0} {
				if is {
					kinds++
				}
			}
			require.Equal(t, 1, kinds, "%+v", ev)
			require.False(t, ev.Lost)
		}
		if l, ok := parseLink(data); ok {
			require.Positive(t, l.Index)
			require.NotEmpty(t, l.Name)
		}
		if nb, _, ok := parseNeighbour(data); ok {
			require.True(t, nb.IP.Is4())
			require.NotZero(t, nb.State)
		}
		rt, ok := r.parseRoute(data)
		if !ok {
			return
		}
		require.True(t, rt.Addr.Is4())
		require.Positive(t, rt.Ifindex)
		// What we write of it reads back as the same, without the header of netlink.
		again, ok := r.parseRoute(r.appendChange(nil, route.Change{Op: provision.OpAdd, Route: rt}, 0, 1)[unix.SizeofNlMsghdr:])
		require.True(t, ok)
		require.Equal(t, rt, again)
	})
}
