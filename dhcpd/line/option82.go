package line

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// Option82 says how option 82 is read. The zero value is what needs no
// configuration: option82.Defaults for everybody.
type Option82 struct {
	// Profiles of devices, in order (example). Those whose match fits are the only
	// ones for a packet, and the first of them that can read it counts.
	Profiles []Option82Profile `cfg:"profiles"`

	// Names of profiles for packets that none of the above matches, in order.
	Default []option82.Profile `cfg:"default" read:"default_profiles" default:"[dlink, ifname]" empty:"an empty list would read nothing;"` // none: option82.Defaults

	// Ports named by the very bytes of option 82, without its code and length
	// (example); these go first. port or port_name.
	Exact []Option82Exact `cfg:"exact" example:"- value: \"0106000400640018\"\n  device: 12\n  port: 24\n- value: \"0106000400640019\"\n  device: 12\n  port_name: uplink-2"`
}

// Check reports more than a packet may be compared with, as key: reason.
func (o *Option82) Check() error {
	if len(o.Profiles) > maxProfiles {
		return fmt.Errorf("profiles: %d profiles; want at most %d", len(o.Profiles), maxProfiles)
	}
	return nil
}

// Option82Profile is a profile and the packets that it is for.
type Option82Profile struct {
	option82.Profile `cfg:",inline"`

	// Which packets: all that is given must hold. Nothing: only by default below.
	Match Option82Match `cfg:"match" after:"name"`

	// The ready profile to begin with (docs/option82.md lists them); what follows
	// replaces parts of it. Without it layout is required.
	Use string `cfg:"use" read:"ready_profile" example:"cisco-catalyst"` // Profile has it all already
}

// Option82Match says which packets a profile is for. All that is given must
// hold; one without anything holds for no packet.
type Option82Match struct {
	// Ids of switches in the ERP, as remote-id or, failing that, giaddr names them.
	Devices []provision.DeviceID `cfg:"device" min:"1" max:"2147483647" unique:"true" example:"[12, 13]"`

	// Pattern for their name in the ERP: * is any text, ? one character.
	DeviceName string `cfg:"device_name" read:"pattern" example:"\"sw-west-*\""`

	// The same for their model, if the ERP tells it (usher explain --output json).
	Model string `cfg:"model" read:"pattern" example:"\"*Catalyst 2960*\""`

	// Pattern for the remote-id: a MAC as 00:00:5e:00:53:01, text as it is (six
	// characters, which may be a MAC, in both ways), other bytes as hexadecimal digits.
	RemoteID string `cfg:"remote_id" read:"pattern" example:"\"00:00:5e:*\""` // see Glob.MatchRemote

	// Prefixes or addresses of relays.
	GIAddr []netip.Prefix `cfg:"giaddr" read:"ipv4_network" example:"[198.51.100.0/24]"`
}

// Empty reports whether it holds for no packet.
func (m *Option82Match) Empty() bool {
	return len(m.Devices) == 0 && m.DeviceName == "" && m.Model == "" && m.RemoteID == "" && len(m.GIAddr) == 0
}

// Option82Exact names a port by the bytes that stand for it. It goes before all
// profiles: somebody looked at these very bytes.
type Option82Exact struct {
	Value    []byte             `cfg:"value" read:"hex" required:"the hexadecimal bytes of option 82, without its code and length"`
	Device   provision.DeviceID `cfg:"device" min:"1" max:"2147483647" required:"the ERP's id of the switch"`
	Port     uint32             `cfg:"port" min:"1" max:"2147483647"` // zero: by PortName
	PortName string             `cfg:"port_name"`
}

// Check reports bytes that are no option 82, as key: reason.
func (x *Option82Exact) Check() error {
	if n := len(x.Value); n == 0 || n > 255 {
		return fmt.Errorf("value: %d bytes; option 82 holds 1 to 255", n)
	}
	return nil
}

// maxProfiles bounds what a packet may be compared with.
const maxProfiles = 256

// option82Reader is an Option82 made ready for the packet path.
type option82Reader struct {
	exact    map[string]exactPort // by payload
	rules    []rule
	defaults []*option82.Decoder
}

type exactPort struct {
	device provision.DeviceID
	port   uint32
	name   []byte
}

