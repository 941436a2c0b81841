package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var clientMAC = net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}

// discover returns a relayed DISCOVER as a well-known library builds it.
func discover(t testing.TB, mods ...dhcpv4.Modifier) []byte {
	t.Helper()
	mods = append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(clientMAC),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover),
		dhcpv4.WithGatewayIP(net.IPv4(192, 0, 2, 1)),
	}, mods...)
	p, err := dhcpv4.New(mods...)
	require.NoError(t, err)
	return p.ToBytes()
}

// bare returns header and cookie of a request with options appended as they are.
func bare(options ...byte) []byte {
	b := make([]byte, optionsAt, optionsAt+len(options))
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[28:], clientMAC)
	binary.BigEndian.PutUint32(b[headerLen:], cookie)
	return append(b, options...)
}

func TestParse(t *testing.T) {
	raw := discover(t,
		dhcpv4.WithClientIP(net.IPv4(198, 51, 100, 9)),
		dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 0, 2, 7))),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 2))),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte("me"))),
		dhcpv4.WithOption(dhcpv4.OptHostName("box")),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("udhcp")),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1000)),
		dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, unhex(t, "0106000400690005")),
	)
	var p Packet
	require.NoError(t, p.Parse(raw))
	assert.EqualValues(t, 1, p.Op())
	assert.EqualValues(t, 1, p.HType())
	assert.Equal(t, Discover, p.Type())
	assert.Equal(t, netip.MustParseAddr("198.51.100.9"), p.CIAddr())
	assert.Equal(t, netip.MustParseAddr("192.0.2.1"), p.GIAddr())
	assert.False(t, p.YIAddr().IsValid())
	assert.False(t, p.SIAddr().IsValid())
	assert.True(t, p.Broadcast())
	assert.Equal(t, netip.MustParseAddr("192.0.2.7"), p.Requested())
	assert.Equal(t, netip.MustParseAddr("192.0.2.2"), p.ServerID())
	assert.Equal(t, "me", string(p.ClientID()))
	assert.Equal(t, "box", string(p.HostName()))
	assert.Equal(t, "udhcp", string(p.VendorClass()))
	assert.Equal(t, 972, p.MaxPayload())
	assert.Equal(t, unhex(t, "0106000400690005"), p.RelayInfo())
	assert.Equal(t, 1, p.RelayInfoCount())
	assert.False(t, p.Duplicate())
	mac, ok := p.MAC()
	assert.True(t, ok)
	assert.Equal(t, [6]byte(clientMAC), mac)
}

func TestParseRefuses(t *testing.T) {
	noCookie := bare(53, 1, 1, 255)
	noCookie[headerLen] ^= 1
	longHardware := bare(53, 1, 1, 255)
	longHardware[2] = 17
	badFile := bare(53, 1, 1, 52, 1, 1, 255)
	copy(badFile[fileAt+fileLen-2:], []byte{12, 9}) // runs past the end of file
	for _, tc := range []struct {
		name string
		raw  []byte
		want ParseError
	}{
		{"empty", nil, ErrShort},
		{"header without cookie", make([]byte, headerLen), ErrShort},
		{"too long", make([]byte, 65536), ErrLong},
		{"BOOTP", noCookie, ErrCookie},
		{"hlen 17", longHardware, ErrHardwareLength},
		{"code without length", bare(53, 1, 1, 12), ErrOptionTruncated},
		{"length past the end", bare(53, 1, 1, 12, 5, 'a'), ErrOptionTruncated},
		{"type zero", bare(53, 1, 0, 255), ErrNoType},
		{"empty type", bare(53, 0, 255), ErrNoType},
		{"overloaded file is broken", badFile, ErrOptionTruncated},
		{"no type", bare(12, 1, 'a', 255), ErrNoType},
		{"no options", bare(), ErrNoType},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p Packet
			err := p.Parse(tc.raw)
			assert.Equal(t, tc.want, err)
			assert.NotEqual(t, "unknown parse error", err.Error())
			if tc.want != ErrNoType {
				_, ok := p.Option(12)
				assert.False(t, ok, "options of a broken packet must not be read")
			}
		})
	}
}

