package console

import (
	"encoding/hex"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision/lease"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// serve puts the real server, without sockets, behind the console.
func (w *world) serve(t testing.TB) {
	t.Helper()
	s, err := dhcpd.New(dhcpd.Options{
		Listen: netip.MustParseAddrPort("0.0.0.0:67"),
		Options: v4.Options{
			Subnets: []v4.Subnet{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Gateway: ip("198.51.100.1"), LeaseTime: time.Hour}},
		},
	}, dhcpd.Deps{Snapshot: w.syncer.Current, Leases: lease.New()})
	require.NoError(t, err)
	w.DHCP = s
}

func TestClientOption82(t *testing.T) {
	w := newWorld(t)
	w.serve(t)
	c := serveWorld(t, w)
	v, err := c.Option82(t.Context(), unhex(t, "010600040064000302080006"+"00005e005370"), ip("192.0.2.9"), mac(t, "00:00:5e:00:53:99"))
	require.NoError(t, err)
	assert.Equal(t, "offer", v.Now.Outcome)
	assert.Equal(t, "dlink", v.Now.Profile)
	assert.Equal(t, ip("198.51.100.13"), v.Now.YourIP)
	assert.EqualValues(t, 7, v.Now.Device)
	assert.EqualValues(t, 3, v.Now.Port)
	by := map[string]line.Reading{}
	for _, r := range v.Readings {
		by[r.Profile] = r
	}
	assert.Equal(t, line.Reading{
		Profile: "cisco-catalyst", Vendor: by["cisco-catalyst"].Vendor, Confidence: "doc", Text: "switch 00:00:5e:00:53:70, port 1, sent as 3, unit 0, vlan 100",
		Device: 7, DeviceName: "sw-west-1", Port: 1, Result: line.Bound, Subscriber: 1001, Addresses: []netip.Addr{ip("198.51.100.11"), ip("198.51.100.21")},
	}, by["cisco-catalyst"])
	assert.Equal(t, line.UnknownPort, by["h3c-extended"].Result)
	assert.NotContains(t, by, "snr-ascii")

	v, err = c.Option82(t.Context(), unhex(t, "0106000400640003"+"02080006"+"00005e005370"+"0504c6336401"+"0906000000090161"+"1300"), netip.Addr{}, mac(t, ""))
	require.NoError(t, err)
	assert.Equal(t, []line.SubOption{
		{Code: 1, Name: "circuit-id", Value: "000400640003", Text: "vlan 100 unit 0 port 3"},
		{Code: 2, Name: "remote-id", Value: "000600005e005370", Text: "mac 00:00:5e:00:53:70"},
		{Code: 5, Name: "link-selection", Value: "c6336401", Text: "address 198.51.100.1"},
		{Code: 9, Name: "vendor-specific", Value: "000000090161", Text: `enterprise 9 "a"`},
		{Code: 19, Name: "source-port", Text: "replies to its source port"},
	}, v.SubOptions)

	v, err = c.Option82(t.Context(), unhex(t, "01060004ffff0003"+"02080006"+"00005e005370"), netip.Addr{}, mac(t, ""))
	require.NoError(t, err)
	assert.Equal(t, "the bytes have another layout: they would say a VLAN above 4094", v.Now.Fault)
	for _, r := range v.Readings {
		assert.NotContains(t, r.Text, "vlan", r.Profile)
	}

	_, err = c.Option82(t.Context(), unhex(t, "0106000400"), netip.Addr{}, mac(t, ""))
	assert.ErrorContains(t, err, "do not fill option 82")
	_, err = c.Option82(t.Context(), nil, netip.Addr{}, mac(t, ""))
	assert.ErrorContains(t, err, "of 0 bytes")
	for path, want := range map[string]string{
		"/v1/option82?value=xx": "hexadecimal", "/v1/option82?value=0102&giaddr=2001:db8::1": "IPv4", "/v1/option82?value=010200ff&mac=zz": "hex digits",
	} {
		_, err := call[Option82View](t.Context(), c, "GET", path, nil)
		assert.ErrorContains(t, err, want, path)
	}

	w.dhcp.profiles = []option82.Profile{{Name: "ours", Layout: option82.LayoutWrappedUnitPort, PortOffset: -2}}
	w.DHCP = w.dhcp
	v, err = serveWorld(t, w).Option82(t.Context(), unhex(t, "010600040064000302080006"+"00005e005370"), netip.Addr{}, mac(t, ""))
	require.NoError(t, err)
	assert.Equal(t, "ours", v.Readings[0].Profile, "those of the configuration go first")
	assert.Equal(t, line.Bound, v.Readings[0].Result)
	assert.Greater(t, len(v.Readings), 1)

	w = newWorld(t)
	w.DHCP = nil
	v, err = serveWorld(t, w).Option82(t.Context(), unhex(t, "01020005"), netip.Addr{}, mac(t, ""))
	require.NoError(t, err)
	assert.Nil(t, v.Now)
	assert.Contains(t, v.Note, "switched off")
}

