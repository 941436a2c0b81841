package wire

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testSet(t testing.TB, extra ...Option) *OptionSet {
	t.Helper()
	s, err := NewOptionSet(append([]Option{
		{OptNTP, []byte{192, 0, 2, 5}},
		{OptDomainName, []byte("example.net")},
		{OptDNS, []byte{192, 0, 2, 3, 192, 0, 2, 4}},
		{OptRouter, []byte{192, 0, 2, 1}},
		{OptSubnetMask, []byte{255, 255, 255, 0}},
	}, extra...))
	require.NoError(t, err)
	return s
}

func ack(set *OptionSet) *Reply {
	return &Reply{
		Type: Ack, YIAddr: netip.MustParseAddr("192.0.2.77"), ServerID: netip.MustParseAddr("192.0.2.1"),
		LeaseTime: 3600, RenewTime: 1800, RebindTime: 3150, Options: set,
	}
}

// codes lists the options of a packet in their order on the wire.
func codes(t *testing.T, raw []byte) []int {
	t.Helper()
	var list []int
	for at := optionsAt; ; {
		switch raw[at] {
		case OptEnd:
			for _, c := range raw[at+1:] {
				require.Zero(t, c, "only zeros after End")
			}
			return list
		default:
			list = append(list, int(raw[at]))
			at += 2 + int(raw[at+1])
		}
	}
}

func parsed(t *testing.T, raw []byte) *Packet {
	t.Helper()
	var p Packet
	require.NoError(t, p.Parse(raw))
	return &p
}

func TestReplyOrderAndSelection(t *testing.T) {
	set := testSet(t, Option{200, []byte("x")}, Option{OptClasslessRoutes, []byte{0, 192, 0, 2, 1}})
	opt82 := []byte{1, 2, 'a', 'b', 0xff, 1, 9}
	raw := bare(53, 1, 3, 61, 3, 1, 2, 3, 82, 7)
	all := append(raw, opt82...)

	t.Run("no parameter list: everything", func(t *testing.T) {
		got := ack(set).Append(nil, parsed(t, all))
		assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 61, 3, 6, 121, 15, 42, 200, 82}, codes(t, got))
		assert.True(t, bytes.Contains(got, append([]byte{82, 7}, append(opt82, 255)...)), "option 82 byte for byte, then End")
		assert.GreaterOrEqual(t, len(got), MinReplyLen)
	})
	t.Run("only what is asked for, and what every client needs", func(t *testing.T) {
		got := ack(set).Append(nil, parsed(t, bare(53, 1, 3, 55, 2, 6, 200, 255)))
		assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 6, 200}, codes(t, got))
		assert.Len(t, got, MinReplyLen)
	})
	t.Run("an empty list is as good as none", func(t *testing.T) {
		want := ack(set).Append(nil, parsed(t, bare(53, 1, 3, 255)))
		assert.Equal(t, want, ack(set).Append(nil, parsed(t, bare(53, 1, 3, 55, 0, 255))))
		assert.Contains(t, codes(t, want), OptRouter)
	})
	t.Run("an empty identifier is not returned", func(t *testing.T) {
		got := ack(set).Append(nil, parsed(t, bare(53, 1, 3, 61, 0, 255)))
		assert.NotContains(t, codes(t, got), OptClientID)
	})
	t.Run("NAK", func(t *testing.T) {
		nak := &Reply{Type: Nak, ServerID: netip.MustParseAddr("192.0.2.1"), Message: "no", Broadcast: true}
		got := nak.Append(nil, parsed(t, all))
		assert.Equal(t, []int{53, 54, 56, 61, 82}, codes(t, got))
		assert.EqualValues(t, 0x80, got[10])
		assert.Equal(t, make([]byte, 8), got[12:20], "ciaddr and yiaddr are zero")
	})
	t.Run("INFORM has no times", func(t *testing.T) {
		r := ack(set)
		r.LeaseTime, r.YIAddr, r.CIAddr = 0, netip.Addr{}, netip.MustParseAddr("192.0.2.9")
		got := r.Append(nil, parsed(t, bare(53, 1, 8, 255)))
		assert.Equal(t, []int{53, 54, 1, 3, 6, 121, 15, 42, 200}, codes(t, got))
	})
}

func TestReplyHeader(t *testing.T) {
	raw := discover(t, dhcpv4.WithBroadcast(true))
	got := ack(testSet(t)).Append([]byte("prefix"), parsed(t, raw))[6:]
	back, err := dhcpv4.FromBytes(got)
	require.NoError(t, err)
	asked, err := dhcpv4.FromBytes(raw)
	require.NoError(t, err)
	assert.Equal(t, dhcpv4.OpcodeBootReply, back.OpCode)
	assert.Equal(t, asked.TransactionID, back.TransactionID)
	assert.Equal(t, asked.ClientHWAddr, back.ClientHWAddr)
	assert.Equal(t, "192.0.2.1", back.GatewayIPAddr.String())
	assert.Equal(t, "192.0.2.77", back.YourIPAddr.String())
	assert.True(t, back.IsBroadcast())
	assert.Zero(t, back.HopCount)
	assert.Equal(t, "example.net", back.DomainName())
	assert.Equal(t, "255.255.255.0", dhcpv4.GetIP(dhcpv4.OptionSubnetMask, back.Options).String())
}