func TestParseTolerates(t *testing.T) {
	for _, tc := range []struct {
		name  string
		raw   []byte
		check func(t *testing.T, p *Packet)
	}{
		{"no End", bare(53, 1, 3, 12, 1, 'a'), func(t *testing.T, p *Packet) {
			assert.Equal(t, "a", string(p.HostName()))
		}},
		{"0xff after End, as some OLTs pad", append(bare(53, 1, 3, 255), bytes.Repeat([]byte{0xff}, 60)...), nil},
		{"noise after End", bare(53, 1, 3, 255, 12, 200, 1), func(t *testing.T, p *Packet) {
			_, ok := p.Option(12)
			assert.False(t, ok)
		}},
		{"pads between", bare(0, 0, 53, 1, 3, 0, 12, 1, 'a', 255), func(t *testing.T, p *Packet) {
			v, ok := p.Option(12)
			assert.True(t, ok)
			assert.Equal(t, "a", string(v))
		}},
		{"first of two types counts", bare(53, 1, 3, 53, 1, 1, 255), func(t *testing.T, p *Packet) {
			assert.True(t, p.Duplicate())
		}},
		{"first of two server ids counts", bare(53, 1, 3, 54, 4, 192, 0, 2, 1, 54, 4, 192, 0, 2, 2, 255), func(t *testing.T, p *Packet) {
			assert.True(t, p.Duplicate())
			assert.Equal(t, netip.MustParseAddr("192.0.2.1"), p.ServerID())
		}},
		{"unknown type", bare(53, 1, 3, 255), nil},
		{"max size of one byte is ignored", bare(53, 1, 3, 57, 1, 1, 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, 548, p.MaxPayload())
		}},
		{"max size below the least is raised", bare(53, 1, 3, 57, 2, 0, 10, 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, 548, p.MaxPayload())
		}},
		{"max size above a frame is cut", bare(53, 1, 3, 57, 2, 255, 255, 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, MaxReplyLen, p.MaxPayload())
		}},
		{"the first byte of a long type counts", bare(53, 2, 3, 1, 255), nil},
		{"an empty type before the type", bare(53, 0, 53, 1, 3, 255), nil},
		{"empty numbers and texts are absent", bare(53, 1, 3, 50, 0, 51, 0, 52, 0, 54, 0, 57, 0, 12, 0, 55, 0, 56, 0, 60, 0, 61, 0, 77, 0, 124, 0, 125, 0, 255), func(t *testing.T, p *Packet) {
			assert.False(t, p.Requested().IsValid())
			assert.False(t, p.ServerID().IsValid())
			assert.Zero(t, p.LeaseTime())
			assert.Equal(t, 548, p.MaxPayload())
			for _, v := range [][]byte{p.HostName(), p.ParameterList(), p.Message(), p.VendorClass(), p.ClientID(), p.UserClass()} {
				assert.Nil(t, v)
			}
			assert.False(t, p.Duplicate())
			_, there := p.Option(60)
			assert.True(t, there)
		}},
		{"empty ones before those that say something", bare(53, 1, 3, 50, 0, 54, 2, 1, 2, 61, 0, 50, 4, 192, 0, 2, 9, 54, 4, 192, 0, 2, 1, 61, 1, 'x', 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, netip.MustParseAddr("192.0.2.9"), p.Requested())
			assert.Equal(t, netip.MustParseAddr("192.0.2.1"), p.ServerID())
			assert.Equal(t, "x", string(p.ClientID()))
		}},
		{"addresses that are too short are absent", bare(53, 1, 3, 50, 2, 1, 1, 54, 1, 1, 255), func(t *testing.T, p *Packet) {
			assert.False(t, p.Requested().IsValid())
			assert.False(t, p.ServerID().IsValid())
		}},
		{"of addresses that are too long the beginning counts", bare(53, 1, 3, 50, 8, 192, 0, 2, 9, 1, 1, 1, 1, 54, 5, 192, 0, 2, 1, 0, 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, netip.MustParseAddr("192.0.2.9"), p.Requested())
			assert.Equal(t, netip.MustParseAddr("192.0.2.1"), p.ServerID())
		}},
		{"an overload that names no field", bare(53, 1, 3, 52, 1, 4, 12, 1, 'a', 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, "a", string(p.HostName()))
			assert.Zero(t, p.overload)
		}},
		{"two option 82", bare(53, 1, 3, 82, 2, 1, 0, 82, 2, 2, 0, 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, 2, p.RelayInfoCount())
			assert.Equal(t, []byte{1, 0}, p.RelayInfo())
		}},
		{"empty option 82", bare(53, 1, 3, 82, 0, 255), func(t *testing.T, p *Packet) {
			assert.Equal(t, 1, p.RelayInfoCount())
			assert.NotNil(t, p.RelayInfo())
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p Packet
			require.NoError(t, p.Parse(tc.raw))
			assert.Equal(t, Request, p.Type())
			if tc.check != nil {
				tc.check(t, &p)
			}
		})
	}
}

func TestParseHardwareAddress(t *testing.T) {
	var p Packet
	for _, hlen := range []byte{0, 5, 7, 16} {
		raw := bare(53, 1, 1, 255)
		raw[2] = hlen
		require.NoError(t, p.Parse(raw))
		_, ok := p.MAC()
		assert.False(t, ok, "hlen %d", hlen)
	}
	raw := bare(53, 1, 1, 255)
	clear(raw[28:34])
	require.NoError(t, p.Parse(raw))
	_, ok := p.MAC()
	assert.False(t, ok, "all zeros")
}

