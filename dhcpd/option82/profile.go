// Package option82 reads option 82 as access equipment really sends it: by a
// Profile, which says how the bytes are laid out and how the ports are counted.
// The same six bytes name port 4 on one vendor's switch, port 2 on another's and
// port 5 on a third's, so nothing here guesses: Catalogue has ready profiles, and
// an operator chooses.
package option82

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Layout is how the bytes of a sub-option say a port.
type Layout string

// The layouts. Numbers are big-endian.
const (
	LayoutWrappedUnitPort   Layout = "wrapped-unit-port"   // 00 04 VLAN(2) unit(1) port(1)
	LayoutWrappedPort       Layout = "wrapped-port"        // 00 04 VLAN(2) port(2)
	LayoutWrappedSlotPort   Layout = "wrapped-slot-port"   // 00 04 VLAN(2) slot(5 bits) subslot(3 bits) port(1)
	LayoutWrappedModulePort Layout = "wrapped-module-port" // 00 06 VLAN(2) slot(1) module(1) port(2)
	LayoutUnitPort          Layout = "unit-port"           // VLAN(2) unit(1) port(1)
	LayoutVLANPort          Layout = "vlan-port"           // VLAN(2) port(2)
	LayoutMoxa              Layout = "moxa"                // 01 VLAN(2) port(1)
	LayoutEPON              Layout = "epon"                // VLAN(2) slot(1) PON port(1) ONU(1)
	LayoutZyxel             Layout = "zyxel"               // slot(1) port(1) VLAN(2) text
	LayoutPort              Layout = "port"                // port(2)
	LayoutIndex             Layout = "index"               // ifIndex(4)
	LayoutMAC               Layout = "mac"                 // MAC(6) of the interface
	LayoutDLinkVendor1      Layout = "dlink-vendor1"       // 00 06 VLAN(2) slot(2) port(2) 01 06 MAC(6)
	LayoutDLinkVendor2      Layout = "dlink-vendor2"       // p and the port, 64 of a unit
	LayoutIOS               Layout = "ios"                 // 00 00 IPv4(4) x(1) y(1) VLAN(2)
	LayoutText              Layout = "text"                // text, bare or after 01 length
	LayoutIgnore            Layout = "ignore"              // not read: port 0 plus the port offset
)

// Layouts returns all layouts.
func Layouts() []Layout {
	return []Layout{
		LayoutWrappedUnitPort, LayoutWrappedPort, LayoutWrappedSlotPort, LayoutWrappedModulePort, LayoutUnitPort, LayoutVLANPort,
		LayoutMoxa, LayoutEPON, LayoutZyxel, LayoutPort, LayoutIndex, LayoutMAC, LayoutDLinkVendor1, LayoutDLinkVendor2, LayoutIOS,
		LayoutText, LayoutIgnore,
	}
}

// Words are the layouts as text.
func (Layout) Words() []string { return texts(Layouts()) }

// SubOption names a sub-option that is read.
type SubOption string

// The sub-options that may hold a port.
const (
	InCircuitID    SubOption = "circuit_id"    // 1
	InRemoteID     SubOption = "remote_id"     // 2
	InSubscriberID SubOption = "subscriber_id" // 6
)

// SubOptions returns what Profile.PortIn may be.
func SubOptions() []SubOption { return []SubOption{InCircuitID, InRemoteID, InSubscriberID} }

// Words are the sub-options as text.
func (SubOption) Words() []string { return texts(SubOptions()) }

// SwitchForm is how the switch is named.
type SwitchForm string

