package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var testMAC = net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestQueryOnTheWire(t *testing.T) {
	q := Query{
		Kind: Selecting, MAC: testMAC, XID: 0x01020304, Secs: 5, Broadcast: true,
		RequestedIP: ip("192.0.2.7"), ServerID: ip("192.0.2.1"), GIAddr: ip("198.51.100.1"),
		Parameters: []uint8{1, 3}, Options: []Option{{60, []byte("class")}, {43, bytes.Repeat([]byte{7}, 300)}},
		RelayInfo: [][]byte{{1, 1, 'a'}, {1, 1, 'b'}},
	}
	require.NoError(t, q.Check())
	b := q.packet()
	m, err := dhcpv4.FromBytes(b)
	require.NoError(t, err)
	assert.Equal(t, dhcpv4.MessageTypeRequest, m.MessageType())
	assert.Equal(t, "0x01020304", m.TransactionID.String())
	assert.EqualValues(t, 5, m.NumSeconds)
	assert.EqualValues(t, 1, m.HopCount)
	assert.True(t, m.IsBroadcast())
	assert.Equal(t, testMAC, m.ClientHWAddr)
	assert.Equal(t, "192.0.2.7", m.RequestedIPAddress().String())
	assert.Equal(t, "192.0.2.1", m.ServerIdentifier().String())
	assert.Equal(t, "198.51.100.1", m.GatewayIPAddr.String())
	assert.Len(t, m.Options.Get(dhcpv4.OptionVendorSpecificInformation), 300)

	list, rest := Options(b)
	assert.Nil(t, rest)
	var codes []int
	for _, o := range list {
		codes = append(codes, int(o.Code))
	}
	assert.Equal(t, []int{53, 50, 54, 55, 60, 43, 43, 82, 82}, codes, "in the order given, two option 82 stay two")

	q = Query{Kind: Request, MAC: testMAC, Options: []Option{{53, []byte{10}}}}
	b = q.packet()
	assert.Len(t, b, minLen)
	list, _ = Options(b)
	require.Len(t, list, 1)
	assert.Equal(t, []byte{10}, list[0].Data, "the type is replaced")
}

func TestCheckSaysWhatIsMissing(t *testing.T) {
	for _, tc := range []struct {
		q    Query
		want string
	}{
		{Query{}, "no kind"},
		{Query{Kind: Discover}, "MAC"},
		{Query{Kind: Selecting, MAC: testMAC}, "selecting needs a requested address"},
		{Query{Kind: Selecting, MAC: testMAC, RequestedIP: ip("192.0.2.1")}, "selecting needs a server id"},
		{Query{Kind: InitReboot, MAC: testMAC}, "init-reboot needs a requested address"},
		{Query{Kind: Renewing, MAC: testMAC}, "renewing needs a ciaddr"},
		{Query{Kind: Rebinding, MAC: testMAC}, "rebinding needs a ciaddr"},
		{Query{Kind: Release, MAC: testMAC, ClientIP: ip("192.0.2.1")}, "release needs a server id"},
		{Query{Kind: Decline, MAC: testMAC}, "decline needs a requested address"},
		{Query{Kind: Inform, MAC: testMAC}, "inform needs a ciaddr"},
		{Query{Kind: Discover, MAC: testMAC, GIAddr: ip("2001:db8::1")}, "want an IPv4 address"},
	} {
		assert.ErrorContains(t, tc.q.Check(), tc.want)
	}
	assert.NoError(t, (&Query{Kind: Request, MAC: testMAC}).Check(), "a REQUEST may be as wrong as one likes")
}

