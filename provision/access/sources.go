package access

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
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
	// ByMAC returns those of a client.
	ByMAC(mac provision.MAC) []lease.Record
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

	// ForwardsIPv6 reports whether this host forwards IPv6 now, so that it is to be blocked
	// of the blocked; nil: it is ignored.
	ForwardsIPv6 func() bool
	// Uplinks returns the interfaces that default routes lead to now; nil: none is known. A name that fits
	// VLANOf or GuardVLAN does not make one of them a subscriber's, nor one that was among them within uplinkMemory. After an
	// error those known before count.
	Uplinks func() ([]string, error)
	// OnlyHeard has MACs of leases count for IPv6 once Follower.Heard was told of them, and not before.
	OnlyHeard bool
	// Direct means the interfaces that subscribers are linked to, as GuardDirect does,
	// which belong to them.
	Direct provision.Patterns
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

	heard heard // by SourceOptions.OnlyHeard it matters

	mu      sync.Mutex
	uplinks map[string]time.Time // when a default route led there last, guarded by mu

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
	s.addIPv6(o, &in)
	if o.Pools || o.guards() || in.ipv6() { // else nobody reads the leases, which may be many
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

// addIPv6 adds where IPv6 is blocked: what the source guard is told of interfaces, or would be.
func (s *Sources) addIPv6(o *SourceOptions, in *Inputs) {
	if o.ForwardsIPv6 == nil {
		return
	}
	if !o.ForwardsIPv6() {
		in.IPv6 = IPv6NotForwarded
		return
	}
	in.IPv6 = IPv6Blocked
	exist := s.interfaces()
	in.IPv6Direct = o.GuardDirect.Among(exist)
	in.IPv6VLAN = o.GuardVLAN.Among(exist)
	for _, name := range exist {
		if o.VLANOf == nil {
			break
		}
		if _, ok := o.VLANOf(name); ok {
			in.IPv6VLAN = append(in.IPv6VLAN, name)
		}
	}
	// By MAC where the guard does so, else by the interface if it is that of a VLAN.
	in.IPv6VLAN = without(in.IPv6VLAN, in.IPv6Direct)
	in.IPv6Direct = append(in.IPv6Direct, without(o.Direct.Among(exist), slices.Concat(in.IPv6VLAN, in.IPv6Direct))...)
	slices.Sort(in.IPv6Direct)
	slices.Sort(in.IPv6VLAN)
	in.IPv6VLAN = slices.Compact(in.IPv6VLAN)
	s.takeOutUplinks(o, in)
	at, up := vlanInterfaces(o.VLANOf, in.IPv6VLAN), vlanInterfaces(o.VLANOf, in.IPv6Uplinks)
	in.LineAt = func(l *provision.Line) string { return cmp.Or(at[l.VLAN], up[l.VLAN]) }
}

// uplinkMemory is how long an interface stays an uplink after its default route went: a routing daemon that is started
// again takes the route away for a while, and that it is back nobody tells.
const uplinkMemory = time.Minute

// takeOutUplinks leaves interfaces open behind which everybody is, whatever VLAN the ERP has of one customer.
func (s *Sources) takeOutUplinks(o *SourceOptions, in *Inputs) {
	if o.Uplinks == nil || len(in.IPv6VLAN) == 0 {
		return
	}
	up, err := o.Uplinks()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uplinks == nil {
		s.uplinks = map[string]time.Time{}
	}
	now := time.Now()
	for name, at := range s.uplinks {
		switch {
		case err != nil: // not known: it may lead there still
			s.uplinks[name] = now
		case now.Sub(at) > uplinkMemory:
			delete(s.uplinks, name)
		}
	}
	for _, name := range up {
		s.uplinks[name] = now
	}
	for _, name := range in.IPv6VLAN {
		if _, ok := s.uplinks[name]; ok {
			in.IPv6Uplinks = append(in.IPv6Uplinks, name)
		}
	}
	in.IPv6VLAN = without(in.IPv6VLAN, in.IPv6Uplinks)
}

// without returns the names that are not among others.
func without(names, others []string) []string {
	left := slices.DeleteFunc(names, func(name string) bool { return slices.Contains(others, name) })
	if len(left) == 0 {
		return nil
	}
	return left
}

func (in *Inputs) ipv6() bool { return len(in.IPv6Direct)+len(in.IPv6VLAN) > 0 }

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

// addLeases adds what live leases give their clients: an address without a binding shares its
// subscriber's state, and what a client was told it may use where it was told.
func (s *Sources) addLeases(o *SourceOptions, in *Inputs) {
	g := granting{places: o.guards() || in.ipv6(), direct: make(map[string]bool, len(in.GuardDirect)), wires: make(map[string]bool, len(in.IPv6Direct))}
	for _, name := range in.IPv6Direct {
		g.wires[name] = true
	}
	for _, name := range in.GuardDirect {
		g.direct[name] = true
	}
	if o.OnlyHeard {
		g.heard, in.heard = &s.heard, &s.heard
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
			g.heard.forget(ip)
			return Grant{}, false
		}
		return g.of(&rec, time.Now())
	}
	if in.ipv6() {
		in.LeasesOf = func(mac provision.MAC) (out []Grant) {
			now, records := time.Now(), s.leases.ByMAC(mac)
			for i := range records {
				if grant, ok := g.of(&records[i], now); ok {
					out = append(out, grant)
				}
			}
			return out
		}
	}
}

// granting is what must be known to read a record.
type granting struct {
	places bool            // it matters where a client is
	direct map[string]bool // interfaces guarded by MAC
	wires  map[string]bool // interfaces where IPv6 is blocked by MAC
	heard  *heard          // nil: the MAC of a lease counts as it was written
}

// of returns what a lease gives its client; ok is false, and the grant zero, if nothing.
func (g *granting) of(rec *lease.Record, now time.Time) (grant Grant, ok bool) {
	if !rec.Live(now) {
		g.heard.forget(rec.IP)
		return Grant{}, false
	}
	grant = Grant{IP: rec.IP, MAC: rec.MAC, Renewed: rec.Renewed, Until: rec.Expires}
	if rec.Pool != "" {
		grant.Subscriber = rec.Subscriber
	} else {
		grant.BoundTo = rec.Subscriber
	}
	if g.places && !rec.GIAddr.IsValid() {
		grant.Interface, grant.Direct, grant.Wire = rec.Interface, g.direct[rec.Interface], g.wires[rec.Interface]
		if grant.Wire && g.heard != nil && !g.heard.has(rec.IP, rec.MAC, rec.Interface) {
			grant.Wire, grant.Unheard = false, true
		}
	}
	if grant.holder() == 0 && grant.Interface == "" {
		return Grant{}, false
	}
	return grant, true
}