// A reply never exceeds what the client takes; the first options of the order of need go in first.
func TestReplyFitsMaximum(t *testing.T) {
	big := bytes.Repeat([]byte{7}, 200)
	set := testSet(t, Option{201, big}, Option{202, big}, Option{203, []byte("small")})
	opt82 := append([]byte{1, 100}, make([]byte, 100)...)
	req := append(bare(53, 1, 3, 82, 102), opt82...)

	got := ack(set).Append(nil, parsed(t, req))
	assert.LessOrEqual(t, len(got), 548)
	assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 3, 6, 15, 42, 203, 82}, codes(t, got))

	req = append(bare(53, 1, 3, 57, 2, 5, 220, 82, 102), opt82...)
	got = ack(set).Append(nil, parsed(t, req))
	assert.LessOrEqual(t, len(got), 1472)
	assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 3, 6, 15, 42, 201, 202, 203, 82}, codes(t, got))

	// The largest option 82 and client id: the id gives way, the echo never.
	worst := append(bare(53, 1, 3, 61, 255), make([]byte, 255)...)
	worst = append(append(worst, 82, 255), make([]byte, 255)...)
	got = ack(set).Append(nil, parsed(t, worst))
	assert.LessOrEqual(t, len(got), 548)
	assert.NotContains(t, codes(t, got), 61)
	assert.Contains(t, codes(t, got), 82)
}

// Whatever the sizes, the limit holds to the byte, and is used to the byte.
func TestReplyUsesTheRoomExactly(t *testing.T) {
	longest := 0
	for n := range 256 {
		for _, m := range []int{0, 7, 100, 200} {
			req := append(bare(53, 1, 3, 61, byte(n)), make([]byte, n)...)
			req = append(append(req, 82, byte(m)), make([]byte, m)...)
			set := testSet(t, Option{201, make([]byte, 100)}, Option{202, []byte{1}})
			got := ack(set).Append(nil, parsed(t, req))
			require.LessOrEqual(t, len(got), 548, "client id %d, option 82 %d", n, m)
			longest = max(longest, len(got))
		}
	}
	assert.Equal(t, 548, longest)
}

func TestOptionSetSplitsLongValues(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 60)
	req := bare(53, 1, 3, 57, 2, 5, 220, 255)
	got := ack(testSet(t, Option{OptClasslessRoutes, long})).Append(nil, parsed(t, req))
	assert.Equal(t, long, parsed(t, got).AppendOption(nil, OptClasslessRoutes))
	back, err := dhcpv4.FromBytes(got)
	require.NoError(t, err)
	assert.Equal(t, long, back.Options.Get(dhcpv4.OptionClasslessStaticRoute))
}

func TestOptionSetRefuses(t *testing.T) {
	for code := range 256 {
		_, err := NewOptionSet([]Option{{uint8(code), []byte{1, 2, 3, 4}}})
		switch code {
		case 0, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 61, 80, 82, 255:
			assert.ErrorIs(t, err, ErrOptionReserved, "option %d", code)
		case OptVendorIdentifying:
			assert.ErrorContains(t, err, "option 125: want blocks of enterprise number, length and data")
		default:
			assert.NoError(t, err, "option %d", code)
		}
	}
	_, err := NewOptionSet([]Option{{6, nil}, {6, nil}})
	assert.ErrorContains(t, err, "option 6: given twice")
	_, err = NewOptionSet([]Option{{1, []byte{1}}})
	assert.ErrorContains(t, err, "option 1: 1 bytes, want 4")
}

func TestReplyDoesNotAllocate(t *testing.T) {
	raw := discover(t, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, unhex(t, "0106000400690005")))
	set := testSet(t)
	r := ack(set)
	buf := make([]byte, 0, MaxReplyLen)
	var p Packet
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		_ = p.Parse(raw)
		buf = r.Append(buf[:0], &p)
	}))
}

func TestQueryIsReadable(t *testing.T) {
	q := Query{
		Type: Discover, XID: 7, MAC: [6]byte(clientMAC), CIAddr: netip.MustParseAddr("192.0.2.8"),
		GIAddr: netip.MustParseAddr("192.0.2.1"), Options: []Option{{OptRequestedIP, []byte{192, 0, 2, 9}}}, Option82: []byte{1, 0},
	}
	lib, err := dhcpv4.FromBytes(q.Append(nil))
	require.NoError(t, err)
	assert.Equal(t, dhcpv4.MessageTypeDiscover, lib.MessageType())
	assert.Equal(t, "192.0.2.9", lib.RequestedIPAddress().String())
	assert.Equal(t, []byte{1, 0}, lib.Options.Get(dhcpv4.OptionRelayAgentInformation))
	assert.Equal(t, clientMAC, lib.ClientHWAddr)
}

func BenchmarkParseReply(b *testing.B) {
	raw := discover(b, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, unhex(b, "0106000408770017 020800063c3332664350")))
	r := ack(testSet(b))
	buf := make([]byte, 0, MaxReplyLen)
	var p Packet
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Parse(raw)
		buf = r.Append(buf[:0], &p)
	}
}

// The same packet and the same answer by the library that is our oracle, to tell
// in one run what the zero-copy view is worth.
func BenchmarkParseReplyLibrary(b *testing.B) {
	raw := discover(b, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, unhex(b, "0106000408770017 020800063c3332664350")))
	r := ack(testSet(b))
	var p Packet
	require.Zero(b, p.Parse(raw))
	ours, err := dhcpv4.FromBytes(r.Append(nil, &p))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		req, err := dhcpv4.FromBytes(raw)
		if err != nil {
			b.Fatal(err)
		}
		reply, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithYourIP(ours.YourIPAddr))
		if err != nil {
			b.Fatal(err)
		}
		for code, value := range ours.Options {
			reply.Options[code] = value
		}
		_ = reply.ToBytes()
	}
}
