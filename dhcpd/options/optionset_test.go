package options

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// tell compiles one set for a /24 with a gateway and returns the answer to a client that asks for codes.
func tell(t *testing.T, set OptionSet, codes ...byte) *dhcpv4.DHCPv4 {
	t.Helper()
	sets, err := Compile(netip.MustParsePrefix("192.0.2.0/24"), host(1), nil, set)
	require.NoError(t, err)
	var p wire.Packet
	ask := wire.Query{Type: wire.Request, MAC: client(0x11), Options: []wire.Option{{Code: wire.OptMaxMessageSize, Value: []byte{5, 220}}}}
	if codes != nil {
		ask.Options = append(ask.Options, wire.Option{Code: wire.OptParameterList, Value: codes})
	}
	require.NoError(t, p.Parse(ask.Append(nil)))
	lib, err := dhcpv4.FromBytes((&wire.Reply{Type: wire.Ack, Options: sets[0]}).Append(nil, &p))
	require.NoError(t, err)
	return lib
}

func TestOptionSetOnTheWire(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, tc := range map[string]struct {
		set  OptionSet
		code byte
		want string // hexadecimal
	}{
		"mtu":             {OptionSet{MTU: 1492}, 26, "05d4"},
		"captive portal":  {OptionSet{CaptivePortal: "https://p.example.net/"}, 114, "68747470733a2f2f702e6578616d706c652e6e65742f"},
		"IPv6-only":       {OptionSet{IPv6OnlyWait: 30 * time.Minute}, 108, "00000708"},
		"time zone":       {OptionSet{TZDatabase: "Europe/Vienna"}, 101, "4575726f70652f5669656e6e61"},
		"POSIX time zone": {OptionSet{TZPOSIX: "UTC0"}, 100, "55544330"},
		"search with a shared end": {
			OptionSet{Search: []string{"eng.apple.com", "marketing.apple.com."}}, 119, // the example of RFC 3397 section 2
			"03656e67056170706c6503636f6d00" + "096d61726b6574696e67c004",
		},
		"search, one the end of another": {OptionSet{Search: []string{"a.net", "NET"}}, 119, "0161036e657400" + "c002"},
		"routes: the gateway is the default route": {
			OptionSet{Routes: []Route{{prefix("10.0.0.0/8"), host(2)}, {prefix("198.51.100.128/25"), host(3)}}}, 121,
			"080ac0000202" + "19c6336480c0000203" + "00c0000201",
		},
		"routes: another default route": {OptionSet{Routes: []Route{{prefix("0.0.0.0/0"), host(2)}}}, 121, "00c0000202"},
		"routes: on the link":           {OptionSet{Routes: []Route{{prefix("203.0.113.7/32"), ip("0.0.0.0")}}}, 121, "20cb00710700000000" + "00c0000201"},
		"routes for old Windows":        {OptionSet{Routes: []Route{{prefix("0.0.0.0/0"), host(2)}}}, 249, "00c0000202"},
		"routes by hand, for old Windows too": {
			OptionSet{Options: []Option{{Code: 121, Value: []byte{0, 192, 0, 2, 9}}}}, 249, "00c0000209",
		},
		"vendor specific": {OptionSet{VendorSpecific: []Option{{Code: 1, Value: []byte("a")}, {Code: 2, Value: []byte{7, 8}}}}, 43, "010161" + "02020708"},
		"vendors": {
			OptionSet{Vendor: []VendorOptions{{3561, []Option{{Code: 11, Value: []byte("x")}}}, {9, []Option{{Code: 1, Value: []byte("y")}}}}}, 125,
			"00000de9" + "03" + "0b0178" + "00000009" + "03" + "010179",
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, unhex(t, tc.want), tell(t, tc.set, tc.code).Options.Get(dhcpv4.GenericOptionCode(tc.code)))
		})
	}
	lib := tell(t, OptionSet{Search: []string{"eng.apple.com", "marketing.apple.com"}}, 119)
	assert.Equal(t, []string{"eng.apple.com", "marketing.apple.com"}, lib.DomainSearch().Labels, "another reader")
	lib = tell(t, OptionSet{Routes: []Route{{prefix("10.0.0.0/8"), host(2)}}}, 121)
	assert.Len(t, lib.ClasslessStaticRoute(), 2)
	long := strings.Repeat("x", 600)
	assert.Equal(t, long, string(tell(t, OptionSet{Options: []Option{{Code: 224, Value: []byte(long)}}}, 224).Options.Get(dhcpv4.GenericOptionCode(224))))
	assert.Nil(t, tell(t, OptionSet{Routes: []Route{{prefix("10.0.0.0/8"), host(2)}}}).Options.Get(dhcpv4.OptionStaticRoutingTable), "option 33 is never sent")
}

func TestOptionSetMistakes(t *testing.T) {
	for want, set := range map[string]OptionSet{
		"mtu: 60; IPv4 needs at least 68":                {MTU: 60},
		"ntp ::1: want an IPv4 address":                  {NTP: []netip.Addr{netip.IPv6Loopback()}},
		`search "a..b": no domain name`:                  {Search: []string{"a..b"}},
		"via invalid IP: want an IPv4":                   {Routes: []Route{{To: netip.MustParsePrefix("10.0.0.0/8")}}},
		"IPv6-only wait 1ms: out of range":               {IPv6OnlyWait: time.Millisecond},
		"sub-option 1: 256 bytes, want at most 255":      {VendorSpecific: []Option{{Code: 1, Value: make([]byte, 256)}}},
		"vendor 9: options: 404 bytes; one vendor's":     {Vendor: []VendorOptions{{9, []Option{{Code: 1, Value: make([]byte, 200)}, {Code: 2, Value: make([]byte, 200)}}}}},
		"option 43: given twice":                         {Options: []Option{{Code: 43}, {Code: 43}}},
		"boot file of 128 bytes, want at most 127":       {BootFile: strings.Repeat("x", 128)},
		"option 125: want blocks of enterprise number":   {Options: []Option{{Code: 125, Value: []byte{1}}}},
		"option 82: this option is filled by the server": {Options: []Option{{Code: 82, Value: []byte{1}}}},
	} {
		_, err := Compile(netip.MustParsePrefix("192.0.2.0/24"), host(1), nil, set)
		assert.ErrorContains(t, err, want)
	}
}
