package access

import (
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// The ERP knows no IPv6 address. What blocks IPv6 of a subscriber is his MAC where
// he is on a wire of ours, and the interface where nobody else is behind it. Both
// may be shared with somebody who is not blocked: then they are no use.

// IPv6Mode says whether IPv6 of the blocked is blocked.
type IPv6Mode uint8

// The modes.
const (
	IPv6Ignored      IPv6Mode = iota
	IPv6NotForwarded          // the host forwards none
	IPv6Blocked               // as far as MACs and interfaces tell whose it is
)

// String returns ignored, not_forwarded or blocked.
func (m IPv6Mode) String() string {
	return [...]string{"ignored", "not_forwarded", "blocked"}[min(m, IPv6Blocked)]
}

// MarshalText is String.
func (m IPv6Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the reverse. What a later version says is taken for ignored.
func (m *IPv6Mode) UnmarshalText(b []byte) error {
	*m = IPv6Ignored
	for _, known := range []IPv6Mode{IPv6NotForwarded, IPv6Blocked} {
		if known.String() == string(b) {
			*m = known
		}
	}
	return nil
}

// IPv6Status tells what of IPv6 of the blocked is blocked.
type IPv6Status struct {
	Mode       IPv6Mode    `json:"mode"`
	Direct     []string    `json:"direct"`            // interfaces where it is by MAC
	Interfaces int         `json:"interfaces"`        // those where it is by the interface, if only blocked ones are behind it
	Uplinks    []string    `json:"uplinks,omitempty"` // interfaces that are never blocked, for default routes lead there
	Trouble    string      `json:"trouble,omitempty"` // why what goes to MACs passes
	Shared     SharedMACs  `json:"shared"`            // MACs that are not blocked, for others have them too
	Unheard    UnheardMACs `json:"unheard"`           // MACs of leases that are not blocked, for nothing came from them yet
}

// occupants are those who share a MAC or an interface, by what became of them.
type occupants struct {
	stopped, paused, open bool
	blockedID, openID     provision.SubscriberID // one of each; zero: none, or nobody's customer
}

// add adds one with the set that blocks an address of his; zero: none does.
func (o *occupants) add(block Set, id provision.SubscriberID) {
	switch block {
	case SetStopped:
		o.stopped, o.blockedID = true, id
	case SetPaused, SetGuests:
		o.paused, o.blockedID = true, id
	default:
		o.open, o.openID = true, id
	}
}

// mixed reports whether some of them are blocked and some not.
func (o *occupants) mixed() bool { return o.open && (o.stopped || o.paused) }

// block returns the set that what they share belongs to; zero: it must stay open.
func (o *occupants) block(stopped, paused Set) Set {
	switch {
	case o.open:
		return 0
	case o.paused: // the milder one, if it is shared: it is told at once
		return paused
	case o.stopped:
		return stopped
	default:
		return 0
	}
}

// ipv6 reports whether IPv6 is looked at anywhere.
func (r *rules) ipv6() bool { return r.wires || len(r.vlan6) > 0 }

// addLine adds the subscriber of a line.
func (r *rules) addLine(s *provision.Snapshot, l *provision.Line, o *occupants) {
	var block Set
	switch s.State(l.Subscriber) {
	case provision.StateStop:
		block = SetStopped
	case provision.StatePause:
		block = SetPaused
	}
	if block != 0 && r.free[l.Subscriber] {
		block = 0
	}
	for ip := range l.Hosts4() {
		if block != 0 && (inPrefixes(r.exempt, ip) || r.spares.of(ip) != "") { // it is not blocked, so it blocks no MAC
			block = 0
		}
	}
	o.add(block, l.Subscriber)
}

// addLease adds who has an address by a lease. Whose address is nobody's tells nothing.
func (r *rules) addLease(s *provision.Snapshot, ip netip.Addr, g *Grant, o *occupants) {
	x := r.of(s, ip, g)
	if block, id := r.client(s, ip, x.block, g); block != 0 || id != 0 {
		o.add(block, id)
	}
}

// occupantsOf returns who has a MAC.
func (r *rules) occupantsOf(s *provision.Snapshot, mac provision.MAC) (o occupants) {
	for l := range s.ByMAC(mac).All() {
		r.addLine(s, l, &o)
	}
	for _, l := range r.lost[mac] {
		r.addLine(s, l, &o)
	}
	if r.leasesOf != nil {
		for _, g := range r.leasesOf(mac) {
			if ip := g.IP.Unmap(); g.Wire && ip.Is4() {
				r.addLease(s, ip, &g, &o)
			}
		}
	}
	return o
}

// findLost finds the lines that lost an address to another customer's by their MACs.
func (r *rules) findLost(s *provision.Snapshot) {
	r.lost = nil
	for lost := s.Contested(); r.wires && len(lost) > 0; lost = lost[1:] {
		if l := &lost[0]; !l.MAC.IsZero() {
			if r.lost == nil {
				r.lost = map[provision.MAC][]*provision.Line{}
			}
			r.lost[l.MAC] = append(r.lost[l.MAC], l)
		}
	}
}

// seen takes of a lease what it tells of MACs and interfaces.
func (r *rules) seen(s *provision.Snapshot, ip netip.Addr, g *Grant, l *leased) {
	switch {
	case g.Wire && r.wires:
		x := r.of(s, ip, g)
		if block, _ := r.client(s, ip, x.block, g); block != 0 && !g.MAC.IsZero() {
			l.macs = append(l.macs, g.MAC)
			r.ties.add(ip, g.MAC)
			r.ties.fresh = append(r.ties.fresh, Grant{IP: ip, Until: g.Until})
		}
	case g.Unheard && r.wires:
		x := r.of(s, ip, g)
		if block, id := r.client(s, ip, x.block, g); block != 0 && !g.MAC.IsZero() {
			r.addUnheard(ip, g, true, id)
		}
	case r.vlan6[g.Interface]:
		r.addLease(s, ip, g, l.at(g.Interface))
	}
}

// at returns who is behind an interface.
func (l *leased) at(name string) *occupants {
	if l.behind == nil {
		l.behind = map[string]*occupants{}
	}
	o := l.behind[name]
	if o == nil {
		o = &occupants{}
		l.behind[name] = o
	}
	return o
}

// addIPv6 adds the sets for IPv6.
func (r *rules) addIPv6(s *provision.Snapshot, in *Inputs, l *leased, out *ACL) {
	r.shared, r.crowded = SharedMACs{}, nil // what leases are tied to was gathered before
	if r.wires {
		out[SetIPv6Direct] = Interfaces(in.IPv6Direct...)
		r.addMACs(s, l.macs, out)
	}
	if len(r.vlan6) > 0 {
		r.addInterfaces(s, in, l, out)
	}
}

// addMACs adds those of blocked subscribers, in the ERP and by leases, whose MACs are given.
func (r *rules) addMACs(s *provision.Snapshot, macs []provision.MAC, out *ACL) {
	for _, sub := range s.Subscribers() {
		if !sub.State.Blocks() || r.free[sub.ID] {
			continue
		}
		for line := range s.BySubscriber(sub.ID).All() {
			if !line.MAC.IsZero() {
				macs = append(macs, line.MAC)
			}
		}
	}
	for mac, lines := range r.lost {
		if slices.ContainsFunc(lines, func(l *provision.Line) bool { return s.State(l.Subscriber).Blocks() && !r.free[l.Subscriber] }) {
			macs = append(macs, mac)
		}
	}
	slices.SortFunc(macs, compareMACs)
	var stopped, paused []byte
	for _, mac := range slices.Compact(macs) {
		o := r.occupantsOf(s, mac)
		switch o.block(SetStoppedMAC, SetPausedMAC) {
		case SetStoppedMAC:
			stopped = append(stopped, mac[:]...)
		case SetPausedMAC:
			paused = append(paused, mac[:]...)
		}
		if r.leasesOf != nil && o.block(SetStoppedMAC, SetPausedMAC) != 0 {
			r.askOthers(s, mac)
		}
		if o.mixed() {
			r.shared.add(mac, &o)
			r.ties.mix(mac, r.leasesOf)
		}
	}
	out[SetStoppedMAC], out[SetPausedMAC] = Keys(stopped), Keys(paused)
}

// askOthers notes who is not blocked and has a lease with a MAC that is, unheard.
func (r *rules) askOthers(s *provision.Snapshot, mac provision.MAC) {
	for _, g := range r.leasesOf(mac) {
		if ip := g.IP.Unmap(); g.Unheard && ip.Is4() {
			x := r.of(s, ip, &g)
			if block, id := r.client(s, ip, x.block, &g); block == 0 && id != 0 {
				r.addUnheard(ip, &g, false, id)
			}
		}
	}
}

// addInterfaces adds those behind which everybody known is blocked.
func (r *rules) addInterfaces(s *provision.Snapshot, in *Inputs, l *leased, out *ACL) {
	if in.LineAt != nil {
		for line := range s.Lines().All() {
			if name := in.LineAt(line); r.vlan6[name] {
				r.addLine(s, line, l.at(name))
			}
		}
		for lost := s.Contested(); len(lost) > 0; lost = lost[1:] {
			if name := in.LineAt(&lost[0]); r.vlan6[name] {
				r.addLine(s, &lost[0], l.at(name))
			}
		}
	}
	var stopped, paused []string
	for name, o := range l.behind {
		switch o.block(SetStoppedInterface, SetPausedInterface) {
		case SetStoppedInterface:
			stopped = append(stopped, name)
		case SetPausedInterface:
			paused = append(paused, name)
		}
		if o.mixed() {
			if r.crowded == nil {
				r.crowded = map[string]bool{}
			}
			r.crowded[name] = true
		}
	}
	out[SetStoppedInterface], out[SetPausedInterface] = Interfaces(stopped...), Interfaces(paused...)
}

// SharedMAC is a MAC of a blocked subscriber that is not blocked, because somebody
// has it too who is not.
type SharedMAC struct {
	MAC     provision.MAC          `json:"mac"`
	Blocked provision.SubscriberID `json:"blocked"`
	Other   provision.SubscriberID `json:"other"`
}

// SharedMACs are all of them, the first ones by name.
type SharedMACs struct {
	Count int         `json:"count"`
	First []SharedMAC `json:"first,omitempty"`
}

const sharedListed = 20

func (s *SharedMACs) add(mac provision.MAC, o *occupants) {
	if s.Count++; len(s.First) < sharedListed {
		s.First = append(s.First, SharedMAC{mac, o.blockedID, o.openID})
	}
}

// relinked is a MAC or an interface, as a key of its sets, that comes into another one.
type relinked struct {
	key      string
	was, now Set // zero: none
}

// relink tells what the lease of an address changes of the MACs and the interface that
// its client has and had: the first n of them. With whole only a round can tell, for
// there is no other way to know who is behind an interface. It does not allocate where
// nothing changes. With settle the changes are made.
//
// The end of a lease behind an interface changes nothing before the next round:
// whoever is behind it next has a lease, too.
func (p *picture) relink(s *provision.Snapshot, ip netip.Addr, x *rights, g *Grant, settle bool) (c [2]relinked, n int, whole bool) {
	r := p.rules
	block, id := r.client(s, ip, x.block, g)
	decides := block != 0 || id != 0 // it is known who has the address, and so counts
	if g.Unheard && block != 0 && !g.MAC.IsZero() {
		p.leaveOut(ip, g, id)
	}
	if r.wires {
		mac := g.MAC
		if !g.Wire || !decides {
			mac = provision.MAC{}
		}
		if had := p.tiedTo(ip); had != mac && !had.IsZero() {
			if c[n] = p.work(s, had); c[n].was != c[n].now {
				n++
			}
		}
		was := p.linkIn(string(mac[:]), SetStoppedMAC, SetPausedMAC)
		alone := occupants{open: block == 0, stopped: block == SetStopped, paused: block == SetPaused || block == SetGuests}
		if !mac.IsZero() && was != alone.block(SetStoppedMAC, SetPausedMAC) { // as a rule nobody shares a MAC
			if c[n] = p.work(s, mac); c[n].was != c[n].now {
				n++
			}
		}
		if settle || n == 0 {
			p.tie(ip, mac, block != 0)
		}
	}
	if g.Wire || !r.vlan6[g.Interface] || !decides {
		return c, n, false
	}
	var name [nameLen]byte
	copy(name[:], g.Interface)
	switch was := p.linkIn(string(name[:]), SetStoppedInterface, SetPausedInterface); {
	case block == 0 && was != 0:
		c[n] = relinked{key: string(name[:]), was: was}
		n++
	case block != 0 && was == 0 && !r.crowded[g.Interface] && !p.relinkedAlready(string(name[:])):
		whole = true
	}
	return c, n, whole
}

// work works out anew what a MAC belongs to.
func (p *picture) work(s *provision.Snapshot, mac provision.MAC) relinked {
	o, key := p.rules.occupantsOf(s, mac), string(mac[:])
	if o.mixed() {
		p.mu.Lock()
		p.ties.mix(mac, p.rules.leasesOf)
		p.mu.Unlock()
	}
	if p.rules.leasesOf != nil && o.block(SetStoppedMAC, SetPausedMAC) != 0 {
		p.mu.Lock()
		p.rules.askOthers(s, mac)
		p.mu.Unlock()
	}
	return relinked{key, p.linkIn(key, SetStoppedMAC, SetPausedMAC), o.block(SetStoppedMAC, SetPausedMAC)}
}

// tie remembers the MAC about which the lease of an address decides: that of who is
// blocked, or who shares it with one. Zero: the lease has none.
func (p *picture) tie(ip netip.Addr, mac provision.MAC, blocked bool) {
	p.mu.RLock()
	had := p.ties.of[number(ip)]
	keep := !mac.IsZero() && (blocked || p.ties.mixed[mac])
	p.mu.RUnlock()
	if !keep {
		mac = provision.MAC{}
	}
	if had == mac {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ties.add(ip, mac)
}

// ties are the MACs about which leases decide that may end.
type ties struct {
	of    map[uint32]provision.MAC // by the address of the lease
	mixed map[provision.MAC]bool   // blocked ones and others have them
	fresh []Grant                  // whose leases came to it and whose ends nobody looks out for yet
}

func (t *ties) add(ip netip.Addr, mac provision.MAC) {
	if mac.IsZero() {
		delete(t.of, number(ip))
		return
	}
	if t.of == nil {
		t.of = map[uint32]provision.MAC{}
	}
	t.of[number(ip)] = mac
}

// mix adds a MAC that blocked ones share with others, with all its leases.
func (t *ties) mix(mac provision.MAC, leasesOf func(provision.MAC) []Grant) {
	if t.mixed == nil {
		t.mixed = map[provision.MAC]bool{}
	}
	t.mixed[mac] = true
	if leasesOf == nil {
		return
	}
	for _, g := range leasesOf(mac) {
		ip := g.IP.Unmap()
		if !g.Wire || !ip.Is4() {
			continue
		}
		if _, tied := t.of[number(ip)]; !tied { // else what it had is still to be worked out
			t.add(ip, mac)
			t.fresh = append(t.fresh, Grant{IP: ip, Until: g.Until})
		}
	}
}

// watch hands on the ends of leases that nobody looks out for yet.
func (p *picture) watch(each func(ip netip.Addr, until time.Time)) {
	p.mu.Lock()
	fresh := p.ties.fresh
	p.ties.fresh = nil
	p.mu.Unlock()
	for i := range fresh {
		each(fresh[i].IP, fresh[i].Until)
	}
}

// client returns who the client of a lease is, zero if nobody's customer, and the set that blocks what he has: that of his address, but for
// one that the ERP gives to another.
func (r *rules) client(s *provision.Snapshot, ip netip.Addr, block Set, g *Grant) (Set, provision.SubscriberID) {
	t, holder := r.tenancy(s, s.ByIP(ip), ip, g), g.holder()
	if holder == 0 || holder == t.owner {
		return block, t.owner
	}
	switch st, _ := r.stateOf(s, holder); {
	case r.free[holder]:
		return 0, holder
	case st == provision.StateStop:
		return SetStopped, holder
	case st == provision.StatePause:
		return SetPaused, holder
	default:
		return 0, holder
	}
}

// tiedTo returns the MAC about which the lease of an address decided; zero: none.
func (p *picture) tiedTo(ip netip.Addr) provision.MAC {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.ties.of[number(ip)]
}

// linkIn returns which of two sets has a key; zero: none.
func (p *picture) linkIn(key string, a, b Set) Set {
	p.mu.RLock()
	set, ok := p.links[key]
	p.mu.RUnlock()
	switch {
	case ok:
		return set
	case a.has(p.base[a], key):
		return a
	case b.has(p.base[b], key):
		return b
	default:
		return 0
	}
}

func (p *picture) relinkedAlready(key string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.links[key]
	return ok
}

// addLink adds a MAC or an interface.
func (e *elements) addLink(set Set, key string) {
	if set != 0 {
		e[set] = append(e[set], key...)
	}
}

// linkSets are the sets of MACs and interfaces for IPv6.
var linkSets = [...]Set{SetStoppedMAC, SetPausedMAC, SetStoppedInterface, SetPausedInterface}

// baseLink returns the set that has a key without what was changed since the round.
func (p *picture) baseLink(key string) Set {
	for _, set := range linkSets {
		if set.Width() == len(key) && set.has(p.base[set], key) {
			return set
		}
	}
	return 0
}

// MACStanding returns the set that blocks IPv6 of a MAC, as Standing does for an address.
func (e *Enforcer) MACStanding(mac provision.MAC) Set {
	p := e.shown.Load()
	if p == nil {
		return 0
	}
	return p.linkIn(string(mac[:]), SetStoppedMAC, SetPausedMAC)
}

// ipv6Status tells what is shown.
func (e *Enforcer) ipv6Status(dryRun bool) IPv6Status {
	p := e.shown.Load()
	if p == nil {
		return IPv6Status{Direct: []string{}}
	}
	st := IPv6Status{Mode: p.in.IPv6, Direct: slices.Concat([]string{}, p.in.IPv6Direct), Interfaces: len(p.in.IPv6VLAN), Uplinks: p.in.IPv6Uplinks, Shared: p.rules.shared, Unheard: p.unheardMACs()}
	if k, ok := e.kernel.(interface{ IPv6Trouble() string }); ok && !dryRun {
		st.Trouble = k.IPv6Trouble()
	}
	return st
}

// InterfaceStanding is MACStanding for an interface.
func (e *Enforcer) InterfaceStanding(name string) Set {
	p := e.shown.Load()
	if p == nil || name == "" || len(name) >= nameLen {
		return 0
	}
	var key [nameLen]byte
	copy(key[:], name)
	return p.linkIn(string(key[:]), SetStoppedInterface, SetPausedInterface)
}

// LooksAtInterface reports whether IPv6 is blocked by an interface once all behind it are blocked.
func (e *Enforcer) LooksAtInterface(name string) bool {
	p := e.shown.Load()
	return p != nil && p.rules.vlan6[name]
}

// LineAt returns the interface that the VLAN of a line is, where IPv6 is looked at by interfaces, or an uplink that has
// that VLAN; empty: none.
func (e *Enforcer) LineAt(l *provision.Line) string {
	p := e.shown.Load()
	if p == nil || p.in.LineAt == nil {
		return ""
	}
	return p.in.LineAt(l)
}
