// Package config reads the agent's YAML file into a validated Config. Every
// mistake is reported at once, as file:line:column: key: reason.
package config

import (
	"net/netip"

	"github.com/usher-agent/usher/config/ifname"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// Secret is a string that no log, error or page ever shows.
type Secret string

// String hides the value.
func (Secret) String() string { return "[redacted]" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText hides the value from every encoder.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Reveal returns the value to the one place that must send it.
func (s Secret) Reveal() string { return string(s) }

// Config is the whole validated configuration: the parts' own options, with all
// defaults filled in, and what is nobody else's.
type Config struct {
	// Where the last good snapshot, the leases and the MAC reports not yet sent are
	// kept. Not changed by a reload.
	StateDir string `cfg:"state_dir" read:"path" default:"/var/lib/usher" restart:"true"`

	// The ERP.
	ERP ERP `cfg:"userside"`

	// What the states and flags of the ERP mean: allow, pause or stop. Of a
	// customer's state and flags the strictest counts, and a flag that could not be
	// read counts for nothing. "usher explain" shows the result.
	Policy provision.Policy `cfg:"policy"`

	// Where the ERP can say at once that a customer changed, see docs/erp-hooks.md:
	// POST /hooks/customer, signed. Polling goes on all the same.
	Hooks Hooks `cfg:"hooks"`

	// The guard holds back who would be changed when in one fetch, or within an hour, more
	// than these shares of all subscribers would be, each kind of change by itself, until
	// `usher guard accept`; the rest of the fetch is used. A fetch without a single row is always held.
	Guard syncer.GuardLimits `cfg:"guard"`

	// The DHCP server.
	DHCP DHCP `cfg:"dhcp"`

	// Stopped and paused subscribers in the kernel: table "inet usher" of nftables.
	ACL ACL `cfg:"acl"`

	// The page that paused subscribers and guests see in place of the site that they
	// asked for by plain HTTP, see docs/portal.md.
	Portal portal.Options `cfg:"portal"`

	// A /32 route in the kernel for every live lease on unnumbered interfaces, see
	// docs/routes.md.
	Routes Routes `cfg:"routes"`

	// Subscribers with static settings: the kernel's neighbour table tells their MACs,
	// which are reported to the ERP like those of DHCP clients, see docs/routes.md.
	Neighbours Neighbours `cfg:"neighbours"`

	// MACs that were seen, reported to the ERP with set_mac_by_ip.
	Reports outbox.Options `cfg:"reports"`

	// The local socket of usher status, explain, guard and customer.
	Control Control `cfg:"control" restart:"true"`

	// Metrics (/metrics), health (/healthz, /readyz) and the overview page.
	Console Console `cfg:"console"`

	Log Log `cfg:"log" restart:"true"`

	// Warnings is what works but should be known, such as a certificate that
	// is not verified. It never holds a secret.
	Warnings []keys.Problem

	// Interfaces are all names and patterns of interfaces in the file, in its order.
	Interfaces []ifname.Name

	// RelayPlaces are the elements of dhcp.relays, where dhcp is enabled.
	RelayPlaces []RelayPlace
}

// ERP is how the UserSide API is reached, how often it is asked and for what.
type ERP struct {
	Client    userside.Options `cfg:",inline"`
	keySource `cfg:",inline" after:"url"`
	Sync      syncer.Options `cfg:",inline" after:"quick_timeout"`
	Fetch     erp.Options    `cfg:",inline" after:"max_concurrent"`
}

// DHCP is the server.
type DHCP struct {
	// false: addresses are served by somebody else, only ACLs are kept.
	Enabled bool `cfg:"enabled" default:"true" restart:"true"`

	dhcpd.Options `cfg:",inline"`
}

// Control is the unix socket of usher status, explain, guard and customer.
type Control struct {
	Socket string `cfg:"socket" read:"path" default:"/run/usher/usher.sock"`

	// Group whose members may use it (the socket's mode is 0660). Empty: the group
	// of the agent.
	Group string `cfg:"group" default:""`
}

// Console is the HTTP listener for metrics, health and pages.
type Console struct {
	// An address with a port, or off. There is no login: keep it on loopback, name in
	// allow who may, or let a firewall decide.
	Listen netip.AddrPort `cfg:"listen" read:"listen_or_off" default:"127.0.0.1:9467" restart:"true"` // invalid: off

	// Prefixes or addresses of those who may connect. Empty: whoever reaches it.
	Allow []netip.Prefix `cfg:"allow" read:"network"`

	// Names by which it is asked for, such as router1.example.net, besides localhost
	// and the address that it was reached at; a request for another name gets 421. It
	// keeps pages in somebody's browser from reading what is here (DNS rebinding).
	Hosts []string `cfg:"hosts" read:"host"`
}

// Log is what is logged and how.
type Log struct {
	// debug (every packet), info, warn or error.
	Level string `cfg:"level" oneof:"debug info warn error" default:"info"`

	// text, json, or auto: text on a terminal, JSON otherwise.
	Format string `cfg:"format" oneof:"auto text json" default:"auto"`
}

// Prefixes returns the served subnets, as provision.Input wants them.
func (c *Config) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(c.DHCP.Subnets))
	for _, s := range c.DHCP.Subnets {
		out = append(out, s.Prefix)
	}
	return out
}

// Reserved returns the addresses that no subscriber may hold.
func (c *Config) Reserved() []netip.Addr {
	var out []netip.Addr
	for _, s := range c.DHCP.Subnets {
		if s.Gateway.IsValid() {
			out = append(out, s.Gateway)
		}
	}
	return out
}
