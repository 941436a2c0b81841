package option82

// Entry is a ready profile with the bytes that prove it.
type Entry struct {
	Profile
	Note    string // what to look out for; may be empty
	Vectors []Vector
}

// Vector is one option 82 and what the profile makes of it.
type Vector struct {
	Name    string
	Payload string // hexadecimal, without code 82 and length; blanks for reading
	Want    string // Decoded.Describe, or the fault after "no: "
	Origin  string
}

// Find returns the ready profile of a name.
func Find(name string) (Profile, bool) {
	for _, e := range Catalogue() {
		if e.Name == name {
			return e.Profile, true
		}
	}
	return Profile{}, false
}

// Names returns the names of the ready profiles in the order of the catalogue.
func Names() []string {
	var out []string
	for _, e := range Catalogue() {
		out = append(out, e.Name)
	}
	return out
}

// The profiles that serve without any configuration, in this order.
const (
	DefaultPort = "dlink"
	DefaultName = "ifname"
)

// Defaults returns the names of the profiles that serve without configuration.
func Defaults() []string { return []string{DefaultPort, DefaultName} }

// Catalogue returns the ready profiles, those with port numbers first.
func Catalogue() []Entry {
	return append(append(numbered(), named()...), ponAndOthers()...)
}

// numbered are switches that send binary VLAN, unit and port.
func numbered() []Entry {
	return []Entry{
		{
			Profile: Profile{Name: "dlink", Vendor: "D-Link DES/DGS, default",
				Layout: LayoutWrappedUnitPort, Confidence: Captured},
			Note: "Unit 0 is a single switch, 1 a single one with standalone_unit_format 1. A stack needs unit_ports.",
			Vectors: []Vector{
				{"dlink-1", "0106000408770017 020800063c3332664350", "switch 3c:33:32:66:43:50, port 23, unit 0, vlan 2167", "captured"},
				{"dlink-2", "0106000402130010 02080006c0c520846e91", "switch c0:c5:20:84:6e:91, port 16, unit 0, vlan 531", "captured values"},
				{"dlink-3", "0106000400690005", "switch by relay address, port 5, unit 0, vlan 105", "captured values"},
				{"dlink-4", "0106000400980005 02080006f8e903e755a6", "switch f8:e9:03:e7:55:a6, port 5, unit 0, vlan 152", "test data of a billing system"},
				{"dlink-5", "0106000400020002 0208000600ad24d0c544", "switch 00:ad:24:d0:c5:44, port 2, unit 0, vlan 2", "comment in a billing system"},
				{"dlink-ip", "0106000408bc0002 020f010d3137322e32392e31342e313232", "switch 172.29.14.122, port 2, unit 0, vlan 2236", "built from an operator's notes"},
				{"second of a stack", "0106000400640205", "no: ports beyond the first unit have no number without unit_ports or port_name", "built"},
			},
		},
		{
			Profile: Profile{Name: "dlink-unit1", Vendor: "D-Link with standalone_unit_format 1", Layout: LayoutWrappedUnitPort, Confidence: Documented},
			Vectors: []Vector{{"single box is unit 1", "0106000400640105", "switch by relay address, port 5, unit 1, vlan 100", "built"}},
		},
		{
			Profile: Profile{Name: "edge-core", Vendor: "Edge-Core / Accton ECS41xx, ES35xx, default", Layout: LayoutWrappedUnitPort, Confidence: Documented},
			Vectors: []Vector{{"edge-1", "0106000403e9010d 020800060012cffbeeb9", "switch 00:12:cf:fb:ee:b9, port 13, unit 1, vlan 1001", "test request of a billing system"}},
		},
		{
			Profile: Profile{Name: "cisco-catalyst", Vendor: "Cisco Catalyst 2960/3560/3750, IE: byte 3 is Gi1/0/1", Layout: LayoutWrappedUnitPort, PortOffset: -2, Confidence: Documented},
			Note:    "Many fixed models count from 3. Compare one port first; if byte and port agree it is cisco-catalyst-plain.",
			Vectors: []Vector{
				{"cisco-1", "0106000400df0107 02080006000ab8ede880", "switch 00:0a:b8:ed:e8:80, port 5, sent as 7, unit 1, vlan 223", "public script"},
				{"below the first port", "0106000400640101", "no: no port of the unit can have this number", "built"},
			},
		},
		{
			Profile: Profile{Name: "cisco-catalyst-plain", Vendor: "Cisco Catalyst models that count from 1 (blade 3120)", Layout: LayoutWrappedUnitPort, Confidence: Documented},
			Vectors: []Vector{{"cisco-2", "0106000400640001", "switch by relay address, port 1, unit 0, vlan 100", "manual of a billing system"}},
		},
		{
			Profile: Profile{Name: "eltex-mes-custom", Vendor: "Eltex MES 1000/2000/3000, format custom", Layout: LayoutWrappedUnitPort, Confidence: Documented},
			Vectors: []Vector{{"custom", "0106000400640105 02080006a8f94b112233", "switch a8:f9:4b:11:22:33, port 5, unit 1, vlan 100", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "tp-link", Vendor: "TP-Link JetStream, Normal", Layout: LayoutWrappedPort, Confidence: Documented},
			Vectors: []Vector{{"normal", "010600040064000c 02080006f4f26d112233", "switch f4:f2:6d:11:22:33, port 12, unit 0, vlan 100", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "h3c-extended", Vendor: "H3C, HP Comware, 3Com, extended: index is the port less 1", Layout: LayoutWrappedPort, PortOffset: 1, Confidence: Documented},
			Vectors: []Vector{{"h3c-1", "0106000400640004 020800060023891122aa", "switch 00:23:89:11:22:aa, port 5, sent as 4, unit 0, vlan 100", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "h3c-standard", Vendor: "H3C, HP Comware, 3Com, standard", Layout: LayoutVLANPort, PortOffset: 1, Confidence: Documented},
			Vectors: []Vector{{"standard", "010400640004 02060023891122aa", "switch 00:23:89:11:22:aa, port 5, sent as 4, unit 0, vlan 100", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "huawei-extend", Vendor: "Huawei S series, CE, extend", Layout: LayoutWrappedSlotPort, Confidence: Documented},
			Note:    "The slot is the stack member; a subslot other than 0 needs port_name.",
			Vectors: []Vector{
				{"slot 0", "0106000400640018 0208000628a6db112233", "switch 28:a6:db:11:22:33, port 24, unit 0, vlan 100", "built from the manual"},
				{"slot 1 subslot 1", "0106000400640918", "no: ports beyond the first slot have no number without port_name", "built from the manual"},
			},
		},
		{
			Profile: Profile{Name: "snr-hex", Vendor: "SNR, Qtech, DCN, hex", Layout: LayoutWrappedModulePort, Confidence: Documented},
			Vectors: []Vector{{"snr-hex", "01080006000a01000005 02080006f8f082112233", "switch f8:f0:82:11:22:33, port 5, unit 1, vlan 10", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "snr-vs-hp", Vendor: "SNR, Qtech, DCN, vs-hp", Layout: LayoutPort, Confidence: Documented},
			Vectors: []Vector{{"snr-vshp", "01020005", "switch by relay address, port 5, unit 0", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "oring", Vendor: "ORing, OSD (Vitesse software)", Layout: LayoutUnitPort, Confidence: Documented},
			Vectors: []Vector{{"oring-1", "010400030108", "switch by relay address, port 8, unit 1, vlan 3", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "moxa", Vendor: "Moxa", Layout: LayoutMoxa, Confidence: Documented},
			Vectors: []Vector{{"moxa", "010401000a07 02060090e8112233", "switch 00:90:e8:11:22:33, port 7, unit 0, vlan 10", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "zyxel-private", Vendor: "Zyxel MES, DSLAM, private", Layout: LayoutZyxel, Confidence: Inferred},
			Note:    "The order of the fields is inferred from one sample.",
			Vectors: []Vector{{"zyxel-1", "010c0002001e4d45532d33373238", `switch by relay address, port 2, unit 0, vlan 30, host "MES-3728"`, "published sample"}},
		},
		{
			Profile: Profile{Name: "dlink-vendor1", Vendor: "D-Link DGS-3000/3120, vendor1", Layout: LayoutDLinkVendor1, Switch: SwitchPort, Confidence: Documented},
			Vectors: []Vector{{"dlink-v1", "01100006006400010005 0106001122334455", "switch 00:11:22:33:44:55, port 5, unit 1, vlan 100", "built from the manual"}},
		},
		{
			Profile: Profile{Name: "dlink-vendor2", Vendor: "D-Link DGS-3000/3120, vendor2", Layout: LayoutDLinkVendor2, Confidence: Documented},
			Note:    "A stack counts on with 64 ports a unit: set unit_ports to what the ERP counts.",
			Vectors: []Vector{
				{"single", "0103703035", "switch by relay address, port 5, unit 1", "built from the manual"},
				{"dlink-v2", "010470313239", "no: ports beyond the first unit have no number without unit_ports or port_name", "built from the manual"},
			},
		},
	}
}

// named are switches and relays that send text.
func named() []Entry {
	return []Entry{
		{
			Profile: Profile{Name: "ifname", Vendor: "dhcrelay, dnsmasq, MikroTik relay, user-defined strings: the text is the interface's name", Layout: LayoutText, Confidence: Captured},
			Vectors: []Vector{
				{"bare", "010867652d302f302f35", `switch by relay address, port "ge-0/0/5"`, "built"},
				{"wrapped, NUL padded", "0108010667652d310000", `switch by relay address, port "ge-1"`, "built"},
			},
		},
		{
			Profile: Profile{Name: "sonic", Vendor: "SONiC, dhcrelay with a host name as remote-id", Layout: LayoutText, Switch: SwitchAny, Confidence: Parsed},
			Vectors: []Vector{{"relay-ls", "010876786c312e313131 02104147454e542d52454d4f54452d494431 05040a0f4002", `switch "AGENT-REMOTE-ID1", port "vxl1.111"`, "sample of a tool"}},
		},
		{
			Profile: Profile{Name: "snr-ascii", Vendor: "SNR, Qtech, DCN, ascii (the default there)", Layout: LayoutText,
				Templates: []string{"Vlan{vlan}+Ethernet{unit}/0/{port}"}, Confidence: Documented},
			Vectors: []Vector{
				{"snr-ascii", "0114566c616e312b45746865726e6574312f302f3131", "switch by relay address, port 11, unit 1, vlan 1", "built from the manual"},
				{"other module", "0114566c616e312b45746865726e6574312f312f3131", "no: the bytes have another layout", "built"},
			},
		},
		{
			Profile: Profile{Name: "dlink-vendor4", Vendor: "D-Link DGS-3000/3120, vendor4", Layout: LayoutText, Templates: []string{"{host}-{unit}/{port}-{vlan}"}, Confidence: Documented},
			Vectors: []Vector{{"name with dashes", "010e73772d776573742d312f352d3130", `switch by relay address, port 5, unit 1, vlan 10, host "sw-west"`, "built from the manual"}},
		},
		{
			Profile: Profile{Name: "dlink-vendor5", Vendor: "D-Link DGS-3000/3120, vendor5", Layout: LayoutText, Templates: []string{"{host} eth {unit}/{slot}/{port}:{vlan}"}, Confidence: Documented},
			Vectors: []Vector{{"standalone", "01136467732d312065746820302f302f373a313030", `switch by relay address, port 7, unit 0, vlan 100, host "dgs-1"`, "built from the manual"}},
		},
		{
			Profile: Profile{Name: "dlink-vendor6", Vendor: "D-Link DGS-3000/3120, vendor6", Layout: LayoutText, Templates: []string{"Ethernet{unit}/0/{port}:{cvlan}.0 {host}/0/0/{any}"}, Confidence: Inferred},
			Note:    "The manual's page on it is incomplete.",
			Vectors: []Vector{{"standalone", "012345746865726e6574302f302f373a3130302e30206467732d312f302f302f302f302f30", `switch by relay address, port 7, unit 0, inner vlan 100, host "dgs-1"`, "built from the manual"}},
		},
		{
			Profile: Profile{Name: "eltex-mes-tr101", Vendor: "Eltex MES, tr-101 (the default there)", Layout: LayoutText, Templates: []string{"{host} eth {unit}/{slot}/{port}:{vlan}"},
				Switch: SwitchEnterprise, Confidence: Inferred},
			Note:    "The lengths inside are not in the manual: compare one packet.",
			Vectors: []Vector{{"tr-101", "01136d65732d312065746820312f302f353a313030 02090089c1a8f94b112233", `switch a8:f9:4b:11:22:33, port 5, unit 1, vlan 100, host "mes-1"`, "built from the manual"}},
		},
		{
			Profile: Profile{Name: "huawei-default", Vendor: "Huawei S series, CE, default; NE/ME cn-telecom", Layout: LayoutText, Templates: []string{"{iface}:{vlan}.{cvlan} {host}/0/0/0/0/0", "{iface}:4096.{cvlan} {host}/0/0/0/0/0", "{iface}:4096.4096 {host}/0/0/0/0/0"}, Confidence: Documented},
			Note:    "4096 stands for no VLAN.",
			Vectors: []Vector{{"default", "01294769676162697445746865726e6574302f302f353a3130302e302068772d312f302f302f302f302f30 020628a6db112233",
				`switch 28:a6:db:11:22:33, port "GigabitEthernet0/0/5", vlan 100, host "hw-1"`, "built from the manual"},
				{"one tag", "012065746820302f302f353a343039362e32302068772d312f302f302f302f302f30", `switch by relay address, port "eth 0/0/5", inner vlan 20, host "hw-1"`, "built from the manual"},
				{"no tag", "012265746820302f302f353a343039362e343039362068772d312f302f302f302f302f30", `switch by relay address, port "eth 0/0/5", host "hw-1"`, "built from the manual"}},
		},
		{
			Profile: Profile{Name: "huawei-common", Vendor: "Huawei S series, CE, common", Layout: LayoutText, Templates: []string{"eth {unit}/{slot}/{port}:{vlan}.{cvlan} {host}/0/0/0/0/0", "eth {unit}/{slot}/{port}:4096.{cvlan} {host}/0/0/0/0/0",
				"eth {unit}/{slot}/{port}:4096.4096 {host}/0/0/0/0/0"}, Confidence: Documented},
			Note: "4096 stands for no VLAN. Ports of a trunk (trunk ...) are not read: its numbers are not those of ports.",
			Vectors: []Vector{{"common", "011f65746820302f302f353a3130302e32302068772d312f302f302f302f302f30 020e323861362d646231312d32323333",
				`switch 28:a6:db:11:22:33, port 5, unit 0, vlan 100, inner vlan 20, host "hw-1"`, "built from the manual"},
				{"one tag", "012065746820302f302f353a343039362e32302068772d312f302f302f302f302f30", `switch by relay address, port 5, unit 0, inner vlan 20, host "hw-1"`, "built from the manual"}},
		},
		{
			Profile: Profile{Name: "mikrotik-bridge", Vendor: "MikroTik bridge with DHCP snooping", Layout: LayoutText, Templates: []string{"{host} eth {unit}/{port}", "{host} eth {unit}/{port}:{vlan}"}, Switch: SwitchPort, Confidence: Documented},
			Note:    "The identity must be the switch's name in the ERP.",
			Vectors: []Vector{{"mtik-br", "01134d79204d696b726f74696b2065746820302f32", `switch "My Mikrotik", port 2, unit 0, host "My Mikrotik"`, "manual of a billing system"}},
		},
		{
			Profile: Profile{Name: "mikrotik-relay", Vendor: "MikroTik relay with add-relay-info: MAC of the interface", Layout: LayoutMAC, Switch: SwitchRelay, PortName: "{mac}", Confidence: Documented},
			Note:    "The ERP's interface must be named by the MAC. Where the interface's name is sent it is ifname.",
			Vectors: []Vector{{"mtik-rl", "0106500300010001", `switch by relay address, port "50:03:00:01:00:01"`, "manual of a billing system"}},
		},
		{
			Profile: Profile{Name: "juniper", Vendor: "Juniper EX, MX", Layout: LayoutText, Templates: []string{"{iface}:{vlan}", "{iface}:{any}", "{iface}"},
				Switch: SwitchTemplate, SwitchTemplates: []string{"{mac}:{ip}", "{mac}", "{ip}", "{host}"}, Confidence: Captured},
			Vectors: []Vector{
				{"juniper-1", "010d67652d312f302f312e303a3433 021e63633a65313a37663a38373a62323a30303a3137322e31372e32312e3133", `switch cc:e1:7f:87:b2:00, port "ge-1/0/1.0", vlan 43`, "captured text"},
				{"vlan by name", "011067652d312f302f312e303a686f6d6573", `switch by relay address, port "ge-1/0/1.0"`, "built from the manual"},
			},
		},
		{
			Profile: Profile{Name: "zyxel-tr101", Vendor: "Zyxel DSLAM, TR-101", Layout: LayoutText, Templates: []string{"{host} atm {unit}/{port}:{num}.{num}", "{host} eth {unit}/{port}:{vlan}"}, Switch: SwitchPort, Confidence: Documented},
			Vectors: []Vector{{"atm", "01155359534e414d452061746d20302f31303a302e3333", `switch "SYSNAME", port 10, unit 0, host "SYSNAME"`, "built from the manual"}},
		},
		{
			Profile: Profile{Name: "zyxel-flexible", Vendor: "Zyxel DSLAM, flexible: Switch/07/0123", Layout: LayoutText, Templates: []string{"{host}/{port}/{vlan}"}, Switch: SwitchPort, Confidence: Inferred},
			Vectors: []Vector{{"flexible", "010e5377697463682f30372f30313233", `switch "Switch", port 7, unit 0, vlan 123, host "Switch"`, "built from the manual"}},
		},
	}
}

// ponAndOthers are OLTs, routers and the rest.
func ponAndOthers() []Entry {
	return []Entry{
		{
			Profile: Profile{Name: "bdcom-epon", Vendor: "BDCOM P3310/P3608/P3616 and alike: the ONU by its place on the OLT", Layout: LayoutEPON, Switch: SwitchRelay, PortName: "EPON{slot}/{unit}:{port}", Confidence: Inferred},
			Note:    "The ERP's interface must be named as the OLT names it. With unit_ports and an empty port_name the port is counted instead.",
			Vectors: []Vector{{"epon-1", "0105007400071d 02061c877912e61a", `switch by relay address, port "EPON0/7:29", vlan 116, onu 1c:87:79:12:e6:1a`, "test data of a billing system"}},
		},
		{
			Profile: Profile{Name: "onu-mac", Vendor: "Any OLT whose remote-id is the MAC of the ONU, where the ERP has the ONU as a device", Layout: LayoutIgnore, PortOffset: 1, Switch: SwitchPrefix, Confidence: Parsed},
			Note:    "The port is not read at all: every subscriber hangs on port 1 of the ONU (port_offset says another). Match it with OLTs only, for behind a switch it would be one customer for all.",
			Vectors: []Vector{
				{"epon-1", "0105007400071d 02061c877912e61a", "switch 1c:87:79:12:e6:1a, port 1, sent as 0, unit 0", "test data of a billing system"},
				{"lone-rid", "0206001122334455", "switch 00:11:22:33:44:55, port 1, sent as 0, unit 0", "built"},
				{"empty-cid", "0100 0206001122334455", "switch 00:11:22:33:44:55, port 1, sent as 0, unit 0", "built"},
				{"code-0", "0002aabb 0206001122334455", "switch 00:11:22:33:44:55, port 1, sent as 0, unit 0", "built"},
				{"code-255", "ff02aabb 0206001122334455", "switch 00:11:22:33:44:55, port 1, sent as 0, unit 0", "built"},
			},
		},
		{
			Profile: Profile{Name: "zte-gpon", Vendor: "ZTE C300/C320 GPON, ONU serial", Layout: LayoutText, Templates: []string{"{serial:12}"}, Switch: SwitchRelay, PortName: "{serial}", Confidence: Captured},
			Note:    "The MAC in the remote-id is invented from the serial. The ERP's interface must be named by the serial.",
			Vectors: []Vector{
				{"zte-1", "010c5a5445474330323838453730 021134353a34373a63303a32383a38653a3730", `switch by relay address, port "ZTEGC0288E70", serial "ZTEGC0288E70", onu 45:47:c0:28:8e:70`, "test data of a billing system"},
				{"zte-2", "010c5a5445474334303235334233 021034353a34373a63343a323a35333a6233", `switch by relay address, port "ZTEGC40253B3", serial "ZTEGC40253B3", onu 45:47:c4:02:53:b3`, "test data of a billing system"},
			},
		},
		{
			Profile: Profile{Name: "zte-cn-telecom", Vendor: "ZTE C300/C320, China Telecom format", Layout: LayoutText, Templates: []string{"{any:49}{serial:12}{any}"}, Switch: SwitchRelay, PortName: "{serial}", Confidence: Parsed},
			Vectors: []Vector{{"offset 49", "0140303132333435363738393031323334353637383930313233343536373839303132333435363738393031323334353637385a5445474330323838453730205858", `switch by relay address, port "ZTEGC0288E70", serial "ZTEGC0288E70"`, "built from a billing system's offsets"}},
		},
		{
			Profile: Profile{Name: "huawei-olt", Vendor: "Huawei MA5600T/MA5800: xpon frame/slot/subslot/port:vlan.ont.serial", Layout: LayoutText,
				Templates: []string{"{host} xpon {num}/{num}/{num}/{num}:{vlan}.{num}.{serial}", "{serial}.{vlan}"}, Switch: SwitchRelay, PortName: "{serial}", Confidence: Parsed},
			Note: "raio-format is the operator's: compare it with the templates. The ERP's interface must be named by the serial.",
			Vectors: []Vector{{"sn.vlanid", "01104857544331413242334334442e313030", `switch by relay address, port "HWTC1A2B3C4D", vlan 100, serial "HWTC1A2B3C4D"`, "built from a provisioning script"},
				{"anid xpon", "01266f6c742d372078706f6e20302f312f302f333a3130302e31322e485754433141324233433444", `switch by relay address, port "HWTC1A2B3C4D", vlan 100, host "olt-7", serial "HWTC1A2B3C4D"`, "built from a provisioning script"}},
		},
		{
			Profile: Profile{Name: "bng-text", Vendor: "ZTE BNG and alike: eth 0/0/5:30.3611 0/0/0/0/0/0", Layout: LayoutText, Templates: []string{"{iface}:{vlan}.{cvlan} {num}/{num}/{num}/{num}/{num}/{num}", "{iface}:4096.{cvlan} {num}/{num}/{num}/{num}/{num}/{num}",
				"{iface}:4096.4096 {num}/{num}/{num}/{num}/{num}/{num}"}, Switch: SwitchRelay, Confidence: Captured},
			Note: "4096 stands for no VLAN.",
			Vectors: []Vector{{"captured text", "011d65746820302f302f353a33302e3336313120302f302f302f302f302f30", `switch by relay address, port "eth 0/0/5", vlan 30, inner vlan 3611`, "captured text"},
				{"one tag", "011f65746820302f302f353a343039362e3336313120302f302f302f302f302f30", `switch by relay address, port "eth 0/0/5", inner vlan 3611`, "built from manuals"}},
		},
		{
			Profile: Profile{Name: "ufiber", Vendor: "Ubiquiti UFiber 4.9", Layout: LayoutText, Templates: []string{"{mac:12}/{unit}/{onu:12}", "{mac:12}/{unit}/{onu:12}/{num}:{vlan}"}, Switch: SwitchPort, PortName: "{onu}", Confidence: Captured},
			Note:    "The ERP's interface of the OLT must be named by the ONU's MAC as sent.",
			Vectors: []Vector{
				{"ufiber-1", "011b6234666265343530316664612f312f616338626139653231376638 020c616338626139653231376638", `switch b4:fb:e4:50:1f:da, port "ac8ba9e217f8", onu "ac8ba9e217f8"`, "captured text"},
				{"bridge", "01216234666265343530316664612f312f6163386261396532313766382f313a313030", `switch b4:fb:e4:50:1f:da, port "ac8ba9e217f8", vlan 100, onu "ac8ba9e217f8"`, "captured text"},
			},
		},
		{
			Profile: Profile{Name: "nokia-isam", Vendor: "Nokia ISAM 7360", Layout: LayoutText, Templates: []string{"{host} eth {iface}"}, Switch: SwitchPort, Confidence: Parsed},
			Vectors: []Vector{{"nokia-1", "011c4c41424f4c54322065746820312f312f30312f30312f31302f312f32 09120000197f0d050b4c4142373336304f4c5432",
				`switch "LABOLT2", port "1/1/01/01/10/1/2", host "LABOLT2"`, "test text of a server"}},
		},
		{
			Profile: Profile{Name: "cisco-ios", Vendor: "Cisco IOS router as relay: VLAN only", PortIn: InRemoteID, Layout: LayoutIOS, Switch: SwitchPort, PortName: "Vlan{vlan}", Confidence: Inferred},
			Note:    "Address and VLAN are certain; the two bytes between are read as port and slot, and are not used.",
			Vectors: []Vector{
				{"ios-1", "020a00000a6fde0103080e26", `switch 10.111.222.1, port "Vlan3622", vlan 3622`, "captured"},
				{"ios-2", "020a00005114c0330200000d", `switch 81.20.192.51, port "Vlan13", vlan 13`, "router's log"},
			},
		},
		{
			Profile: Profile{Name: "cmts", Vendor: "Cable CMTS: ifIndex, MAC of the modem", Layout: LayoutIndex, Switch: SwitchRelay, Confidence: Captured},
			Vectors: []Vector{{"cmts-1", "010420000002020620e52ab8151409090000118b0401020300", "switch by relay address, port 536870914, unit 0, onu 20:e5:2a:b8:15:14", "captured"}},
		},
		{
			Profile: Profile{Name: "subscriber-id", Vendor: "Relays that write the interface's name into sub-option 6", PortIn: InSubscriberID, Layout: LayoutText, Confidence: Documented},
			Vectors: []Vector{{"RFC 3993", "060867652d302f302f35", `switch by relay address, port "ge-0/0/5"`, "built"}},
		},
	}
}