func TestWords(t *testing.T) {
	for _, k := range Kinds() {
		got, err := ParseKind(k.String())
		require.NoError(t, err)
		assert.Equal(t, k, got)
	}
	_, err := ParseKind("offer")
	assert.ErrorContains(t, err, "no such kind")
	_, err = ParseAnswer("yes")
	assert.ErrorContains(t, err, "want offer, ack, nak, active, unassigned, unknown or silence")

	for in, want := range map[string]string{"ge1": "676531", "0x00:04": "0004", "0x0004": "0004", "": ""} {
		b, err := ParseBytes(in)
		require.NoError(t, err)
		assert.Equal(t, want, hex.EncodeToString(b))
	}
	_, err = ParseBytes("0xzz")
	assert.ErrorContains(t, err, "want hexadecimal bytes")
	o, err := ParseOption("60=75:64")
	require.NoError(t, err)
	assert.Equal(t, Option{60, []byte("ud")}, o)
	for _, bad := range []string{"60", "0=00", "255=00", "256=00", "x=00", "60=0"} {
		_, err := ParseOption(bad)
		assert.Error(t, err, bad)
	}
	info, err := RelayInfo([]byte("c"), []byte("re"))
	require.NoError(t, err)
	assert.Equal(t, []byte{1, 1, 'c', 2, 2, 'r', 'e'}, info)
	_, err = RelayInfo(make([]byte, 256), nil)
	assert.Error(t, err)
	assert.EqualValues(t, 2, RandomMAC()[0]&3, "local, not a group")
}

// A frame that is written is read the same, and the library finds its checksums right.
func TestFrameRoundTrip(t *testing.T) {
	q := Query{Kind: Discover, MAC: testMAC, XID: 9}
	for _, n := range []int{0, 1} { // even and odd lengths
		p := Packet{
			From: netip.MustParseAddrPort("192.0.2.1:67"), To: netip.MustParseAddrPort("255.255.255.255:68"),
			FromMAC: testMAC, ToMAC: broadcastMAC[:], Payload: append(q.packet(), make([]byte, n)...),
		}
		b := p.frame()
		assert.Zero(t, checksum(0, b[etherLen:etherLen+ipLen]))
		udp := b[etherLen+ipLen:]
		pseudo := uint32(protoUDP) + uint32(len(udp)) + 0xc000 + 0x0201 + 0xffff + 0xffff
		assert.Zero(t, checksum(pseudo, udp))
		got, err := parseFrame(append(b, 0, 0, 0)) // padding of a short frame
		require.NoError(t, err)
		assert.Equal(t, p.From, got.From)
		assert.Equal(t, p.To, got.To)
		assert.Equal(t, p.Payload, got.Payload)
		assert.EqualValues(t, 9, got.xid)
	}
}

func FuzzParseFrame(f *testing.F) {
	q := Query{Kind: Discover, MAC: testMAC, RelayInfo: [][]byte{{1, 1, 'a'}, {1, 9}}}
	p := Packet{From: netip.MustParseAddrPort("0.0.0.0:68"), To: netip.MustParseAddrPort("255.255.255.255:67"), FromMAC: testMAC, ToMAC: testMAC, Payload: q.packet()}
	f.Add(p.frame())
	f.Add(p.frame()[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseFrame(b)
		if err != nil {
			return
		}
		_ = p.Type()
		_ = p.Text("  ")
		list, rest := Options(p.Payload)
		total := len(rest)
		for _, o := range list {
			total += 2 + len(o.Data)
		}
		require.LessOrEqual(t, total, max(len(p.Payload), len(rest)))
	})
}

func TestTextShowsEverything(t *testing.T) {
	q := Query{Kind: Discover, MAC: testMAC, XID: 0xabc, Broadcast: true, GIAddr: ip("198.51.100.1"), RelayInfo: [][]byte{{1, 3, 'g', 'e', '1'}, {1, 9, 'x'}}}
	p := Packet{Payload: q.packet()}
	assert.Equal(t, "DISCOVER", p.Type())
	assert.Equal(t, `op 1, htype 1, hops 1, xid 0x00000abc, secs 0, flags 0x8000 (broadcast)
giaddr 198.51.100.1
chaddr 00:00:5e:00:53:17
option  53  DHCP Message Type: DISCOVER
option  82  Relay Agent Information:
                    Agent Circuit ID Sub-option: "ge1" ([103 101 49])
option  82  Relay Agent Information: [1 9 120]
`, p.Text(""))
	cut := Packet{Payload: append(q.packet()[:headerLen], 53, 1, 1, 12, 9, 'x')}
	assert.Contains(t, cut.Text(""), "unreadable 0c0978\n")
	assert.Equal(t, "c0de\n", (&Packet{Payload: []byte{0xc0, 0xde}}).Text(""))
}

