package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/usher-agent/usher/userside/emulator"
)

// relayTarget is a bound address with the switch port that option 82 must name.
type relayTarget struct {
	ip     netip.Addr
	remote emulator.MAC
	port   uint16
}

// relayTargets gives the customers of the emulated ERP that are alone on a port
// of a switch with a MAC and have exactly one address.
func relayTargets(erp *emulator.Emulator) []relayTarget {
	devices := map[int64]emulator.Device{}
	for _, d := range erp.Devices() {
		devices[d.ID] = d
	}
	users := map[string]int{}
	place := func(l emulator.Link) string { return fmt.Sprint(l.Device, "/", l.Port) }
	for _, c := range erp.Customers() {
		for _, l := range c.Links {
			users[place(l)]++
		}
	}
	var out []relayTarget
	for _, c := range erp.Customers() {
		if len(c.Links) != 1 || len(c.Addresses) != 1 || !c.Addresses[0].IP.IsValid() || users[place(c.Links[0])] != 1 {
			continue
		}
		d := devices[c.Links[0].Device]
		if d.MAC.IsZero() || d.Name == "demo-switch" {
			continue
		}
		out = append(out, relayTarget{c.Addresses[0].IP, d.MAC, uint16(c.Links[0].Port)})
	}
	return out
}

// lease asks for an address as the target's switch would relay it, DISCOVER to ACK.
func (r relayTarget) lease(conn net.PacketConn, mac net.HardwareAddr, patience time.Duration) (netip.Addr, error) {
	circuit := binary.BigEndian.AppendUint16([]byte{0, 4, 0, 100}, r.port)
	remote := append([]byte{0, 6}, r.remote[:]...)
	relayed := []dhcpv4.Modifier{
		dhcpv4.WithGatewayIP(net.IPv4(198, 51, 100, 1)),
		dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(
			dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, circuit),
			dhcpv4.OptGeneric(dhcpv4.AgentRemoteIDSubOption, remote))),
	}
	discover, err := dhcpv4.NewDiscovery(mac, relayed...)
	if err != nil {
		return netip.Addr{}, err
	}
	offer, err := ask1(conn, discover, patience)
	if err != nil {
		return netip.Addr{}, err
	}
	request, err := dhcpv4.NewRequestFromOffer(offer, relayed...)
	if err != nil {
		return netip.Addr{}, err
	}
	ack, err := ask1(conn, request, patience)
	if err != nil {
		return netip.Addr{}, err
	}
	if ack.MessageType() != dhcpv4.MessageTypeAck {
		return netip.Addr{}, fmt.Errorf("got %s", ack.MessageType())
	}
	ip, _ := netip.AddrFromSlice(ack.YourIPAddr.To4())
	return ip, nil
}

// ask1 sends one packet to the server and waits for its answer.
func ask1(conn net.PacketConn, p *dhcpv4.DHCPv4, patience time.Duration) (*dhcpv4.DHCPv4, error) {
	if _, err := conn.WriteTo(p.ToBytes(), &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 67}); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return nil, err
		}
		r, err := dhcpv4.FromBytes(buf[:n])
		if err == nil && r.TransactionID == p.TransactionID {
			return r, nil
		}
	}
}