// rule is a compiled Option82Profile.
type rule struct {
	dec      *option82.Decoder
	devices  []provision.DeviceID
	device   option82.Glob
	model    option82.Glob
	remote   option82.Glob
	giaddr   []netip.Prefix
	byDevice bool // the switch has to be looked up
}

// exactName is what stands for the profile where the bytes themselves name the port.
const exactName = "exact"

// compileOption82 checks o and makes it ready. It reports every mistake.
func compileOption82(o Option82) (*option82Reader, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("option 82: "+format, args...)) }
	x := &option82Reader{}
	if err := o.Check(); err != nil {
		fail("%w", err)
	}
	for _, p := range o.Profiles {
		ru, err := compileRule(p)
		if err != nil {
			fail("profile %q: %w", p.Name, err)
			continue
		}
		if !p.Match.Empty() {
			x.rules = append(x.rules, ru)
		}
	}
	defaults := o.Default
	if len(defaults) == 0 {
		for _, name := range option82.Defaults() {
			p, _ := option82.Find(name)
			defaults = append(defaults, p)
		}
	}
	for _, p := range defaults {
		dec, err := option82.Compile(p)
		if err != nil {
			fail("profile %q: %w", p.Name, err)
			continue
		}
		x.defaults = append(x.defaults, dec)
	}
	for _, e := range o.Exact {
		_, twice := x.exact[string(e.Value)]
		err := e.Check()
		switch {
		case err != nil:
			fail("exact: %w", err)
		case e.Device <= 0 || (e.Port == 0) == (e.PortName == ""):
			fail("exact %x: want a device, and a port or its name", e.Value)
		case twice:
			fail("exact %x: given twice", e.Value)
		default:
			if x.exact == nil {
				x.exact = map[string]exactPort{}
			}
			x.exact[string(e.Value)] = exactPort{e.Device, e.Port, []byte(e.PortName)}
		}
	}
	return x, errors.Join(errs...)
}

func compileRule(p Option82Profile) (rule, error) {
	var errs []error
	var ru rule
	var err error
	if ru.dec, err = option82.Compile(p.Profile); err != nil {
		errs = append(errs, err)
	}
	if p.Match.DeviceName != "" {
		if ru.device, err = option82.CompileGlob(p.Match.DeviceName); err != nil {
			errs = append(errs, err)
		}
	}
	if p.Match.Model != "" {
		if ru.model, err = option82.CompileGlob(p.Match.Model); err != nil {
			errs = append(errs, err)
		}
	}
	if p.Match.RemoteID != "" {
		if ru.remote, err = option82.CompileGlob(p.Match.RemoteID); err != nil {
			errs = append(errs, err)
		}
	}
	for _, g := range p.Match.GIAddr {
		if !g.Addr().Is4() {
			errs = append(errs, fmt.Errorf("giaddr %v: want an IPv4 prefix", g))
			continue
		}
		ru.giaddr = append(ru.giaddr, g.Masked())
	}
	ru.devices = slices.Clone(p.Match.Devices)
	slices.Sort(ru.devices)
	ru.byDevice = len(ru.devices) > 0 || !ru.device.IsZero() || !ru.model.IsZero()
	return ru, errors.Join(errs...)
}

// locate finds the access port by option 82. A switch that the profile finds in
// the packet is never overruled by the relay address: the port number belongs to
// the switch, and on the relay it is another customer's. Without one, or with one
// that is the client's own MAC (some relays put that there), the relay's
// address names the switch.
func (x *option82Reader) locate(p *Packet, snap *provision.Snapshot) Location {
	loc := x.read(p, snap)
	if snap.DevicesUnread() && loc.Lines.Len() == 0 && (loc.Result == UnknownDevice || loc.Result == UnknownPort) {
		loc.Result = DevicesUnread
	}
	return loc
}

