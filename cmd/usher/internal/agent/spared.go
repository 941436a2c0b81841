package agent

import (
	"net/netip"
	"net/url"
	"slices"
	"sync"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision/access"
)

// maxERP bounds the addresses of the ERP that are remembered.
const maxERP = 16

// erpAddresses are the newest at which the ERP was found by its name.
type erpAddresses struct {
	mu   sync.Mutex // guards list
	list []netip.Addr
}

// dialed is told each address.
func (e *erpAddresses) dialed(a netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.list); n > 0 && e.list[n-1] == a {
		return
	}
	e.list = append(slices.DeleteFunc(e.list, func(x netip.Addr) bool { return x == a }), a)
	if len(e.list) > maxERP {
		e.list = e.list[1:]
	}
}

// erpFoundAt remembers an address at which the ERP was found, but for those where customers
// live: with plain HTTP somebody who forges the answers for its name would be in no block list.
func (a *Agent) erpFoundAt(cfg *config.Config) func(netip.Addr) {
	homes := cfg.Prefixes()
	return func(at netip.Addr) {
		if !slices.ContainsFunc(homes, func(p netip.Prefix) bool { return p.Contains(at) }) {
			a.erpSeen.dialed(at)
		}
	}
}

// sorted returns them, with that of the URL if it has one.
func (e *erpAddresses) sorted(api string) []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := slices.Clone(e.list)
	if u, err := url.Parse(api); err == nil {
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return tidyAddrs(out)
}

// sourceOptions are those of the configuration with what is known of this host and of the ERP.
func (a *Agent) sourceOptions(cfg *config.Config) access.SourceOptions {
	o := sourceOptions(cfg)
	served := servedAt(cfg)
	o.Own = func() []netip.Addr { return tidyAddrs(append(a.ownAddresses(), served...)) }
	o.ERP = func() []netip.Addr { return a.erpSeen.sorted(cfg.ERP.Client.URL) }
	o.OnlyHeard = true
	return o
}

// ownAddresses returns the addresses of this host: of the view that is kept up to date,
// or asked of the kernel.
func (a *Agent) ownAddresses() []netip.Addr {
	if a.links == nil {
		return ownAddresses()
	}
	var out []netip.Addr
	for _, f := range a.links.View().All() {
		for _, p := range f.Addrs {
			out = append(out, p.Addr())
		}
	}
	return out
}

// servedAt are the addresses that clients know this server by. They may be on another
// host now.
func servedAt(cfg *config.Config) []netip.Addr {
	out := []netip.Addr{cfg.DHCP.ServerID, cfg.DHCP.AnswerWhileHolding}
	for _, s := range cfg.DHCP.Subnets {
		out = append(out, s.ServerID)
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return !a.IsValid() })
}

// nameServers are those that this host is told to ask.
func nameServers(cfg *config.Config) []netip.Addr {
	var out []netip.Addr
	for _, r := range cfg.ACL.Resolvers {
		out = append(out, r.Addr().Unmap())
	}
	return tidyAddrs(out)
}

// tidyAddrs sorts addresses and leaves out repeats and what is not IPv4.
func tidyAddrs(list []netip.Addr) []netip.Addr {
	list = slices.DeleteFunc(list, func(a netip.Addr) bool { return !a.Is4() })
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}