// The forms. Except for SwitchPort and SwitchRelay they read the remote-id;
// where that is missing the relay's address names the switch.
const (
	SwitchID         SwitchForm = "id"             // MAC (00 06 before it, bare, or as text in any spelling), or IPv4 as text
	SwitchName       SwitchForm = "name"           // text, the name that the ERP has for the switch
	SwitchAny        SwitchForm = "any"            // SwitchID, else SwitchName
	SwitchPrefix     SwitchForm = "mac-prefix"     // a MAC as in SwitchID, or MAC(6) and then anything
	SwitchEnterprise SwitchForm = "enterprise-mac" // an enterprise number such as 00 89 c1, then MAC(6)
	SwitchTemplate   SwitchForm = "template"       // by Profile.SwitchTemplates: {mac}, {ip} or {host}
	SwitchPort       SwitchForm = "port"           // what names the port names the switch too
	SwitchRelay      SwitchForm = "relay"          // giaddr; the remote-id is not needed
)

// SwitchForms returns all forms.
func SwitchForms() []SwitchForm {
	return []SwitchForm{SwitchID, SwitchName, SwitchAny, SwitchPrefix, SwitchEnterprise, SwitchTemplate, SwitchPort, SwitchRelay}
}

// Words are the forms as text.
func (SwitchForm) Words() []string { return texts(SwitchForms()) }

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}

// Confidence is how sure a fact about equipment is.
type Confidence string

// The marks, from the surest on.
const (
	Captured   Confidence = "cap"  // seen in a capture, a log or a request of real equipment
	Documented Confidence = "doc"  // the vendor's manual says so
	Parsed     Confidence = "code" // another billing system or server reads it so
	Inferred   Confidence = "inf"  // our inference: compare one packet before trusting it
)

// Profile says how one kind of device writes option 82.
type Profile struct {
	// Any name that is not a ready profile's.
	Name   string `cfg:"name" read:"name" required:"a name for the profile" example:"west-catalyst"`
	Vendor string // for people: boxes and their setting

	// Where the port is: circuit_id, remote_id or subscriber_id (sub-option 6).
	PortIn SubOption `cfg:"port_in" example:"circuit_id"`

	// How the bytes say it; text is read by templates.
	Layout    Layout   `cfg:"layout" example:"wrapped-unit-port"`
	Templates []string `cfg:"templates"` // in order; none: the whole text is the interface's name

	// How the switch is named: id (MAC or IPv4 in the remote-id), name, any,
	// mac-prefix, enterprise-mac, template (by switch_templates), port (what names
	// the port names the switch) or relay (giaddr).
	Switch          SwitchForm `cfg:"switch" example:"id"`
	SwitchTemplates []string   `cfg:"switch_templates"`

	// Added to port and unit as sent.
	PortOffset int `cfg:"port_offset" min:"-10000" max:"10000" example:"-2"`
	UnitOffset int `cfg:"unit_offset" min:"-10000" max:"10000" example:"0"`

	// Ports that the ERP counts per unit of a stack: port 5 of unit 2 is 52+5. 0:
	// units beyond the first are not read.
	UnitPorts int `cfg:"unit_ports" min:"0" max:"10000" example:"52"`

	// The interface's name in the ERP, made of what was read, such as
	// "EPON{slot}/{unit}:{port}". Empty: the port is found by its number.
	PortName   string `cfg:"port_name" example:"\"\""` // or {iface}
	Confidence Confidence
}

// Limits of what a profile may say.
const (
	maxOffset    = 10_000
	maxUnitPorts = 10_000
	maxPatterns  = 8
)

// Decoder is a compiled Profile. It is never changed and may be used from
// several goroutines.
type Decoder struct {
	p         Profile
	read      func(*Decoder, []byte, *Decoded) Fault
	templates []*Template
	remote    []*Template
	name      []part // of PortName; nil: none
}

// Name returns the profile's name.
func (d *Decoder) Name() string { return d.p.Name }

// Profile returns what d was compiled from.
func (d *Decoder) Profile() Profile { return d.p }

