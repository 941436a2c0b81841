package v4

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// Who is of no class is told what everybody is, in a subnet what that says instead, in
// a pool what the pool says instead of both, and of a class what the class says instead of all.
func TestWhatClientsAreTold(t *testing.T) {
	opts := testOptions()
	opts.Common = options.OptionSet{DNS: []netip.Addr{host(9)}, NTP: []netip.Addr{host(9)}, BootFile: "common", TZPOSIX: "UTC0"}
	opts.Subnets[0].OptionSet = options.OptionSet{DNS: []netip.Addr{host(8)}, NTP: []netip.Addr{host(8)}, BootFile: "subnet"}
	opts.Unknown, opts.Pools = UnknownGuest, []Pool{guests()}
	opts.Pools[0].OptionSet = options.OptionSet{DNS: []netip.Addr{host(7)}, NTP: []netip.Addr{host(7)}}
	opts.Classes = []options.Class{{Name: "stb", Match: options.ClassMatch{VendorClass: "stb-*"}, OptionSet: options.OptionSet{DNS: []netip.Addr{host(6)}}}}
	stb := []wire.Option{{Code: wire.OptVendorClass, Value: []byte("STB-4k")}}
	for name, tc := range map[string]struct {
		mac            provision.MAC
		options        []wire.Option
		dns, ntp, file string
	}{
		"subnet":            {client(0x11), nil, "192.0.2.8", "192.0.2.8", "subnet"},
		"class in a subnet": {client(0x11), stb, "192.0.2.6", "192.0.2.8", "subnet"},
		"pool":              {stranger, nil, "192.0.2.7", "192.0.2.7", "subnet"},
		"class in a pool":   {stranger, stb, "192.0.2.6", "192.0.2.7", "subnet"},
	} {
		t.Run(name, func(t *testing.T) {
			q := wire.Query{Type: wire.Discover, MAC: tc.mac, Options: tc.options}
			d := run(t, q, nil, func(_ *Request, o *Options) { *o = opts })
			var p wire.Packet
			require.NoError(t, p.Parse(q.Append(nil)))
			lib, err := dhcpv4.FromBytes(d.AppendReply(nil, &p))
			require.NoError(t, err)
			assert.Equal(t, tc.dns, lib.DNS()[0].String())
			assert.Equal(t, tc.ntp, lib.NTPServers()[0].String())
			assert.Equal(t, tc.file, lib.BootFileName)
			assert.Equal(t, "UTC0", string(lib.Options.Get(dhcpv4.GenericOptionCode(wire.OptPOSIXTimezone))), "nobody says another")
		})
	}
}

func TestClassMistakes(t *testing.T) {
	opts := testOptions()
	opts.Classes = []options.Class{
		{Name: "everybody"},
		{Name: "long", Match: options.ClassMatch{MACPrefix: [][]byte{make([]byte, 7)}}},
		{Name: "pad", Match: options.ClassMatch{Options: []options.OptionMatch{{Code: 0}}}},
		{Name: "wild", Match: options.ClassMatch{UserClass: "a\nb"}},
		{Name: "deep", Match: options.ClassMatch{UserClass: "a"}, OptionSet: options.OptionSet{MTU: 1}},
	}
	_, err := Compile(opts)
	for _, want := range []string{
		"class everybody: every client would be of this class", "class long: MAC prefix 00000000000000", "class pad: match of option 0",
		"class wild: pattern", "subnet 192.0.2.0/24: class deep: mtu: 1;",
	} {
		assert.ErrorContains(t, err, want)
	}
}
