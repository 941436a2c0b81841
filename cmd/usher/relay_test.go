package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/userside/emulator"
)

// relayTarget is a bound address with the switch port that option 82 must name.
type relayTarget struct {
	ip     netip.Addr
	remote emulator.MAC
	port   uint16
}

// relayTargets returns the customers of the emulated ERP that are alone on a port
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
func (r relayTarget) lease(ctx context.Context, conn net.PacketConn, mac net.HardwareAddr, patience time.Duration) (netip.Addr, error) {
	circuit := binary.BigEndian.AppendUint16([]byte{0, 4, 0, 100}, r.port)
	info, err := probe.RelayInfo(circuit, append([]byte{0, 6}, r.remote[:]...))
	if err != nil {
		return netip.Addr{}, err
	}
	client := probe.Client{Port: probe.NewUDP(conn.(*net.UDPConn), netip.MustParseAddrPort("10.0.0.1:67")), Timeout: patience}
	return client.Lease(ctx, probe.Query{MAC: mac, GIAddr: netip.MustParseAddr(miniature.GatewayIP), RelayInfo: [][]byte{info}})
}

// relayClient asks the agent from a relay's socket.
func (w *world) relayClient(conn net.PacketConn) probe.Client {
	return probe.Client{Port: probe.NewUDP(conn.(*net.UDPConn), netip.MustParseAddrPort("10.0.0.1:67")), Timeout: 5 * time.Second}
}
