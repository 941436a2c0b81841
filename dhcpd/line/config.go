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
	// Prefixes or single addresses of relays, the giaddr as well as the addresses that they
	// send from; packets of others are dropped and counted. Empty: any relay. In both cases none
	// that is a subscriber: bound by the ERP, of a pool, or on an interface of subscribers; such a
	// one, an access switch in the subscribers' VLAN, has to be listed as one address.
	Relays []netip.Prefix `cfg:"relays" read:"ipv4_network"`

	// true (example): what is relayed must come from an address in relays too. false: from any.
	// Left out, as in files before there was subscriber_interfaces: from any, with a warning
	// that names the line for relays.
	CheckRelaySource SourceCheck `cfg:"check_relay_source" read:"source_check" example:"true"`

	// Prefixes or single addresses of the relays whose option 82 is believed: which insert or
	// replace it, or drop what clients write, or have only switches below that do. Of others it is
	// echoed and not believed. The addresses that they send from belong here, too: a giaddr of this
	// list from another address in relays is refused. none (example): no relay's; all: that of every relay that is believed. Left out
	// or empty, it is believed of all with a warning, and usher check asks for a list or a word,
	// because a relay that inserts none passes on what its client wrote.
	Option82Relays []string `cfg:"option82_relays" read:"relay" alone:"none all" unique:"true" example:"none"`

	// Interfaces, by name or pattern, that subscribers are on and no relay, but one that relays
	// lists as one address. Those of vlan_interfaces belong to them.
	SubscriberInterfaces []string `cfg:"subscriber_interfaces" read:"interface" unique:"true"`

	// Interfaces, by name or pattern, where option 82 is believed though no relay gave
	// its address: behind a switch that inserts it and drops what clients send. Elsewhere it is
	// echoed and not believed. none (example): nowhere; an interface of that name is '[n]one'. Left out
	// or empty, it is believed everywhere with a warning, and usher check asks for a list or
	// none, because a subscriber may have written it.
	TrustedInterfaces []string `cfg:"trusted_interfaces" read:"interface" alone:"none" unique:"true" example:"none"`

	// What interfaces of one customer's VLAN are called, for vlan, such as "eth1.{vlan}",
	// "vlan{vlan}" or "eth1.{svlan}.{vlan}". {vlan} is what the ERP has for the address.
	VLANInterfaces []string `cfg:"vlan_interfaces" read:"vlan_interface" after:"match" unique:"true" most:"64"` // the first that fits the name of an interface counts

	// How option 82 is read, see docs/option82.md: `usher option82 HEX` tries it, and
	// `usher option82 suggest` makes lines of this from what was not understood.
	Option82 Option82 `cfg:"option82" after:"on_binding_change"`
}

// SourceCheck says whether a relayed packet must come from an address in Options.Relays.
type SourceCheck uint8

// The source checks. The zero value stands for a file that does not say it.
const (
	SourceUnsaid SourceCheck = iota // from any address, with a warning
	SourceListed                    // from a listed one
	SourceAny                       // from any address, as somebody wants it
)

// NoInterface stands alone in Options.TrustedInterfaces: option 82 without a relay is believed nowhere.
const NoInterface = "none"

// NoRelay and EveryRelay stand alone in Options.Option82Relays: option 82 is believed of no relay, or of
// every one that is believed itself.
const (
	NoRelay    = "none"
	EveryRelay = "all"
)

// Config is Options made ready for the packet path. It never changes.
type Config struct {
	relays      []netip.Prefix
	inserting   insertingRelays
	checkSource SourceCheck
	trusted     []string // interfaces
	trustStated bool     // else option 82 is believed on all
	subscribers []string // interfaces of subscribers
	vlans       []vlanname.Template
	option82    *option82Reader
}

// Compile checks o and makes it ready. It reports every mistake.
func Compile(o Options) (*Config, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c := &Config{
		relays: slices.Clone(o.Relays), checkSource: o.CheckRelaySource, trusted: slices.Clone(o.TrustedInterfaces),
		trustStated: len(o.TrustedInterfaces) > 0, subscribers: slices.Clone(o.SubscriberInterfaces),
	}
	if o.CheckRelaySource > SourceAny {
		fail("check relay source %d: no such word", o.CheckRelaySource)
	}
	for i, p := range c.relays {
		if !p.Addr().Is4() {
			fail("relay %v: want an IPv4 prefix", p)
		}
		c.relays[i] = p.Masked()
	}
	var err error
	if c.inserting, err = compileInserting(o.Option82Relays, c.relays); err != nil {
		errs = append(errs, err)
	}
	if slices.Contains(c.trusted, NoInterface) {
		if len(c.trusted) > 1 {
			fail("trusted interface %q: it stands alone", NoInterface)
		}
		c.trusted = nil
	}
	for _, p := range c.trusted {
		if _, err := path.Match(p, ""); err != nil {
			fail("trusted interface %q: %w", p, err)
		}
	}
	for _, p := range c.subscribers {
		if _, err := path.Match(p, ""); err != nil {
			fail("subscriber interface %q: %w", p, err)
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

// Lists reports whether relays has an address, and alone: as one address.
func (c *Config) Lists(relay netip.Addr) (listed, alone bool) {
	for _, p := range c.relays {
		if p.Contains(relay) {
			listed = true
			if p.IsSingleIP() {
				return true, true
			}
		}
	}
	return listed, false
}

// Relays returns the prefixes and single addresses of relays, as they are listed.
func (c *Config) Relays() []netip.Prefix { return slices.Clone(c.relays) }

// SourceCheck returns what is asked of the address that a relayed packet comes from.
func (c *Config) SourceCheck() SourceCheck { return c.checkSource }

// TrustedInterfaces returns the interfaces on which option 82 without a relay is believed, by
// name or pattern; none is that it is believed nowhere or, without StatesTrust, everywhere.
func (c *Config) TrustedInterfaces() []string { return slices.Clone(c.trusted) }

// StatesTrust reports whether it is said where option 82 without a relay is believed; else it is everywhere.
func (c *Config) StatesTrust() bool { return c.trustStated }

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
