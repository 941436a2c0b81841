package config

import (
	"reflect"
	"slices"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
)

// option82Together compares profiles, and exact values, with one another.
func option82Together(m mapping, o *line.Option82) {
	m.report(o.Check())
	lines := map[string]int{}
	for i, e := range m.elements("profiles") {
		name, at := o.Profiles[i].Name, e.get("name")
		if name == "" {
			continue
		}
		_, ready := option82.Find(name)
		switch line, twice := lines[name]; {
		case ready || name == "exact":
			at.problem("%s is the name of a ready profile; take another one", name)
		case twice:
			at.problem("%s is the name of the profile in line %d, too", name, line)
		}
		lines[name] = at.at.line
	}
	seen := map[string]int{}
	for i, e := range m.elements("exact") {
		bytes, at := string(o.Exact[i].Value), e.get("value")
		if !at.present() || e.wrong("value") {
			continue
		}
		line, twice := seen[bytes]
		if twice {
			at.problem("the same bytes as in line %d", line)
		}
		seen[bytes] = at.at.line
	}
	for i := range o.Profiles {
		p := &o.Profiles[i]
		if p.Match.Empty() && p.Name != "" && !slices.ContainsFunc(o.Default, func(d option82.Profile) bool { return d.Name == p.Name }) {
			m.get("profiles").warn("profile %s has no match and is not in default: it is used by nobody", p.Name)
		}
	}
}

// profileIn finds the profile that is about to be read.
func profileIn(into reflect.Value) (*line.Option82Profile, bool) {
	if !into.CanInterface() {
		return nil, false
	}
	p, ok := into.Addr().Interface().(*line.Option82Profile)
	return p, ok
}

// beginProfile lets the profile begin with the ready one that use names. If there is
// none to begin with, nothing is said of the rest.
func (d *decoder) beginProfile(m mapping, p *line.Option82Profile) {
	base := option82.Profile{Layout: option82.LayoutText}
	use := m.get("use")
	p.Use, _ = use.text()
	switch found, ok := option82.Find(p.Use); {
	case ok:
		base = found
	case p.Use != "":
		use.problem("no ready profile %q%s; `usher option82 profiles` lists them", excerpt(p.Use), didYouMean(p.Use, option82.Names()))
		m.hushBut("name", "match")
		return
	case !m.get("layout").present():
		m.get("layout").problem("missing; want a layout, or use: with the name of a ready profile")
		m.hushBut("name", "match")
		return
	}
	base.Name = ""
	if base.PortIn == "" {
		base.PortIn = option82.InCircuitID
	}
	if base.Switch == "" {
		base.Switch = option82.SwitchID
	}
	p.Profile = base
}

// hushBut says nothing of keys but those named.
func (m mapping) hushBut(keys ...string) {
	for name, v := range m.entries {
		if !slices.Contains(keys, name) {
			v.hush = true
			m.entries[name] = v
		}
	}
}

// profileTogether tries the profile as a whole.
func profileTogether(m mapping, p *line.Option82Profile) {
	if m.get("layout").present() && p.Layout != option82.LayoutText && !m.get("templates").present() {
		p.Templates = nil // those of the ready profile went with its text
	}
	if m.get("switch").present() && p.Switch != option82.SwitchTemplate && !m.get("switch_templates").present() {
		p.SwitchTemplates = nil
	}
	if p.Name == "" || p.PortIn == "" { // nothing to begin with
		return
	}
	if _, err := option82.Compile(p.Profile); err != nil {
		m.report(err)
	}
}

// profileName reads the name of a profile.
func (v value) profileName() (string, bool) {
	name, ok := v.text()
	if ok && !plainKey.MatchString(name) {
		v.problem("%q is no name: a letter, then up to 39 letters, digits, _ . or -", excerpt(name))
		return "", false
	}
	return name, ok
}

func exactTogether(m mapping, x *line.Option82Exact) {
	m.report(x.Check())
	if m.get("port").present() == m.get("port_name").present() {
		m.problem("want port or port_name, one of them")
	}
}

// pattern reads a pattern of option82.Glob.
func (v value) pattern() (string, bool) {
	s, ok := v.text()
	if !ok || s == "" {
		return "", ok
	}
	if _, err := option82.CompileGlob(s); err != nil {
		v.problem("want a pattern of 1 to 255 characters in which * is any text and ? one character")
		return "", false
	}
	return s, true
}

// defaultProfiles reads names of profiles, of the file's own and of ready ones.
func (d *decoder) defaultProfiles(v value, k key, into reflect.Value) bool {
	own := d.cfg.DHCP.Option82.Profiles
	names := option82.Names()
	for _, p := range own {
		names = append(names, p.Name)
	}
	out := []option82.Profile{}
	v.list(func(e value) {
		name, _ := e.text()
		ready, ok := option82.Find(name)
		if i := slices.IndexFunc(own, func(p line.Option82Profile) bool { return p.Name == name }); i >= 0 && name != "" {
			ready, ok = own[i].Profile, true
		}
		switch {
		case !ok:
			e.problem("no profile %q%s; want one of dhcp.option82.profiles or a ready one (`usher option82 profiles`)", excerpt(name), didYouMean(name, names))
		case slices.ContainsFunc(out, func(p option82.Profile) bool { return p.Name == name }):
			e.problem("%s is in the list twice", name)
		default:
			out = append(out, ready)
		}
	})
	n, ok := v.seqLen()
	if ok && n == 0 {
		v.emptyList(k)
	}
	if ok {
		into.Set(reflect.ValueOf(out))
	}
	return ok
}

func didYouMean(got string, known []string) string {
	if n := nearest(got, known); n != "" {
		return ", did you mean " + n + "?"
	}
	return ""
}
