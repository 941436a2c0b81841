package option82

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

func parsed(t testing.TB, payload string) *wire.RelayInfo {
	t.Helper()
	r, err := wire.ParseRelayInfo(unhex(t, payload))
	require.NoError(t, err)
	return &r
}

// sub makes a sub-option.
func sub(code byte, value string) string { return fmt.Sprintf("%02x%02x%x", code, len(value), value) }

func compile(t testing.TB, p Profile) *Decoder {
	t.Helper()
	if p.Name == "" {
		p.Name = "test"
	}
	d, err := Compile(p)
	require.NoError(t, err)
	return d
}

// read says what a profile makes of a payload, as the vectors have it.
func read(t testing.TB, d *Decoder, payload string) string {
	t.Helper()
	var o Decoded
	if f := d.Decode(parsed(t, payload), &o); f != FaultNone {
		return "no: " + f.String()
	}
	return o.Describe()
}

func TestCatalogue(t *testing.T) {
	names := map[string]bool{}
	for _, e := range Catalogue() {
		assert.False(t, names[e.Name], "%s twice", e.Name)
		names[e.Name] = true
		assert.NotEmpty(t, e.Vendor, e.Name)
		assert.Contains(t, []Confidence{Captured, Documented, Parsed, Inferred}, e.Confidence, e.Name)
		require.NotEmpty(t, e.Vectors, "%s proves nothing", e.Name)
		d := compile(t, e.Profile)
		for _, v := range e.Vectors {
			t.Run(e.Name+"/"+v.Name, func(t *testing.T) {
				assert.NotEmpty(t, v.Origin)
				assert.Equal(t, v.Want, read(t, d, v.Payload))
			})
		}
	}
	for _, name := range Defaults() {
		assert.True(t, names[name])
	}
	_, ok := Find("cisco-catalyst")
	assert.True(t, ok)
	_, ok = Find("abacus")
	assert.False(t, ok)
}

// Every known sample of real equipment is in the catalogue.
func TestEveryKnownSampleIsRead(t *testing.T) {
	have := map[string]bool{}
	for _, e := range Catalogue() {
		for _, v := range e.Vectors {
			have[v.Name] = true
		}
	}
	for _, want := range strings.Fields(`dlink-1 dlink-2 dlink-3 dlink-4 dlink-5 dlink-ip dlink-v1 dlink-v2 edge-1 cisco-1 cisco-2 ios-1 ios-2 h3c-1
		snr-hex snr-ascii snr-vshp epon-1 oring-1 zyxel-1 zte-1 zte-2 mtik-br mtik-rl juniper-1 ufiber-1 nokia-1 cmts-1 relay-ls lone-rid
		empty-cid code-0 code-255`) {
		assert.True(t, have[want], "no profile reads %s", want)
	}
}

// The trap of the field: the same bytes are three ports.
func TestSameBytesThreePorts(t *testing.T) {
	for _, tc := range []struct{ profile, want string }{
		{"dlink", "switch by relay address, port 4, unit 0, vlan 100"},
		{"cisco-catalyst", "switch by relay address, port 2, sent as 4, unit 0, vlan 100"},
		{"h3c-extended", "switch by relay address, port 5, sent as 4, unit 0, vlan 100"},
	} {
		p, _ := Find(tc.profile)
		assert.Equal(t, tc.want, read(t, compile(t, p), "0106000400640004"), tc.profile)
	}
}

