package config

import (
	"strings"

	"github.com/usher-agent/usher/config/ifname"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/line"
)

// interfaceName reads the name of an interface or a pattern.
func (l *loader) interfaceName(v keys.Value) (string, bool) {
	name, ok := v.InterfaceName()
	if ok {
		l.namesInterface(v, name, false)
	}
	return name, ok
}

func (l *loader) namesInterface(v keys.Value, pattern string, vlan bool) {
	at := v.Says("")
	if strings.HasPrefix(at.Key, "dhcp.trusted_interfaces[") && pattern == line.NoInterface {
		return // the word, see trustTogether
	}
	l.cfg.Interfaces = append(l.cfg.Interfaces, ifname.Name{At: at, Pattern: pattern, VLAN: vlan})
}

// used reports whether the part that the name is for runs.
func (c *Config) used(n ifname.Name) bool {
	part, _, _ := strings.Cut(n.At.Key, ".")
	switch part {
	case "dhcp":
		return c.DHCP.Enabled
	case "acl":
		return c.ACL.Enabled
	case "routes":
		return c.Routes.Enabled
	case "neighbours":
		return c.Neighbours.Enabled
	}
	return true
}

// InterfaceWarnings says which names and patterns of parts that run fit none of the interfaces of a
// host, or only what else they are called: other has the name of an interface by each alternative one.
func (c *Config) InterfaceWarnings(have []string, other map[string]string) []keys.Problem {
	var used []ifname.Name
	for _, n := range c.Interfaces {
		if c.used(n) {
			used = append(used, n)
		}
	}
	return ifname.Warnings(used, have, other)
}
