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

func TestRelayList(t *testing.T) {
	c, err := Compile(Options{Relays: []netip.Prefix{netip.MustParsePrefix("198.51.100.77/24"), netip.MustParsePrefix("198.51.100.9/32"), netip.MustParsePrefix("203.0.113.1/32")}})
	require.NoError(t, err)
	open, err := Compile(Options{})
	require.NoError(t, err)
	assert.True(t, c.ListsRelays())
	assert.False(t, open.ListsRelays())
	for a, want := range map[string][2]bool{"198.51.100.1": {true, false}, "198.51.100.9": {true, true}, "203.0.113.1": {true, true}, "192.0.2.1": {false, false}} {
		listed, alone := c.Lists(ip(a))
		assert.Equal(t, want, [2]bool{listed, alone}, a)
		listed, alone = open.Lists(ip(a))
		assert.False(t, listed || alone, "nobody is listed")
	}
	listed, alone := c.Lists(netip.Addr{})
	assert.False(t, listed || alone)
}

func TestOption82Relays(t *testing.T) {
	relays := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.1/32")}
	for name, tc := range map[string]struct {
		list   []string
		stated bool
		want   string // of 198.51.100.9, 198.51.100.20 and 203.0.113.1, which are believed
		listed int
	}{
		"left out":                 {nil, false, "no no no", 0},
		"none":                     {[]string{"none"}, true, "no no no", 0},
		"all":                      {[]string{"all"}, true, "yes yes yes", 0},
		"some":                     {[]string{"203.0.113.1", "198.51.100.9", "198.51.100.7"}, true, "yes no yes", 3},
		"a network":                {[]string{"198.51.100.16/28"}, true, "no yes no", 1},
		"all that are relays":      {[]string{"198.51.0.0/16", "203.0.113.1"}, true, "yes yes yes", 2},
		"a part, though as many":   {[]string{"198.51.100.0/25", "203.0.113.1/32"}, true, "yes yes yes", 2},
		"another network's second": {[]string{"198.51.100.16/28", "203.0.113.0/24"}, true, "no yes yes", 2},
	} {
		c, err := Compile(Options{Relays: relays, Option82Relays: tc.list})
		require.NoError(t, err, name)
		assert.Equal(t, tc.stated, c.StatesOption82Relays(), name)
		var got []string
		for _, a := range []string{"198.51.100.9", "198.51.100.20", "203.0.113.1"} {
			got = append(got, map[bool]string{false: "no", true: "yes"}[c.Option82Relay(ip(a))])
		}
		assert.Equal(t, tc.want, strings.Join(got, " "), name)
		assert.Len(t, c.Option82Relays(), tc.listed, name)
		assert.False(t, tc.want != "yes yes yes" && c.Option82Relay(netip.Addr{}), name)
	}
	for _, list := range [][]string{{"none", "198.51.100.9"}, {"all", "none"}, {"some"}, {"2001:db8::1"}, {"198.51.100.9/33"}, {""}} {
		_, err := Compile(Options{Option82Relays: list})
		assert.ErrorContains(t, err, "option82 relay", "%v", list)
	}
}

func TestDisbelieve(t *testing.T) {
	p := read(wire.Query{Type: wire.Discover, Option82: []byte{1, 2, 0, 7, 5, 4, 192, 0, 2, 1}})
	assert.True(t, p.HasOption82())
	assert.NotNil(t, p.Option82())
	assert.True(t, p.Relay.Link.IsValid())
	p.Disbelieve()
	assert.False(t, p.HasOption82())
	assert.Nil(t, p.Option82())
	assert.Equal(t, wire.RelayInfo{}, p.Relay, "no sub-option of it counts, the wire neither")
	assert.NotEmpty(t, p.RelayInfo(), "what is echoed")
	p = read(wire.Query{Type: wire.Discover})
	assert.False(t, p.HasOption82(), "one without")
}

