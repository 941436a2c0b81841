package socket

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// A datagram for a next hop whose hardware address the kernel has to ask for waits up to three
// seconds, and is charged to the socket that sent it. So whoever makes the server answer to many
// addresses that nobody has would fill its send buffer, and replies to everybody else would
// wait or be lost. Datagrams for next hops that are not proved to be there leave by sockets aside.
//
// Those are UDP sockets too, so that routing, source address, fragments and checksums are the
// kernel's, as on the main one. They have port 67 and must not hear what comes to it: they are
// bound to an address that no host has. A raw socket would not hear either, but would need the
// right to open one, and us to choose the source and to cut what is too long.

const (
	asideRelays  = iota // replies to relays: whoever may write a giaddr chooses the next hop
	asideClients        // replies to clients, which are to be at addresses that are served here
	asideRouters        // those of both that go to a router and found no room: routers are few, and nobody who asks chooses them
	asideSockets
)

// asideBuffer also bounds how many neighbours the kernel tries to resolve for us at once: about
// two hundred for each socket, with a reply. Its table has room for 1024 by default, for everybody.
const asideBuffer = 128 << 10

// dummyAddress (RFC 7600) is the source of ICMP messages at most: no packet is ever for it.
var dummyAddress = [4]byte{192, 0, 0, 8}

// openAside opens the sockets aside of the one that main controls. All of them share a port, which Linux
// allows to who asks for it at the time: main's mark is taken off again, and nobody else can join it. Those
// aside keep theirs: a second server on another address of this host opens its own beside them.
func openAside(main syscall.RawConn, port uint16) (aside [asideSockets]int, err error) {
	aside = [asideSockets]int{-1, -1, -1}
	share := func(fd, on int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on) }
	cerr := main.Control(func(mainFD uintptr) {
		defer func() { err = errors.Join(err, share(int(mainFD), 0)) }()
		if err = share(int(mainFD), 1); err != nil {
			return
		}
		for i := range aside {
			if aside[i], err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
				aside[i] = -1
				return
			}
			err = errors.Join(share(aside[i], 1), unix.SetsockoptInt(aside[i], unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
			if err != nil {
				return
			}
			growBuffer(aside[i], unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, asideBuffer)
			// It takes no memory: nothing is received. Who watches the room of port 67 may look at any of its sockets.
			growBuffer(aside[i], unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
			if err = unix.Bind(aside[i], &unix.SockaddrInet4{Port: int(port), Addr: dummyAddress}); err != nil {
				return
			}
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return aside, errors.Join(fmt.Errorf("dhcp: open a second socket for port %d: %w", port, err), closeAll(aside[:]))
	}
	return aside, nil
}

// closeAll closes descriptors and marks them as closed.
func closeAll(fds []int) (err error) {
	for i, fd := range fds {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
			fds[i] = -1
		}
	}
	return err
}
