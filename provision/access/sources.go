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
	GuestRanges []AddrRange
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
	// used are the leases in what was last wanted: whoever has another one by
	// now asks for a round. Nil: not asked for yet.
	used atomic.Pointer[map[netip.Addr]claim]
}

// claim is what a lease gives its client in the ACL.
type claim struct {
	mac        provision.MAC
	iface      string // empty: the client is behind a relay, the guard does not see it
	subscriber provision.SubscriberID
	pool       bool
}

// NewSources makes Sources. gardens may be nil.
func NewSources(opts SourceOptions, leases Leases, gardens Gardens, interfaces func() []string) *Sources {
	s := &Sources{leases: leases, gardens: gardens, interfaces: interfaces}
	s.opts.Store(&opts)
	return s
}

// Reconfigure takes new options, which the next Inputs follow.
func (s *Sources) Reconfigure(opts SourceOptions) { s.opts.Store(&opts) }

// Inputs returns what holds now; it is the function of an Enforcer's Options.
func (s *Sources) Inputs() Inputs {
	o := s.opts.Load()
	in := Inputs{Exempt: o.Exempt, ExemptAddrs: o.ExemptAddrs, Resolvers: o.Resolvers, GuestRanges: o.GuestRanges}
	if s.gardens != nil {
		in.Garden, in.GuestGarden = s.gardens.Paused(), s.gardens.Guests()
	}
	s.addInterfaces(o, &in)
	s.addLeases(o, &in, time.Now())
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
func (s *Sources) addLeases(o *SourceOptions, in *Inputs, now time.Time) {
	if !o.Pools && !o.guards() {
		return // and so the leases, which may be many, are not read
	}
	used := map[netip.Addr]claim{}
	for rec := range s.leases.All() {
		c, ok := o.claimOf(&rec, now)
		if !ok {
			continue
		}
		used[rec.IP] = c
		if c.pool && c.subscriber != 0 {
			in.Leases = append(in.Leases, SubscriberAddr{Subscriber: c.subscriber, IP: rec.IP})
		}
		switch {
		case c.iface == "":
		case slices.Contains(in.GuardDirect, c.iface):
			in.BoundDirect = append(in.BoundDirect, DirectBinding{IP: rec.IP, MAC: c.mac})
		default: // Want takes those of guarded interfaces
			in.BoundVLAN = append(in.BoundVLAN, VLANBinding{Interface: c.iface, IP: rec.IP})
		}
	}
	s.used.Store(&used)
}

// claimOf returns what a lease gives its client; ok is false, and the claim
// zero, if nothing.
func (o *SourceOptions) claimOf(rec *lease.Record, now time.Time) (c claim, ok bool) {
	if !rec.Live(now) {
		return claim{}, false
	}
	c = claim{mac: rec.MAC, subscriber: rec.Subscriber, pool: rec.Pool != ""}
	if o.guards() && !rec.GIAddr.IsValid() {
		c.iface = rec.Interface
	}
	if !c.pool && c.iface == "" {
		return claim{}, false
	}
	return c, true
}

// changed reports whether the lease of an address gives other rights than those in
// what was last wanted.
func (s *Sources) changed(ip netip.Addr, now time.Time) bool {
	used := s.used.Load()
	if used == nil {
		return false // leases do not matter here, or the first round is to come
	}
	var c claim
	if rec, ok := s.leases.Get(ip); ok {
		c, _ = s.opts.Load().claimOf(&rec, now)
	}
	return (*used)[ip] != c
}
