package probe

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a query asks, finer than the message type: the four meanings of
// a REQUEST (RFC 2131 section 4.3.2) differ in the fields that they have.
type Kind uint8

// The kinds.
const (
	Discover Kind = iota + 1
	Selecting
	InitReboot
	Renewing
	Rebinding
	Request // a REQUEST with just the fields given
	Release
	Decline
	Inform
	LeaseQuery // asks who has an address (RFC 4388): by ClientIP, else by client identifier, else by MAC

	kindEnd
)

type kindInfo struct {
	name    string
	message byte // option 53
	needs   need
	answer  Answer // what a client hopes for
}

// need is the set of fields that a kind cannot do without.
type need struct{ ciaddr, requested, serverID, giaddr bool }

func (k Kind) info() kindInfo {
	switch k {
	case Discover:
		return kindInfo{"discover", 1, need{}, Offered}
	case Selecting:
		return kindInfo{"selecting", 3, need{requested: true, serverID: true}, Acked}
	case InitReboot:
		return kindInfo{"init-reboot", 3, need{requested: true}, Acked}
	case Renewing:
		return kindInfo{"renewing", 3, need{ciaddr: true}, Acked}
	case Rebinding:
		return kindInfo{"rebinding", 3, need{ciaddr: true}, Acked}
	case Request:
		return kindInfo{"request", 3, need{}, Acked}
	case Release:
		return kindInfo{"release", 7, need{ciaddr: true, serverID: true}, Silence}
	case Decline:
		return kindInfo{"decline", 4, need{requested: true, serverID: true}, Silence}
	case Inform:
		return kindInfo{"inform", 8, need{ciaddr: true}, Acked}
	case LeaseQuery:
		return kindInfo{"leasequery", 10, need{giaddr: true}, Active}
	}
	return kindInfo{name: "invalid"}
}

// String returns the word that ParseKind reads.
func (k Kind) String() string { return k.info().name }

// Kinds lists all kinds.
func Kinds() []Kind {
	var all []Kind
	for k := Discover; k < kindEnd; k++ {
		all = append(all, k)
	}
	return all
}

