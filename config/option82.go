package config

import (
	"reflect"
	"slices"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
)

// option82Together compares profiles, and exact values, with one another.
func option82Together(m keys.Mapping, o *line.Option82) {
	m.Report(o.Check())
	lines := map[string]int{}
	for i, e := range m.Elements("profiles") {
		name, at := o.Profiles[i].Name, e.Get("name")
		if name == "" {
			continue
		}
		_, ready := option82.Find(name)
		switch line, twice := lines[name]; {
		case ready || name == "exact":
			at.Problem("%s is the name of a ready profile; take another one", name)
		case twice:
			at.Problem("%s is the name of the profile in line %d, too", name, line)
		}
		lines[name] = at.Line()
	}
	seen := map[string]int{}
	for i, e := range m.Elements("exact") {
		bytes, at := string(o.Exact[i].Value), e.Get("value")
		if !at.Present() || e.Wrong("value") {
			continue
		}
		line, twice := seen[bytes]
		if twice {
			at.Problem("the same bytes as in line %d", line)
		}
		seen[bytes] = at.Line()
	}
	for i := range o.Profiles {
		p := &o.Profiles[i]
		if p.Match.Empty() && p.Name != "" && !slices.ContainsFunc(o.Default, func(d option82.Profile) bool { return d.Name == p.Name }) {
			m.Get("profiles").Warn("profile %s has no match and is not in default: it is used by nobody", p.Name)
		}
	}
}

// beginProfile lets the profile begin with the ready one that use names. If there is
// none to begin with, nothing is said of the rest.
func beginProfile(m keys.Mapping, p *line.Option82Profile) {
	base := option82.Profile{Layout: option82.LayoutText}
	use := m.Get("use")
	p.Use, _ = use.Text()
	switch found, ok := option82.Find(p.Use); {
	case ok:
		base = found
	case p.Use != "":
		use.Problem("no ready profile %q%s; `usher option82 profiles` lists them", keys.Excerpt(p.Use), keys.DidYouMean(p.Use, option82.Names()))
		m.HushBut("name", "match")
		return
	case !m.Get("layout").Present():
		m.Get("layout").Problem("missing; want a layout, or use: with the name of a ready profile")
		m.HushBut("name", "match")
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

// profileTogether tries the profile as a whole.
func profileTogether(m keys.Mapping, p *line.Option82Profile) {
	if m.Get("layout").Present() && p.Layout != option82.LayoutText && !m.Get("templates").Present() {
		p.Templates = nil // those of the ready profile went with its text
	}
	if m.Get("switch").Present() && p.Switch != option82.SwitchTemplate && !m.Get("switch_templates").Present() {
		p.SwitchTemplates = nil
	}
	if p.Name == "" || p.PortIn == "" { // nothing to begin with
		return
	}
	if _, err := option82.Compile(p.Profile); err != nil {
		m.Report(err)
	}
}

// profileName reads the name of a profile.
func profileName(v keys.Value) (string, bool) {
	name, ok := v.Text()
	if ok && !keys.PlainName.MatchString(name) {
		v.Problem("%q is no name: a letter, then up to 39 letters, digits, _ . or -", keys.Excerpt(name))
		return "", false
	}
	return name, ok
}

func exactTogether(m keys.Mapping, x *line.Option82Exact) {
	m.Report(x.Check())
	if m.Get("port").Present() == m.Get("port_name").Present() {
		m.Problem("want port or port_name, one of them")
	}
}

// pattern reads a pattern of option82.Glob.
func pattern(v keys.Value) (string, bool) {
	s, ok := v.Text()
	if !ok || s == "" {
		return "", ok
	}
	if _, err := option82.CompileGlob(s); err != nil {
		v.Problem("want a pattern of 1 to 255 characters in which * is any text and ? one character")
		return "", false
	}
	return s, true
}

// defaultProfiles reads names of profiles, of the file's own and of ready ones.
func (l *loader) defaultProfiles(v keys.Value, k keys.Key, into reflect.Value) bool {
	own := l.cfg.DHCP.Option82.Profiles
	names := option82.Names()
	for _, p := range own {
		names = append(names, p.Name)
	}
	out := []option82.Profile{}
	v.List(func(e keys.Value) {
		name, _ := e.Text()
		ready, ok := option82.Find(name)
		if i := slices.IndexFunc(own, func(p line.Option82Profile) bool { return p.Name == name }); i >= 0 && name != "" {
			ready, ok = own[i].Profile, true
		}
		switch {
		case !ok:
			e.Problem("no profile %q%s; want one of dhcp.option82.profiles or a ready one (`usher option82 profiles`)", keys.Excerpt(name), keys.DidYouMean(name, names))
		case slices.ContainsFunc(out, func(p option82.Profile) bool { return p.Name == name }):
			e.Problem("%s is in the list twice", name)
		default:
			out = append(out, ready)
		}
	})
	n, ok := v.Len()
	if ok && n == 0 {
		v.EmptyList(k)
	}
	if ok {
		into.Set(reflect.ValueOf(out))
	}
	return ok
}