func TestNumbering(t *testing.T) {
	for _, tc := range []struct {
		name    string
		p       Profile
		payload string
		want    string
	}{
		{"unit 2 with 52 ports a unit", Profile{Layout: LayoutWrappedUnitPort, UnitPorts: 52}, "0106000400640205", "port 57, sent as 5, unit 2"},
		{"unit 0 is the first", Profile{Layout: LayoutWrappedUnitPort, UnitPorts: 52}, "0106000400640005", "port 5, unit 0"},
		{"port beyond the unit would be the next unit's", Profile{Layout: LayoutWrappedUnitPort, UnitPorts: 24}, "0106000400640119", "no: no port"},
		{"port 0 of unit 2 is not the last of unit 1", Profile{Layout: LayoutWrappedUnitPort, UnitPorts: 24}, "0106000400640200", "port 0, unit 2"},
		{"units from 0 with ports from 0", Profile{Layout: LayoutWrappedUnitPort, UnitPorts: 24, UnitOffset: 1, PortOffset: 1}, "0106000400640100", "port 25, sent as 0, unit 1"},
		{"unit offset below the first", Profile{Layout: LayoutWrappedUnitPort, UnitOffset: -1}, "0106000400640005", "no: ports beyond"},
		{"PON port and ONU counted", Profile{Layout: LayoutEPON, UnitPorts: 64, Switch: SwitchRelay}, "0105007400071d", "port 413, sent as 29, unit 7"},
		{"slot 1 of an OLT", Profile{Layout: LayoutEPON, UnitPorts: 64, Switch: SwitchRelay}, "0105007401071d", "no: ports beyond the first slot"},
		{"name with padding", Profile{Layout: LayoutWrappedUnitPort, PortName: "Gi{unit}/0/{port:2}"}, "0106000400640205", `port "Gi2/0/05"`},
		{"name with offsets", Profile{Layout: LayoutWrappedUnitPort, PortName: "Gi{unit}/0/{port}", PortOffset: -2, UnitOffset: 1}, "0106000400640005", `port "Gi1/0/3"`},
		{"name of a port below zero", Profile{Layout: LayoutWrappedUnitPort, PortName: "Gi{port}", PortOffset: -9}, "0106000400640005", "no: no port"},
		{"name of what was not sent", Profile{Layout: LayoutWrappedUnitPort, PortName: "{serial}"}, "0106000400640005", "no: the bytes"},
		{"name of the ONU", Profile{Layout: LayoutIgnore, Switch: SwitchRelay, PortName: "{onu}"}, "0206001122334455", `port "00:11:22:33:44:55"`},
		{"an ignored port is not the relay's", Profile{Layout: LayoutIgnore, PortOffset: 1}, sub(1, "x"), "no: the remote-id"},
		{"name of the interface's MAC", Profile{Layout: LayoutUnitPort, PortName: "{mac}"}, "010400010203", "no: the bytes"},
		{"too long a name", Profile{Layout: LayoutText, PortName: "{iface}x"}, sub(1, strings.Repeat("i", 240)), "no: no port"},
		{"vendor2 of unit 3", Profile{Layout: LayoutDLinkVendor2, UnitPorts: 64}, sub(1, "p129"), "port 129, sent as 1, unit 3"},
		{"vendor2 without digits", Profile{Layout: LayoutDLinkVendor2}, sub(1, "p1x"), "no: the bytes"},
		{"vendor2 port 0", Profile{Layout: LayoutDLinkVendor2}, sub(1, "p00"), "no: no port"},
		{"largest index", Profile{Layout: LayoutIndex}, "0104ffffffff", "port 4294967295"},
		{"index past the largest", Profile{Layout: LayoutIndex, PortOffset: 1}, "0104ffffffff", "no: no port"},
		{"zyxel with bytes for text", Profile{Layout: LayoutZyxel}, "01050002001e01", "no: the bytes"},
		{"zyxel without text", Profile{Layout: LayoutZyxel}, "01040002001e", "port 2, unit 0, vlan 30"},
		{"slot of vendor1 by its name", Profile{Layout: LayoutDLinkVendor1, Switch: SwitchPort, PortName: "{slot}/{port}"}, "01100006006400030005 0106001122334455", `port "3/5"`},
		{"and as the unit", Profile{Layout: LayoutDLinkVendor1, Switch: SwitchPort, PortName: "{unit}/{slot}/{port}", UnitOffset: -1}, "01100006006400030005 0106001122334455", `port "2/2/5"`},
		{"slot of zyxel by its name", Profile{Layout: LayoutZyxel, PortName: "{slot}/{port}"}, "01040302001e", `port "3/2"`},
		{"slot of an OLT", Profile{Layout: LayoutEPON, Switch: SwitchRelay, PortName: "{slot}/{unit}:{port}"}, "0105007402071d", `port "2/7:29"`},
		{"six bytes of text for a MAC", Profile{Layout: LayoutMAC, PortName: "{mac}"}, sub(1, "ether1"), `port "65:74:68:65:72:31" or "ether1"`},
		{"six bytes of a MAC for text", Profile{Layout: LayoutText}, sub(1, "<32fCP"), `port "<32fCP" or "3c:33:32:66:43:50"`},
		{"seven bytes are text", Profile{Layout: LayoutText}, sub(1, "ether10"), `port "ether10"`},
		{"a name that is made has no other reading", Profile{Layout: LayoutText, PortName: "if-{iface}"}, sub(1, "ether1"), `port "if-ether1"`},
		{"port in the remote-id", Profile{Layout: LayoutPort, PortIn: InRemoteID, Switch: SwitchRelay}, "02020007", "port 7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Contains(t, read(t, compile(t, tc.p), tc.payload), tc.want)
		})
	}
}