func TestIngress(t *testing.T) {
	opts := Options{VLANInterfaces: []string{"vlan{vlan}"}, TrustedInterfaces: []string{"core", "up*"}, SubscriberInterfaces: []string{"br-*"}}
	one, err := Compile(opts)
	require.NoError(t, err)
	opts.TrustedInterfaces = []string{NoInterface}
	none, err := Compile(opts)
	require.NoError(t, err)
	assert.Equal(t, Ingress{Name: "none", Untrusted: true}, none.Ingress("none"))
	assert.True(t, none.StatesTrust())
	opts.TrustedInterfaces = nil
	two, err := Compile(opts)
	require.NoError(t, err)
	assert.Equal(t, Ingress{Name: "vlan7", VLAN: 7, Untrusted: true, Customers: true}, one.Ingress("vlan7"))
	assert.Equal(t, Ingress{Name: "br-flats", Untrusted: true, Customers: true}, one.Ingress("br-flats"))
	assert.Equal(t, Ingress{Name: "core"}, one.Ingress("core"))
	assert.Equal(t, Ingress{Name: "uplink0"}, one.Ingress("uplink0"))
	assert.Equal(t, Ingress{Name: "vlan8", VLAN: 8, Customers: true}, two.Ingress("vlan8"))
	assert.False(t, two.StatesTrust())
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

// names are switches whose names and MACs are six printable bytes, some of both.
func names(t testing.TB) *provision.Snapshot {
	t.Helper()
	six := func(s string) provision.MAC { return provision.MAC([]byte(s)) }
	devices := []provision.Device{
		{ID: 1, Name: "core-1", MAC: switch1, IP: ip("198.51.100.11")},
		{ID: 2, Name: "west", MAC: six("<32fCP"), IP: ip("198.51.100.12")},
		{ID: 3, Name: "olt-01"},
		{ID: 4, Name: "north", MAC: six("olt-01")},
		{ID: 5, Name: "same-6", MAC: six("same-6")},
		{ID: 6, Name: "sw-1"},
		{ID: 7, Name: "00005e0053aa"},
		{ID: 8, Name: "198.51.100.11"},
		{ID: 9, Name: "198.51.100.99"},
		{ID: 10, Name: "twin-1"}, {ID: 11, Name: "twin-1"},
		{ID: 12, Name: "relay", IP: relayIP},
	}
	var lines []provision.Line
	for i, d := range devices {
		lines = append(lines,
			provision.Line{Subscriber: provision.SubscriberID(d.ID), Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})), Device: d.ID, Port: 1},
			provision.Line{Subscriber: provision.SubscriberID(d.ID), Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 101)})), Device: d.ID, Port: 5, PortName: "ether1"})
	}
	lines = append(lines, provision.Line{Subscriber: 99, Addresses: provision.Hosts4(ip("192.0.2.99")), Device: 1, Port: 9, PortName: "3c:33:32:66:43:50"})
	snap, _ := provision.Build(provision.Input{Devices: devices, Lines: lines})
	return snap
}

