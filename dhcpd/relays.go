package dhcpd

import (
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
)

// Senders returns who brought clients' packets, relays and switches, with what is thought of each by
// the bindings and the configuration of now. It may be called from any goroutine.
func (s *Server) Senders() senders.Status {
	gen, snap, own := s.generation.Load(), s.deps.Snapshot(), s.ownAddress()
	return s.senders.Status(gen.config, func(r *v4.Request) {
		r.OwnFrom = own(r.P.From.Addr())
		v4.Judge(r, snap, gen.config)
	})
}

// ownAddress returns what tells this host's addresses; where nothing does, none is.
func (s *Server) ownAddress() func(netip.Addr) bool {
	if s.deps.Links == nil && s.socks.Load() == nil {
		return func(netip.Addr) bool { return false }
	}
	return s.holder()
}
