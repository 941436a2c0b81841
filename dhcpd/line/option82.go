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
	// Profiles are tried in order. Those whose Match fits are the only ones for a
	// packet; the first that can read it counts.
	Profiles []Option82Profile
	Default  []option82.Profile // for packets that no profile matches, in order; none: option82.Defaults
	Exact    []Option82Exact
}

// Option82Profile is a profile and the packets that it is for.
type Option82Profile struct {
	option82.Profile
	Match Option82Match
}

// Option82Match says which packets a profile is for. All that is given must
// hold; one without anything holds for no packet.
type Option82Match struct {
	Devices    []provision.DeviceID // the switch that remote-id, or else giaddr, names
	DeviceName string               // pattern of option82.Glob for the name that the ERP has for that switch
	Model      string               // the same for its model, as far as the ERP tells it
	RemoteID   string               // pattern of option82.Glob for the remote-id; see Glob.MatchRemote
	GIAddr     []netip.Prefix       // relay address
}

func (m *Option82Match) empty() bool {
	return len(m.Devices) == 0 && m.DeviceName == "" && m.Model == "" && m.RemoteID == "" && len(m.GIAddr) == 0
}

// Option82Exact names a port by the bytes that stand for it. It goes before all
// profiles: somebody looked at these very bytes.
type Option82Exact struct {
	Value    []byte // payload, without code and length
	Device   provision.DeviceID
	Port     uint32 // zero: by PortName
	PortName string
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
	if len(o.Profiles) > maxProfiles || len(o.Default) > maxProfiles {
		fail("%d profiles; want at most %d", max(len(o.Profiles), len(o.Default)), maxProfiles)
	}
	for _, p := range o.Profiles {
		ru, err := compileRule(p)
		if err != nil {
			fail("profile %q: %w", p.Name, err)
			continue
		}
		if !p.Match.empty() {
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
		switch {
		case len(e.Value) == 0 || len(e.Value) > 255:
			fail("exact: %d bytes; want 1 to 255", len(e.Value))
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
	if p.RelayInfoCount() == 0 {
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
	if len(ru.giaddr) > 0 {
		gi := p.GIAddr()
		if !gi.IsValid() || !slices.ContainsFunc(ru.giaddr, func(p netip.Prefix) bool { return p.Contains(gi) }) {
			return false
		}
	}
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
	return ru.remote.IsZero() || ru.remote.MatchRemote(p.Relay.RemoteID)
}

// guessDevice returns the switch that a packet names before a profile is chosen:
// by a remote-id that the ERP knows, else by the relay's address.
func guessDevice(p *Packet, mac provision.MAC, snap *provision.Snapshot) *provision.Device {
	var dev *provision.Device
	switch remote := wire.DecodeRemote(p.Relay.RemoteID); remote.Kind {
	case wire.RemoteMAC:
		if remote.MAC != mac {
			dev = snap.DeviceByMAC(remote.MAC)
		}
	case wire.RemoteIP:
		dev = snap.DeviceByIP(remote.IP)
	case wire.RemoteText:
		dev = snap.DeviceByName(remote.Text)
	}
	if gi := p.GIAddr(); dev == nil && gi.IsValid() {
		dev = snap.DeviceByIP(gi)
	}
	return dev
}

// readPort reads option 82 by one profile. ok: it could, and the location is the
// answer whether the ERP knows the port or not.
func readPort(dec *option82.Decoder, p *Packet, mac provision.MAC, snap *provision.Snapshot) (loc Location, ok bool) {
	o := &p.decoded
	loc = Location{Profile: dec.Name(), Result: Unread}
	loc.Fault = dec.Decode(&p.Relay, o)
	dev, named := switchOf(&o.Switch, p, mac, snap)
	byRelay := o.Switch.Kind == option82.ByRelay || o.Switch.Kind == option82.ByMAC && o.Switch.MAC == mac
	if !named || byRelay && !dec.RelayMayName() {
		return loc, false
	}
	if dev == nil {
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
	} else {
		loc.find(snap, o.PortName)
	}
	return loc, true
}

// switchOf returns the switch that was read; named is false if nothing names one.
func switchOf(sw *option82.Switch, p *Packet, mac provision.MAC, snap *provision.Snapshot) (dev *provision.Device, named bool) {
	switch {
	case sw.Kind == option82.ByMAC && provision.MAC(sw.MAC) != mac:
		return snap.DeviceByMAC(sw.MAC), true
	case sw.Kind == option82.ByIP:
		return snap.DeviceByIP(sw.IP), true
	case sw.Kind == option82.ByName:
		return snap.DeviceByName(sw.Name), true
	case sw.Kind == option82.ByNothing:
		return nil, false
	}
	gi := p.GIAddr()
	if !gi.IsValid() {
		return nil, false
	}
	return snap.DeviceByIP(gi), true
}
