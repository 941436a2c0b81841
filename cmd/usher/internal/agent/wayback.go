package agent

import (
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/wayback"
)

// openWaysBack makes what looks for relays whose packets the kernel drops. Without it everything else works.
func (a *Agent) openWaysBack() {
	if a.links == nil {
		return
	}
	k, err := link.OpenWays(0)
	if err != nil {
		a.log.Warn("ways back to relays cannot be looked up", "error", err)
		return
	}
	a.teardown.push("ways back", k.Close)
	a.waysBack = wayback.New(k, a.relaysToReach, a.relayInterfaces, a.log)
}

// relaysToReach are the relays that are believed: those heard, by the address that they send from, where they
// were heard last, and single addresses of dhcp.relays that were not heard.
func (a *Agent) relaysToReach() []wayback.Relay {
	var listed []netip.Addr
	for _, p := range a.cfg.Load().DHCP.Relays {
		if p.IsSingleIP() {
			listed = append(listed, p.Addr())
		}
	}
	var heard []wayback.Heard
	for _, r := range a.dhcp.Senders().Relays {
		if r.State == senders.Relay || r.State == senders.UnlistedSource || r.State == senders.AnyRelay {
			heard = append(heard, wayback.Heard{Relay: wayback.Relay{Source: r.Source, On: r.Interface}, Names: r.GIAddr, At: r.LastSeen})
		}
	}
	return slices.DeleteFunc(wayback.Relays(listed, heard), func(r wayback.Relay) bool { return a.links.View().Holds(r.Source) })
}

// relayInterfaces are those on which relays are answered.
func (a *Agent) relayInterfaces() []wayback.Interface {
	patterns := provision.Patterns(a.cfg.Load().DHCP.Interfaces)
	var out []wayback.Interface
	for _, f := range a.links.View().All() {
		if f.Up && !f.Loopback && (len(patterns) == 0 || patterns.Match(f.Name)) {
			out = append(out, wayback.Interface{Name: f.Name, Numbered: len(f.Addrs) > 0})
		}
	}
	return out
}
