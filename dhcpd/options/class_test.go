package options

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

func TestClasses(t *testing.T) {
	common := OptionSet{DNS: []netip.Addr{host(9)}, NTP: []netip.Addr{host(8)}, BootFile: "common"}
	subnet := OptionSet{DNS: []netip.Addr{host(3)}}
	classes, err := CompileClasses([]Class{
		{Name: "stb", Match: ClassMatch{VendorClass: "stb-*"}, OptionSet: OptionSet{NextServer: host(80), BootFile: "stb.img", DNS: []netip.Addr{host(7)}}},
		{Name: "old", Match: ClassMatch{MACPrefix: [][]byte{{0, 0, 0x5e, 0, 0x53, 0x12}, {2}}}, AlwaysBroadcast: true},
		{Name: "ipxe", Match: ClassMatch{UserClass: "ipxe", Options: []OptionMatch{{Code: 93, Value: []byte{0, 0}}, {Code: 97}, {Code: 12, Text: "pc?"}}}, OptionSet: OptionSet{BootFile: "boot.ipxe"}},
	})
	require.NoError(t, err)
	sets, err := Compile(netip.MustParsePrefix("192.0.2.0/24"), host(1), classes, common, subnet)
	require.NoError(t, err)
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
		"vendor class of a C string":    {client(0x11), []wire.Option{text(60, "stb-x\x00")}, 1, "stb.img", "192.0.2.7"},
		"vendor class padded with NULs": {client(0x11), []wire.Option{text(60, "stb-x\x00\x00\x00")}, 1, "stb.img", "192.0.2.7"},
		"two vendor classes, the last":  {client(0x11), []wire.Option{text(60, "udhcp 1.36"), text(60, "stb-x")}, 1, "stb.img", "192.0.2.7"},
		"two vendor classes, the first": {client(0x11), []wire.Option{text(60, "stb-x\x00"), text(60, "udhcp 1.36")}, 1, "stb.img", "192.0.2.7"},
		"vendor class in parts":         {client(0x11), []wire.Option{text(60, "st"), text(60, "b-x")}, 1, "stb.img", "192.0.2.7"},
		"two other vendor classes":      {client(0x11), []wire.Option{text(60, "udhcp 1.36"), text(60, "4k-stb-")}, 0, "common", "192.0.2.3"},
		"user class of a C string":      {client(0x11), append([]wire.Option{text(77, "iPXE\x00")}, ipxe[1:]...), 3, "boot.ipxe", "192.0.2.3"},
		"counted class of a C string":   {client(0x11), append([]wire.Option{text(77, "\x03foo\x05iPXE\x00")}, ipxe[1:]...), 3, "boot.ipxe", "192.0.2.3"},
		"two user classes":              {client(0x11), append([]wire.Option{text(77, "foo"), text(77, "iPXE")}, ipxe[1:]...), 3, "boot.ipxe", "192.0.2.3"},
		"a host name of a C string":     {client(0x11), []wire.Option{ipxe[0], ipxe[1], ipxe[2], text(12, "pc7\x00")}, 3, "boot.ipxe", "192.0.2.3"},
		"the second of two bytes":       {client(0x11), []wire.Option{ipxe[0], text(93, "\x00\x07"), ipxe[1], ipxe[2], ipxe[3]}, 3, "boot.ipxe", "192.0.2.3"},
		"bytes are not padded":          {client(0x11), []wire.Option{ipxe[0], text(93, "\x00\x00\x00"), ipxe[2], ipxe[3]}, 0, "common", "192.0.2.3"},
		"other bytes":                   {client(0x11), []wire.Option{ipxe[0], text(93, "\x00\x07"), ipxe[2], ipxe[3]}, 0, "common", "192.0.2.3"},
		"other text":                    {client(0x11), []wire.Option{ipxe[0], ipxe[1], ipxe[2], text(12, "PC17")}, 0, "common", "192.0.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			q := wire.Query{Type: wire.Discover, MAC: tc.mac, Options: tc.options}
			var p wire.Packet
			require.NoError(t, p.Parse(q.Append(nil)))
			require.Equal(t, tc.class, classes.Of(&p, tc.mac))
			require.Equal(t, tc.class == 2, classes.AlwaysBroadcast(tc.class))
			lib, err := dhcpv4.FromBytes((&wire.Reply{Type: wire.Offer, Options: sets[tc.class]}).Append(nil, &p))
			require.NoError(t, err)
			assert.Equal(t, tc.file, lib.BootFileName)
			assert.Equal(t, tc.dns, lib.DNS()[0].String(), "the subnet before common, the class before both")
			assert.Equal(t, "192.0.2.8", lib.NTPServers()[0].String(), "from common")
			assert.Zero(t, testing.AllocsPerRun(20, func() { classes.Of(&p, tc.mac) }))
		})
	}
}

func TestClassMistakes(t *testing.T) {
	_, err := CompileClasses([]Class{
		{Name: "everybody"},
		{Name: "long", Match: ClassMatch{MACPrefix: [][]byte{make([]byte, 7)}}},
		{Name: "pad", Match: ClassMatch{Options: []OptionMatch{{Code: 0}}}},
		{Name: "wild", Match: ClassMatch{UserClass: "a\nb"}},
	})
	for _, want := range []string{
		"class everybody: every client would be of this class", "class long: MAC prefix 00000000000000", "class pad: match of option 0", "class wild: pattern",
	} {
		assert.ErrorContains(t, err, want)
	}
}
