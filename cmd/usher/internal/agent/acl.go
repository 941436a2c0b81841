package agent

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/vlanname"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/link"
)

// ACLPolicy returns what the rules follow from by the configuration alone.
func ACLPolicy(cfg *config.Config) ruleset.Policy {
	return ruleset.Policy{
		Portal: cfg.Portal.Listen, PortalBeforeGarden: cfg.Portal.BeforeGarden,
		SourceGuard: cfg.ACL.SourceGuard.On(), Alone: len(cfg.ACL.SourceGuard.VLAN) > 0,
	}
}

// HostPolicy returns what the rules of an agent on this host would follow from.
func HostPolicy(cfg *config.Config) ruleset.Policy {
	host, _ := link.Interfaces(link.WatchOptions{}) // what cannot be read is none
	in := access.NewSources(sourceOptions(cfg), nil, nil, host.Names).Inputs()
	return aclPolicy(cfg, &in, host)
}

// aclPolicy returns what the rules follow from where the host has these interfaces.
func aclPolicy(cfg *config.Config, in *access.Inputs, host *provision.Interfaces) ruleset.Policy {
	p := ACLPolicy(cfg)
	p.IPv6 = len(in.IPv6Direct)+len(in.IPv6VLAN) > 0
	var names, seen []string
	for _, name := range in.IPv6Direct {
		if f := host.ByName(name); f != nil {
			names, seen = append(names, name), append(seen, strconv.Itoa(f.Index))
		}
	}
	p.Egress, p.Seen = strings.Join(names, " "), strings.Join(seen, " ")
	return p
}

// policy returns what the rules follow from now.
func (a *Agent) policy() ruleset.Policy {
	in := a.sources.Inputs()
	return aclPolicy(a.cfg.Load(), &in, a.host())
}

// inputs returns what an ACL of the configuration follows from. Where IPv6 is blocked
// changes with the host: the rules follow.
func (a *Agent) inputs(cfg *config.Config) func() access.Inputs {
	return func() access.Inputs {
		in := a.sources.Inputs()
		if a.table != nil {
			a.table.Reconfigure(aclPolicy(cfg, &in, a.host()))
		}
		return in
	}
}

// sourceOptions returns what is configured of what the ACL follows from besides the snapshot.
func sourceOptions(cfg *config.Config) access.SourceOptions {
	o := access.SourceOptions{
		Exempt: cfg.ACL.Exempt.Customers, ExemptAddrs: cfg.ACL.Exempt.Addresses, GuestRanges: cfg.GuestRanges(), Resolvers: cfg.ResolverPrefixes(), DHCPServers: cfg.ACL.DHCPServers, Pools: len(cfg.DHCP.Pools) > 0,
		GuardDirect: cfg.ACL.SourceGuard.Direct, GuardVLAN: cfg.ACL.SourceGuard.VLAN,
	}
	o.Gateways, o.NameServers, o.Homes, o.Networks = cfg.Reserved(), nameServers(cfg), cfg.Prefixes(), cfg.ACL.Networks
	o.VLANOf = vlanOf(cfg)
	if o.Direct = cfg.DHCP.SubscriberInterfaces; cfg.ACL.BlocksIPv6() {
		o.ForwardsIPv6, o.Uplinks = lately(time.Second, link.ForwardsIPv6), func() ([]string, error) { return link.Uplinks(0) }
	}
	return o
}

// lately returns what asks f at most once in a while: here that looks at each interface, and each one that goes has it asked.
func lately(while time.Duration, f func() bool) func() bool {
	var (
		mu    sync.Mutex
		at    time.Time
		value bool
	)
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); at.IsZero() || now.Sub(at) >= while {
			value, at = f(), now
		}
		return value
	}
}

// vlanOf returns what reads the VLAN out of the name of an interface.
func vlanOf(cfg *config.Config) func(name string) (uint16, bool) {
	var templates []vlanname.Template
	for _, t := range cfg.DHCP.VLANInterfaces {
		if c, err := vlanname.Compile(t); err == nil { // the configuration has checked them
			templates = append(templates, c)
		}
	}
	return func(name string) (uint16, bool) {
		for _, t := range templates {
			if vlan, ok := t.Match(name); ok {
				return vlan, true
			}
		}
		return 0, false
	}
}

// aclDeps returns the way of the control API to the block lists; nil if there are none.
func (a *Agent) aclDeps(cfg *config.Config) *console.ACLDeps {
	if !cfg.ACL.Enabled {
		return nil
	}
	reader := acl.NewReader(acl.Options{})
	a.teardown.push("acl reader", reader.Close)
	kernel := acl.Inspector{Reader: reader, Policy: a.policy}
	if cfg.ACL.DryRun {
		kernel.Want = a.enforcer.Want
	} else {
		a.metrics.WatchPassed(kernel.Passed)
	}
	d := &console.ACLDeps{Wishes: a.enforcer, Kernel: kernel, Exempt: a.exempt, Links: a.enforcer, Tenants: a.enforcer}
	if a.table != nil {
		d.Maintenance = acl.NewMaintenance(a.table, a.log)
	}
	return d
}

// exempt implements console.ACLDeps.Exempt.
func (a *Agent) exempt(id provision.SubscriberID, addr netip.Addr) string {
	e := a.cfg.Load().ACL.Exempt
	switch {
	case id != 0 && slices.Contains(e.Customers, id):
		return "acl.exempt.customers"
	case slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return "acl.exempt.addresses"
	default:
		return ""
	}
}