// What the ERP knows decides about bytes that are a MAC, an address and text at once.
func TestNamesThatLookLikeMACs(t *testing.T) {
	snap := names(t)
	find := func(name string) option82.Profile {
		p, ok := option82.Find(name)
		require.True(t, ok, name)
		return p
	}
	form := func(name string, f option82.SwitchForm) option82.Profile {
		return option82.Profile{Name: name, Layout: option82.LayoutWrappedUnitPort, Switch: f}
	}
	id, byName, either := form("id", option82.SwitchID), form("name", option82.SwitchName), form("any", option82.SwitchAny)
	template := form("template", option82.SwitchTemplate)
	template.SwitchTemplates = []string{"{host}"}
	at := func(d provision.DeviceID) Location { return Location{Device: d, Port: 1, Result: Bound} }
	no := func(f option82.Fault) Location { return Location{Result: Unread, Fault: f} }
	unknown := Location{Result: UnknownDevice}
	for _, tc := range []struct {
		name     string
		remote   string
		profiles []option82.Profile
		profile  string
		want     Location
		client   string
	}{
		{name: "a name of six characters", remote: "core-1", profiles: []option82.Profile{either}, profile: "any", want: at(1)},
		{name: "where only names are read", remote: "core-1", profiles: []option82.Profile{byName}, profile: "name", want: at(1)},
		{name: "by template", remote: "core-1", profiles: []option82.Profile{template}, profile: "template", want: at(1)},
		{name: "where no names are read", remote: "core-1", profiles: []option82.Profile{id}, profile: "id", want: no(option82.FaultSwitch)},
		{name: "the next profile reads it", remote: "core-1", profiles: []option82.Profile{id, byName}, profile: "name", want: at(1)},
		{name: "a MAC of six characters", remote: "<32fCP", profiles: []option82.Profile{either}, profile: "any", want: at(2)},
		{name: "where MACs are read", remote: "<32fCP", profiles: []option82.Profile{id}, profile: "id", want: at(2)},
		{name: "where no MACs are read", remote: "<32fCP", profiles: []option82.Profile{byName}, profile: "name", want: no(option82.FaultSwitch)},
		{name: "the next profile reads the MAC", remote: "<32fCP", profiles: []option82.Profile{byName, id}, profile: "id", want: at(2)},
		{name: "after a template, too", remote: "<32fCP", profiles: []option82.Profile{template, id}, profile: "id", want: at(2)},
		{name: "neither", remote: "core-9", profiles: []option82.Profile{either}, profile: "any", want: unknown},
		{name: "neither, and the first profile says so", remote: "core-9", profiles: []option82.Profile{id, byName}, profile: "id", want: unknown},
		{name: "two switches", remote: "olt-01", profiles: []option82.Profile{either}, profile: "any", want: no(option82.FaultTwoSwitches)},
		{name: "two switches, whoever else would read it", remote: "olt-01", profiles: []option82.Profile{either, id}, profile: "any", want: no(option82.FaultTwoSwitches)},
		{name: "two switches, the profile says MAC", remote: "olt-01", profiles: []option82.Profile{id}, profile: "id", want: at(4)},
		{name: "two switches, the profile says name", remote: "olt-01", profiles: []option82.Profile{byName}, profile: "name", want: at(3)},
		{name: "one switch by both", remote: "same-6", profiles: []option82.Profile{either}, profile: "any", want: at(5)},
		{name: "four characters behind a header", remote: "\x01\x04sw-1", profiles: []option82.Profile{either}, profile: "any", want: at(6)},
		{name: "four characters and NULs", remote: "sw-1\x00\x00", profiles: []option82.Profile{either}, profile: "any", want: at(6)},
		{name: "four characters", remote: "sw-1", profiles: []option82.Profile{either}, profile: "any", want: at(6)},
		{name: "a name that spells a MAC", remote: "00005e0053aa", profiles: []option82.Profile{either}, profile: "any", want: at(7)},
		{name: "a name that spells an address", remote: "198.51.100.99", profiles: []option82.Profile{either}, profile: "any", want: at(9)},
		{name: "an address is nobody's name", remote: "198.51.100.11", profiles: []option82.Profile{either}, profile: "any", want: at(1)},
		{name: "the name of two", remote: "twin-1", profiles: []option82.Profile{either}, profile: "any", want: unknown},
		{name: "a MAC after its header is no name", remote: "\x00\x06core-1", profiles: []option82.Profile{either}, profile: "any", want: unknown},
		{name: "a client that calls itself as the switch", remote: "core-1", client: "core-1", profiles: []option82.Profile{either}, profile: "any", want: no(option82.FaultClient)},
		{name: "by name alone", remote: "core-1", client: "core-1", profiles: []option82.Profile{byName}, profile: "name", want: no(option82.FaultClient)},
		{name: "by MAC alone", remote: "<32fCP", client: "<32fCP", profiles: []option82.Profile{id}, profile: "id", want: no(option82.FaultClient)},
		{name: "a client of its own name", remote: "client", client: "client", profiles: []option82.Profile{id}, profile: "id", want: at(12)},
		{name: "where the switch is named", remote: "client", client: "client", profiles: []option82.Profile{byName}, profile: "name", want: unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := Compile(Options{Option82: Option82{Default: tc.profiles}})
			require.NoError(t, err)
			mac := stranger
			if tc.client != "" {
				mac = provision.MAC([]byte(tc.client))
			}
			p := read(wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: append([]byte{1, 6, 0, 4, 0, 100, 0, 1, 2, byte(len(tc.remote))}, tc.remote...)})
			got := cfg.Locate(p, snap)
			got.Lines, tc.want.Profile = provision.Lines{}, tc.profile
			assert.Equal(t, tc.want, got)
			assert.Zero(t, testing.AllocsPerRun(10, func() { cfg.Locate(p, snap) }))
		})
	}

	for _, tc := range []struct {
		name, circuit, profile string
		port                   uint32
	}{
		{"six characters for a MAC", "ether1", "mikrotik-relay", 5},
		{"four behind a header are not six", "\x01\x04eth1", "mikrotik-relay", 0},
		{"a MAC for six characters", "<32fCP", "ifname", 9},
		{"the interface of no name", "ether9", "mikrotik-relay", 0},
	} {
		t.Run("port: "+tc.name, func(t *testing.T) {
			cfg, err := Compile(Options{Option82: Option82{Default: []option82.Profile{find(tc.profile)}}})
			require.NoError(t, err)
			p := read(wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("198.51.100.11"), Option82: named(tc.circuit)})
			got := cfg.Locate(p, snap)
			assert.Equal(t, tc.port, got.Port)
			assert.Equal(t, tc.port > 0, got.Result == Bound)
			assert.Zero(t, testing.AllocsPerRun(10, func() { cfg.Locate(p, snap) }))
		})
	}
}

