package dhcpd

import "path"

// place is what an interface's name says about the packets that come in on it.
type place struct {
	name      string
	vlan      uint16 // that the clients on it are in; zero: not told
	untrusted bool   // option 82 without a relay address is not believed on it
}

// places keeps what names were read as, by index: once per interface and
// settings, not per packet. It belongs to one goroutine.
type places struct {
	set   *settings
	known map[int]place
}

// maxPlaces bounds what is kept; indexes are never used again by the kernel.
const maxPlaces = 1 << 16

func (c *places) of(set *settings, index int, name string) place {
	if c.set != set || len(c.known) >= maxPlaces {
		c.set, c.known = set, map[int]place{}
	}
	if p, ok := c.known[index]; ok && p.name == name { // an interface may be renamed
		return p
	}
	p := set.placeOf(name)
	c.known[index] = p
	return p
}

// placeOf reads the name of an interface; the empty one says nothing.
func (s *settings) placeOf(name string) place {
	p := place{name: name, untrusted: len(s.trusted) > 0}
	for _, t := range s.trusted {
		if ok, _ := path.Match(t, name); ok || t == name { // compile checked the pattern
			p.untrusted = false
			break
		}
	}
	for _, t := range s.vlans {
		if vlan, ok := t.Match(name); ok {
			p.vlan = vlan
			break
		}
	}
	return p
}