// Options may go on in file and sname (RFC 2131 section 4.1), and one option may
// be split over all three (RFC 3396).
func TestParseOverload(t *testing.T) {
	raw := bare(53, 1, 1, 52, 1, 3, 121, 2, 'a', 'b', 255)
	copy(raw[fileAt:], []byte{121, 1, 'c', 54, 4, 192, 0, 2, 1, 255})
	copy(raw[snameAt:], []byte{0, 121, 1, 'd', 50, 4, 192, 0, 2, 9, 52, 1, 7, 255})
	var p Packet
	require.NoError(t, p.Parse(raw))
	assert.Equal(t, netip.MustParseAddr("192.0.2.1"), p.ServerID())
	assert.Equal(t, netip.MustParseAddr("192.0.2.9"), p.Requested())
	assert.Equal(t, "abcd", string(p.AppendOption(nil, 121)))
	v, ok := p.Option(121)
	assert.True(t, ok)
	assert.Equal(t, "ab", string(v))

	raw[bytes.Index(raw, []byte{52, 1, 3})+2] = 0x82 // what else it says means nothing
	require.NoError(t, p.Parse(raw))
	assert.Equal(t, "abd", string(p.AppendOption(nil, 121)))
	assert.False(t, p.ServerID().IsValid())
}

func TestMessageTypeText(t *testing.T) {
	var labels []string
	for _, m := range MessageTypes() {
		labels = append(labels, m.Label())
		assert.Equal(t, m.Label(), m.String())
	}
	assert.Equal(t, []string{"none", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform"}, labels)
	assert.Equal(t, "other", MessageType(13).Label())
	assert.Equal(t, []string{"leasequery", "leaseactive", "type_14", "type_9"}, []string{LeaseQuery.String(), MessageType(13).String(), MessageType(14).String(), MessageType(9).String()})
}

func TestParseDoesNotAllocate(t *testing.T) {
	raw := discover(t, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, unhex(t, "0106000400690005")))
	var p Packet
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if p.Parse(raw) != nil {
			t.Fatal("parse failed")
		}
		r, _ := ParseRelayInfo(p.RelayInfo())
		_ = DecodeCircuit(r.CircuitID)
		_ = DecodeRemote(r.RemoteID)
	}))
}

// FuzzParse checks that no bytes make the view panic, and that on packets which
// a library reads as well-formed the view says the same.
func FuzzParse(f *testing.F) {
	f.Add(discover(f))
	f.Add(discover(f, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 6, 0, 4, 0, 105, 0, 5})))
	f.Add(discover(f, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 0, 2, 7))), dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(800))))
	f.Add(bare(53, 1, 1, 52, 1, 3, 255))
	f.Add(bare(53, 1, 1, 82, 2, 1, 0, 82, 2, 1, 0))
	f.Add(bare(53, 1, 1, 121, 200))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p Packet
		err := p.Parse(raw)
		if p.HasHeader() {
			_, _ = p.MAC()
			_ = p.XID()
		}
		if err != nil {
			return
		}
		for c := range 256 {
			_, _ = p.Option(byte(c))
		}
		reply := (&Reply{Type: Ack, ServerID: netip.AddrFrom4([4]byte{192, 0, 2, 1}), LeaseTime: 3600}).Append(nil, &p)
		if len(reply) > p.MaxPayload() || len(reply) < MinReplyLen {
			t.Fatalf("reply of %d bytes, at most %d wanted", len(reply), p.MaxPayload())
		}
		lib, err := dhcpv4.FromBytes(raw)
		if err != nil || p.Duplicate() || p.overload != 0 || p.RelayInfoCount() > 1 {
			return // the library joins duplicates and ignores overload
		}
		same(t, &p, lib)
		back, err := dhcpv4.FromBytes(reply)
		if err != nil {
			t.Fatalf("the library cannot read our reply: %v", err)
		}
		if !bytes.Equal(back.Options.Get(dhcpv4.OptionRelayAgentInformation), p.RelayInfo()) {
			t.Fatalf("option 82 is not echoed: %x", reply)
		}
	})
}

func same(t *testing.T, p *Packet, lib *dhcpv4.DHCPv4) {
	t.Helper()
	v4 := func(ip net.IP) netip.Addr {
		a, ok := netip.AddrFromSlice(ip.To4())
		if !ok || a.IsUnspecified() {
			return netip.Addr{}
		}
		return a
	}
	// They refuse numbers of a wrong length; p does not, see TestParseTolerates.
	sized := func(code uint8, n int) bool {
		v := p.AppendOption(nil, code)
		return len(v) == 0 || len(v) == n
	}
	if sized(OptMessageType, 1) {
		assert.Equal(t, byte(lib.MessageType()), byte(p.Type()))
	}
	assert.Equal(t, lib.TransactionID[:], p.Raw()[4:8])
	assert.Equal(t, v4(lib.ClientIPAddr), p.CIAddr())
	assert.Equal(t, v4(lib.GatewayIPAddr), p.GIAddr())
	if sized(OptRequestedIP, 4) {
		assert.Equal(t, v4(lib.RequestedIPAddress()), p.Requested())
	}
	if sized(OptServerID, 4) {
		assert.Equal(t, v4(lib.ServerIdentifier()), p.ServerID())
	}
	assert.Equal(t, lib.IsBroadcast(), p.Broadcast())
	for code, want := range lib.Options {
		assert.Equal(t, string(want), string(p.AppendOption(nil, code)), "option %d", code)
	}
}