func (x *option82Reader) read(p *Packet, snap *provision.Snapshot) Location {
	if !p.HasOption82() {
		return Location{Result: NoOption82}
	}
	mac := p.client()
	if len(x.exact) > 0 {
		if e, ok := x.exact[string(p.RelayInfo())]; ok {
			return e.locate(snap)
		}
	}
	var first Location // of those that could not read it
	matched := false
	var dev *provision.Device
	looked := false
	for i := range x.rules {
		ru := &x.rules[i]
		if ru.byDevice && !looked {
			dev, looked = guessDevice(p, mac, snap), true
		}
		if !ru.match(p, dev) {
			if ru.byDevice && snap.DevicesUnread() && ru.matchPacket(p) && (ru.mayMatch(dev) || namesUnlisted(p, mac, snap)) {
				return Location{Profile: ru.dec.Name(), Result: DevicesUnread} // another profile would find somebody's port
			}
			continue
		}
		loc, ok := readPort(ru.dec, p, mac, snap)
		if ok {
			return loc
		}
		if !matched {
			first, matched = loc, true
		}
	}
	if matched {
		return first
	}
	for i, dec := range x.defaults {
		loc, ok := readPort(dec, p, mac, snap)
		if ok {
			return loc
		}
		if i == 0 {
			first = loc
		}
	}
	return first
}

func (e *exactPort) locate(snap *provision.Snapshot) Location {
	loc := Location{Profile: exactName, Result: UnknownDevice}
	if dev := snap.Device(e.device); dev == nil {
		return loc
	}
	loc.Device, loc.Port, loc.Result = e.device, e.port, UnknownPort
	loc.find(snap, e.name)
	return loc
}

// match reports whether the profile is for this packet; dev is the switch that
// the packet names, if that is known.
func (ru *rule) match(p *Packet, dev *provision.Device) bool {
	if ru.byDevice {
		if dev == nil {
			return false
		}
		if _, ok := slices.BinarySearch(ru.devices, dev.ID); len(ru.devices) > 0 && !ok {
			return false
		}
		if !ru.device.IsZero() && !ru.device.MatchString(dev.Name) {
			return false
		}
		if !ru.model.IsZero() && !ru.model.MatchString(dev.Model) {
			return false
		}
	}
	return ru.matchPacket(p)
}

// mayMatch reports whether the profile may be for a switch of which rows alone tell; dev is nil where they do not. What they
// leave out only the ERP's list has, and what they tell rules the others out.
func (ru *rule) mayMatch(dev *provision.Device) bool {
	if dev == nil {
		return true
	}
	_, listed := slices.BinarySearch(ru.devices, dev.ID)
	return (len(ru.devices) == 0 || listed || dev.ID.Made()) &&
		(ru.device.IsZero() || dev.Name == "" || ru.device.MatchString(dev.Name)) &&
		(ru.model.IsZero() || dev.Model == "" || ru.model.MatchString(dev.Model))
}

// matchPacket is match but for the switch.
func (ru *rule) matchPacket(p *Packet) bool {
	if len(ru.giaddr) > 0 {
		gi := p.GIAddr()
		if !gi.IsValid() || !slices.ContainsFunc(ru.giaddr, func(p netip.Prefix) bool { return p.Contains(gi) }) {
			return false
		}
	}
	return ru.remote.IsZero() || ru.remote.MatchRemote(p.Relay.RemoteID)
}

// guessDevice returns the switch that a packet names before a profile is chosen:
// by a remote-id that the ERP knows, else by the relay's address.
func guessDevice(p *Packet, mac provision.MAC, snap *provision.Snapshot) *provision.Device {
	dev, two := deviceOf(p.Relay.RemoteID, mac, snap)
	if gi := p.GIAddr(); dev == nil && !two && gi.IsValid() {
		dev = snap.DeviceByIP(gi)
	}
	return dev
}

// namesUnlisted reports whether a packet names a switch that is not known, so that guessDevice took the relay for it.
func namesUnlisted(p *Packet, mac provision.MAC, snap *provision.Snapshot) bool {
	remote := wire.DecodeRemote(p.Relay.RemoteID)
	if len(p.Relay.RemoteID) == 0 || remote.Kind == wire.RemoteMAC && remote.MAC == mac {
		return false
	}
	dev, _ := deviceOf(p.Relay.RemoteID, mac, snap)
	return dev == nil
}

// deviceOf returns the switch that the ERP knows by a remote-id in any form; nil, too,
// if that is the client's own MAC, or two switches'.
func deviceOf(remoteID []byte, mac provision.MAC, snap *provision.Snapshot) (dev *provision.Device, two bool) {
	remote := wire.DecodeRemote(remoteID)
	switch remote.Kind {
	case wire.RemoteMAC:
		if remote.MAC == mac {
			return nil, false
		}
		dev = snap.DeviceByMAC(remote.MAC)
	case wire.RemoteIP:
		dev = snap.DeviceByIP(remote.IP)
	}
	return orNamed(dev, remote.Text, remote.Unsure, snap)
}