// A layout whose VLAN is none is another layout.
func TestNoVLANAbove4094(t *testing.T) {
	for layout, value := range map[Layout]string{ // VLAN as ffff
		LayoutWrappedUnitPort: "0004 ffff 01 05", LayoutWrappedPort: "0004 ffff 0005", LayoutWrappedSlotPort: "0004 ffff 08 05",
		LayoutWrappedModulePort: "0006 ffff 01 00 0005", LayoutUnitPort: "ffff 01 05", LayoutVLANPort: "ffff 0005", LayoutMoxa: "01 ffff 05",
		LayoutEPON: "ffff 00 01 05", LayoutZyxel: "01 05 ffff", LayoutDLinkVendor1: "0006 ffff 0001 0005 0106 001122334455",
		LayoutIOS: "0000 c6336401 05 00 ffff",
	} {
		d := compile(t, Profile{Layout: layout, PortName: "{vlan}:{port}"})
		for vlan, want := range map[string]string{
			"0000": `port "0:5"`, "0001": `port "1:5", vlan 1`, "0ffe": `port "4094:5", vlan 4094`,
			"0fff": "no: the bytes have another layout: they would say a VLAN above 4094", "1000": "no: the bytes", "8064": "no: the bytes", "ffff": "no: the bytes",
		} {
			v := string(unhex(t, strings.Replace(value, "ffff", vlan, 1)))
			assert.Contains(t, read(t, d, sub(1, v)), want, "%s %s", layout, vlan)
		}
	}
	// Text is never taken for a VLAN that two bytes say: letters are above all of them.
	for _, name := range []Layout{LayoutUnitPort, LayoutVLANPort, LayoutEPON, LayoutZyxel} {
		for _, text := range []string{"sw-1", "eth1", "ge-1", "core1", "ether1"} {
			assert.Contains(t, read(t, compile(t, Profile{Layout: name}), sub(1, text)), "no: the bytes", "%s %s", name, text)
		}
	}
}

