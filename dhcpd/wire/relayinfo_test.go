package wire

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// describe prints how an option 82 was read, for the tables below.
func describe(r RelayInfo) string {
	var parts []string
	switch c := DecodeCircuit(r.CircuitID); c.Kind {
	case CircuitPort:
		parts = append(parts, fmt.Sprintf("vlan %d unit %d port %d", c.VLAN, c.Unit, c.Port))
	case CircuitText:
		parts = append(parts, fmt.Sprintf("circuit %s", c.Text))
	case CircuitOpaque:
		parts = append(parts, fmt.Sprintf("circuit 0x%x", r.CircuitID))
	}
	switch m := DecodeRemote(r.RemoteID); m.Kind {
	case RemoteMAC:
		parts = append(parts, fmt.Sprintf("mac %x", m.MAC))
	case RemoteIP:
		parts = append(parts, "remote ip "+m.IP.String())
	case RemoteText:
		parts = append(parts, fmt.Sprintf("remote %s", m.Text))
	case RemoteOpaque:
		parts = append(parts, fmt.Sprintf("remote 0x%x", r.RemoteID))
	}
	if r.Link.IsValid() {
		parts = append(parts, "link "+r.Link.String())
	}
	return strings.Join(parts, ", ")
}

// What access equipment was seen or is documented to send.
func TestRelayInfoOfRealEquipment(t *testing.T) {
	for _, tc := range []struct{ name, payload, want string }{
		{"dlink-1", "0106000408770017 020800063c3332664350", "vlan 2167 unit 0 port 23, mac 3c3332664350"},
		{"dlink-2", "0106000402130010 02080006c0c520846e91", "vlan 531 unit 0 port 16, mac c0c520846e91"},
		{"dlink-3", "0106000400690005", "vlan 105 unit 0 port 5"},
		{"dlink-4", "0106000400980005 02080006f8e903e755a6", "vlan 152 unit 0 port 5, mac f8e903e755a6"},
		{"dlink-5", "0106000400020002 0208000600ad24d0c544", "vlan 2 unit 0 port 2, mac 00ad24d0c544"},
		{"dlink-ip", "0106000408bc0002 020f010d3137322e32392e31342e313232", "vlan 2236 unit 0 port 2, remote ip 172.29.14.122"},
		{"dlink-v1", "01100006006400010005 0106001122334455", "circuit 0x0006006400010005" + "0106001122334455"},
		{"dlink-v2", "010470313239", "circuit p129"},
		{"edge-1", "0106000403e9010d 020800060012cffbeeb9", "vlan 1001 unit 1 port 13, mac 0012cffbeeb9"},
		{"cisco-1", "0106000400df0107 02080006000ab8ede880", "vlan 223 unit 1 port 7, mac 000ab8ede880"},
		{"cisco-2", "0106000400640001", "vlan 100 unit 0 port 1"},
		{"ios-1", "020a00000a6fde0103080e26", "remote 0x00000a6fde0103080e26"},
		{"ios-2", "020a00005114c0330200000d", "remote 0x00005114c0330200000d"},
		{"h3c-1", "0106000400640004 020800060023891122aa", "vlan 100 unit 0 port 4, mac 0023891122aa"},
		{"snr-hex", "01080006000a01000005 02080006f8f082112233", "circuit 0x0006000a01000005, mac f8f082112233"},
		{"snr-ascii", "0114566c616e312b45746865726e6574312f302f3131", "circuit Vlan1+Ethernet1/0/11"},
		{"snr-vshp", "01020005", "circuit 0x0005"},
		{"epon-1", "0105007400071d 02061c877912e61a", "circuit 0x007400071d, mac 1c877912e61a"},
		{"oring-1", "010400030108", "circuit 0x00030108"},
		{"zyxel-1", "010c0002001e4d45532d33373238", "circuit 0x0002001e4d45532d33373238"},
		{"zte-1", "010c5a5445474330323838453730 021134353a34373a63303a32383a38653a3730", "circuit ZTEGC0288E70, mac 4547c0288e70"},
		{"zte-2 short octet", "010c5a5445474334303235334233 021034353a34373a63343a323a35333a6233", "circuit ZTEGC40253B3, mac 4547c40253b3"},
		{"mtik-br", "01134d79204d696b726f74696b2065746820302f32", "circuit My Mikrotik eth 0/2"},
		{"mtik-rl", "0106500300010001", "circuit 0x500300010001"},
		{"juniper-1", "010d67652d312f302f312e303a3433 021e63633a65313a37663a38373a62323a30303a3137322e31372e32312e3133", "circuit ge-1/0/1.0:43, remote cc:e1:7f:87:b2:00:172.17.21.13"},
		{"ufiber-1", "011b6234666265343530316664612f312f616338626139653231376638 020c616338626139653231376638", "circuit b4fbe4501fda/1/ac8ba9e217f8, mac ac8ba9e217f8"},
		{"nokia-1", "011c4c41424f4c54322065746820312f312f30312f30312f31302f312f32 09120000197f0d050b4c4142373336304f4c5432", "circuit LABOLT2 eth 1/1/01/01/10/1/2"},
		{"cmts-1", "010420000002020620e52ab8151409090000118b0401020300", "circuit 0x20000002, mac 20e52ab81514"},
		{"relay-ls", "010876786c312e313131 02104147454e542d52454d4f54452d494431 05040a0f4002", "circuit vxl1.111, remote AGENT-REMOTE-ID1, link 10.15.64.2"},
		{"lone-rid", "0206001122334455", "mac 001122334455"},
		{"empty-cid", "0100 0206001122334455", "mac 001122334455"},
		{"code-0 is not a pad", "0002aabb 0206001122334455", "mac 001122334455"},
		{"code-255 is not an end", "ff02aabb 0206001122334455", "mac 001122334455"},
		{"order does not matter", "0206001122334455 0106000400690005", "vlan 105 unit 0 port 5, mac 001122334455"},
		{"wrapped text, NUL padded", "0108010667652d310000", "circuit ge-1"},
		{"the first of two circuit-ids counts", "010161 010162", "circuit a"},
		{"empty payload", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := ParseRelayInfo(unhex(t, tc.payload))
			require.NoError(t, err)
			assert.Equal(t, tc.want, describe(r))
		})
	}
}

