package door

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// who is what connections are counted by: an address, and of loopback the local user.
type who struct {
	netip.Addr
	user uint64 // one more than the number of the user; 0: nobody knows
}

// Lengths and places of linux/inet_diag.h.
const (
	diagRequestLen = unix.SizeofNlMsghdr + 56
	diagSocketAt   = 8 // struct inet_diag_sockid in struct inet_diag_req_v2
	diagAnswerLen  = unix.SizeofNlMsghdr + 72
	diagUserAt     = 64 // in struct inet_diag_msg
	diagInodeAt    = 68
)

// localUser asks the kernel whose the other end of a connection over loopback is. It needs no
// right. Zero: nobody's any more, since it is closed there, or the kernel cannot say.
func localUser(c net.Conn) uint64 {
	here, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return 0
	}
	there, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return 0
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	// The answer is there when the question was taken; this is for a kernel that has none.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	question := diagQuestion(there.AddrPort(), here.AddrPort())
	if err := unix.Sendto(fd, question, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0
	}
	answer := make([]byte, 1024)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < diagAnswerLen || binary.NativeEndian.Uint16(answer[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return 0
	}
	found := answer[unix.SizeofNlMsghdr:n]
	if binary.NativeEndian.Uint32(found[diagInodeAt:]) == 0 {
		return 0 // closed: then it has user 0, which is root's
	}
	return uint64(binary.NativeEndian.Uint32(found[diagUserAt:])) + 1
}

// diagQuestion asks for the TCP socket of one end of a connection to the other.
func diagQuestion(end, other netip.AddrPort) []byte {
	a, b := end.Addr().Unmap().WithZone(""), other.Addr().Unmap().WithZone("")
	family := byte(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	q := make([]byte, diagRequestLen)
	binary.NativeEndian.PutUint32(q, diagRequestLen)
	binary.NativeEndian.PutUint16(q[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(q[6:], unix.NLM_F_REQUEST)
	body := q[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // in any state
	id := body[diagSocketAt:]
	binary.BigEndian.PutUint16(id, end.Port())
	binary.BigEndian.PutUint16(id[2:], other.Port())
	copy(id[4:20], a.AsSlice())
	copy(id[20:36], b.AsSlice())
	for i := 40; i < 48; i++ {
		id[i] = 0xff // no cookie
	}
	return q
}
