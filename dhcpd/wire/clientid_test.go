package wire

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClientID(t *testing.T) {
	for _, tc := range []struct{ name, id, mac, text string }{
		{"none", "", "", ""},
		{"type 1", "01 00005e005301", "00005e005301", "ethernet 00:00:5e:00:53:01"},
		{"type 1 and a byte more", "01 00005e005301 00", "", "bytes 0100005e00530100"},
		{"zeros name nobody", "01 000000000000", "", "ethernet 00:00:00:00:00:00"},
		{"broadcast names nobody", "01 ffffffffffff", "", "ethernet ff:ff:ff:ff:ff:ff"},
		{"DUID-LLT", "ff 53000001 0001 0001 2a3b4c5d 00005e005301", "00005e005301", "iaid 53000001 duid-llt ethernet 00:00:5e:00:53:01"},
		{"DUID-LL", "ff 53000001 0003 0001 00005e005301", "00005e005301", "iaid 53000001 duid-ll ethernet 00:00:5e:00:53:01"},
		{"DUID-LL of another hardware", "ff 53000001 0003 0020 00005e005301", "", "iaid 53000001 duid-ll hardware 32 00005e005301"},
		{"DUID-LLT of InfiniBand", "ff 53000001 0001 0020 2a3b4c5d 00005e0053010203", "", "iaid 53000001 duid-llt hardware 32 00005e0053010203"},
		{"DUID-EN, as systemd-networkd sends", "ff 53000001 0002 0000ab11 0123456789abcdef", "", "iaid 53000001 duid-en enterprise 43793 0123456789abcdef"},
		{"DUID-UUID", "ff 53000001 0004 00112233445566778899aabbccddeeff", "", "iaid 53000001 duid-uuid 00112233-4455-6677-8899-aabbccddeeff"},
		{"DUID cut off", "ff 53000001 0003 0001 00005e0053", "", "iaid 53000001 duid-ll hardware 1 00005e0053"},
		{"DUID of an unknown type", "ff 53000001 0009 0102", "", "iaid 53000001 duid 00090102"},
		{"DUID type alone", "ff 53000001 0001", "", "iaid 53000001 duid 0001"},
		{"255 and too little", "ff 5300", "", "bytes ff5300"},
		{"type 0 text", "00 63706531", "", `text "cpe1"`},
		{"text without type", "63706531", "", `text "cpe1"`},
		{"type 0 alone", "00", "", "bytes 00"},
		{"opaque", "07 01", "", "bytes 0701"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id, err := hex.DecodeString(strings.ReplaceAll(tc.id, " ", ""))
			require.NoError(t, err)
			mac, ok := ClientIDMAC(id)
			assert.Equal(t, tc.mac != "", ok)
			if ok {
				assert.Equal(t, tc.mac, fmt.Sprintf("%x", mac))
			}
			assert.Equal(t, tc.text, DescribeClientID(id))
		})
	}
}

// Whatever a client sends: no panic, the address stands in the bytes, the text is printable.
func FuzzClientID(f *testing.F) {
	for _, s := range []string{"0100005e005301", "ff53000001000100012a3b4c5d00005e005301", "ff530000010003000100005e005301",
		"ff5300000100020000ab110123456789abcdef", "ff53000001000400112233445566778899aabbccddeeff", "0063706531", "ff", ""} {
		b, err := hex.DecodeString(s)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, id []byte) {
		mac, ok := ClientIDMAC(id)
		if ok {
			require.Contains(t, hex.EncodeToString(id), hex.EncodeToString(mac[:]))
			require.NotZero(t, mac)
		}
		text := DescribeClientID(id)
		require.Equal(t, len(id) == 0, text == "")
		require.True(t, printable([]byte(text)), "%q", text)
		require.Zero(t, testing.AllocsPerRun(1, func() { _, _ = ClientIDMAC(id) }))
	})
}
