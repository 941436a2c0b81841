package wire

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRelayInfoTellsWhatTheRelaySays(t *testing.T) {
	for want, payload := range map[string]string{
		"": "0106000400640001",
		`link 198.51.100.1, server identifier 198.51.100.3, subscriber-id "sub1", relay-id 0x000200000a, received by unicast, replies to its source port, VPN "vpn1"`: "0504c6336401 060473756231 0a0180 0b04c6336403 0c05000200000a 1300 970500 76706e31 9800",
		"received by broadcast, VPN 01020304050607": "0a0100 97080101020304050607",
		"global address space":                      "9701ff",
		"VPN 0x02ab":                                "970202ab",
	} {
		r, err := ParseRelayInfo(unhex(t, payload))
		require.NoError(t, err)
		assert.Equal(t, want, r.Describe())
	}
}

// What people are shown of each sub-option.
func TestSubOptions(t *testing.T) {
	for _, tc := range []struct{ name, payload, sub, text, fault string }{
		{"circuit-id", "0106000400640005", "circuit-id", "vlan 100 unit 0 port 5", ""},
		{"of no length", "0100", "circuit-id", "none", ""},
		{"no VLAN has this number", "010600040fff0005", "circuit-id", "opaque", ""},
		{"remote-id", "0208000600005e0053f1", "remote-id", "mac 00:00:5e:00:53:f1", ""},
		{"MAC or text", "0206636f72652d31", "remote-id", `mac 63:6f:72:65:2d:31 or text "core-1"`, ""},
		{"address as text", "020a3139322e302e322e3130", "remote-id", "address 192.0.2.10", ""},
		{"link selection", "0504c6336401", "link-selection", "address 198.51.100.1", ""},
		{"link selection, none", "050400000000", "link-selection", "", "0.0.0.0 is no address"},
		{"link selection, cut", "0503c63364", "link-selection", "", "want the 4 bytes of an address"},
		{"subscriber-id", "060473756231", "subscriber-id", `"sub1"`, ""},
		{"vendor-specific", "0912 0000197f 0d 050b4c4142373336304f4c5432", "vendor-specific", "enterprise 6527 0x050b4c4142373336304f4c5432", ""},
		{"two vendors", "090e 00000009 02 6964 0000118b 02 0102", "vendor-specific", `enterprise 9 "id", enterprise 4491 0x0102`, ""},
		{"vendor-specific, cut", "0905 00000009 02", "vendor-specific", "", "want enterprise numbers, each with a length and its data"},
		{"vendor-specific, no length", "0904 00000009", "vendor-specific", "", "want enterprise numbers, each with a length and its data"},
		{"flags", "0a0180", "flags", "received by unicast", ""},
		{"flags of two bytes", "0a028000", "flags", "", "want 1 byte"},
		{"server identifier", "0b04c6336403", "server-id-override", "address 198.51.100.3", ""},
		{"relay-id", "0c05000200000a", "relay-id", "0x000200000a", ""},
		{"source port", "1300", "source-port", "replies to its source port", ""},
		{"vss", "970500 76706e31", "vss", `VPN "vpn1"`, ""},
		{"vss of another form", "970202ab", "vss", "VPN 0x02ab", ""},
		{"vss control", "9800", "vss-control", "asks whether vss was looked at", ""},
		{"not known here", "0702aabb", "", "0xaabb", ""},
		{"an escape sequence is told, not sent", "06041b5b326a", "subscriber-id", "0x1b5b326a", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			list, err := SubOptions(unhex(t, tc.payload))
			require.NoError(t, err)
			require.Len(t, list, 1)
			text, fault := list[0].Describe()
			assert.Equal(t, []string{tc.sub, tc.text, tc.fault}, []string{list[0].Name(), text, fault})
		})
	}
	list, err := SubOptions(nil)
	require.NoError(t, err)
	assert.Empty(t, list)
	_, err = SubOptions(unhex(t, "0106000400640005ff"))
	assert.ErrorIs(t, err, ErrSubOption)
}

// Six bytes that may be a MAC or text are told as both; others are one of them.
func TestUnsureRemote(t *testing.T) {
	for _, tc := range []struct {
		value, text string
		kind        RemoteKind
		unsure      bool
	}{
		{"core-1", "core-1", RemoteMAC, true},
		{"<32fCP", "<32fCP", RemoteMAC, true}, // 3c:33:32:66:43:50, a switch that there is
		{"sw-1\x00\x00", "sw-1", RemoteMAC, true},
		{"\x01\x04sw-1", "sw-1", RemoteMAC, true},
		{"\x00\x00\x5e\x00\x53\x01", "", RemoteMAC, false},
		{"\x00\x06core-1", "", RemoteMAC, false},
		{"\x01\x06core-1", "core-1", RemoteText, false},
		{"00005e005301", "00005e005301", RemoteMAC, false},
		{"sw-1", "sw-1", RemoteText, false},
		{"core-11", "core-11", RemoteText, false},
	} {
		r := DecodeRemote([]byte(tc.value))
		assert.Equal(t, tc.kind, r.Kind, "%q", tc.value)
		assert.Equal(t, tc.text, string(r.Text), "%q", tc.value)
		assert.Equal(t, tc.unsure, r.Unsure, "%q", tc.value)
	}
}