func TestSwitchForms(t *testing.T) {
	const port = "0106000400640005 "
	for _, tc := range []struct {
		name    string
		form    SwitchForm
		pattern string
		payload string
		want    string
	}{
		{"wrapped MAC", SwitchID, "", port + "0208000600005e0053f1", "switch 00:00:5e:00:53:f1,"},
		{"bare MAC", SwitchID, "", port + "020600005e0053f1", "switch 00:00:5e:00:53:f1,"},
		{"text with dropped zeros and the multicast bit", SwitchID, "", port + sub(2, "45:47:c4:2:53:b3"), "switch 45:47:c4:02:53:b3,"},
		{"dotted groups", SwitchID, "", port + sub(2, "0000.5e00.53F1"), "switch 00:00:5e:00:53:f1,"},
		{"dashes", SwitchID, "", port + sub(2, "00-00-5E-00-53-F1"), "switch 00:00:5e:00:53:f1,"},
		{"no separator", SwitchID, "", port + sub(2, "00005e0053f1"), "switch 00:00:5e:00:53:f1,"},
		{"wrapped text address", SwitchID, "", port + sub(2, "\x01\x0a192.0.2.10"), "switch 192.0.2.10,"},
		{"a name is no id", SwitchID, "", port + sub(2, "sw-west"), "no: the remote-id"},
		{"other bytes", SwitchID, "", port + "0203010203", "no: the remote-id"},
		{"none", SwitchID, "", port, "switch by relay address,"},
		{"none, of no length", SwitchID, "", port + "0200", "switch by relay address,"},
		{"name, NUL padded", SwitchName, "", port + sub(2, "sw-west\x00"), `switch "sw-west",`},
		{"a MAC as name is a name", SwitchName, "", port + sub(2, "00005e0053f1"), `switch "00005e0053f1",`},
		{"bytes are no name", SwitchName, "", port + "020600005e0053f1", "no: the remote-id"},
		{"any: MAC", SwitchAny, "", port + sub(2, "00005e0053f1"), "switch 00:00:5e:00:53:f1,"},
		{"a name of six characters", SwitchName, "", port + sub(2, "core-1"), `switch "core-1",`},
		{"any: a name of six characters", SwitchAny, "", port + sub(2, "core-1"), `switch 63:6f:72:65:2d:31 or "core-1",`},
		{"any: four characters behind a header", SwitchAny, "", port + sub(2, "\x01\x04sw-1"), `switch 01:04:73:77:2d:31 or "sw-1",`},
		{"id: six characters", SwitchID, "", port + sub(2, "olt-01"), "switch 6f:6c:74:2d:30:31,"},
		{"template: a name of six characters", SwitchTemplate, "{host}", port + sub(2, "core-1"), `switch "core-1",`},
		{"any: name", SwitchAny, "", port + sub(2, "sw-west"), `switch "sw-west",`},
		{"MAC and more", SwitchPrefix, "", port + "020800005e0053f10001", "switch 00:00:5e:00:53:f1,"},
		{"wrapped MAC, as in id", SwitchPrefix, "", port + "0208000600005e0053f1", "switch 00:00:5e:00:53:f1,"},
		{"text is no MAC", SwitchPrefix, "", port + sub(2, "switch-7"), "no: the remote-id"},
		{"too short for a MAC", SwitchPrefix, "", port + "020500005e0053", "no: the remote-id"},
		{"enterprise number", SwitchEnterprise, "", port + "02090089c100005e0053f1", "switch 00:00:5e:00:53:f1,"},
		{"enterprise number with header", SwitchEnterprise, "", port + "020a000089c100005e0053f1", "switch 00:00:5e:00:53:f1,"},
		{"no enterprise number", SwitchEnterprise, "", port + "020600005e0053f1", "no: the remote-id"},
		{"template", SwitchTemplate, "{host}#{any}", port + sub(2, "sw-west#7"), `switch "sw-west",`},
		{"template with address", SwitchTemplate, "ip={ip}", port + sub(2, "ip=192.0.2.7"), "switch 192.0.2.7,"},
		{"template that does not fit", SwitchTemplate, "ip={ip}", port + sub(2, "ip=192.0.2.777"), "no: the remote-id"},
		{"relay, whatever the remote-id", SwitchRelay, "", port + "0203010203", "switch by relay address,"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := Profile{Layout: LayoutWrappedUnitPort, Switch: tc.form}
			if tc.pattern != "" {
				p.SwitchTemplates = []string{tc.pattern}
			}
			assert.Contains(t, read(t, compile(t, p), tc.payload), tc.want)
		})
	}
}

