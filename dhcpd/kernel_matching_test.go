package dhcpd

import (
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// A real client on the VLAN of one customer is found by the interface's name
// alone; option 82 that it makes up there is not believed.
func TestKernelMatchByVLANInterface(t *testing.T) {
	needKernel(t, "ip", "udhcpc")
	c := newCable(t)
	// It is the name that counts: not every kernel that runs tests has 802.1Q.
	c.ip("-n", c.router, "link", "set", "eth0", "down")
	c.ip("-n", c.router, "link", "set", "eth0", "name", "eth0.200", "up")
	c.ip("-n", c.router, "addr", "add", "192.0.2.5/24", "dev", "eth0.200")
	opts := kernelOptions()
	opts.Interfaces = []string{"eth0.*"}
	opts.Match, opts.VLANInterfaces = []v4.MatchKind{v4.MatchOption82, v4.MatchVLAN}, []string{"eth0.{vlan}"}
	opts.TrustedInterfaces = []string{"core"}
	erp := siteInput() // port 2 is another customer's
	erp.Lines = append(erp.Lines, provision.Line{Subscriber: 9, Addresses: provision.Hosts4(host(91)), VLAN: 200})
	s := c.serveInput(opts, erp, filepath.Join(t.TempDir(), "state.db"))
	told := c.udhcpc(s)
	assert.Equal(t, "bound 192.0.2.91/24 via 192.0.2.1 dns 192.0.2.3 lease 3600 from 192.0.2.5", told)
	ack := s.events.Find(EventFilter{Outcome: outcome.Ack})
	require.Len(t, ack, 1)
	assert.Equal(t, "eth0.200", ack[0].Interface)
	assert.EqualValues(t, 9, ack[0].Subscriber)

	var cpe *net.UDPConn
	require.NoError(t, in(c.cpe, func() (err error) {
		cpe, err = net.ListenUDP("udp4", &net.UDPAddr{IP: host(91).AsSlice(), Port: 68})
		return err
	}))
	defer cpe.Close()
	s.addr = netip.MustParseAddrPort("192.0.2.5:67")
	forged := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(host(91).AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2))))
	answered := s.exchange(cpe, forged)
	assert.Equal(t, dhcpv4.MessageTypeAck, answered.MessageType(), "as if it were not there")
	assert.Equal(t, port(switch1, 2), answered.Options.Get(dhcpv4.OptionRelayAgentInformation), "but echoed")
	rec, known := s.server.deps.Leases.Get(host(91))
	require.True(t, known)
	assert.Empty(t, rec.Option82)
	assert.Equal(t, "eth0.200", rec.Interface)
	assert.Empty(t, s.events.Find(EventFilter{IP: host(21)}), "nothing of the other port's customer")
	renewed := s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(host(91).AsSlice())))
	assert.Equal(t, dhcpv4.MessageTypeAck, renewed.MessageType())
	require.NoError(t, s.stop())
}
