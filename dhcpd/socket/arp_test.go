package socket

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestARPBytes(t *testing.T) {
	// As in RFC 5227 section 2.1.1: the sender's IP and the target's hardware address are zero.
	assert.Equal(t, "0001"+"0800"+"0604"+"0001"+"00005e005301"+"00000000"+"000000000000"+"c00002c8",
		hex.EncodeToString(appendProbe(nil, client(1), host(200))))
	reply := unhex(t, "0001"+"0800"+"0604"+"0002"+"00005e005399"+"c00002c8"+"00005e005301"+"00000000")
	s, ok := parseARP(reply)
	require.True(t, ok)
	assert.Equal(t, Sighting{IP: host(200), MAC: stranger}, s)
	for name, bad := range map[string]string{
		"short":      "000108000604000200005e005399c00002c8",
		"request":    "0001080006040001" + "00005e005399c00002c800005e00530100000000",
		"not IPv4":   "000186dd06040002" + "00005e005399c00002c800005e00530100000000",
		"no address": "0001080006040002" + "00005e0053990000000000005e00530100000000",
		"no MAC":     "0001080006040002" + "000000000000c00002c800005e00530100000000",
		"nothing":    "",
	} {
		_, ok := parseARP(unhex(t, bad))
		assert.False(t, ok, name)
	}
}

func FuzzARP(f *testing.F) {
	f.Add(unhex(f, "0001080006040002"+"00005e005399c00002c800005e00530100000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseARP(b); ok {
			require.True(t, s.IP.Is4())
			require.False(t, s.MAC.IsZero())
		}
	})
}