func TestTemplates(t *testing.T) {
	for _, tc := range []struct{ template, text, want string }{
		{"Vlan{vlan}+Ethernet{unit}/0/{port}", "Vlan1+Ethernet1/0/11", "vlan 1 unit 1 port 11"},
		{"Vlan{vlan}+Ethernet{unit}/0/{port}", "Vlan1+Ethernet1/0/11 ", ""},
		{"Vlan{vlan}+Ethernet{unit}/0/{port}", "vlan1+Ethernet1/0/11", ""},
		{"{host} eth {unit}/{port}", "My Mikrotik eth 0/2", "host My Mikrotik unit 0 port 2"},
		{"{host} eth {unit}/{port}", "sw eth 1 eth 0/2", "host sw eth 1 unit 0 port 2"},
		{"{host} eth {unit}/{port}", " eth 0/2", ""},
		{"{host}-{unit}/{port}-{vlan}", "a-1/2-b-1/5-10", "host a-1/2-b unit 1 port 5 vlan 10"},
		{"{any}{port}", "sw12-port7", "port 7"},
		{"{any}{port}", "7", "port 7"},
		{"{any}{port}", "port", ""},
		{"{any:3}{port}", "ge7", ""},
		{"{any:3}{port}", "ge-07", "port 7"},
		{"{slot:1}{port:2}", "105", "slot 1 port 5"},
		{"{slot:1}{port:2}", "1055", ""},
		{"{mac}:{ip}/{port}", "cc:e1:7f:87:b2:0:172.17.21.13/5", "mac cce17f87b200 ip 172.17.21.13 port 5"},
		{"{mac}/{port}", "0:0:5e:0:53:1/3", "mac 00005e005301 port 3"},
		{"{mac}/{port}", "0:0:5e:0:53/3", ""},
		{"{mac:12}{port}", "00005e0053017", "mac 00005e005301 port 7"},
		{"{serial}/{port}", "ZTEG-1/3", ""},
		{"{serial}/{port}", "ZTEG1/3", "serial ZTEG1 port 3"},
		{"{onu}/{port}", "00:00:5e:00:53:01/3", "onu 00:00:5e:00:53:01 port 3"},
		{"{iface}:{vlan}.{cvlan} {any}", "GE0/0/5:100.20 hw/0", "iface GE0/0/5 vlan 100 cvlan 20"},
		{"{iface}:{vlan}", "ge-1/0/1.0:65536", ""},
		{"{iface}:{vlan}", "ge-1/0/1.0:4095", ""},
		{"{iface}:{vlan}", "ge-1/0/1.0:4094", "iface ge-1/0/1.0 vlan 4094"},
		{"{port}:{vlan}.{cvlan}", "5:100.4095", ""},
		{"{port:1}{vlan:4}", "54095", ""},
		{"{{{port}}}", "{5}", "port 5"},
		{"{port}", "4294967295", "port 4294967295"},
		{"{port}", "4294967296", ""},
		{"{port}", "00000000000000000000000005", "port 5"},
		{"{port}", "", ""},
		{"{num}/{num}/{port}", "1/99999999999999999999/3", "port 3"},
		{"{ip}x{port}", "1.2.3.4x1", "ip 1.2.3.4 port 1"},
		{"{ip:7}{port}", "1.2.3.45", "ip 1.2.3.4 port 5"},
	} {
		t.Run(tc.template+" "+tc.text, func(t *testing.T) {
			tpl, err := CompileTemplate(tc.template)
			require.NoError(t, err)
			assert.Equal(t, tc.template, tpl.String())
			var o Decoded
			got := ""
			if tpl.match([]byte(tc.text), &o) {
				got = captured(tpl, &o)
			} else {
				assert.Equal(t, Decoded{}, o, "a text that does not match leaves nothing behind")
			}
			assert.ElementsMatch(t, strings.Fields(tc.want), strings.Fields(got))
		})
	}
}

// captured says what a template took, in one line.
func captured(tpl *Template, o *Decoded) string {
	var s []string
	for _, p := range tpl.parts {
		switch p.field {
		case fieldPort:
			s = append(s, fmt.Sprint("port ", o.Sent))
		case fieldUnit:
			s = append(s, fmt.Sprint("unit ", o.Unit))
		case fieldSlot:
			s = append(s, fmt.Sprint("slot ", o.Slot))
		case fieldVLAN:
			s = append(s, fmt.Sprint("vlan ", o.VLAN))
		case fieldCVLAN:
			s = append(s, fmt.Sprint("cvlan ", o.CVLAN))
		case fieldHost:
			s = append(s, "host "+string(o.Host))
		case fieldIface:
			s = append(s, "iface "+string(o.PortName))
		case fieldSerial:
			s = append(s, "serial "+string(o.Serial))
		case fieldONU:
			s = append(s, "onu "+string(o.ONU))
		case fieldMAC:
			s = append(s, fmt.Sprintf("mac %x", o.MAC))
		case fieldIP:
			s = append(s, "ip "+o.ip.String())
		}
	}
	return strings.Join(s, " ")
}

func TestTemplatesRefused(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{"", "empty"},
		{"{prot}", "character 1: no field {prot}; want one of port, unit"},
		{"x{port", "character 2: a { without its }"},
		{"x}", "character 2: a } without its {"},
		{"{port:0}", "want a width from 1 to 255"},
		{"{port:x}", "want a width from 1 to 255"},
		{"{port}/{port}", "the same field twice"},
		{"{host}{iface}", "two fields of text side by side"},
		{"{any}{host}/{port}", "two fields of text side by side"},
		{"caf\u00e9{port}", "not printable ASCII"},
		{strings.Repeat("x", 256), "256 characters"},
		{strings.Repeat("{num}/", 20), "40 parts"},
	} {
		_, err := CompileTemplate(tc.template)
		assert.ErrorContains(t, err, tc.want, "%q", tc.template)
	}
}

