package line

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

var (
	switch1  = provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf1}
	switch2  = provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf2}
	stranger = client(0x99)
	relayIP  = ip("198.51.100.1")
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func client(n byte) provision.MAC { return provision.MAC{0, 0, 0x5e, 0, 0x53, n} }

// world is two switches with customers on ports, one of them without an address.
func world(t testing.TB, keepVacant bool) *provision.Snapshot {
	t.Helper()
	snap, _ := provision.Build(provision.Input{
		KeepVacant: keepVacant,
		Devices: []provision.Device{
			{ID: 1, Name: "sw1", MAC: switch1, IP: ip("198.51.100.11")},
			{ID: 2, Name: "sw2", MAC: switch2, IP: ip("198.51.100.12")},
		},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(ip("192.0.2.11")), MAC: client(0x11), Device: 1, Port: 1},
			{Subscriber: 2, Addresses: provision.Hosts4(ip("192.0.2.21")), Device: 1, Port: 2},
			{Subscriber: 7, Addresses: provision.Hosts4(ip("192.0.2.71")), MAC: client(0x71), Device: 2, PortName: "ge-0/0/5"},
			{Subscriber: 8, Device: 2, PortName: "ge-0/0/8", Port: 8},
		},
	})
	require.Equal(t, 3, snap.Len())
	return snap
}

// port returns option 82 of a port as switch sw inserts it: family A with the MAC of the switch.
func port(sw provision.MAC, n byte) []byte {
	return append([]byte{1, 6, 0, 4, 0, 100, 0, n, 2, 8, 0, 6}, sw[:]...)
}