// A profile is chosen for the switch whose name looks like a MAC, too.
func TestProfileOfANameThatLooksLikeAMAC(t *testing.T) {
	snap := names(t)
	own := option82.Profile{Name: "own", Layout: option82.LayoutWrappedUnitPort, Switch: option82.SwitchAny, PortOffset: 4}
	locate := func(m Option82Match, remote string) Location {
		cfg, err := Compile(Options{Option82: Option82{Profiles: []Option82Profile{{Profile: own, Match: m}}}})
		require.NoError(t, err)
		return cfg.Locate(read(wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP,
			Option82: append([]byte{1, 6, 0, 4, 0, 100, 0, 1, 2, byte(len(remote))}, remote...)}), snap)
	}
	for _, m := range []Option82Match{{Devices: []provision.DeviceID{1}}, {DeviceName: "core-*"}, {RemoteID: "core-?"}} {
		got := locate(m, "core-1")
		assert.Equal(t, "own", got.Profile, "%+v", m)
		assert.Equal(t, provision.DeviceID(1), got.Device)
		assert.EqualValues(t, 5, got.Port)
	}
	assert.Equal(t, "own", locate(Option82Match{DeviceName: "west"}, "<32fCP").Profile)
	assert.Equal(t, "dlink", locate(Option82Match{DeviceName: "olt-01"}, "olt-01").Profile, "one of two switches: no profile is its own")
	assert.Equal(t, "dlink", locate(Option82Match{DeviceName: "relay"}, "olt-01").Profile, "nor that of the relay")
	assert.Equal(t, "own", locate(Option82Match{DeviceName: "relay"}, "core-9").Profile, "nobody's name: the relay's device")
}

// Whatever bytes name the switch, every profile finds the one that the ERP has by
// them as the profile reads them, or none; and the client's own MAC finds nobody else's.
func FuzzSwitchNames(f *testing.F) {
	snap := names(f)
	var cfgs []*Config
	for _, form := range []option82.SwitchForm{option82.SwitchID, option82.SwitchName, option82.SwitchAny} {
		cfg, err := Compile(Options{Option82: Option82{Default: []option82.Profile{{Name: "p", Layout: option82.LayoutWrappedUnitPort, Switch: form}}}})
		require.NoError(f, err)
		cfgs = append(cfgs, cfg)
	}
	for _, s := range []string{"core-1", "<32fCP", "olt-01", "same-6", "sw-1", "\x01\x04sw-1", "sw-1\x00\x00", "twin-1", "198.51.100.11", "00005e0053aa", "core-9", "\x00\x06core-1"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, remote []byte, own bool) {
		if len(remote) == 0 || len(remote) > 200 {
			return
		}
		mac := stranger
		if own && len(remote) == 6 {
			mac = provision.MAC(remote)
		}
		p := read(wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: append([]byte{1, 6, 0, 4, 0, 100, 0, 1, 2, byte(len(remote))}, remote...)})
		said := wire.DecodeRemote(remote)
		for _, cfg := range cfgs {
			got := cfg.Locate(p, snap)
			dev := snap.Device(got.Device)
			if dev == nil {
				continue
			}
			fits := said.Kind == wire.RemoteMAC && dev.MAC == said.MAC || said.Kind == wire.RemoteIP && dev.IP == said.IP || dev.Name == string(said.Text)
			if said.Kind == wire.RemoteMAC && said.MAC == mac {
				fits = dev.IP == relayIP
			}
			require.True(t, fits, "%q is %+v", remote, dev)
		}
	})
}

