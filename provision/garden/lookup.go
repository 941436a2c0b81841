package garden

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
)

// SystemLookup asks as every program of this host does: /etc/hosts and the
// servers of /etc/resolv.conf.
func SystemLookup() Lookup { return lookupWith(&net.Resolver{}) }

// ServerLookup asks the given servers, by turns, and not those of the host.
func ServerLookup(servers []netip.AddrPort) Lookup {
	if len(servers) == 0 {
		return SystemLookup()
	}
	var turn atomic.Uint32
	return lookupWith(&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		server := servers[int(turn.Add(1)-1)%len(servers)]
		return (&net.Dialer{}).DialContext(ctx, network, server.String())
	}})
}

func lookupWith(r *net.Resolver) Lookup {
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		// The final dot keeps the search list of resolv.conf out.
		return r.LookupNetIP(ctx, "ip4", name+".")
	}
}