// named returns option 82 with a text circuit-id, and a remote-id if there is one.
func named(name string, remote ...byte) []byte {
	b := append([]byte{1, byte(len(name))}, name...)
	if len(remote) > 0 {
		b = append(append(b, 2, byte(len(remote))), remote...)
	}
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// read makes a packet of q.
func read(q wire.Query) *Packet {
	p := &Packet{}
	p.Read(q.Append(nil))
	return p
}

func TestLocate(t *testing.T) {
	cfg, err := Compile(Options{VLANInterfaces: []string{"vlan{vlan}"}})
	require.NoError(t, err)
	snap := world(t, true)
	for _, tc := range []struct {
		name   string
		opt82  []byte
		relay  netip.Addr
		iface  string
		want   Location
		rows   int
		vacant int
	}{
		{name: "nothing tells", want: Location{}},
		{name: "a VLAN", iface: "vlan7", want: Location{VLAN: 7}},
		{name: "not that of a relay's interface", iface: "vlan7", relay: relayIP, want: Location{}},
		{name: "a port", opt82: port(switch1, 1), want: Location{Device: 1, Port: 1, Result: Bound, Profile: "dlink"}, rows: 1},
		{name: "a port in a VLAN", opt82: port(switch1, 2), iface: "vlan7", want: Location{Device: 1, Port: 2, VLAN: 7, Result: Bound, Profile: "dlink"}, rows: 1},
		{name: "nobody's port", opt82: port(switch1, 9), relay: relayIP, want: Location{Device: 1, Port: 9, Result: UnknownPort, Profile: "dlink"}},
		{name: "a customer without an address", opt82: named("ge-0/0/8", switch2[:]...), relay: relayIP, want: Location{Device: 2, Port: 8, Result: UnknownPort, Profile: "ifname"}, vacant: 1},
		{name: "nobody's switch", opt82: port(stranger, 1), relay: relayIP, want: Location{Result: UnknownDevice, Profile: "dlink"}},
		{name: "unreadable", opt82: append([]byte{1, 2, 0, 5, 2, 6}, switch1[:]...), relay: relayIP, want: Location{Device: 1, Result: Unread, Profile: "dlink", Fault: option82.FaultLayout}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := read(wire.Query{Type: wire.Discover, MAC: client(0x42), GIAddr: tc.relay, Option82: tc.opt82})
			p.Ingress = cfg.Ingress(tc.iface)
			got := cfg.Locate(p, snap)
			rows, vacant := 0, 0
			for l := range got.Lines.All() {
				rows += len(l.Addresses)
				if l.Vacant() {
					vacant++
				}
			}
			assert.Equal(t, tc.rows, rows)
			assert.Equal(t, tc.vacant, vacant)
			got.Lines = provision.Lines{}
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestResultWords(t *testing.T) {
	for r := NoOption82; r <= Bound; r++ {
		b, err := r.MarshalText()
		require.NoError(t, err)
		var back Result
		require.NoError(t, back.UnmarshalText(b))
		assert.Equal(t, r, back)
	}
	var r Result
	assert.ErrorContains(t, r.UnmarshalText([]byte("x")), `result "x"`)
}

func TestTrustOfRelays(t *testing.T) {
	listed, err := Compile(Options{Relays: []netip.Prefix{netip.MustParsePrefix("198.51.100.77/24")}, CheckRelaySource: true})
	require.NoError(t, err)
	open, err := Compile(Options{CheckRelaySource: true})
	require.NoError(t, err)
	lax, err := Compile(Options{})
	require.NoError(t, err)
	assert.True(t, listed.ListsRelays())
	assert.False(t, open.ListsRelays())
	assert.True(t, listed.Trusts(relayIP))
	assert.False(t, listed.Trusts(ip("192.0.2.1")))
	assert.True(t, open.Trusts(ip("192.0.2.1")))
	from := func(a string) *Packet {
		p := read(wire.Query{Type: wire.Discover, GIAddr: relayIP})
		p.From = netip.AddrPortFrom(ip(a), 67)
		return p
	}
	assert.True(t, listed.TrustsSource(from("198.51.100.1")), "the relay itself")
	assert.True(t, listed.TrustsSource(from("::ffff:198.51.100.9")), "another relay of ours")
	assert.False(t, listed.TrustsSource(from("192.0.2.1")))
	assert.False(t, open.TrustsSource(from("198.51.100.9")), "nobody is listed: only itself")
	assert.True(t, lax.TrustsSource(from("192.0.2.1")), "not to be checked")
	assert.True(t, listed.TrustsSource(read(wire.Query{Type: wire.Discover, GIAddr: relayIP})), "nobody knows where from")
}

func TestIngress(t *testing.T) {
	opts := Options{VLANInterfaces: []string{"vlan{vlan}"}, TrustedInterfaces: []string{"core", "up*"}}
	one, err := Compile(opts)
	require.NoError(t, err)
	opts.TrustedInterfaces = nil
	two, err := Compile(opts)
	require.NoError(t, err)
	assert.Equal(t, Ingress{Name: "vlan7", VLAN: 7, Untrusted: true}, one.Ingress("vlan7"))
	assert.Equal(t, Ingress{Name: "core"}, one.Ingress("core"))
	assert.Equal(t, Ingress{Name: "uplink0"}, one.Ingress("uplink0"))
	assert.Equal(t, Ingress{Name: "vlan8", VLAN: 8}, two.Ingress("vlan8"))
	assert.Zero(t, testing.AllocsPerRun(10, func() { one.Ingress("vlan7"); one.Ingress("core") }))
}

func TestCompileRefuses(t *testing.T) {
	_, err := Compile(Options{
		Relays:            []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")},
		TrustedInterfaces: []string{"eth["}, VLANInterfaces: []string{"eth1"},
	})
	for _, want := range []string{"relay 2001:db8::/32: want an IPv4 prefix", `trusted interface "eth["`, `vlan interface "eth1": no {vlan} in it`} {
		assert.ErrorContains(t, err, want)
	}
}

func TestCompileOption82Refuses(t *testing.T) {
	_, err := compileOption82(Option82{
		Profiles: []Option82Profile{
			{Profile: option82.Profile{Name: "a", Layout: "wrapped"}},
			{Profile: option82.Profile{Name: "b"}, Match: Option82Match{GIAddr: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}, RemoteID: "\n", DeviceName: "\n", Model: "\n"}},
		},
		Default: []option82.Profile{{}},
		Exact:   []Option82Exact{{}, {Value: []byte{1}}, {Value: []byte{2}, Device: 1, Port: 1}, {Value: []byte{2}, Device: 1, Port: 2}},
	})
	for _, want := range []string{
		`option 82: profile "a": layout: `, `profile "b": pattern`, "giaddr 2001:db8::/32: want an IPv4 prefix", `profile "": name: missing`,
		"exact: value: 0 bytes", "exact 01: want a device, and a port or its name", "exact 02: given twice",
	} {
		assert.ErrorContains(t, err, want)
	}
}

// locateBefore is how option 82 was read before there were profiles.
func locateBefore(p *Packet, mac provision.MAC, snap *provision.Snapshot) Location {
	var dev *provision.Device
	switch remote := wire.DecodeRemote(p.Relay.RemoteID); {
	case remote.Kind == wire.RemoteMAC && remote.MAC != mac:
		dev = snap.DeviceByMAC(remote.MAC)
	case remote.Kind == wire.RemoteIP:
		dev = snap.DeviceByIP(remote.IP)
	case remote.Kind == wire.RemoteNone || remote.Kind == wire.RemoteMAC:
		gi := p.GIAddr()
		if !gi.IsValid() {
			return Location{Result: Unread}
		}
		dev = snap.DeviceByIP(gi)
	default:
		return Location{Result: Unread}
	}
	if dev == nil {
		return Location{Result: UnknownDevice}
	}
	loc := Location{Device: dev.ID, Result: UnknownPort}
	switch c := wire.DecodeCircuit(p.Relay.CircuitID); c.Kind {
	case wire.CircuitPort:
		if c.Unit > 1 {
			loc.Result = Unread
			return loc
		}
		loc.Port = uint32(c.Port)
		loc.Lines = snap.ByPort(dev.ID, loc.Port)
	case wire.CircuitText:
		loc.Lines = snap.ByPortName(dev.ID, c.Text)
		if loc.Lines.Len() > 0 {
			loc.Port = loc.Lines.At(0).Port
		}
	default:
		loc.Result = Unread
	}
	if loc.Lines.Len() > 0 {
		loc.Result = Bound
	}
	return loc
}

// Without configuration everything is as it was before there were profiles.
func FuzzDefaultsAreAsBefore(f *testing.F) {
	snap := world(f, false)
	cfg, err := Compile(Options{})
	require.NoError(f, err)
	for _, e := range option82.Catalogue() {
		for _, v := range e.Vectors {
			f.Add(unhex(f, v.Payload), true)
		}
	}
	f.Add(port(switch1, 1), true)
	f.Add(port(switch1, 0), false)
	f.Add(port(stranger, 1), false)
	f.Add(port(client(0x11), 1), true)
	f.Add(named("ge-0/0/5", switch2[:]...), true)
	f.Add(named("ge-0/0/5", []byte("198.51.100.12")...), true)
	f.Add(append([]byte{1, 6, 0, 4, 0, 100, 2, 1, 2, 6}, switch1[:]...), true)
	f.Fuzz(func(t *testing.T, payload []byte, relayed bool) {
		if len(payload) == 0 || len(payload) > 255 {
			return
		}
		q := wire.Query{Type: wire.Discover, MAC: client(0x11), Option82: payload}
		if relayed {
			q.GIAddr = ip("198.51.100.11")
		}
		p := &Packet{}
		p.Read(q.Append(nil))
		if p.Err != nil || p.RelayErr != nil || p.RelayInfoCount() != 1 {
			return
		}
		got := cfg.Locate(p, snap)
		got.Profile, got.Fault = "", 0
		require.Equal(t, locateBefore(p, client(0x11), snap), got)
	})
}
