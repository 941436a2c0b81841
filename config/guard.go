package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/usher-agent/usher/config/ifname"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/provision"
)

// keyGuard is where interfaces are guarded.
const keyGuard = "acl.source_guard"

// servingKeys are the lists that name interfaces with subscribers on them.
var servingKeys = []string{"dhcp.subscriber_interfaces", "dhcp.vlan_interfaces", "routes.interfaces", "neighbours.interfaces"}

// Unguarded returns the interfaces of a host that subscribers come in by and that no
// source guard looks at: those that the file names as theirs, those with an
// address in a network of theirs, and those of acl.source_guard.direct that have no
// MACs, where that guard sees nothing. Without blocks there is nothing to walk around.
func (c *Config) Unguarded(host []provision.Interface) []string {
	if !c.ACL.Enabled {
		return nil
	}
	guarded := provision.Patterns(slices.Concat(c.ACL.SourceGuard.Direct, c.ACL.SourceGuard.VLAN))
	homes := slices.Concat(c.Prefixes(), c.ACL.Networks)
	var out []string
	for _, f := range host {
		serves := slices.ContainsFunc(c.Interfaces, func(n ifname.Name) bool { return c.serves(n, f.Name) }) || slices.ContainsFunc(f.Addrs, func(a netip.Prefix) bool {
			return slices.ContainsFunc(homes, func(p netip.Prefix) bool { return p.Contains(a.Addr()) })
		})
		if !f.Loopback && (serves && !guarded.Match(f.Name) && !slices.Contains(guarded, f.Name) || c.guardSeesNothing(&f)) {
			out = append(out, f.Name)
		}
	}
	return out
}

// guardSeesNothing reports whether an interface is guarded by MAC and has none, being no Ethernet (ppp, tun, wireguard).
func (c *Config) guardSeesNothing(f *provision.Interface) bool {
	direct := c.ACL.SourceGuard.Direct
	return f.MAC.IsZero() && f.Kind != "" && (provision.Patterns(direct).Match(f.Name) || slices.Contains(direct, f.Name))
}

// serves reports whether the file names an interface as one with subscribers on it.
func (c *Config) serves(n ifname.Name, name string) bool {
	return c.used(n) && slices.Contains(servingKeys, n.List()) && len(n.Fits([]string{name})) > 0
}

// GuardWarnings says which interfaces of a host a block can be walked around on.
func (c *Config) GuardWarnings(file string, host []provision.Interface) []keys.Problem {
	names := c.Unguarded(host)
	if len(names) == 0 {
		return nil
	}
	var bare []string
	for i := range host {
		if c.guardSeesNothing(&host[i]) && slices.Contains(names, host[i].Name) {
			bare = append(bare, host[i].Name)
		}
	}
	if len(bare) > 0 {
		p := c.place(file, keyGuard)
		p.Reason = fmt.Sprintf("%s.direct has %s, which is no Ethernet: there is no MAC to look at, so everything passes. Name it in %s.vlan instead", keyGuard, firstOf(bare), keyGuard)
		p.Paste = []string{c.guardLine(bare, bare)}
		if len(bare) == len(names) {
			return []keys.Problem{p}
		}
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(bare, name) })
		return append([]keys.Problem{p}, c.unguardedWarning(file, names, bare))
	}
	return []keys.Problem{c.unguardedWarning(file, names, nil)}
}

func (c *Config) unguardedWarning(file string, names, bare []string) keys.Problem {
	p := c.place(file, keyGuard)
	p.Reason = fmt.Sprintf("no source guard on %s, where subscribers are: a stopped or paused one is online as soon as it takes a free address", firstOf(names))
	p.Paste = []string{c.guardLine(slices.Concat(names, bare), bare)}
	return p
}

// ResolverWarnings says what passes because nobody has named name servers.
func (c *Config) ResolverWarnings(file string) []keys.Problem {
	if all := c.ResolverPrefixes(); !c.ACL.Enabled || len(c.ACL.DNS) > 0 || len(all) != 1 || all[0].Bits() > 0 {
		return nil
	}
	p := c.place(file, "acl.dns")
	p.Reason = "neither this nor dhcp names a name server: paused customers reach port 53 of every host, a tunnel too. Name those that they are to ask"
	return []keys.Problem{p}
}

// place is where a key stands, or else the beginning of the file.
func (c *Config) place(file, key string) keys.Problem {
	for _, n := range c.Interfaces {
		if strings.HasPrefix(n.List(), key+".") {
			return keys.Problem{File: n.At.File, Line: n.At.Line, Column: n.At.Column, Key: key}
		}
	}
	return keys.Problem{File: file, Line: 1, Column: 1, Key: key}
}

// guardLine is what may be pasted into the section of the guard: on interfaces of a VLAN
// each, and on those with a route for each client, are few subscribers. bare are those without MACs.
func (c *Config) guardLine(names, bare []string) string {
	direct, vlan := slices.Clone(c.ACL.SourceGuard.Direct), slices.Clone(c.ACL.SourceGuard.VLAN)
	direct = slices.DeleteFunc(direct, func(pattern string) bool {
		return slices.ContainsFunc(bare, func(name string) bool { return pattern == name || provision.Patterns{pattern}.Match(name) })
	})
	for _, name := range names {
		if slices.Contains(bare, name) {
			vlan = append(vlan, name)
			continue
		}
		i := slices.IndexFunc(c.Interfaces, func(n ifname.Name) bool { return c.serves(n, name) })
		if i < 0 {
			direct = append(direct, name)
			continue
		}
		n := c.Interfaces[i]
		pattern := strings.NewReplacer("{vlan}", "*", "{svlan}", "*").Replace(n.Pattern)
		if n.VLAN || n.List() == "routes.interfaces" {
			vlan = append(vlan, pattern)
		} else {
			direct = append(direct, pattern)
		}
	}
	var parts []string
	for _, x := range []struct {
		key  string
		list []string
	}{{"direct", direct}, {"vlan", vlan}} {
		if len(x.list) > 0 {
			slices.Sort(x.list)
			parts = append(parts, fmt.Sprintf("%s: [%s]", x.key, quoted(slices.Compact(x.list))))
		}
	}
	return "source_guard: {" + strings.Join(parts, ", ") + "}"
}

// quoted writes names for YAML: patterns in quotes.
func quoted(names []string) string {
	out := make([]string, len(names))
	for i, name := range names {
		if out[i] = name; strings.ContainsAny(name, `*?[\{},:#`) {
			out[i] = fmt.Sprintf("%q", name)
		}
	}
	return strings.Join(out, ", ")
}

// firstOf names the first few.
func firstOf(names []string) string {
	const most = 6
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