// A client chooses the text. Even a bad template must not take long over it.
func TestMatchingIsBounded(t *testing.T) {
	tpl, err := CompileTemplate(strings.Repeat("{any}a{num}", 10) + "{any}b")
	require.NoError(t, err)
	text := bytes.Repeat([]byte("a1"), 127)
	start := time.Now()
	for range 100 {
		var o Decoded
		require.False(t, tpl.match(text, &o))
	}
	assert.Less(t, time.Since(start), 5*time.Second, "100 texts")
}

func TestCompileRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		p    Profile
		want string
	}{
		{"layout", Profile{Layout: "wrapped"}, `layout: "wrapped" is not one of wrapped-unit-port`},
		{"port_in", Profile{PortIn: "x"}, "port_in: "},
		{"switch", Profile{Switch: "x"}, "switch: "},
		{"templates of bytes", Profile{Layout: LayoutPort, Templates: []string{"{port}"}}, "they go with layout text"},
		{"template without port", Profile{Templates: []string{"{host}"}}, "names no port"},
		{"switch template missing", Profile{Switch: SwitchTemplate}, "needs at least one"},
		{"switch template unused", Profile{SwitchTemplates: []string{"{mac}"}}, "they go with switch: template"},
		{"switch template without switch", Profile{Switch: SwitchTemplate, SwitchTemplates: []string{"{any}"}}, "names no switch"},
		{"switch by port without", Profile{Switch: SwitchPort, Templates: []string{"{port}"}}, "names no switch"},
		{"switch by port, whole text", Profile{Switch: SwitchPort}, "needs templates"},
		{"switch by port, bytes", Profile{Switch: SwitchPort, Layout: LayoutPort}, "does not name a switch"},
		{"offset", Profile{PortOffset: 20_000}, "port_offset: 20000 is outside -10000 to 10000"},
		{"unit ports", Profile{UnitPorts: -1}, "unit_ports: -1"},
		{"name", Profile{PortName: "{any}"}, "cannot be written"},
		{"name width", Profile{PortName: "{port:50}"}, "a width of 50"},
		{"nine templates", Profile{Templates: []string{"1{port}", "2{port}", "3{port}", "4{port}", "5{port}", "6{port}", "7{port}", "8{port}", "9{port}"}}, "at most 8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.p.Name = "test"
			_, err := Compile(tc.p)
			assert.ErrorContains(t, err, tc.want)
		})
	}
	_, err := Compile(Profile{})
	assert.ErrorContains(t, err, "name: missing")
	for _, l := range Layouts() {
		assert.NotNil(t, reader(l), l)
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"sw-*", "sw-west", true}, {"sw-*", "SW-West", true}, {"SW-*", "sw-west", true}, {"sw-*", "xsw-west", false},
		{"*", "", true}, {"?", "", false}, {"?", "a", true}, {"*west*", "sw-west-1", true}, {"*a*b", "aab", true}, {"*a*b", "aaba", false},
		{"sw", "sw", true}, {"sw", "sw1", false}, {"**", "x", true}, {"a*?c", "abc", true}, {"a*?c", "ac", false},
	} {
		g, err := CompileGlob(tc.pattern)
		require.NoError(t, err)
		assert.Equal(t, tc.want, g.MatchString(tc.name), "%s %s", tc.pattern, tc.name)
		assert.Equal(t, tc.want, g.Match([]byte(tc.name)), "%s %s", tc.pattern, tc.name)
	}
	for _, bad := range []string{"", "\n", strings.Repeat("x", 256)} {
		_, err := CompileGlob(bad)
		assert.Error(t, err)
	}
	for _, tc := range []struct {
		pattern, remote string
		want            bool
	}{
		{"3c:33:32:*", "00063c3332664350", true}, {"3c:33:32:*", "3c3332664350", true},
		{"3c:33:32:*", hex.EncodeToString([]byte("3C33.3266.4350")), true}, {"172.29.*", "010d" + hex.EncodeToString([]byte("172.29.14.122")), true},
		{"core-?", hex.EncodeToString([]byte("core-1")), true}, {"63:6f:*", hex.EncodeToString([]byte("core-1")), true}, {"olt*", hex.EncodeToString([]byte("core-1")), false},
		{"core-?", "0006" + hex.EncodeToString([]byte("core-1")), false},
		{"sw-*", hex.EncodeToString([]byte("sw-west\x00")), true}, {"0000*", "00000a6fde0103080e26", true}, {"*", "", false},
	} {
		g, err := CompileGlob(tc.pattern)
		require.NoError(t, err)
		assert.Equal(t, tc.want, g.MatchRemote(unhex(t, tc.remote)), "%s %s", tc.pattern, tc.remote)
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	out := new(Decoded)
	for _, e := range Catalogue() {
		d, r := compile(t, e.Profile), parsed(t, e.Vectors[0].Payload)
		assert.Zero(t, testing.AllocsPerRun(20, func() { d.Decode(r, out) }), e.Name)
	}
	for _, p := range []Profile{{Layout: LayoutMAC, PortName: "{mac}", Switch: SwitchAny}, {Layout: LayoutText, Switch: SwitchAny}, {Layout: LayoutText, Switch: SwitchName}} {
		d, r := compile(t, p), parsed(t, sub(1, "ether1")+sub(2, "core-1"))
		assert.Zero(t, testing.AllocsPerRun(20, func() { d.Decode(r, out) }), p.Layout)
	}
	g, err := CompileGlob("core-2*")
	require.NoError(t, err)
	for _, remote := range [][]byte{unhex(t, "00063c3332664350"), []byte("core-1")} {
		assert.Zero(t, testing.AllocsPerRun(20, func() { g.MatchRemote(remote) }))
	}
}