// ParseKind reads discover, selecting, init-reboot, renewing, rebinding,
// request, release, decline, inform or leasequery.
func ParseKind(s string) (Kind, error) {
	for _, k := range Kinds() {
		if k.String() == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("message %q: no such kind", s)
}

// Option is one instance of an option, to be sent as it is. Values above 255
// bytes are split (RFC 3396).
type Option struct {
	Code  uint8
	Value []byte
}

// Query is one message to send. Invalid addresses are sent as 0.0.0.0 or, of
// options, not at all.
type Query struct {
	Kind        Kind
	MAC         net.HardwareAddr // chaddr, 6 bytes; none: a LeaseQuery by something else
	XID         uint32           // 0: a random one
	Secs        uint16
	Broadcast   bool
	ClientIP    netip.Addr // ciaddr
	RequestedIP netip.Addr // option 50
	ServerID    netip.Addr // option 54
	GIAddr      netip.Addr // set: hops is 1, as behind a relay
	Parameters  []uint8    // option 55
	Options     []Option   // further ones in this order, repeated if given so; 53 replaces the type
	RelayInfo   [][]byte   // option 82, last; each is one instance
}

// Check says which field the query lacks for its kind.
func (q *Query) Check() error {
	i := q.Kind.info()
	if i.message == 0 {
		return errors.New("no kind of message is given")
	}
	if q.Kind == LeaseQuery && len(q.MAC) == 0 {
		if !q.ClientIP.IsValid() && !slices.ContainsFunc(q.Options, func(o Option) bool { return o.Code == 61 }) {
			return errors.New("leasequery needs an address, a MAC or a client identifier")
		}
	} else if len(q.MAC) != 6 {
		return fmt.Errorf("MAC %q: want 6 bytes", q.MAC)
	}
	for _, f := range []struct {
		name   string
		addr   netip.Addr
		needed bool
	}{
		{"ciaddr", q.ClientIP, i.needs.ciaddr},
		{"requested address", q.RequestedIP, i.needs.requested},
		{"server id", q.ServerID, i.needs.serverID},
		{"giaddr", q.GIAddr, i.needs.giaddr},
	} {
		if f.needed && !f.addr.IsValid() {
			return fmt.Errorf("%s needs a %s", q.Kind, f.name)
		}
		if f.addr.IsValid() && !f.addr.Is4() {
			return fmt.Errorf("%s %s: want an IPv4 address", f.name, f.addr)
		}
	}
	return nil
}

// The length of a BOOTP message without its options, and the least that some
// relays and servers take (RFC 1542 section 2.1).
const (
	headerLen = 240 // with the magic cookie
	minLen    = 300
)

// packet returns the message as it goes on the wire.
func (q *Query) packet() []byte {
	b := make([]byte, headerLen, minLen)
	b[0] = 1 // BOOTREQUEST
	if len(q.MAC) > 0 {
		b[1], b[2] = 1, 6 // Ethernet
	}
	if q.GIAddr.IsValid() {
		b[3] = 1
	}
	binary.BigEndian.PutUint32(b[4:], q.XID)
	binary.BigEndian.PutUint16(b[8:], q.Secs)
	if q.Broadcast {
		b[10] = 0x80
	}
	putAddr(b[12:], q.ClientIP)
	putAddr(b[24:], q.GIAddr)
	copy(b[28:34], q.MAC)
	copy(b[236:], []byte{99, 130, 83, 99})

	if !slices.ContainsFunc(q.Options, func(o Option) bool { return o.Code == 53 }) {
		b = append(b, 53, 1, q.Kind.info().message)
	}
	for _, o := range []struct {
		code byte
		addr netip.Addr
	}{{50, q.RequestedIP}, {54, q.ServerID}} {
		if o.addr.IsValid() {
			b = appendOption(b, o.code, o.addr.AsSlice())
		}
	}
	if len(q.Parameters) > 0 {
		b = appendOption(b, 55, q.Parameters)
	}
	for _, o := range q.Options {
		b = appendOption(b, o.Code, o.Value)
	}
	for _, v := range q.RelayInfo {
		b = appendOption(b, 82, v)
	}
	b = append(b, 255)
	if len(b) < minLen {
		b = append(b, make([]byte, minLen-len(b))...)
	}
	return b
}

func putAddr(b []byte, a netip.Addr) {
	if a.Is4() {
		copy(b, a.AsSlice())
	}
}

func appendOption(b []byte, code byte, value []byte) []byte {
	for {
		n := min(len(value), 255)
		b = append(append(b, code, byte(n)), value[:n]...)
		if value = value[n:]; len(value) == 0 {
			return b
		}
	}
}

// RelayInfo returns option 82 with a circuit-id and a remote-id; an empty one is left out.
func RelayInfo(circuit, remote []byte) ([]byte, error) {
	var b []byte
	for i, v := range [][]byte{circuit, remote} {
		if len(v) > 255 {
			return nil, fmt.Errorf("sub-option %d: %d bytes, want at most 255", i+1, len(v))
		}
		if len(v) > 0 {
			b = append(append(b, byte(i+1), byte(len(v))), v...)
		}
	}
	return b, nil
}

// ParseBytes reads bytes as people write them: hexadecimal after 0x, with
// or without colons between, otherwise the text itself.
func ParseBytes(s string) ([]byte, error) {
	if h, ok := strings.CutPrefix(s, "0x"); ok {
		return ParseHex(h)
	}
	return []byte(s), nil
}

// ParseHex reads hexadecimal bytes; colons, dashes and spaces between them are skipped.
func ParseHex(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", " ", "").Replace(strings.TrimPrefix(s, "0x")))
	if err != nil {
		return nil, fmt.Errorf("%q: want hexadecimal bytes such as 0004 or 00:04", s)
	}
	return b, nil
}

// ParseOption reads CODE=HEX, such as 60=756468637020.
func ParseOption(s string) (Option, error) {
	code, value, ok := strings.Cut(s, "=")
	n, err := strconv.ParseUint(code, 10, 8)
	if !ok || err != nil || n == 0 || n == 255 {
		return Option{}, fmt.Errorf("option %q: want CODE=HEX with a code from 1 to 254", s)
	}
	b, err := ParseHex(value)
	if err != nil {
		return Option{}, fmt.Errorf("option %d: %w", n, err)
	}
	return Option{uint8(n), b}, nil
}

// RandomMAC returns a locally administered unicast MAC.
func RandomMAC() net.HardwareAddr {
	b := binary.BigEndian.AppendUint64(nil, rand.Uint64())[:6]
	b[0] = b[0]&^1 | 2
	return b
}
