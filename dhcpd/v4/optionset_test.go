package v4

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// tell compiles one set for a /24 with a gateway and returns the answer to a client that asks for codes.
func tell(t *testing.T, set OptionSet, codes ...byte) *dhcpv4.DHCPv4 {
	t.Helper()
	sets, err := compileOptionSets(netip.MustParsePrefix("192.0.2.0/24"), host(1), nil, set)
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
		"mtu 60: want at least 68":                       {MTU: 60},
		"ntp ::1: want an IPv4 address":                  {NTP: []netip.Addr{netip.IPv6Loopback()}},
		`search "a..b": no domain name`:                  {Search: []string{"a..b"}},
		"via invalid IP: want an IPv4":                   {Routes: []Route{{To: netip.MustParsePrefix("10.0.0.0/8")}}},
		"IPv6-only wait 1ms: out of range":               {IPv6OnlyWait: time.Millisecond},
		"sub-option 1: 256 bytes, want at most 255":      {VendorSpecific: []Option{{Code: 1, Value: make([]byte, 256)}}},
		"vendor 9: 404 bytes, want at most 255":          {Vendor: []VendorOptions{{9, []Option{{Code: 1, Value: make([]byte, 200)}, {Code: 2, Value: make([]byte, 200)}}}}},
		"option 43: given twice":                         {Options: []Option{{Code: 43}, {Code: 43}}},
		"boot file of 128 bytes, want at most 127":       {BootFile: strings.Repeat("x", 128)},
		"option 125: want blocks of enterprise number":   {Options: []Option{{Code: 125, Value: []byte{1}}}},
		"option 82: this option is filled by the server": {Options: []Option{{Code: 82, Value: []byte{1}}}},
	} {
		_, err := compileOptionSets(netip.MustParsePrefix("192.0.2.0/24"), host(1), nil, set)
		assert.ErrorContains(t, err, want)
	}
}

// classed serves 192.0.2.0/24 with classes.
func classed(t *testing.T) *Config {
	t.Helper()
	opts := testOptions()
	opts.Common = OptionSet{DNS: []netip.Addr{host(9)}, NTP: []netip.Addr{host(8)}, BootFile: "common"}
	opts.Classes = []Class{
		{Name: "stb", Match: ClassMatch{VendorClass: "stb-*"}, OptionSet: OptionSet{NextServer: host(80), BootFile: "stb.img", DNS: []netip.Addr{host(7)}}},
		{Name: "old", Match: ClassMatch{MACPrefix: [][]byte{{0, 0, 0x5e, 0, 0x53, 0x12}, {2}}}, AlwaysBroadcast: true},
		{Name: "ipxe", Match: ClassMatch{UserClass: "ipxe", Options: []OptionMatch{{Code: 93, Value: []byte{0, 0}}, {Code: 97}, {Code: 12, Text: "pc?"}}}, OptionSet: OptionSet{BootFile: "boot.ipxe"}},
	}
	cfg, err := Compile(opts)
	require.NoError(t, err)
	return cfg
}

func TestClasses(t *testing.T) {
	cfg := classed(t)
	text := func(code uint8, s string) wire.Option { return wire.Option{Code: code, Value: []byte(s)} }
	ipxe := []wire.Option{text(77, "iPXE"), text(93, "\x00\x00"), text(97, "x"), text(12, "PC7")}
	for name, tc := range map[string]struct {
		mac     provision.MAC
		options []wire.Option
		class   int
		file    string
		dns     string
	}{
		"none":                          {client(0x11), nil, 0, "common", "192.0.2.3"},
		"vendor class":                  {client(0x11), []wire.Option{text(60, "STB-4k")}, 1, "stb.img", "192.0.2.7"},
		"another vendor class":          {client(0x11), []wire.Option{text(60, "4k-stb-")}, 0, "common", "192.0.2.3"},
		"the first class counts":        {client(0x12), []wire.Option{text(60, "stb-")}, 1, "stb.img", "192.0.2.7"},
		"MAC prefix":                    {client(0x12), nil, 2, "common", "192.0.2.3"},
		"user class as text, all given": {client(0x11), ipxe, 3, "boot.ipxe", "192.0.2.3"},
		"user class as RFC 3004":        {client(0x11), append([]wire.Option{text(77, "\x03foo\x04iPXE")}, ipxe[1:]...), 3, "boot.ipxe", "192.0.2.3"},
		"user class broken":             {client(0x11), append([]wire.Option{text(77, "\x03foo\x09iPXE")}, ipxe[1:]...), 0, "common", "192.0.2.3"},
		"an option missing":             {client(0x11), []wire.Option{ipxe[0], ipxe[1], ipxe[3]}, 0, "common", "192.0.2.3"},
		"other bytes":                   {client(0x11), []wire.Option{ipxe[0], text(93, "\x00\x07"), ipxe[2], ipxe[3]}, 0, "common", "192.0.2.3"},
		"other text":                    {client(0x11), []wire.Option{ipxe[0], ipxe[1], ipxe[2], text(12, "PC17")}, 0, "common", "192.0.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			q := wire.Query{Type: wire.Discover, MAC: tc.mac, Options: tc.options}
			var p wire.Packet
			require.NoError(t, p.Parse(q.Append(nil)))
			require.Equal(t, tc.class, cfg.classOf(&p, tc.mac))
			lib, err := dhcpv4.FromBytes((&wire.Reply{Type: wire.Offer, Options: cfg.subnetOf(host(11)).options[tc.class]}).Append(nil, &p))
			require.NoError(t, err)
			assert.Equal(t, tc.file, lib.BootFileName)
			assert.Equal(t, tc.dns, lib.DNS()[0].String(), "the subnet before common, the class before both")
			assert.Equal(t, "192.0.2.8", lib.NTPServers()[0].String(), "from common")
			assert.Zero(t, testing.AllocsPerRun(20, func() { cfg.classOf(&p, tc.mac) }))
		})
	}
}

func TestClassMistakes(t *testing.T) {
	opts := testOptions()
	opts.Classes = []Class{
		{Name: "everybody"},
		{Name: "long", Match: ClassMatch{MACPrefix: [][]byte{make([]byte, 7)}}},
		{Name: "pad", Match: ClassMatch{Options: []OptionMatch{{Code: 0}}}},
		{Name: "wild", Match: ClassMatch{UserClass: "a\nb"}},
		{Name: "deep", Match: ClassMatch{UserClass: "a"}, OptionSet: OptionSet{MTU: 1}},
	}
	_, err := Compile(opts)
	for _, want := range []string{
		"class everybody: no match", "class long: MAC prefix 00000000000000", "class pad: match of option 0",
		"class wild: pattern", "subnet 192.0.2.0/24: class deep: mtu 1",
	} {
		assert.ErrorContains(t, err, want)
	}
}
