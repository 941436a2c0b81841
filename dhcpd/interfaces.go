package dhcpd

import (
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// Links follows the interfaces of this host. View returns the newest view; it is
// called for each packet and must be quick.
type Links interface {
	View() *provision.Interfaces
}

// interfaceTTL is how long is believed what was asked by ioctl: without Links,
// and about an interface that Links does not know yet.
const interfaceTTL = 5 * time.Second

// maxInterfaces bounds what is kept of interfaces that are gone.
const maxInterfaces = 1 << 14

// iface is an interface and what the settings say about it.
type iface struct {
	of      *provision.Interface // never nil; one that is gone has no name
	set     *settings            // that what follows was worked out for
	served  bool
	ingress line.Ingress
	routed  bool        // leases on it get host routes
	nets    v4.Networks // that clients on it may be in
	expires time.Time   // of what was asked by ioctl
}

// interfaces tells about the interface of each packet. The patterns of the
// settings are compared when either changes, not per packet. It belongs to one goroutine.
type interfaces struct {
	s     *socket.Sockets
	links Links // nil: ioctl only
	known map[int]*iface
	own   map[netip.Addr]struct{} // addresses of this host, by ioctl
	ownAt time.Time
}

func newInterfaces(s *socket.Sockets, links Links) *interfaces {
	return &interfaces{s: s, links: links, known: map[int]*iface{}}
}

// get returns the interface with an index.
func (c *interfaces) get(index int, now time.Time, set *settings) *iface {
	f := c.known[index]
	var of *provision.Interface
	if c.links != nil {
		of = c.links.View().ByIndex(index)
	}
	if of == nil { // new to the watch, or there is none
		if f != nil && now.Before(f.expires) {
			of = f.of
		} else {
			of = c.s.Interface(index)
		}
	}
	if f != nil && f.of == of && f.set == set {
		return f
	}
	if f == nil && len(c.known) >= maxInterfaces {
		clear(c.known)
	}
	next := &iface{of: of, set: set, served: set.serves(of.Name, of.Loopback), ingress: set.config.Line().Ingress(of.Name), routed: set.routesHosts(of.Name), expires: now.Add(interfaceTTL)}
	next.nets = set.config.NetworksOf(of, next.routed)
	if f != nil && f.of == of {
		next.expires = f.expires
	}
	c.known[index] = next
	return next
}

// holds reports whether a is an address of this host.
func (c *interfaces) holds(a netip.Addr, now time.Time) bool {
	switch {
	case !a.IsValid():
		return false
	case c.links != nil:
		return c.links.View().Holds(a)
	}
	if c.own == nil || now.Sub(c.ownAt) > interfaceTTL {
		c.own, c.ownAt = c.s.Addresses(), now
	}
	_, ok := c.own[a]
	return ok
}

// statusInterfaces is how many interfaces a SocketStatus names.
const statusInterfaces = 50

// SocketStatus is what the receiving side sees of its host.
type SocketStatus struct {
	// Interfaces that exist and that are answered on; zero without Links.
	Interfaces int      `json:"interfaces"`
	Served     int      `json:"served"`
	Names      []string `json:"names"` // of those served, sorted; at most 50
	// ReceiveDrops counts packets that the kernel threw away because the receive
	// queue was full, or their checksum was wrong.
	ReceiveDrops uint64 `json:"receive_drops"`
	// Standby is true while AnswerWhileHolding is set and not an address of this host.
	Standby            bool       `json:"standby"`
	AnswerWhileHolding netip.Addr `json:"answer_while_holding,omitzero"`
	// ForeignServerIDs are configured server identifiers that are no address of
	// this host: clients that renew would ask somebody else.
	ForeignServerIDs []netip.Addr `json:"foreign_server_ids,omitempty"`
}

// Sockets tells about interfaces and sockets now. It may be called from any goroutine.
func (s *Server) Sockets() SocketStatus {
	set := s.generation.Load().settings
	st := SocketStatus{Names: []string{}, AnswerWhileHolding: set.holding, Standby: s.standby(set), ReceiveDrops: s.drops()}
	if s.deps.Links != nil {
		view := s.deps.Links.View()
		st.Interfaces = view.Len()
		for _, f := range view.All() {
			if set.serves(f.Name, f.Loopback) {
				st.Names = append(st.Names, f.Name)
			}
		}
	}
	st.Served = len(st.Names)
	slices.Sort(st.Names)
	st.Names = st.Names[:min(len(st.Names), statusInterfaces)]
	holds := s.holder()
	for _, id := range set.config.ServerIDs() {
		if !holds(id) {
			st.ForeignServerIDs = append(st.ForeignServerIDs, id)
		}
	}
	return st
}

// holder returns what tells this host's addresses; before Listen, without Links,
// every address counts as ours.
func (s *Server) holder() func(netip.Addr) bool {
	switch socks := s.socks.Load(); {
	case s.deps.Links != nil:
		return s.deps.Links.View().Holds
	case socks != nil:
		own := socks.Addresses()
		return func(a netip.Addr) bool { _, ok := own[a]; return ok }
	}
	return func(netip.Addr) bool { return true }
}

// standby reports whether another host is to answer now.
func (s *Server) standby(set *settings) bool {
	return set.holding.IsValid() && !s.holder()(set.holding)
}

// linkNamed returns an interface by name; nil: not known.
func (s *Server) linkNamed(name string) *provision.Interface {
	if s.deps.Links == nil || name == "" {
		return nil
	}
	return s.deps.Links.View().ByName(name)
}

// drops adds up what the kernel counts in 32 bits.
func (s *Server) drops() uint64 {
	s.dropsMu.Lock()
	defer s.dropsMu.Unlock()
	if socks := s.socks.Load(); socks != nil {
		if n, ok := socks.Dropped(); ok {
			s.dropsSum += uint64(n - s.dropsSeen) // wraps as the kernel's number does
			s.dropsSeen = n
		}
	}
	return s.dropsSum
}
