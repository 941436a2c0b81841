package socket

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The receiver of a frame checks both checksums; an odd payload has a half word at its end.
func TestFrameChecksums(t *testing.T) {
	for _, payload := range []string{"", "x", "even", strings.Repeat("\xff", 1472), strings.Repeat("odd", 99)} {
		b := appendIPv4UDP([]byte("before"), netip.AddrPortFrom(host(1), 67), netip.AddrPortFrom(host(21), 68), []byte(payload))[6:]
		require.Len(t, b, 28+len(payload))
		assert.Equal(t, uint16(0xffff), fold(sum16(0, b[:20])), "IP header")
		pseudo := sum16(17+uint32(len(b)-20), b[12:20])
		assert.Equal(t, uint16(0xffff), fold(sum16(pseudo, b[20:])), "UDP, %d bytes", len(payload))
		assert.Equal(t, []byte{0x45, 0x10}, b[:2])
		assert.Equal(t, []byte{192, 0, 2, 1, 192, 0, 2, 21, 0, 67, 0, 68}, b[12:24])
	}
}
