package v4

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// ready returns a ready profile.
func ready(t testing.TB, name string) option82.Profile {
	t.Helper()
	p, ok := option82.Find(name)
	require.True(t, ok, name)
	return p
}

// withProfiles sets how option 82 is read.
func withProfiles(o line.Option82) func(*Request, *Options) {
	return func(_ *Request, opts *Options) { opts.Option82 = o }
}

func TestLocateByProfile(t *testing.T) {
	catalyst := func(m line.Option82Match) line.Option82 {
		return line.Option82{Profiles: []line.Option82Profile{{Profile: ready(t, "cisco-catalyst"), Match: m}}}
	}
	sw1 := hex.EncodeToString(switch1[:])
	portByte := func(n string) string { return "0106000400640" + n + " 02080006" + sw1 } // unit and port
	for _, tc := range []struct {
		name    string
		o       line.Option82
		payload string
		giaddr  netip.Addr
		want    string
		profile string
	}{
		{"no configuration: as sent", line.Option82{}, portByte("001"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "dlink"},
		{"by device", catalyst(line.Option82Match{Devices: []provision.DeviceID{9, 1}}), portByte("003"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "cisco-catalyst"},
		{"by another device", catalyst(line.Option82Match{Devices: []provision.DeviceID{2}}), portByte("001"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "dlink"},
		{"by name of the device", catalyst(line.Option82Match{DeviceName: "SW?"}), portByte("003"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "cisco-catalyst"},
		{"by model", catalyst(line.Option82Match{Model: "*catalyst 2960*"}), portByte("003"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "cisco-catalyst"},
		{"by another model", catalyst(line.Option82Match{Model: "*catalyst 3750*"}), portByte("001"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "dlink"},
		{"by model of the relay's device, as the remote-id tells none", catalyst(line.Option82Match{Model: "*2960*"}), "010600040064" + "0003", ip("198.51.100.11"), "offer 192.0.2.11 by relay to 198.51.100.11:67", "cisco-catalyst"},
		{"by remote-id", catalyst(line.Option82Match{RemoteID: "00:00:5e:00:53:f*"}), portByte("003"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "cisco-catalyst"},
		{"by relay", catalyst(line.Option82Match{GIAddr: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")}}), portByte("003"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "cisco-catalyst"},
		{"by relay, without one", catalyst(line.Option82Match{GIAddr: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}), portByte("001"), netip.Addr{}, "offer 192.0.2.11 by frame", "dlink"},
		{"all must hold", catalyst(line.Option82Match{Devices: []provision.DeviceID{1}, RemoteID: "3c:*"}), portByte("001"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "dlink"},
		{"a profile without match is for nobody", catalyst(line.Option82Match{}), portByte("001"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "dlink"},
		{"one that matches and cannot read it is not overruled by the default", line.Option82{Profiles: []line.Option82Profile{
			{Profile: ready(t, "snr-ascii"), Match: line.Option82Match{Devices: []provision.DeviceID{1}}}}}, portByte("001"), relayIP, "option82_unread", "snr-ascii"},
		{"the next that matches may read it", line.Option82{Profiles: []line.Option82Profile{
			{Profile: ready(t, "snr-ascii"), Match: line.Option82Match{Devices: []provision.DeviceID{1}}},
			{Profile: ready(t, "cisco-catalyst"), Match: line.Option82Match{Devices: []provision.DeviceID{1}}}}},
			portByte("003"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "cisco-catalyst"},
		{"below the first port", catalyst(line.Option82Match{Devices: []provision.DeviceID{1}}), portByte("001"), relayIP, "option82_unread", "cisco-catalyst"},
		{"unit 2 without unit_ports", line.Option82{}, portByte("201"), relayIP, "option82_unread", "dlink"},
		{"unit 2 has port 3", line.Option82{Default: []option82.Profile{{Name: "stack", Layout: option82.LayoutWrappedUnitPort, UnitPorts: 2}}}, portByte("201"), relayIP, "offer 192.0.2.32 by relay to 198.51.100.1:67", "stack"},
		{"another default", line.Option82{Default: []option82.Profile{ready(t, "h3c-extended")}}, portByte("000"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "h3c-extended"},
		{"switch by name", line.Option82{Default: []option82.Profile{ready(t, "sonic")}}, "010867652d302f302f35 0203737732", relayIP, "offer 192.0.2.71 by relay to 198.51.100.1:67", "sonic"},
		{"switch by an unknown name", line.Option82{Default: []option82.Profile{ready(t, "sonic")}}, "010867652d302f302f35 0203737739", relayIP, "unknown_device", "sonic"},
		{"switch in the circuit-id", line.Option82{Default: []option82.Profile{ready(t, "mikrotik-bridge")}}, "010b" + hex.EncodeToString([]byte("sw1 eth 0/1")), netip.Addr{}, "offer 192.0.2.11 by frame", "mikrotik-bridge"},
		{"an OLT by the relay, its ONU by the remote-id", line.Option82{Profiles: []line.Option82Profile{{
			Profile: option82.Profile{Name: "olt", Layout: option82.LayoutEPON, Switch: option82.SwitchRelay, UnitPorts: 1},
			Match:   line.Option82Match{Devices: []provision.DeviceID{1}}}}}, "01050064000301 02061c877912e61a", ip("198.51.100.11"), "offer 192.0.2.32 by relay to 198.51.100.11:67", "olt"},
		{"ONU as a device", line.Option82{Default: []option82.Profile{ready(t, "onu-mac")}}, "0206" + sw1, relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "onu-mac"},
		{"no ONU: not port 1 of the relay", line.Option82{Default: []option82.Profile{ready(t, "onu-mac")}}, "010161", ip("198.51.100.11"), "option82_unread", "onu-mac"},
		{"the client for an ONU: not port 1 of the relay", line.Option82{Default: []option82.Profile{ready(t, "onu-mac")}}, "0206" + hex.EncodeToString(stranger[:]), ip("198.51.100.11"), "option82_unread", "onu-mac"},
		{"exact bytes go first", line.Option82{Exact: []line.Option82Exact{{Value: unhex(t, portByte("009")), Device: 1, Port: 1}}}, portByte("009"), relayIP, "offer 192.0.2.11 by relay to 198.51.100.1:67", "exact"},
		{"exact bytes by name", line.Option82{Exact: []line.Option82Exact{{Value: unhex(t, "0103010203"), Device: 2, PortName: "ge-0/0/5"}}}, "0103010203", relayIP, "offer 192.0.2.71 by relay to 198.51.100.1:67", "exact"},
		{"exact bytes of an unknown switch", line.Option82{Exact: []line.Option82Exact{{Value: unhex(t, "0103010203"), Device: 77, Port: 1}}}, "0103010203", relayIP, "unknown_device", "exact"},
		{"other bytes than the exact ones", line.Option82{Exact: []line.Option82Exact{{Value: unhex(t, "0103010203"), Device: 1, Port: 1}}}, "0103010204", relayIP, "unknown_device", "dlink"},
		{"sub-option 6", line.Option82{Default: []option82.Profile{ready(t, "subscriber-id")}}, "060867652d302f302f35 02080006" + hex.EncodeToString(switch2[:]), relayIP, "offer 192.0.2.71 by relay to 198.51.100.1:67", "subscriber-id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := run(t, wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: tc.giaddr, Option82: unhex(t, tc.payload)}, nil, withProfiles(tc.o))
			assert.Equal(t, tc.want, told(d))
			assert.Equal(t, tc.profile, d.Match.Loc.Profile)
		})
	}
}

// Trust does not depend on profiles: what is refused before matching stays refused.
func TestProfilesDoNotChangeTrust(t *testing.T) {
	every := withProfiles(line.Option82{Profiles: []line.Option82Profile{{Profile: ready(t, "dlink"), Match: line.Option82Match{GIAddr: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}},
		Exact: []line.Option82Exact{{Value: port(switch1, 1), Device: 1, Port: 1}}})
	q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("192.0.2.9"), Option82: port(switch1, 1)}
	assert.Equal(t, outcome.RelayUntrusted, run(t, q, nil, every).Outcome)

	// The client's option 82 and the switch's: joined, they would be a circuit-id nobody sent.
	forged := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP}
	raw := forged.Append(nil)
	end := len(raw) - 1
	for raw[end] != 255 {
		end--
	}
	raw = append(raw[:end:end], 82, 8, 1, 6, 'S', 'P', 'O', 'O', 'F', '!', 82, 8, 1, 6, 0, 4, 0, 5, 0, 7, 255)
	opts := testOptions()
	cfg, err := Compile(opts)
	require.NoError(t, err)
	r := &Request{Served: true, Local: serverIP}
	r.P.Read(raw)
	assert.Equal(t, outcome.Option82Double, decideAt(testNow, r, world(t), lease.New(), nil, cfg).Outcome)

	for _, bad := range []string{"01060004006900", "01", "0106000400690005ff", "736f6d652d74657874"} {
		q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: unhex(t, bad)}
		assert.Equal(t, outcome.Option82Malformed, run(t, q, nil, every).Outcome, bad)
	}
}