// fakePort answers as answer says; what it returns comes after the delay.
type fakePort struct {
	sent   [][]byte
	answer func(n int, asked *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4
	delay  time.Duration
	queue  []Packet
}

func (f *fakePort) Send(b []byte) (Packet, error) {
	f.sent = append(f.sent, b)
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return Packet{}, err
	}
	now := time.Now()
	for _, a := range f.answer(len(f.sent), m) {
		p := Packet{Time: now.Add(f.delay), Payload: a.ToBytes()}
		p.classify()
		f.queue = append(f.queue, p)
	}
	return Packet{Time: now, Sent: true, Payload: b}, nil
}

func (f *fakePort) Receive(deadline time.Time) (Packet, error) {
	if len(f.queue) == 0 || f.queue[0].Time.After(deadline) {
		<-time.After(time.Until(deadline))
		return Packet{}, os.ErrDeadlineExceeded
	}
	p := f.queue[0]
	<-time.After(time.Until(p.Time))
	f.queue = f.queue[1:]
	return p, nil
}

func (f *fakePort) Close() error { return nil }

func reply(t *testing.T, asked *dhcpv4.DHCPv4, m dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	r, err := dhcpv4.NewReplyFromRequest(asked, append([]dhcpv4.Modifier{dhcpv4.WithMessageType(m),
		dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 7)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1)))}, more...)...)
	require.NoError(t, err)
	return r
}

func TestExchange(t *testing.T) {
	one := func(r ...*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 { return r }
	server := func(t *testing.T) func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		return func(_ int, m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			if m.MessageType() == dhcpv4.MessageTypeDiscover {
				return one(reply(t, m, dhcpv4.MessageTypeOffer))
			}
			return one(reply(t, m, dhcpv4.MessageTypeAck))
		}
	}
	for _, tc := range []struct {
		name    string
		answer  func(*testing.T) func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4
		client  Client
		want    []Answer
		sent    int
		elapsed time.Duration
	}{
		{"whole", server, Client{}, []Answer{Offered, Acked}, 2, 20 * time.Millisecond},
		{"silence", func(*testing.T) func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			return func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 { return nil }
		}, Client{Timeout: 300 * time.Millisecond, Retries: 2}, []Answer{Silence}, 3, 900 * time.Millisecond},
		{"second sending is answered", func(t *testing.T) func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			return func(n int, m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				if n == 1 {
					return nil
				}
				return server(t)(n, m)
			}
		}, Client{Retries: 1}, []Answer{Offered, Acked}, 3, 1020 * time.Millisecond},
		{"nak", func(t *testing.T) func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			return func(n int, m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				if n == 2 {
					return one(reply(t, m, dhcpv4.MessageTypeNak))
				}
				return server(t)(n, m)
			}
		}, Client{}, []Answer{Offered, Naked}, 2, 20 * time.Millisecond},
		{"answers to others are passed over", func(t *testing.T) func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			return func(n int, m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				stray := reply(t, m, dhcpv4.MessageTypeNak, dhcpv4.WithTransactionID(dhcpv4.TransactionID{9, 9, 9, 9}))
				other := reply(t, m, dhcpv4.MessageTypeNak, dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 1}))
				return append(one(stray, other, m), server(t)(n, m)...)
			}
		}, Client{}, []Answer{Offered, Acked}, 2, 20 * time.Millisecond},
		{"all servers", func(t *testing.T) func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			return func(n int, m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				return append(server(t)(n, m), server(t)(n, m)...)
			}
		}, Client{All: true, Timeout: 200 * time.Millisecond}, []Answer{Offered, Acked}, 2, 400 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				port := &fakePort{answer: tc.answer(t), delay: 10 * time.Millisecond}
				tc.client.Port = port
				began := time.Now()
				steps, err := tc.client.Exchange(t.Context(), Query{MAC: testMAC})
				require.NoError(t, err)
				assert.Equal(t, tc.elapsed, time.Since(began))
				var got []Answer
				for i := range steps {
					got = append(got, steps[i].Answer)
					if tc.client.All {
						assert.Len(t, steps[i].Got, 2)
					}
				}
				assert.Equal(t, tc.want, got)
				assert.Len(t, port.sent, tc.sent)
				if len(steps) == 2 {
					last, err := dhcpv4.FromBytes(port.sent[len(port.sent)-1])
					require.NoError(t, err)
					assert.Equal(t, "192.0.2.7", last.RequestedIPAddress().String())
					assert.Equal(t, "192.0.2.1", last.ServerIdentifier().String())
					assert.Equal(t, 10*time.Millisecond, steps[0].Took)
				}
			})
		})
	}
	t.Run("ends with the context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			c := Client{Port: &fakePort{answer: func(int, *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 { return nil }}, Timeout: time.Hour}
			_, err := c.Lease(ctx, Query{MAC: testMAC})
			require.ErrorIs(t, err, context.Canceled)
		})
	})
}

