package access

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Leases is the lease table.
type Leases interface {
	// Get returns what is recorded for an address, live or not.
	Get(ip netip.Addr) (lease.Record, bool)
	// All returns every record, in no order.
	All() iter.Seq[lease.Record]
	// Touched begins to tell of addresses whose records change.
	Touched() *lease.Touched
}

// Gardens are what may be reached in spite of a block, as it is now.
type Gardens interface {
	Paused() []netip.Prefix
	Guests() []netip.Prefix
}

// SourceOptions are what is configured of the Inputs.
type SourceOptions struct {
	Exempt      []provision.SubscriberID
	ExemptAddrs []netip.Prefix
	Resolvers   []netip.Prefix
	DHCPServers []netip.Prefix // beyond this router
	GuestRanges []AddrRange

	// Own and ERP return the addresses of this router and of the ERP as they are
	// now, sorted; nil: not known. The others are of Inputs.
	Own, ERP    func() []netip.Addr
	Gateways    []netip.Addr
	NameServers []netip.Addr
	Homes       []netip.Prefix
	Networks    []netip.Prefix

	// Pools says that addresses are given from pools: their leases share the state of
	// their subscribers.
	Pools bool
	// GuardDirect and GuardVLAN mean the interfaces of the source guard.
	GuardDirect provision.Patterns
	GuardVLAN   provision.Patterns
	// VLANOf reads the VLAN out of the name of an interface; nil: names tell nothing.
	VLANOf func(name string) (vlan uint16, ok bool)
}

// guards reports whether the source guard is on.
func (o *SourceOptions) guards() bool { return len(o.GuardDirect)+len(o.GuardVLAN) > 0 }

// Sources gather what an ACL follows from besides the snapshot: the
// configuration, the leases, the interfaces of this host and the gardens. The
// methods are safe for concurrent use.
type Sources struct {
	leases     Leases
	gardens    Gardens         // nil: nobody has one
	interfaces func() []string // names of those that exist

	opts atomic.Pointer[SourceOptions]
}

// NewSources makes Sources. gardens may be nil.
func NewSources(opts SourceOptions, leases Leases, gardens Gardens, interfaces func() []string) *Sources {
	s := &Sources{leases: leases, gardens: gardens, interfaces: interfaces}
	s.opts.Store(&opts)
	return s
}

// Reconfigure takes new options, which the next Inputs follow.
func (s *Sources) Reconfigure(opts SourceOptions) { s.opts.Store(&opts) }

// Inputs returns what holds now; it is the function of an Enforcer's Options. No
// lease is read before somebody asks the Inputs for them.
func (s *Sources) Inputs() Inputs {
	o := s.opts.Load()
	in := Inputs{Exempt: o.Exempt, ExemptAddrs: o.ExemptAddrs, Resolvers: o.Resolvers, DHCPServers: o.DHCPServers, GuestRanges: o.GuestRanges,
		Gateways: o.Gateways, NameServers: o.NameServers, Homes: o.Homes, Networks: o.Networks}
	if o.Own != nil {
		in.Own = o.Own()
	}
	if o.ERP != nil {
		in.ERP = o.ERP()
	}
	if s.gardens != nil {
		in.Garden, in.GuestGarden = s.gardens.Paused(), s.gardens.Guests()
	}
	s.addInterfaces(o, &in)
	if o.Pools || o.guards() { // else nobody reads the leases, which may be many
		s.addLeases(o, &in)
	}
	return in
}

// addInterfaces adds the guarded interfaces, and where bindings with a VLAN live.
func (s *Sources) addInterfaces(o *SourceOptions, in *Inputs) {
	if !o.guards() {
		return
	}
	exist := s.interfaces()
	// A plain name is guarded before the interface exists: there is no moment in which it is up and open.
	in.GuardDirect, in.GuardVLAN = o.GuardDirect.Among(exist), o.GuardVLAN.Among(exist)
	// Named in both ways by two patterns: guarded by address and MAC, the stricter one.
	in.GuardVLAN = slices.DeleteFunc(in.GuardVLAN, func(name string) bool { return slices.Contains(in.GuardDirect, name) })
	at := vlanInterfaces(o.VLANOf, in.GuardVLAN)
	in.InterfaceOf = func(l *provision.Line) string { return at[l.VLAN] }
}

// vlanInterfaces tells which guarded interface is that of a VLAN. A VLAN with
// several interfaces (the same inner one in two outer ones) has none: only leases tell then.
func vlanInterfaces(vlanOf func(string) (uint16, bool), guarded []string) map[uint16]string {
	at, several := map[uint16]string{}, map[uint16]bool{}
	if vlanOf == nil {
		return at
	}
	for _, name := range guarded {
		vlan, ok := vlanOf(name)
		if !ok {
			continue
		}
		if _, known := at[vlan]; known {
			several[vlan] = true
		}
		at[vlan] = name
	}
	maps.DeleteFunc(at, func(vlan uint16, _ string) bool { return vlan == 0 || several[vlan] })
	return at
}

// addLeases adds what live leases give their clients: a pool's address shares its
// subscriber's state, and what a client was told it may use where it was told.
func (s *Sources) addLeases(o *SourceOptions, in *Inputs) {
	g := granting{guards: o.guards(), direct: make(map[string]bool, len(in.GuardDirect))}
	for _, name := range in.GuardDirect {
		g.direct[name] = true
	}
	in.Leases = func(yield func(Grant) bool) {
		now := time.Now()
		for rec := range s.leases.All() {
			if grant, ok := g.of(&rec, now); ok && !yield(grant) {
				return
			}
		}
	}
	in.Lease = func(ip netip.Addr) (Grant, bool) {
		rec, ok := s.leases.Get(ip)
		if !ok {
			return Grant{}, false
		}
		return g.of(&rec, time.Now())
	}
}

// granting is what must be known to read a record.
type granting struct {
	guards bool
	direct map[string]bool // interfaces guarded by MAC
}

// of returns what a lease gives its client; ok is false, and the grant zero, if nothing.
func (g *granting) of(rec *lease.Record, now time.Time) (grant Grant, ok bool) {
	if !rec.Live(now) {
		return Grant{}, false
	}
	grant = Grant{IP: rec.IP, MAC: rec.MAC, Until: rec.Expires}
	if rec.Pool != "" {
		grant.Subscriber = rec.Subscriber
	}
	if g.guards && !rec.GIAddr.IsValid() {
		grant.Interface, grant.Direct = rec.Interface, g.direct[rec.Interface]
	}
	if grant.Subscriber == 0 && grant.Interface == "" {
		return Grant{}, false
	}
	return grant, true
}
