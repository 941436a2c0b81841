package line

import "path"

// Ingress is what an interface's name says about the packets that come in on it.
type Ingress struct {
	Name      string
	VLAN      uint16 // that the clients on it are in; zero: not told
	Untrusted bool   // option 82 without a relay address is not believed on it
	Customers bool   // subscribers are on it, by dhcp.subscriber_interfaces or dhcp.vlan_interfaces: no relay is, unless it is listed as one address
}

// Ingress reads the name of an interface; the empty one says nothing.
func (c *Config) Ingress(name string) Ingress {
	in := Ingress{
		Name:      name,
		Untrusted: c.trustStated && !anyFits(c.trusted, name),
		Customers: anyFits(c.subscribers, name),
	}
	for _, t := range c.vlans {
		if vlan, ok := t.Match(name); ok {
			in.VLAN, in.Customers = vlan, true
			break
		}
	}
	return in
}

// anyFits reports whether one of the patterns is the name or fits it.
func anyFits(patterns []string, name string) bool {
	for _, t := range patterns {
		if ok, _ := path.Match(t, name); ok || t == name { // Compile checked the pattern
			return true
		}
	}
	return false
}