// As a relay: the answer comes to giaddr, which is another address than the one that asks.
func TestRelayOverLoopback(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer server.Close()
	done := make(chan struct{})
	relay, err := OpenRelay(netip.MustParseAddrPort("127.0.0.2:0"), netip.Addr{}, localAddr(server))
	require.NoError(t, err)
	port := localAddr(relay.conn).Port()
	require.NoError(t, relay.Close())
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for range 2 {
			n, _, err := server.ReadFromUDP(buf)
			if err != nil {
				return
			}
			m, err := dhcpv4.FromBytes(buf[:n])
			if err != nil {
				return
			}
			kind := dhcpv4.MessageTypeOffer
			if m.MessageType() == dhcpv4.MessageTypeRequest {
				kind = dhcpv4.MessageTypeAck
			}
			_, _ = server.WriteToUDP(reply(t, m, kind).ToBytes(), &net.UDPAddr{IP: m.GatewayIPAddr, Port: int(port)})
		}
	}()
	relay, err = OpenRelay(netip.AddrPortFrom(ip("127.0.0.2"), port), ip("127.0.0.3"), localAddr(server))
	require.NoError(t, err)
	defer relay.Close()
	c := Client{Port: relay, Timeout: 5 * time.Second}
	steps, err := c.Exchange(t.Context(), Query{MAC: testMAC, GIAddr: ip("127.0.0.3")})
	require.NoError(t, err)
	require.Len(t, steps, 2)
	assert.Equal(t, Acked, steps[1].Answer)
	assert.Equal(t, ip("192.0.2.7"), steps[1].Address())
	assert.Equal(t, ip("192.0.2.1"), steps[1].ServerID())
	<-done
	forged, err := OpenRelay(netip.AddrPortFrom(ip("127.0.0.4"), port), ip("192.0.2.55"), localAddr(server))
	require.NoError(t, err, "a giaddr that is not ours can be forged, though nothing comes back")
	require.NoError(t, forged.Close())
}

func TestPcap(t *testing.T) {
	var b bytes.Buffer
	p := Packet{Time: time.Unix(7, 8000), From: netip.MustParseAddrPort("192.0.2.1:67"), To: netip.MustParseAddrPort("192.0.2.2:68"), Payload: []byte("abc")}
	require.NoError(t, WritePcap(&b, []Packet{p, p}))
	le := binary.LittleEndian
	got := b.Bytes()
	assert.EqualValues(t, 101, le.Uint32(got[20:]))
	assert.EqualValues(t, 7, le.Uint32(got[24:]))
	assert.EqualValues(t, 8, le.Uint32(got[28:]))
	assert.EqualValues(t, 31, le.Uint32(got[32:]))
	assert.Len(t, got, 24+2*(16+31))
}
