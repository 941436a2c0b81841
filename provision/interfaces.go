package provision

import (
	"cmp"
	"net/netip"
	"slices"
)

// Interface is a network interface of this host. It is never changed after it
// became part of Interfaces.
type Interface struct {
	Index    int // as the kernel counts; not used again while the host runs, as a rule
	Name     string
	Kind     string // vlan, bridge, veth, macvlan, ...; "device" for hardware
	MAC      MAC    // zero: none
	Parent   int    // index of the interface below a VLAN or macvlan; 0: none, or in another namespace
	VLAN     uint16 // 802.1Q tag of an interface of kind vlan; 0: none
	Up       bool   // set up by the administrator; its cable may still be out
	Loopback bool
	Addrs    []netip.Prefix // IPv4, as the kernel orders them: the primary ones first
	AltNames []string       // other names that ip(8) takes for it; nothing in usher is found by them
}

// Addr returns the first address; invalid if there is none.
func (f *Interface) Addr() netip.Addr {
	if len(f.Addrs) == 0 {
		return netip.Addr{}
	}
	return f.Addrs[0].Addr()
}

// AddrIn returns the first address that lies in p; invalid if there is none.
func (f *Interface) AddrIn(p netip.Prefix) netip.Addr {
	for _, a := range f.Addrs {
		if p.Contains(a.Addr()) {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

func (f *Interface) equal(g *Interface) bool {
	return f.Index == g.Index && f.Name == g.Name && f.Kind == g.Kind && f.MAC == g.MAC && f.Parent == g.Parent &&
		f.VLAN == g.VLAN && f.Up == g.Up && f.Loopback == g.Loopback && slices.Equal(f.Addrs, g.Addrs) && slices.Equal(f.AltNames, g.AltNames)
}

// Interfaces is what this host had at one moment. It is immutable; a nil one is empty.
type Interfaces struct {
	list  []*Interface // by index
	at    map[int]*Interface
	holds map[netip.Addr]struct{}
}

// NewInterfaces makes a view of list, which it sorts and keeps. Interfaces that
// are as they were in old, which may be nil, are the same pointers in both, so
// that who keeps something about an interface sees at once whether it still holds.
func NewInterfaces(list []Interface, old *Interfaces) *Interfaces {
	slices.SortFunc(list, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	v := &Interfaces{
		list: make([]*Interface, 0, len(list)), at: make(map[int]*Interface, len(list)), holds: make(map[netip.Addr]struct{}, len(list)),
	}
	for i := range list {
		f := &list[i]
		if was := old.ByIndex(f.Index); was != nil && was.equal(f) {
			f = was
		} else {
			alone := *f // list as a whole does not stay because of one of it
			f = &alone
		}
		v.list = append(v.list, f)
		v.at[f.Index] = f
		for _, a := range f.Addrs {
			v.holds[a.Addr()] = struct{}{}
		}
	}
	return v
}

// ByIndex returns the interface with an index, or nil.
func (v *Interfaces) ByIndex(index int) *Interface {
	if v == nil {
		return nil
	}
	return v.at[index]
}

// ByName returns the interface with a name, or nil.
func (v *Interfaces) ByName(name string) *Interface {
	for _, f := range v.All() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Holds reports whether a is an IPv4 address of this host.
func (v *Interfaces) Holds(a netip.Addr) bool {
	if v == nil {
		return false
	}
	_, ok := v.holds[a]
	return ok
}

// All returns every interface, by index. The slice is the view's own.
func (v *Interfaces) All() []*Interface {
	if v == nil {
		return nil
	}
	return v.list
}

// Names returns the name of every interface, by index.
func (v *Interfaces) Names() []string {
	out := make([]string, 0, v.Len())
	for _, f := range v.All() {
		out = append(out, f.Name)
	}
	return out
}

// AltNames returns the interface's name by each other name.
func (v *Interfaces) AltNames() map[string]string {
	out := map[string]string{}
	for _, f := range v.All() {
		for _, other := range f.AltNames {
			out[other] = f.Name
		}
	}
	return out
}

// Len is the number of interfaces.
func (v *Interfaces) Len() int { return len(v.All()) }
