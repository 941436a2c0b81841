package config

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/usher-agent/usher/dhcpd/option82"
)

// Option82 says how option 82 is read; see dhcpd.Option82.
type Option82 struct {
	Profiles []Option82Profile
	Default  []string // names of profiles, ours or ready ones, for what none of Profiles matches
	Exact    []Option82Exact
}

// Option82Profile is a profile with everything filled in that it takes from a
// ready one; see option82.Profile.
type Option82Profile struct {
	Name            string
	Match           Option82Match
	Use             string // name of the ready profile that it begins with; empty: none
	PortIn          string
	Layout          string
	Templates       []string
	Switch          string
	SwitchTemplates []string
	PortOffset      int
	UnitOffset      int
	UnitPorts       int
	PortName        string
}

// Option82Match says which packets a profile is for; see dhcpd.Option82Match.
type Option82Match struct {
	Device     []int64
	DeviceName string
	Model      string
	RemoteID   string
	GIAddr     []netip.Prefix
}

// Option82Exact names a port by the very bytes of its option 82.
type Option82Exact struct {
	Value    []byte
	Device   int64
	Port     uint32
	PortName string
}

// Profile gives p as the packet path wants it.
func (p Option82Profile) Profile() option82.Profile {
	base, _ := option82.Find(p.Use)
	base.Name, base.PortIn, base.Layout, base.Switch = p.Name, option82.SubOption(p.PortIn), option82.Layout(p.Layout), option82.SwitchForm(p.Switch)
	base.Templates, base.SwitchTemplates, base.PortName = p.Templates, p.SwitchTemplates, p.PortName
	base.PortOffset, base.UnitOffset, base.UnitPorts = p.PortOffset, p.UnitOffset, p.UnitPorts
	return base
}

// DefaultProfiles gives the profiles that Default names.
func (o *Option82) DefaultProfiles() []option82.Profile {
	var out []option82.Profile
	for _, name := range o.Default {
		if i := slices.IndexFunc(o.Profiles, func(p Option82Profile) bool { return p.Name == name }); i >= 0 {
			out = append(out, o.Profiles[i].Profile())
		} else if p, ok := option82.Find(name); ok {
			out = append(out, p)
		}
	}
	return out
}

const maxProfiles = 256

func (d *decoder) option82(v value, o *Option82) {
	m := v.mapping("profiles", "default", "exact")
	lines := map[string]int{}
	m.get("profiles").list(func(e value) {
		p := d.profile(e.mapping("name", "match", "use", "port_in", "layout", "templates", "switch", "switch_templates",
			"port_offset", "unit_offset", "unit_ports", "port_name"), lines)
		o.Profiles = append(o.Profiles, p)
	})
	if len(o.Profiles) > maxProfiles {
		m.get("profiles").problem("%d profiles; want at most %d", len(o.Profiles), maxProfiles)
	}
	o.Default = d.defaultProfiles(m.get("default"), o.Profiles)
	seen := map[string]int{}
	m.get("exact").list(func(e value) {
		o.Exact = append(o.Exact, d.exact(e.mapping("value", "device", "port", "port_name"), seen))
	})
	for _, p := range o.Profiles {
		if p.Match.empty() && p.Name != "" && !slices.Contains(o.Default, p.Name) {
			m.get("profiles").warn("profile %s has no match and is not in default: it is used by nobody", p.Name)
		}
	}
}

func (m *Option82Match) empty() bool {
	return len(m.Device) == 0 && m.DeviceName == "" && m.Model == "" && m.RemoteID == "" && len(m.GIAddr) == 0
}

func (d *decoder) profile(m mapping, lines map[string]int) Option82Profile {
	p := Option82Profile{Name: d.profileName(m.get("name"), lines)}
	d.profileMatch(m.get("match").mapping("device", "device_name", "model", "remote_id", "giaddr"), &p.Match)
	base := option82.Profile{PortIn: option82.InCircuitID, Layout: option82.LayoutText, Switch: option82.SwitchID}
	use := m.get("use")
	if p.Use = use.text(""); p.Use != "" {
		found, ok := option82.Find(p.Use)
		if !ok {
			use.problem("no ready profile %q%s; `usher option82 profiles` lists them", excerpt(p.Use), didYouMean(p.Use, option82.Names()))
			return p
		}
		base = found
	} else if !m.get("layout").present() {
		m.get("layout").problem("missing; want a layout, or use: with the name of a ready profile")
		return p
	}
	if base.PortIn == "" {
		base.PortIn = option82.InCircuitID
	}
	if base.Switch == "" {
		base.Switch = option82.SwitchID
	}
	p.PortIn = m.get("port_in").oneOf(string(base.PortIn), words(option82.SubOptions())...)
	p.Layout = m.get("layout").oneOf(string(base.Layout), words(option82.Layouts())...)
	p.Switch = m.get("switch").oneOf(string(base.Switch), words(option82.SwitchForms())...)
	p.Templates = m.get("templates").texts(base.Templates)
	p.SwitchTemplates = m.get("switch_templates").texts(base.SwitchTemplates)
	p.PortOffset = m.get("port_offset").integer(base.PortOffset, -10_000, 10_000)
	p.UnitOffset = m.get("unit_offset").integer(base.UnitOffset, -10_000, 10_000)
	p.UnitPorts = m.get("unit_ports").integer(base.UnitPorts, 0, 10_000)
	p.PortName = m.get("port_name").text(base.PortName)
	if m.get("layout").present() && p.Layout != string(option82.LayoutText) && !m.get("templates").present() {
		p.Templates = nil // those of the ready profile went with its text
	}
	if m.get("switch").present() && p.Switch != string(option82.SwitchTemplate) && !m.get("switch_templates").present() {
		p.SwitchTemplates = nil
	}
	if p.Name == "" {
		return p
	}
	if _, err := option82.Compile(p.Profile()); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			key, reason, ok := strings.Cut(line, ": ")
			if !ok {
				key, reason = "name", line
			}
			m.get(key).problem("%s", reason)
		}
	}
	return p
}

