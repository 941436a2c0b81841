package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a way to a server and back.
type Port interface {
	// Send sends one message and gives what went out.
	Send(message []byte) (Packet, error)
	// Receive returns the next message, os.ErrDeadlineExceeded after the deadline.
	Receive(deadline time.Time) (Packet, error)
	Close() error
}

// Link is a client on an interface: it broadcasts from its own MAC and takes
// what comes to port 68, as frames, so the interface needs no address.
type Link struct {
	tap *Tap
	mac net.HardwareAddr
}

// OpenLink opens an interface for a client with a MAC, which need not be the interface's.
func OpenLink(name string, mac net.HardwareAddr) (*Link, error) {
	tap, err := openTap(name, unix.ETH_P_IP)
	if err != nil {
		return nil, err
	}
	return &Link{tap, mac}, nil
}

// Send implements Port: a broadcast from 0.0.0.0, or from ciaddr if there is one.
func (l *Link) Send(message []byte) (Packet, error) {
	p := Packet{
		Time: time.Now(), Sent: true, Payload: message, FromMAC: l.mac, ToMAC: broadcastMAC[:],
		From: netip.AddrPortFrom(netip.AddrFrom4([4]byte(message[12:16])), 68),
		To:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 67),
	}
	return p, l.tap.send(p.frame())
}

// Receive implements Port.
func (l *Link) Receive(deadline time.Time) (Packet, error) {
	for {
		p, err := l.tap.Receive(deadline)
		if err != nil || p.To.Port() == 68 {
			return p, err
		}
	}
}

// Close implements Port.
func (l *Link) Close() error { return l.tap.Close() }

// UDP sends from one address to a server and takes answers at that address and
// perhaps another one. It is what a relay does, and a client that renews.
type UDP struct {
	conn   *net.UDPConn // sends, and receives
	back   *net.UDPConn // receives too; nil: there is none
	server netip.AddrPort
}

type received struct {
	p   Packet
	err error
}

// OpenRelay opens the socket of a relay with the address from, normally port
// 67. Servers answer to giaddr: if that is another address of this host it is
// listened on too; if it is none (a forged one), nothing can come back there.
func OpenRelay(from netip.AddrPort, giaddr netip.Addr, server netip.AddrPort) (*UDP, error) {
	u, err := openUDP(from, "", server)
	if err != nil {
		return nil, err
	}
	if giaddr.IsValid() && giaddr != from.Addr() && !from.Addr().IsUnspecified() {
		u.back, err = listenUDP(netip.AddrPortFrom(giaddr, from.Port()), "")
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, errors.Join(err, u.Close())
		}
	}
	return u, nil
}

// OpenUnicast opens the socket of a client that has the address from already:
// renewing, RELEASE and INFORM go to the server alone. iface may be empty.
func OpenUnicast(from netip.AddrPort, iface string, server netip.AddrPort) (*UDP, error) {
	return openUDP(from, iface, server)
}

// NewUDP makes a port of a socket that is open already; the caller closes it.
func NewUDP(conn *net.UDPConn, server netip.AddrPort) *UDP {
	return &UDP{conn: conn, server: server}
}

func openUDP(from netip.AddrPort, iface string, server netip.AddrPort) (*UDP, error) {
	conn, err := listenUDP(from, iface)
	if err != nil {
		return nil, err
	}
	return &UDP{conn: conn, server: server}, nil
}

func listenUDP(at netip.AddrPort, iface string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			// A client of the system may sit on port 68.
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if iface != "" {
				err = errors.Join(err, unix.BindToDevice(int(fd), iface))
			}
		})
		return errors.Join(cerr, err)
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp4", at.String())
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return pc.(*net.UDPConn), nil
}

func localAddr(c *net.UDPConn) netip.AddrPort {
	a, _ := netip.ParseAddrPort(c.LocalAddr().String())
	return a
}

// Send implements Port.
func (u *UDP) Send(message []byte) (Packet, error) {
	p := Packet{Time: time.Now(), Sent: true, Payload: message, From: localAddr(u.conn), To: u.server}
	_, err := u.conn.WriteToUDPAddrPort(message, u.server)
	return p, err
}

// Receive implements Port.
func (u *UDP) Receive(deadline time.Time) (Packet, error) {
	if u.back == nil {
		return receiveUDP(u.conn, deadline)
	}
	// Both sockets are read; whoever comes first wins, the other is waited for.
	results := make(chan received, 2)
	conns := []*net.UDPConn{u.back, u.conn}
	for _, c := range conns {
		go func() {
			p, err := receiveUDP(c, deadline)
			results <- received{p, err}
		}()
	}
	var first *received
	for range conns {
		r := <-results
		if r.err == nil && first == nil {
			first = &r
			for _, c := range conns {
				_ = c.SetReadDeadline(time.Unix(1, 0))
			}
		}
	}
	if first == nil {
		return Packet{}, os.ErrDeadlineExceeded
	}
	return first.p, nil
}

func receiveUDP(c *net.UDPConn, deadline time.Time) (Packet, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return Packet{}, err
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, unix.ECONNREFUSED): // an ICMP answer to what was sent
			continue
		case err != nil:
			return Packet{}, err
		}
		p := Packet{Time: time.Now(), From: from, To: localAddr(c), Payload: bytes.Clone(buf[:n])}
		p.classify()
		return p, nil
	}
}

// Close implements Port.
func (u *UDP) Close() error {
	err := u.conn.Close()
	if u.back != nil {
		err = errors.Join(err, u.back.Close())
	}
	return err
}