func TestRelayInfoRefused(t *testing.T) {
	for _, tc := range []struct{ name, payload string }{
		{"short-1: sub-option says 6, 5 follow", "01060004006900"},
		{"short-2: code without length", "01"},
		{"trail-1: stray byte after the last", "0106000400690005ff"},
		{"ascii-1: plain text", "736f6d652d74657874"},
		{"length past the end after a good one", "0106000400690005 02ff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := unhex(t, tc.payload)
			r, err := ParseRelayInfo(b)
			assert.Equal(t, ErrSubOption, err)
			assert.Equal(t, RelayInfo{Raw: b}, r, "nothing of a broken option 82 may be used")
		})
	}
}

func TestRelayInfoOfRelays(t *testing.T) {
	r, err := ParseRelayInfo(unhex(t, "0b04c0000201 1300 0504c6336401"))
	require.NoError(t, err)
	assert.Equal(t, netip.MustParseAddr("192.0.2.1"), r.Override)
	assert.Equal(t, netip.MustParseAddr("198.51.100.1"), r.Link)
	assert.True(t, r.SourcePort)

	r, err = ParseRelayInfo(unhex(t, "0603666c31 0603666c32"))
	require.NoError(t, err)
	assert.Equal(t, "fl1", string(r.RelaySubscriberID), "the first counts")

	r, err = ParseRelayInfo(unhex(t, "0b0400000000 050100"))
	require.NoError(t, err)
	assert.False(t, r.Override.IsValid(), "0.0.0.0 names nobody")
	assert.False(t, r.Link.IsValid(), "one byte is no address")
}