func (d *decoder) profileName(v value, lines map[string]int) string {
	if !v.present() {
		v.problem("missing; want a name for the profile")
		return ""
	}
	name := v.text("")
	_, ready := option82.Find(name)
	line, twice := lines[name]
	switch {
	case !plainKey.MatchString(name):
		v.problem("%q is no name: a letter, then up to 39 letters, digits, _ . or -", excerpt(name))
		return ""
	case ready || name == "exact":
		v.problem("%s is the name of a ready profile; take another one", name)
	case twice:
		v.problem("%s is the name of the profile in line %d, too", name, line)
	}
	lines[name] = v.at.line
	return name
}

func (d *decoder) profileMatch(m mapping, p *Option82Match) {
	m.get("device").list(func(e value) {
		n := e.integer(0, 1, 1<<31-1)
		if n != 0 && slices.Contains(p.Device, int64(n)) {
			e.problem("%d is in the list twice", n)
		}
		p.Device = append(p.Device, int64(n))
	})
	p.DeviceName = m.get("device_name").pattern()
	p.Model = m.get("model").pattern()
	p.RemoteID = m.get("remote_id").pattern()
	m.get("giaddr").list(func(e value) {
		if g, ok := e.relay(); ok {
			p.GIAddr = append(p.GIAddr, g)
		}
	})
}

// pattern reads a pattern of option82.Glob.
func (v value) pattern() string {
	s := v.text("")
	if s == "" {
		return ""
	}
	if _, err := option82.CompileGlob(s); err != nil {
		v.problem("want a pattern of 1 to 255 characters in which * is any text and ? one character")
		return ""
	}
	return s
}

func (d *decoder) defaultProfiles(v value, own []Option82Profile) []string {
	if !v.present() {
		return option82.Defaults()
	}
	names := option82.Names()
	for _, p := range own {
		names = append(names, p.Name)
	}
	var out []string
	v.list(func(e value) {
		name := e.text("")
		switch {
		case !slices.Contains(names, name) || name == "":
			e.problem("no profile %q%s; want one of dhcp.option82.profiles or a ready one (`usher option82 profiles`)", excerpt(name), didYouMean(name, names))
		case slices.Contains(out, name):
			e.problem("%s is in the list twice", name)
		default:
			out = append(out, name)
		}
	})
	if n, ok := v.seqLen(); ok && n == 0 {
		v.problem("an empty list would read nothing; leave it out for %s", strings.Join(option82.Defaults(), ", "))
	}
	return out
}

func (d *decoder) exact(m mapping, seen map[string]int) Option82Exact {
	var x Option82Exact
	val, dev, port, name := m.get("value"), m.get("device"), m.get("port"), m.get("port_name")
	if !val.present() {
		val.problem("missing; want the hexadecimal bytes of option 82, without its code and length")
	} else {
		x.Value = val.hexBytes()
		line, twice := seen[string(x.Value)]
		switch {
		case len(x.Value) > 255:
			val.problem("%d bytes; option 82 holds 1 to 255", len(x.Value))
		case twice:
			val.problem("the same bytes as in line %d", line)
		}
		seen[string(x.Value)] = val.at.line
	}
	if !dev.present() {
		dev.problem("missing; want the ERP's id of the switch")
	}
	x.Device = int64(dev.integer(0, 1, 1<<31-1))
	x.Port = uint32(port.integer(0, 1, 1<<31-1))
	x.PortName = name.text("")
	if port.present() == name.present() {
		m.problem("want port or port_name, one of them")
	}
	return x
}

// texts reads a list of texts.
func (v value) texts(def []string) []string {
	if !v.present() {
		return def
	}
	out := []string{}
	v.list(func(e value) { out = append(out, e.text("")) })
	return out
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}

func didYouMean(got string, known []string) string {
	if n := nearest(got, known); n != "" {
		return ", did you mean " + n + "?"
	}
	return ""
}
