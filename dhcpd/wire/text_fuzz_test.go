package wire

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// The values of sub-options as a relay may send them, judged by the standard
// library where it reads the same spellings.
func FuzzSubOptionValues(f *testing.F) {
	for _, s := range []string{
		"", "\x00\x04\x00\x69\x00\x05", "\x01\x03ge3", "ge3\x00\x00", "\x00\x06\x00\x00\x5e\x00\x53\x01", "00:00:5e:00:53:01", "0000.5e00.5301",
		"0:0:5e:0:53:1", "00005e005301", "192.0.2.1", "192.0.2.256", "\x00vpn", "\x00\xd9\x99", "core-1", "olt-01", "\x01\x04sw-1", "sw-1\x00\x00", "\x00\x04\x0f\xff\x00\x05", "\x00\x00\x00\x09\x02id", "\xff\xff\xff\xff\xff",
		"\x01\x00\x00\x00\x00\x00\x00\x07", "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		c, r := DecodeCircuit(v), DecodeRemote(v)
		require.Equal(t, len(v) == 0, c.Kind == CircuitNone)
		require.Equal(t, len(v) == 0, r.Kind == RemoteNone)
		require.LessOrEqual(t, len(c.Text), len(v))
		require.LessOrEqual(t, len(r.Text), len(v))
		require.LessOrEqual(t, c.VLAN, uint16(MaxVLAN))
		if r.Unsure {
			require.Equal(t, string(v), string(r.MAC[:]), "the bytes are the MAC")
			require.NotEmpty(t, r.Text, "and text")
		}
		for _, code := range []uint8{SubCircuitID, SubRemoteID, SubLinkSelection, SubVendor, SubFlags, SubRelayID, SubVSS} {
			text, fault := SubOption{Code: code, Value: v}.Describe()
			if text != "" && fault != "" || !printable([]byte(text+fault)) {
				t.Fatalf("code %d says %q, and is left out: %q", code, text, fault)
			}
		}
		if vss, ok := DecodeVSS(v); ok {
			require.True(t, vss.Global != (vss.HasID || len(vss.Name) > 0))
		}
		ip, ok := ParseTextIPv4(v)
		if want, err := netip.ParseAddr(string(v)); err == nil && want.Is4() {
			require.True(t, ok && ip == want, "%q is %v", v, want)
		}
		require.True(t, !ok || ip.Is4())
		mac, ok := ParseTextMAC(v)
		if want, err := net.ParseMAC(string(v)); err == nil && len(want) == 6 {
			require.True(t, ok && string(mac[:]) == string(want), "%q is %v", v, want)
		}
	})
}
