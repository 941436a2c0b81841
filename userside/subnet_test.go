package userside

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSubnet(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.8/29": "203.0.113.8/29", " 203.0.113.9/29 ": "203.0.113.8/29", "203.0.113.8/255.255.255.248": "203.0.113.8/29", "203.0.113.8 / 32": "203.0.113.8/32",
		"10.0.0.0/0": "0.0.0.0/0", "10.0.0.0/0.0.0.0": "0.0.0.0/0", "10.0.0.1/255.255.255.255": "10.0.0.1/32",
		"203.0.113.8": "", "203.0.113.8/": "", "203.0.113.8/33": "", "203.0.113.8/-1": "", "203.0.113.8/255.0.255.0": "", "2001:db8::/64": "", "/29": "", "": "", "x/29": "",
	} {
		p, err := ParseSubnet(text)
		if want == "" {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, netip.MustParsePrefix(want), p, text)
	}
	first := netip.MustParseAddr("203.0.113.8")
	for text, want := range map[String]String{"29": "203.0.113.8/29", "/29": "203.0.113.8/29", "255.255.255.248": "203.0.113.8/255.255.255.248", "198.51.100.0/24": "198.51.100.0/24"} {
		require.Equal(t, want, wholeSubnet(text, first))
	}
}

func FuzzParseSubnet(f *testing.F) {
	for _, s := range []string{"203.0.113.8/29", "203.0.113.8/255.255.255.248", "/", "0.0.0.0/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseSubnet(s); err == nil && (p != p.Masked() || !p.Addr().Is4()) {
			t.Errorf("%q gives %v", s, p)
		}
	})
}