// Compile checks a profile; it reports every mistake. Empty PortIn, Layout and
// Switch are circuit_id, text and id.
func Compile(p Profile) (*Decoder, error) {
	if p.PortIn == "" {
		p.PortIn = InCircuitID
	}
	if p.Layout == "" {
		p.Layout = LayoutText
	}
	if p.Switch == "" {
		p.Switch = SwitchID
	}
	p.Templates, p.SwitchTemplates = slices.Clone(p.Templates), slices.Clone(p.SwitchTemplates)
	d := &Decoder{p: p, read: reader(p.Layout)}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p.Name == "" {
		fail("name: missing")
	}
	if d.read == nil {
		fail("layout: %q is not one of %s", p.Layout, words(Layouts()))
	}
	if !slices.Contains(SubOptions(), p.PortIn) {
		fail("port_in: %q is not one of %s", p.PortIn, words(SubOptions()))
	}
	if !slices.Contains(SwitchForms(), p.Switch) {
		fail("switch: %q is not one of %s", p.Switch, words(SwitchForms()))
	}
	if len(p.Templates) > 0 && p.Layout != LayoutText {
		fail("templates: they go with layout text, not %s", p.Layout)
	}
	if (p.Switch == SwitchTemplate) != (len(p.SwitchTemplates) > 0) {
		fail("switch_templates: they go with switch: template, and it needs at least one")
	}
	var err error
	if d.templates, err = compileAll(p.Templates); err != nil {
		fail("templates: %w", err)
	}
	if d.remote, err = compileAll(p.SwitchTemplates); err != nil {
		fail("switch_templates: %w", err)
	}
	if p.PortName != "" {
		if d.name, err = split(p.PortName); err != nil {
			fail("port_name: %w", err)
		}
		for _, part := range d.name {
			if part.field == fieldNum || part.field == fieldAny || part.field == fieldIP {
				fail("port_name: {num}, {any} and {ip} cannot be written")
			}
			if part.width > 10 {
				fail("port_name: a width of %d; want at most 10", part.width)
			}
		}
	}
	d.checkFields(fail)
	for _, n := range []struct {
		key            string
		got, low, high int
	}{{"port_offset", p.PortOffset, -maxOffset, maxOffset}, {"unit_offset", p.UnitOffset, -maxOffset, maxOffset}, {"unit_ports", p.UnitPorts, 0, maxUnitPorts}} {
		if n.got < n.low || n.got > n.high {
			fail("%s: %d is outside %d to %d", n.key, n.got, n.low, n.high)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return d, nil
}

// checkFields makes sure that the templates give what is needed of them.
func (d *Decoder) checkFields(fail func(string, ...any)) {
	for _, t := range d.templates {
		if d.name == nil && !t.has(fieldPort) && !t.has(fieldIface) {
			fail("templates: %q names no port: want {port} or {iface} in it, or port_name", t)
		}
		if d.p.Switch == SwitchPort && !namesSwitch(t) {
			fail("templates: %q names no switch: want {mac}, {ip} or {host} in it", t)
		}
	}
	for _, t := range d.remote {
		if !namesSwitch(t) {
			fail("switch_templates: %q names no switch: want {mac}, {ip} or {host} in it", t)
		}
	}
	if d.p.Switch == SwitchPort {
		switch d.p.Layout {
		case LayoutText:
			if len(d.templates) == 0 {
				fail("switch: port needs templates with {mac}, {ip} or {host}")
			}
		case LayoutMAC, LayoutDLinkVendor1, LayoutIOS, LayoutZyxel:
		default:
			fail("switch: layout %s does not name a switch", d.p.Layout)
		}
	}
}

func namesSwitch(t *Template) bool { return t.has(fieldMAC) || t.has(fieldIP) || t.has(fieldHost) }

func compileAll(list []string) ([]*Template, error) {
	if len(list) > maxPatterns {
		return nil, fmt.Errorf("%d of them; want at most %d", len(list), maxPatterns)
	}
	var out []*Template
	for _, s := range list {
		t, err := CompileTemplate(s)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func words[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return strings.Join(out, ", ")
}
