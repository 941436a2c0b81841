package line

import "path"

// Ingress is what an interface's name says about the packets that come in on it.
type Ingress struct {
	Name      string
	VLAN      uint16 // that the clients on it are in; zero: not told
	Untrusted bool   // option 82 without a relay address is not believed on it
}

// Ingress reads the name of an interface; the empty one says nothing.
func (c *Config) Ingress(name string) Ingress {
	in := Ingress{Name: name, Untrusted: len(c.trusted) > 0}
	for _, t := range c.trusted {
		if ok, _ := path.Match(t, name); ok || t == name { // Compile checked the pattern
			in.Untrusted = false
			break
		}
	}
	for _, t := range c.vlans {
		if vlan, ok := t.Match(name); ok {
			in.VLAN = vlan
			break
		}
	}
	return in
}
