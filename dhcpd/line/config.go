// Package line says where a client is attached: on which port of which switch by
// option 82, in which VLAN by the name of the interface; and whose word is taken
// for that. It does not know what is made of it.
//
// Option 82 names a switch and a port on it, read by the profile that
// Options.Option82 chooses for the device (package option82); without configuration
// remote-id is a MAC or address, without a remote-id the relay's address counts,
// and circuit-id is VLAN, unit and port or an interface name.
package line

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/vlanname"
	"github.com/usher-agent/usher/provision"
)

// Options is what a configuration asks for. The zero value reads option 82 as it
// is mostly sent, from everywhere.
type Options struct {
	Relays   []netip.Prefix // giaddr must be in one of these; empty: any
	Option82 Option82       // how option 82 is read
	// TrustedInterfaces are names or path.Match patterns of the interfaces where
	// option 82 is believed without a relay address; empty: all served ones.
	TrustedInterfaces []string
	// CheckRelaySource drops packets that name a relay but come from an address
	// that is neither the relay's nor in Relays.
	CheckRelaySource bool
	// VLANInterfaces are templates such as "eth1.{svlan}.{vlan}". The first that
	// fits the name of an interface counts.
	VLANInterfaces []string
}

// Config is Options made ready for the packet path. It never changes.
type Config struct {
	relays      []netip.Prefix
	checkSource bool
	trusted     []string // interfaces; empty: all
	vlans       []vlanname.Template
	option82    *option82Reader
}

// Compile checks o and makes it ready. It reports every mistake.
func Compile(o Options) (*Config, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c := &Config{relays: slices.Clone(o.Relays), checkSource: o.CheckRelaySource, trusted: slices.Clone(o.TrustedInterfaces)}
	for i, p := range c.relays {
		if !p.Addr().Is4() {
			fail("relay %v: want an IPv4 prefix", p)
		}
		c.relays[i] = p.Masked()
	}
	for _, p := range c.trusted {
		if _, err := path.Match(p, ""); err != nil {
			fail("trusted interface %q: %w", p, err)
		}
	}
	for _, v := range o.VLANInterfaces {
		t, err := vlanname.Compile(v)
		if err != nil {
			fail("vlan interface %q: %w", v, err)
			continue
		}
		c.vlans = append(c.vlans, t)
	}
	var err error
	if c.option82, err = compileOption82(o.Option82); err != nil {
		errs = append(errs, err)
	}
	return c, errors.Join(errs...)
}

// Locate finds out where the client of a packet is attached.
func (c *Config) Locate(p *Packet, snap *provision.Snapshot) Location {
	loc := c.option82.locate(p, snap)
	loc.VLAN = p.VLAN()
	return loc
}

// ListsRelays reports whether the relays are listed; else any address may be one.
func (c *Config) ListsRelays() bool { return len(c.relays) > 0 }

// Trusts reports whether an address may be a relay's.
func (c *Config) Trusts(relay netip.Addr) bool {
	for _, p := range c.relays {
		if p.Contains(relay) {
			return true
		}
	}
	return len(c.relays) == 0
}

// TrustsSource reports whether a packet that names a relay comes from it, or
// from another relay of ours that forwarded it, as far as that is to be checked.
func (c *Config) TrustsSource(p *Packet) bool {
	from := p.From.Addr().Unmap()
	return !c.checkSource || !from.IsValid() || from == p.GIAddr() || len(c.relays) > 0 && c.Trusts(from)
}

// OwnProfiles returns the profiles of the configuration that are not ready ones,
// in its order.
func (c *Config) OwnProfiles() []option82.Profile {
	var out []option82.Profile
	seen := map[string]bool{}
	add := func(d *option82.Decoder) {
		if _, ready := option82.Find(d.Name()); !ready && !seen[d.Name()] {
			seen[d.Name()] = true
			out = append(out, d.Profile())
		}
	}
	for i := range c.option82.rules {
		add(c.option82.rules[i].dec)
	}
	for _, d := range c.option82.defaults {
		add(d)
	}
	return out
}
