package dhcpd

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A client that has an address is answered on the interface that it asked on: where two interfaces have the same
// network, and at the first renewal after it moved, while the route to it still leads to where it was.
func TestKernelDirectClientsAreAnsweredWhereTheyAsk(t *testing.T) {
	needKernel(t, "ip")
	for name, tc := range map[string]struct {
		setUp  func(c *cable)
		routes bool
	}{
		"two interfaces with one network": {func(c *cable) {
			for _, dev := range []string{"cust1", "cust2"} {
				c.ip("-n", c.router, "addr", "add", "192.0.2.1/24", "dev", dev)
			}
		}, false},
		"unnumbered, and the host route leads elsewhere": {func(c *cable) {
			c.ip("-n", c.router, "addr", "add", "192.0.2.1/32", "dev", "lo")
			c.ip("-n", c.router, "route", "add", "192.0.2.21/32", "dev", "cust1")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCable(t)
			first, second := c.wire("cust1"), c.wire("cust2")
			for _, dev := range []string{"all", "cust1", "cust2"} {
				require.NoError(t, in(c.router, func() error {
					return os.WriteFile(filepath.Join("/proc/sys/net/ipv4/conf", dev, "rp_filter"), []byte("0"), 0o644)
				}))
			}
			tc.setUp(c)
			opts := kernelOptions()
			opts.Interfaces = []string{"cust*"}
			if tc.routes {
				opts.HostRoutes = func(name string) bool { return name == "cust1" || name == "cust2" }
			}
			erp := siteInput()
			erp.Lines[0].MAC, erp.Lines[0].Device, erp.Lines[0].Port, erp.Lines[0].PortName = stranger, 0, 0, ""
			s := startSiteLinks(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, watchIn(t, c.router), func(s *Server) error { return in(c.router, s.Listen) })
			require.NotNil(t, first.ask(t, 5*time.Second, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP(subscriberIP.AsSlice()))))), "INIT-REBOOT on the first")

			server := netip.MustParseAddrPort("192.0.2.1:67")
			for what, mods := range map[string][]dhcpv4.Modifier{
				"renewal": {dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)},
				"INFORM":  {dhcpv4.WithMessageType(dhcpv4.MessageTypeInform)},
			} {
				p := packet(t, append(mods, dhcpv4.WithClientIP(net.IP(subscriberIP.AsSlice())))...)
				c.ip("-n", second.ns, "neigh", "replace", "192.0.2.1", "lladdr", c.mac("cust2"), "dev", "eth0") // it asked for the router before
				_, err := second.conn.WriteToUDPAddrPort(p.ToBytes(), server)
				require.NoError(t, err)
				buf := make([]byte, 2048)
				require.NoError(t, second.conn.SetReadDeadline(time.Now().Add(5*time.Second)))
				n, from, err := second.conn.ReadFromUDPAddrPort(buf)
				require.NoError(t, err, "%s is not answered where it was asked: %+v", what, s.events.Find(EventFilter{Limit: 2}))
				reply, err := dhcpv4.FromBytes(buf[:n])
				require.NoError(t, err)
				assert.Equal(t, p.TransactionID, reply.TransactionID)
				assert.Equal(t, dhcpv4.MessageTypeAck, reply.MessageType())
				assert.Equal(t, server, from, "from whom it asked")
				require.NoError(t, first.conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
				_, _, err = first.conn.ReadFromUDPAddrPort(buf)
				require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the other one hears nothing")
			}
			require.NoError(t, s.stop())
		})
	}
}

// mac returns the hardware address of an interface of the router.
func (c *cable) mac(dev string) (mac string) {
	c.t.Helper()
	require.NoError(c.t, in(c.router, func() error {
		f, err := net.InterfaceByName(dev)
		if err == nil {
			mac = f.HardwareAddr.String()
		}
		return err
	}))
	return mac
}
