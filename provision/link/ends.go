package link

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxTold bounds the connections of one pass whose ends are told. A busy subscriber has
// hundreds.
const maxTold = 1 << 14

// Of linux/netfilter/nf_conntrack_tcp.h and nfnetlink_conntrack.h.
const (
	ctaProtoinfo         = 4 // CTA_PROTOINFO
	ctaProtoinfoTCP      = 1
	ctaProtoinfoTCPState = 1
	tcpEstablished       = 3 // TCP_CONNTRACK_ESTABLISHED
	tcpCloseWait         = 5 // one side has said that it is done, the other goes on
	tcpClose             = 8 // one side was reset, by the refusal of what it has just sent
)

// direction is one direction of a connection: from whom, and to whom as that one sees it.
type direction struct{ src, dst netip.AddrPort }

// connection is a live one of TCP in both directions.
type connection struct{ orig, reply direction }

// parseConnection reads a message of the dump; ok is false for what is not a live
// connection of TCP over IPv4.
func parseConnection(msg []byte) (c connection, ok bool) {
	const familyHeader = 4
	if len(msg) < familyHeader {
		return c, false
	}
	state := byte(0)
	for b := msg[familyHeader:]; ; {
		typ, value, _, rest, more := nextAttr(b)
		if !more {
			break
		}
		switch typ {
		case nl.CTA_TUPLE_ORIG:
			c.orig, ok = parseTuple(value)
		case nl.CTA_TUPLE_REPLY:
			c.reply, _ = parseTuple(value)
		case ctaProtoinfo:
			if s := attrIn(attrIn(value, ctaProtoinfoTCP), ctaProtoinfoTCPState); len(s) == 1 {
				state = s[0]
			}
		}
		b = rest
	}
	return c, ok && c.reply.src.IsValid() && (state >= tcpEstablished && state <= tcpCloseWait || state == tcpClose)
}

// parseTuple reads one of TCP over IPv4.
func parseTuple(b []byte) (t direction, ok bool) {
	ip, proto := attrIn(b, nl.CTA_TUPLE_IP), attrIn(b, nl.CTA_TUPLE_PROTO)
	src, dst := attrIn(ip, nl.CTA_IP_V4_SRC), attrIn(ip, nl.CTA_IP_V4_DST)
	num, sport, dport := attrIn(proto, nl.CTA_PROTO_NUM), attrIn(proto, nl.CTA_PROTO_SRC_PORT), attrIn(proto, nl.CTA_PROTO_DST_PORT)
	if len(src) != 4 || len(dst) != 4 || len(num) != 1 || num[0] != unix.IPPROTO_TCP || len(sport) != 2 || len(dport) != 2 {
		return t, false
	}
	end := func(ip, port []byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), binary.BigEndian.Uint16(port))
	}
	return direction{end(src, sport), end(dst, dport)}, true
}

// attrIn returns the value of the first attribute of a type in b; nil: there is none.
func attrIn(b []byte, want uint16) []byte {
	for {
		typ, value, _, rest, more := nextAttr(b)
		if !more {
			return nil
		}
		if typ == want {
			return value
		}
		b = rest
	}
}

// probe is a bare ACK to one end of a connection, as if from the other, with a sequence
// number that is not the next. It ends nothing: a host answers it with the number that it
// expects (RFC 9293 section 3.10.7.4), and the refusal of that answer is what ends the
// connection there. The kernel fills in the identification and the IP checksum.
func probe(to direction) []byte {
	src, dst := to.dst.Addr().As4(), to.src.Addr().As4()
	const ipLen, tcpLen, ttl, ack = 20, 20, 64, 0x10
	b := make([]byte, ipLen+tcpLen)
	b[0], b[8], b[9] = 0x45, ttl, unix.IPPROTO_TCP
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	t := b[ipLen:]
	binary.BigEndian.PutUint16(t, to.dst.Port())
	binary.BigEndian.PutUint16(t[2:], to.src.Port())
	t[12], t[13] = tcpLen/4<<4, ack
	sum := uint32(unix.IPPROTO_TCP + tcpLen)
	for _, part := range [][]byte{src[:], dst[:], t} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(t[16:], ^uint16(sum))
	return b
}

// tell has both ends of connections find out that they are over. What cannot be sent is
// left out: whoever sends next learns it anyway.
func (f *Flows) tell(connections []connection) {
	if len(connections) == 0 {
		return
	}
	var fd int
	err := inNamespace(f.netns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		f.log.Debug("ends of connections are not told, which needs CAP_NET_RAW", "error", err)
		return
	}
	defer unix.Close(fd)
	failed := 0
	for _, c := range connections {
		for _, t := range []direction{c.orig, c.reply} {
			if err := unix.Sendto(fd, probe(t), 0, &unix.SockaddrInet4{Addr: t.src.Addr().As4()}); err != nil {
				failed++
			}
		}
	}
	f.log.Debug("ends of connections told", "connections", len(connections), "failed", failed)
}