func TestSubOptionsAsSent(t *testing.T) {
	got, err := SubOptions(unhex(t, "0106000400640005 0504c6336401 0504c6336402 0504c6336401 0a0100 0a0180 0503aabbcc 0701ff 1300 1300"))
	require.NoError(t, err)
	assert.Equal(t, []SubOption{
		{Code: 1, Name: "circuit-id", Value: "000400640005", Text: "vlan 100 unit 0 port 5"},
		{Code: 5, Name: "link-selection", Value: "c6336401", Text: "address 198.51.100.1"},
		{Code: 5, Name: "link-selection", Value: "c6336402", Text: "address 198.51.100.2", Fault: "repeated with another value: such a packet is refused"},
		{Code: 5, Name: "link-selection", Value: "c6336401", Text: "address 198.51.100.1", Fault: "repeated: the first counts"},
		{Code: 10, Name: "flags", Value: "00", Text: "received by broadcast"},
		{Code: 10, Name: "flags", Value: "80", Text: "received by unicast", Fault: "repeated: the first counts"},
		{Code: 5, Name: "link-selection", Value: "aabbcc", Fault: "want the 4 bytes of an address"},
		{Code: 7, Value: "ff", Text: "0xff"},
		{Code: 19, Name: "source-port", Text: "replies to its source port"},
		{Code: 19, Name: "source-port", Text: "replies to its source port"},
	}, got)
	_, err = SubOptions([]byte{1})
	assert.ErrorContains(t, err, "option 82: ")
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

// Without configuration everything is as it was before there were profiles, but for
// six bytes that the ERP has as a name: those were an unknown MAC.
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
	f.Add(append([]byte{1, 6, 0, 4, 0x0f, 0xff, 0, 1, 2, 6}, switch1[:]...), true)
	f.Add(named("ether1", switch2[:]...), true)
	f.Add(named("ge-0/0/5", []byte("sw1\x00\x00\x00")...), true)
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
		if r := wire.DecodeRemote(p.Relay.RemoteID); r.Unsure && snap.DeviceByName(r.Text) != nil {
			require.Equal(t, Unread, got.Result)
			require.Equal(t, option82.FaultSwitch, got.Fault)
			return
		}
		got.Profile, got.Fault = "", 0
		require.Equal(t, locateBefore(p, client(0x11), snap), got)
	})
}

// As long as the list of switches was never read, a profile for some of them holds up the packets of those that it may be for,
// and of no switch that rows tell enough of.
func TestProfileForUnreadSwitches(t *testing.T) {
	const made = provision.DeviceID(1<<51 | 7)
	snap, _ := provision.Build(provision.Input{
		DevicesUnread: true,
		Devices: []provision.Device{
			{ID: 1, Name: "sw1", Model: "DES-3200", MAC: switch1, IP: ip("198.51.100.11")},
			{ID: 2, MAC: switch2, IP: ip("198.51.100.12")},
			{ID: made, Name: "sw3", IP: ip("198.51.100.13")},
		},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(ip("192.0.2.11")), Device: 1, Port: 1},
			{Subscriber: 2, Addresses: provision.Hosts4(ip("192.0.2.21")), Device: 2, Port: 1},
			{Subscriber: 3, Addresses: provision.Hosts4(ip("192.0.2.31")), Device: made, Port: 1},
		},
	})
	require.True(t, snap.DevicesUnread())
	first := []byte{1, 6, 0, 4, 0, 100, 0, 1} // port 1, without a switch
	for name, tc := range map[string]struct {
		match Option82Match
		opt82 []byte
		relay string
		want  Result
	}{
		"another name":                           {Option82Match{DeviceName: "core-*"}, port(switch1, 1), "198.51.100.1", Bound},
		"another model":                          {Option82Match{Model: "*2960*"}, port(switch1, 1), "198.51.100.1", Bound},
		"another id":                             {Option82Match{Devices: []provision.DeviceID{9}}, port(switch2, 1), "198.51.100.1", Bound},
		"another name, and its model":            {Option82Match{DeviceName: "core-*", Model: "DES*"}, port(switch1, 1), "198.51.100.1", Bound},
		"no name":                                {Option82Match{DeviceName: "core-*"}, port(switch2, 1), "198.51.100.1", DevicesUnread},
		"no model":                               {Option82Match{Model: "*2960*"}, port(switch2, 1), "198.51.100.1", DevicesUnread},
		"no id":                                  {Option82Match{Devices: []provision.DeviceID{9}}, first, "198.51.100.13", DevicesUnread},
		"no id, but another name":                {Option82Match{Devices: []provision.DeviceID{9}, DeviceName: "core-*"}, first, "198.51.100.13", Bound},
		"no switch":                              {Option82Match{DeviceName: "core-*"}, port(stranger, 1), "198.51.100.1", DevicesUnread},
		"no switch, behind one with a name":      {Option82Match{DeviceName: "core-*"}, port(stranger, 1), "198.51.100.11", DevicesUnread},
		"its relay has another name":             {Option82Match{DeviceName: "core-*"}, first, "198.51.100.11", Bound},
		"the client's own MAC, and such a relay": {Option82Match{DeviceName: "core-*"}, port(client(0x42), 1), "198.51.100.11", Bound},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := Compile(Options{Option82: Option82{Profiles: []Option82Profile{{Profile: option82.Profile{Name: "own", Layout: option82.LayoutMoxa, Switch: option82.SwitchAny}, Match: tc.match}}}})
			require.NoError(t, err)
			p := read(wire.Query{Type: wire.Discover, MAC: client(0x42), GIAddr: ip(tc.relay), Option82: tc.opt82})
			assert.Equal(t, tc.want, cfg.Locate(p, snap).Result)
		})
	}
}