func TestParseTextMAC(t *testing.T) {
	want := [6]byte{0x00, 0x00, 0x5e, 0x00, 0x53, 0xaf}
	for _, s := range []string{
		"00:00:5e:00:53:af", "00-00-5E-00-53-AF", "0000.5e00.53af", "00005e0053AF",
		"0:0:5e:0:53:af", "0-0-5e-0-53-af", "0000-5e00-53af", "0000:5e00:53af", "00.00.5e.00.53.af",
	} {
		got, ok := ParseTextMAC([]byte(s))
		assert.True(t, ok, s)
		assert.Equal(t, want, got, s)
	}
	for _, s := range []string{
		"", ":", "00:00:5e:00:53", "00:00:5e:00:53:af:01", "00:00-5e:00:53:af", "00005e0053a",
		"00005e0053agg", "0000.5e00.53a", "000.05e00.53af", "00:00:5e::53:af", "g0:00:5e:00:53:af",
		"00:00:5e:00:53:ag", "172.29.14.122", "::::: ", "00:000:5e:00:53:af",
	} {
		_, ok := ParseTextMAC([]byte(s))
		assert.False(t, ok, "%q", s)
	}
}

func TestParseTextIPv4(t *testing.T) {
	ip, ok := ParseTextIPv4([]byte("192.0.2.45"))
	require.True(t, ok)
	assert.Equal(t, netip.MustParseAddr("192.0.2.45"), ip)
	for _, s := range []string{"", "192.0.2", "192.0.2.1.5", "192.0.2.256", "192..2.1", "192.0.2.", ".192.0.2", "192.0.2.x", "0192.0.2.1"} {
		_, ok := ParseTextIPv4([]byte(s))
		assert.False(t, ok, "%q", s)
	}
}

func FuzzRelayInfo(f *testing.F) {
	for _, s := range []string{"", "0106000400690005", "020800063c3332664350", "ff02aabb", "01", "736f6d652d74657874"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRelayInfo(b)
		if err != nil {
			return
		}
		// The sub-options must fill the payload exactly.
		n := 0
		for n < len(b) {
			n += 2 + int(b[n+1])
		}
		assert.Equal(t, len(b), n)
		_ = describe(r)
	})
}

// The sub-options of RFC 3527, 3993, 5010, 5107, 6925, 8357 and 6607.
func TestRelayInfoOfTheRFCs(t *testing.T) {
	all := unhex(t, "0501ff 0504c6336401 0504c6336402 060473756231 0a0180 0a0100 0b04c6336403 0c05000200000a 1300 9705007870 6e31 9800")
	r, err := ParseRelayInfo(all)
	require.NoError(t, err)
	assert.Equal(t, "198.51.100.1", r.Link.String(), "one of another length is none, and the first counts")
	assert.Equal(t, "sub1", string(r.RelaySubscriberID))
	assert.Equal(t, CastUnicast, r.Cast)
	assert.Equal(t, "198.51.100.3", r.Override.String())
	assert.Equal(t, unhex(t, "000200000a"), r.RelayID)
	assert.True(t, r.SourcePort)
	assert.True(t, r.VSSControl)
	vss, ok := DecodeVSS(r.VSS)
	assert.True(t, ok)
	assert.Equal(t, "xpn1", string(vss.Name))

	r, err = ParseRelayInfo(unhex(t, "0a0100 0a02ffff 0b0400000000 970101"))
	require.NoError(t, err)
	assert.Equal(t, CastBroadcast, r.Cast)
	assert.False(t, r.Override.IsValid(), "0.0.0.0 is none")
	assert.False(t, r.VSSControl)
	assert.Equal(t, []string{"", "broadcast", "unicast"}, []string{CastNone.String(), CastBroadcast.String(), CastUnicast.String()})

	vss, ok = DecodeVSS(unhex(t, "0101020304050607"))
	assert.True(t, ok)
	assert.Equal(t, VSSInfo{ID: [7]byte{1, 2, 3, 4, 5, 6, 7}, HasID: true}, vss)
	vss, ok = DecodeVSS([]byte{255})
	assert.True(t, ok)
	assert.True(t, vss.Global)
	for _, bad := range []string{"", "00", "01", "010203", "ff00", "02ab"} {
		_, ok := DecodeVSS(unhex(t, bad))
		assert.False(t, ok, bad)
	}
}
