package option82

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// TestVectors reads every known sample and checks each thing that it says.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/vectors.txt")
	require.NoError(t, err)
	accepted, refused := 0, 0
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "|")
		require.Len(t, f, 4, line)
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		t.Run(f[0], func(t *testing.T) {
			r, err := wire.ParseRelayInfo(unhex(t, f[1]))
			if f[2] == "refused" {
				refused++
				require.ErrorIs(t, err, wire.ErrSubOption)
				return
			}
			accepted++
			require.NoError(t, err)
			p, ok := Find(f[2])
			require.True(t, ok, f[2])
			var o Decoded
			fault := compile(t, p).Decode(&r, &o)
			got := said(&r, &o, fault)
			if _, ok := want(t, f[3])["fault"]; !ok {
				require.Equal(t, FaultNone, fault, fault.String())
			}
			for k, v := range want(t, f[3]) {
				assert.Equal(t, v, got[k], k)
			}
		})
	}
	assert.Equal(t, 34, accepted)
	assert.Equal(t, 4, refused)
}

// want takes key=value apart; values in quotes may have blanks.
func want(t *testing.T, s string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for s != "" {
		k, v, ok := strings.Cut(s, "=")
		require.True(t, ok, s)
		if strings.HasPrefix(v, `"`) {
			end := strings.IndexByte(v[1:], '"') + 2
			m[k], s = v[:end], strings.TrimSpace(v[end:])
			continue
		}
		m[k], s, _ = strings.Cut(v, " ")
	}
	return m
}

// said lists what was read, straight from the fields.
func said(r *wire.RelayInfo, o *Decoded, fault Fault) map[string]string {
	m := map[string]string{
		"vlan": fmt.Sprint(o.VLAN), "unit": fmt.Sprint(o.Unit), "slot": fmt.Sprint(o.Slot), "sent": fmt.Sprint(o.Sent),
		"host": fmt.Sprintf("%q", o.Host), "serial": fmt.Sprintf("%q", o.Serial), "onu": fmt.Sprintf("%q", o.ONU),
		"onumac": macText(o.ONUMAC), "link": r.Link.String(),
	}
	if o.HasNumber {
		m["port"] = fmt.Sprint(o.Port)
	} else {
		m["iface"] = fmt.Sprintf("%q", o.PortName)
	}
	if r.CircuitID == nil {
		m["nocircuit"] = "1"
	}
	if fault == FaultUnit {
		m["fault"] = "unit"
	}
	switch o.Switch.Kind {
	case ByRelay:
		m["switch"] = "relay"
	case ByMAC:
		m["switch"] = macText(o.Switch.MAC)
	case ByIP:
		m["switch"] = o.Switch.IP.String()
	case ByName:
		m["switch"] = fmt.Sprintf("%q", o.Switch.Name)
	case ByNothing:
	}
	return m
}

func macText(mac [6]byte) string {
	s := hex.EncodeToString(mac[:])
	return s[:2] + ":" + s[2:4] + ":" + s[4:6] + ":" + s[6:8] + ":" + s[8:10] + ":" + s[10:]
}