func TestUnknownOption82(t *testing.T) {
	w := newWorld(t)
	w.serve(t)
	relay := ip("192.0.2.9")
	see := func(payload string, from netip.Addr, o outcome.Outcome, client string, at time.Duration) {
		lost := o
		if o == outcome.Offer {
			lost = 0
		}
		w.packet(dhcpd.Event{Time: testStart.Add(at), Outcome: o, Lost: lost, MAC: mac(t, client), GIAddr: from, Interface: "eth1", Option82: unhex(t, payload)})
	}
	const sw = "0208000600005e005370"
	stacked, higher, stranger := "0106000400640205"+sw, "0106000400640005"+sw, "0106000400640005"+"0208000600005e0053ee"
	snr := "0114" + hex.EncodeToString([]byte("Vlan1+Ethernet1/0/12")) + sw
	epon, noise := "0105007400071d02061c877912e61a", "01030102030203010203"
	// One client of the port is known by its MAC and got its address all the same.
	w.packet(dhcpd.Event{Time: testStart.Add(2 * time.Second), Outcome: outcome.Ack, Lost: outcome.UnknownPort, MAC: mac(t, "00:00:5e:00:53:a2"), GIAddr: relay, Interface: "eth1", Option82: unhex(t, higher)})
	for i := range 2 {
		see(higher, relay, outcome.UnknownPort, "00:00:5e:00:53:a"+string(rune('0'+i)), time.Duration(i)*time.Second)
	}
	see(stacked, relay, outcome.Option82Unread, "00:00:5e:00:53:b1", 5*time.Second)
	see(stacked, relay, outcome.Option82Unread, "00:00:5e:00:53:b1", 6*time.Second)
	see(stranger, relay, outcome.UnknownDevice, "00:00:5e:00:53:b2", 4*time.Second)
	see(snr, relay, outcome.UnknownPort, "00:00:5e:00:53:b3", 3*time.Second)
	see(epon, relay, outcome.UnknownDevice, "00:00:5e:00:53:b4", 2*time.Second)
	see(noise, ip("192.0.2.70"), outcome.Option82Unread, "00:00:5e:00:53:b5", time.Second)
	see(higher, relay, outcome.Offer, "00:00:5e:00:53:11", time.Second)
	w.packet(dhcpd.Event{Outcome: outcome.UnknownPort, MAC: mac(t, "00:00:5e:00:53:b6")}) // no option 82: nothing to learn

	got, err := serveWorld(t, w).UnknownOption82(t.Context())
	require.NoError(t, err)
	require.Len(t, got.Unknown, 6)
	assert.Zero(t, got.More)
	by := map[string]Option82Unknown{}
	for _, u := range got.Unknown {
		by[hex.EncodeToString(u.Option82)] = u
	}
	first := got.Unknown[0]
	assert.Equal(t, higher, hex.EncodeToString(first.Option82), "the most frequent first")
	assert.Equal(t, 3, first.Packets)
	assert.Len(t, first.MACs, 3)
	assert.Equal(t, testStart, first.First.UTC())
	assert.Equal(t, testStart.Add(2*time.Second), first.Last.UTC())
	assert.Equal(t, "cisco-catalyst", first.Readings[0].Profile, "the reading that finds a customer comes first")
	assert.Contains(t, first.Config, "{name: device-7, match: {device: [7]}, use: cisco-catalyst}")
	assert.Contains(t, first.Advice, "customer 1003")

	u := by[stacked]
	assert.Equal(t, option82.FaultUnit.String(), u.Fault)
	assert.Contains(t, u.Config, "use: dlink, unit_ports: 52}")
	assert.Contains(t, by[stranger].Config, `{value: "`+stranger+`", device: ID, port: PORT}`)
	assert.Contains(t, by[snr].Config, "device: 7, port: PORT}")
	assert.Equal(t, "snr-ascii", by[snr].Readings[0].Profile)
	assert.Equal(t, "bdcom-epon", by[epon].Readings[0].Profile)
	assert.Contains(t, by[noise].Advice, "No ready profile reads it")

	// What is proposed is a configuration, or says what a person must fill in.
	env := config.Env{ReadFile: func(string, int64) ([]byte, fs.FileMode, error) { return []byte("key-of-the-test"), 0o600, nil }}
	for value, u := range by {
		text := "userside: {url: https://erp.example.net/api.php, key_file: /k}\n" + u.Config + "  subnets: [{prefix: 198.51.100.0/24}]\n"
		_, err := config.Parse("x.yaml", []byte(text), env)
		if strings.Contains(u.Config, "PORT") {
			assert.ErrorContains(t, err, "exact[0].port", value)
			continue
		}
		assert.NoError(t, err, value)
	}

	some := w.Deps.unknownOption82(2)
	assert.Len(t, some.Unknown, 2)
	assert.Equal(t, 4, some.More)
	body := get(t, w, "/").Body.String()
	assert.Contains(t, body, "Option 82 that led to no port")
	assert.Contains(t, body, higher)

	w.Events = nil
	assert.Empty(t, w.Deps.unknownOption82(5).Unknown)
}