// Whatever the bytes, each profile gives a fault or something to look for, the
// same every time, and changes nothing of the packet.
func FuzzDecode(f *testing.F) {
	var decoders []*Decoder
	for _, e := range Catalogue() {
		decoders = append(decoders, compile(f, e.Profile))
		stacked := e.Profile
		stacked.UnitPorts, stacked.PortName = 52, ""
		if d, err := Compile(stacked); err == nil {
			decoders = append(decoders, d)
		}
		for _, v := range e.Vectors {
			f.Add(unhex(f, v.Payload))
		}
	}
	for _, s := range []string{sub(1, "ether1") + sub(2, "core-1"), sub(1, "\x01\x04eth1") + sub(2, "\x01\x04sw-1"), "010600040fff0005", "01100006ffff000100050106001122334455"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := wire.ParseRelayInfo(payload)
		if err != nil || len(payload) > 255 {
			return
		}
		before := bytes.Clone(payload)
		for _, d := range decoders {
			var o, again Decoded
			fault := d.Decode(&r, &o)
			require.Equal(t, fault, d.Decode(&r, &again))
			if fault != FaultNone {
				require.NotEqual(t, "read", fault.String())
				continue
			}
			require.Equal(t, o.Describe(), again.Describe())
			require.NotEqual(t, ByNothing, o.Switch.Kind, d.Name())
			require.True(t, o.HasNumber || len(o.PortName) > 0, d.Name())
			require.LessOrEqual(t, max(o.VLAN, o.CVLAN), uint16(wire.MaxVLAN), d.Name())
			if o.Switch.Unsure {
				require.NotEmpty(t, o.Switch.Name, d.Name())
				require.Equal(t, string(r.RemoteID), string(o.Switch.MAC[:]), d.Name())
			}
			if o.Switch.Kind == ByIP {
				require.NotEqual(t, netip.Addr{}, o.Switch.IP)
			}
			if n := d.p.UnitPorts; n > 0 && o.HasNumber && o.Port > 0 {
				require.LessOrEqual(t, (int64(o.Port)-1)/int64(n), max(int64(o.Unit)-1, 0), "a port of another unit")
			}
		}
		require.Equal(t, before, payload)
	})
}

// A template that compiles never panics, and agrees with its own spelling: what
// it wrote down, put together again, is the text.
func FuzzTemplate(f *testing.F) {
	for _, e := range Catalogue() {
		for _, s := range append(e.Templates, e.SwitchTemplates...) {
			f.Add(s, "sw eth 1/0/5:100")
		}
	}
	f.Add("{{{port}}}", "{5}")
	f.Add("{any:3}{mac}{any}", "xxx00:00:5e:00:53:01")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		tpl, err := CompileTemplate(pattern)
		if err != nil {
			return
		}
		m := matching{parts: tpl.parts, text: []byte(text)}
		if len(text) > maxText || !m.from(0, 0) {
			var o Decoded
			require.False(t, tpl.match([]byte(text), &o))
			return
		}
		var b []byte
		for i, p := range tpl.parts {
			if p.field == fieldLiteral {
				b = append(b, p.lit...)
			} else {
				b = append(b, m.at(i)...)
			}
		}
		require.Equal(t, text, string(b))
	})
}