// orNamed returns dev or, without it, the switch that has the same bytes as its name.
// Where there are both, text that spells a MAC or an address is that. Six bytes that
// are both are neither's: nobody can tell, and a guess is another customer's port.
func orNamed(dev *provision.Device, name []byte, unsure bool, snap *provision.Snapshot) (_ *provision.Device, two bool) {
	if dev != nil && !unsure {
		return dev, false
	}
	named := snap.DeviceByName(name)
	switch {
	case dev == nil:
		return named, false
	case named == nil || named == dev:
		return dev, false
	}
	return nil, true
}

// readPort reads option 82 by one profile. ok: it could, and the location is the
// answer whether the ERP knows the port or not.
func readPort(dec *option82.Decoder, p *Packet, mac provision.MAC, snap *provision.Snapshot) (loc Location, ok bool) {
	o := &p.decoded
	loc = Location{Profile: dec.Name(), Result: Unread}
	loc.Fault = dec.Decode(&p.Relay, o)
	dev, named, doubt := switchOf(&o.Switch, p, mac, snap)
	byRelay := o.Switch.Kind == option82.ByRelay || o.Switch.Kind == option82.ByMAC && o.Switch.MAC == mac
	if !named || byRelay && !dec.RelayMayName() {
		return loc, false
	}
	if doubt != option82.FaultNone {
		// No other profile is asked who would not doubt.
		ok = loc.Fault == option82.FaultNone
		if ok {
			loc.Fault = doubt
		}
		return loc, ok
	}
	if dev == nil {
		if dec.ReadsRemote() && !byRelay {
			if other, two := deviceOf(p.Relay.RemoteID, mac, snap); other != nil || two {
				loc.Fault = option82.FaultSwitch // the ERP knows it in another form: that is another profile's
				return loc, false
			}
		}
		loc.Result = UnknownDevice
		return loc, loc.Fault == option82.FaultNone
	}
	loc.Device = dev.ID
	if loc.Fault != option82.FaultNone {
		return loc, false
	}
	loc.Result = UnknownPort
	if o.HasNumber {
		loc.Port = o.Port
		loc.find(snap, nil)
		return loc, true
	}
	loc.find(snap, o.PortName)
	if len(o.PortAlias) > 0 && loc.Lines.Len() == 0 {
		if loc.find(snap, o.PortAlias); loc.Lines.Len() > 0 {
			o.PortName, o.PortAlias = o.PortAlias, nil
		}
	}
	return loc, true
}

// switchOf returns the switch that was read; named is false if nothing names one.
// With a doubt it may be another one, so there is none.
func switchOf(sw *option82.Switch, p *Packet, mac provision.MAC, snap *provision.Snapshot) (dev *provision.Device, named bool, doubt option82.Fault) {
	if sw.Kind == option82.ByNothing {
		return nil, false, option82.FaultNone
	}
	// Some relays write the client's MAC. A client that takes a switch's MAC, or its
	// name, for its own would be looked for on another device.
	clients := (sw.Kind == option82.ByMAC || sw.Unsure) && sw.MAC == mac
	if clients || sw.Kind == option82.ByRelay {
		gi := p.GIAddr()
		if gi.IsValid() {
			dev = snap.DeviceByIP(gi)
		}
		if clients {
			byMAC, byName := snap.DeviceByMAC(mac), snap.DeviceByName(wire.DecodeRemote(mac[:]).Text)
			switch {
			case byMAC != nil && byMAC != dev || byName != nil && byName != dev:
				return nil, true, option82.FaultClient
			case sw.Kind == option82.ByName:
				return byName, true, option82.FaultNone // the relay's, or nobody's
			}
		}
		return dev, gi.IsValid(), option82.FaultNone
	}
	switch sw.Kind {
	case option82.ByMAC:
		dev = snap.DeviceByMAC(sw.MAC)
	case option82.ByIP:
		dev = snap.DeviceByIP(sw.IP)
	}
	dev, two := orNamed(dev, sw.Name, sw.Unsure, snap)
	if two {
		doubt = option82.FaultTwoSwitches
	}
	return dev, true, doubt
}
