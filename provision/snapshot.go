package provision

import (
	"cmp"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Snapshot is what should hold, as one fetch saw it: every line with its subscriber,
// access port and addresses, the subscribers' states and the switches. It
// never changes after Build, so it is shared without locks. All lookups are
// free of allocation. Lines that a lookup returns belong to the Snapshot and must
// not be written to. A nil *Snapshot answers like an empty one.
type Snapshot struct {
	t         *tables      // shared with copies that WithStates made
	subs      []Subscriber // by ID
	source    Source
	fetchedAt time.Time
	counts    Counts
	word      word
	nets      *subnets // nil: no customer has one; shared as t is

	blockedOnce     sync.Once
	stopped, paused []netip.Addr

	fpOnce      sync.Once
	fingerprint uint64
}

// Counts are sizes of a Snapshot.
type Counts struct {
	Bindings    int `json:"bindings"`    // host addresses
	Subscribers int `json:"subscribers"` // distinct ones that have a binding
	Devices     int `json:"devices"`
	WithoutMAC  int `json:"without_mac"`  // bindings
	WithoutPort int `json:"without_port"` // bindings
	Contested   int `json:"contested"`    // addresses of rows left out because another subscriber has them
	Seats       int `json:"seats"`        // vacant lines, for pools

	// Listed subscribers by state, with or without a binding.
	Active  int `json:"active"`
	Paused  int `json:"paused"`
	Stopped int `json:"stopped"`
	Unknown int `json:"unknown"`
}

// ByIP returns the line that has a host address, or nil.
func (s *Snapshot) ByIP(ip netip.Addr) *Line {
	if s == nil || !ip.Is4() && !ip.Is4In6() {
		return nil
	}
	if i, ok := slices.BinarySearch(s.t.byIP.keys, ipKey(ip.Unmap())); ok {
		return &s.t.lines[s.t.byIP.refs[i]]
	}
	return nil
}

func find[K cmp.Ordered](t *tables, x *index[K], k K) Lines {
	lo, ok := slices.BinarySearch(x.keys, k)
	if !ok {
		return Lines{}
	}
	hi := lo + 1
	for hi < len(x.keys) && x.keys[hi] == k {
		hi++
	}
	return Lines{t.lines, x.refs[lo:hi]}
}

// ByMAC returns the lines that the ERP has with this MAC. The zero MAC has none.
func (s *Snapshot) ByMAC(m MAC) Lines {
	if s == nil || m.IsZero() {
		return Lines{}
	}
	return find(s.t, &s.t.byMAC, macKey(m))
}

// BySubscriber returns a subscriber's lines.
func (s *Snapshot) BySubscriber(id SubscriberID) Lines {
	if s == nil {
		return Lines{}
	}
	return find(s.t, &s.t.bySubscriber, id)
}

// ByOwner returns the vacant line of a subscriber that pools know by o, or nil.
func (s *Snapshot) ByOwner(id SubscriberID, o Owner) *Line {
	if o.IsZero() {
		return nil
	}
	for l := range s.BySubscriber(id).All() {
		if l.Owner == o {
			return l
		}
	}
	return nil
}

// device returns the place of a device's lines.
func (s *Snapshot) device(d DeviceID) (lo, hi uint32) {
	if s == nil || d == 0 {
		return 0, 0
	}
	i, ok := slices.BinarySearchFunc(s.t.ports, d, func(x deviceSpan, d DeviceID) int { return cmp.Compare(x.device, d) })
	if !ok {
		return 0, 0
	}
	return s.t.ports[i].lo, s.t.ports[i].hi
}

// ByPort returns the lines of an access port. Device or port zero has none.
func (s *Snapshot) ByPort(d DeviceID, port uint32) Lines {
	lo, end := s.device(d)
	if port == 0 || lo == end {
		return Lines{}
	}
	lines := s.t.lines
	for hi := end; lo < hi; {
		if mid := lo + (hi-lo)/2; lines[mid].Port < port {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	hi := lo
	for hi < end && lines[hi].Port == port {
		hi++
	}
	return Lines{of: lines[lo:hi]}
}

// ByPortName returns the lines of an access port by its interface name, compared
// byte by byte.
func (s *Snapshot) ByPortName(d DeviceID, name []byte) Lines {
	lo, end := s.device(d)
	if len(name) == 0 || lo == end {
		return Lines{}
	}
	lines, refs := s.t.lines, s.t.byName
	for hi := end; lo < hi; { // by hand, for a string made of name would be an allocation
		if mid := lo + (hi-lo)/2; lines[refs[mid]].PortName < string(name) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	hi := lo
	for hi < end && lines[refs[hi]].PortName == string(name) {
		hi++
	}
	if lo == hi {
		return Lines{}
	}
	return Lines{lines, refs[lo:hi]}
}

// ByVLAN returns the lines that the ERP has in a VLAN. Where several
// subscribers share it nobody can be told by it: shared is true and there are no
// lines. VLANs outside 1 to 4094 have none.
func (s *Snapshot) ByVLAN(vlan uint16) (lines Lines, shared bool) {
	if s == nil || vlan == 0 {
		return Lines{}, false
	}
	switch v := s.t.inVLAN(vlan); {
	case v.subscribers > 1:
		return Lines{}, true
	case v.subscribers == 1:
		return Lines{s.t.lines, v.refs}, false
	}
	return Lines{}, false
}

// InVLAN returns how many subscribers the ERP has in a VLAN, as ByVLAN.
func (s *Snapshot) InVLAN(vlan uint16) int {
	if s == nil {
		return 0
	}
	return s.t.inVLAN(vlan).subscribers
}

func (t *tables) inVLAN(vlan uint16) (v vlanLines) {
	if i, ok := slices.BinarySearchFunc(t.vlans, vlan, func(v vlanLines, vlan uint16) int { return cmp.Compare(v.vlan, vlan) }); ok {
		v = t.vlans[i]
	}
	return v
}

// Device returns a switch by the ERP's id, or nil.
func (s *Snapshot) Device(id DeviceID) *Device {
	if s == nil {
		return nil
	}
	if i, ok := findDevice(s.t.devices, id); ok {
		return &s.t.devices[i]
	}
	return nil
}

// DeviceByMAC returns the switch with this MAC, as a remote-id names it, or nil.
// Where the ERP has the MAC twice, the switch that bindings name wins, then the
// lower id.
func (s *Snapshot) DeviceByMAC(m MAC) *Device {
	if s == nil || m.IsZero() {
		return nil
	}
	return s.t.deviceByMAC[m]
}

// DeviceByIP returns the switch with this management address, by the rule of
// DeviceByMAC, or nil.
func (s *Snapshot) DeviceByIP(ip netip.Addr) *Device {
	if s == nil {
		return nil
	}
	return s.t.deviceByIP[ip.Unmap().WithZone("")]
}

// DeviceByName returns the switch that alone has this name, compared byte by
// byte, or nil.
func (s *Snapshot) DeviceByName(name []byte) *Device {
	if s == nil || len(name) == 0 {
		return nil
	}
	return s.t.deviceByName[string(name)]
}

// Devices returns all switches, sorted by id.
func (s *Snapshot) Devices() []Device {
	if s == nil {
		return nil
	}
	return s.t.devices
}

// Subscriber returns a subscriber that a state list of the ERP had.
func (s *Snapshot) Subscriber(id SubscriberID) (Subscriber, bool) {
	if s == nil {
		return Subscriber{}, false
	}
	i, ok := findSubscriber(s.subs, id)
	if !ok {
		return Subscriber{}, false
	}
	return s.subs[i], true
}

// Subscribers returns all listed subscribers, sorted by id.
func (s *Snapshot) Subscribers() []Subscriber {
	if s == nil {
		return nil
	}
	return s.subs
}

// State returns a subscriber's state, StateUnknown if no list had one.
func (s *Snapshot) State(id SubscriberID) State {
	sub, _ := s.Subscriber(id)
	return sub.State
}

// Lines returns all lines, sorted by device and port.
func (s *Snapshot) Lines() Lines {
	if s == nil {
		return Lines{}
	}
	return Lines{of: s.t.lines}
}

// LinesBySubscriber returns all lines, sorted by subscriber.
func (s *Snapshot) LinesBySubscriber() Lines {
	if s == nil || len(s.t.lines) == 0 {
		return Lines{}
	}
	return Lines{s.t.lines, s.t.bySubscriber.refs}
}

// Hosts4 returns every host address with its line, ascending.
func (s *Snapshot) Hosts4() iter.Seq2[netip.Addr, *Line] {
	return func(yield func(netip.Addr, *Line) bool) {
		if s == nil {
			return
		}
		for i, key := range s.t.byIP.keys {
			if !yield(addrOf(key), &s.t.lines[s.t.byIP.refs[i]]) {
				return
			}
		}
	}
}

// PortHosts returns every host address with its line, by port and address: the order of the
// stored form and of the fingerprint.
func (s *Snapshot) PortHosts() iter.Seq2[netip.Addr, *Line] {
	type host struct {
		ip   netip.Addr
		line *Line
	}
	return func(yield func(netip.Addr, *Line) bool) {
		var group []host
		lines := s.Lines().of
		for lo := 0; lo < len(lines); {
			hi := lo + 1
			for hi < len(lines) && sameGroup(&lines[lo], &lines[hi]) {
				hi++
			}
			if hi == lo+1 { // as a rule
				for ip := range lines[lo].Hosts4() {
					if !yield(ip, &lines[lo]) {
						return
					}
				}
				lo = hi
				continue
			}
			group = group[:0]
			for ; lo < hi; lo++ {
				for ip := range lines[lo].Hosts4() {
					group = append(group, host{ip, &lines[lo]})
				}
			}
			slices.SortFunc(group, func(a, b host) int { return a.ip.Compare(b.ip) })
			for _, h := range group {
				if !yield(h.ip, h.line) {
					return
				}
			}
		}
	}
}

// Subnets returns every routed subnet with its line, by port.
func (s *Snapshot) Subnets() iter.Seq2[netip.Prefix, *Line] {
	return func(yield func(netip.Prefix, *Line) bool) {
		for l := range s.Lines().All() {
			for _, a := range l.Addresses {
				if a.Kind == Routed4 && !yield(a.Prefix, l) {
					return
				}
			}
		}
	}
}

// BoundIn returns the host addresses from first to last, ascending. It costs no
// more than there are of them.
func (s *Snapshot) BoundIn(first, last netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if s == nil || !first.Is4() || !last.Is4() {
			return
		}
		keys, end := s.t.byIP.keys, ipKey(last)
		i, _ := slices.BinarySearch(keys, ipKey(first))
		for ; i < len(keys) && keys[i] <= end; i++ {
			if !yield(addrOf(keys[i])) {
				return
			}
		}
	}
}

// Contested returns the lines that lost an address to another subscriber's, once for each address.
// They are shared and must not be written to.
func (s *Snapshot) Contested() []Line {
	if s == nil {
		return nil
	}
	return s.t.contested
}

// Len returns the number of host addresses.
func (s *Snapshot) Len() int { return s.Counts().Bindings }

// Empty reports whether there is neither a host address nor a vacant line.
func (s *Snapshot) Empty() bool { return s.Lines().Len() == 0 }

// KeepsVacant reports whether the fetch asked for vacant lines: if not, that there is none says nothing.
func (s *Snapshot) KeepsVacant() bool { return s != nil && s.t.kept }

// WithoutAddress returns the number of subscribers who have vacant lines and no host address.
func (s *Snapshot) WithoutAddress() int { return s.t.alone }

// SameLines reports whether both snapshots have the very lines of one fetch: only states differ.
func (s *Snapshot) SameLines(o *Snapshot) bool { return s.t == o.t }

// Counts returns the sizes.
func (s *Snapshot) Counts() Counts {
	if s == nil {
		return Counts{}
	}
	return s.counts
}

// Source says where the rows came from; empty for a nil Snapshot.
func (s *Snapshot) Source() Source {
	if s == nil {
		return ""
	}
	return s.source
}

// FetchedAt says when the fetch began; zero for a nil Snapshot.
func (s *Snapshot) FetchedAt() time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.fetchedAt
}

// Blocked returns the addresses of stopped and of paused subscribers, each list
// sorted. The slices are shared: they must not be written to.
func (s *Snapshot) Blocked() (stopped, paused []netip.Addr) {
	if s == nil {
		return nil, nil
	}
	s.blockedOnce.Do(s.findBlocked)
	return s.stopped, s.paused
}

// findBlocked walks subscribers and lines side by side: both are sorted by id.
func (s *Snapshot) findBlocked() {
	i, x := 0, &s.t.bySubscriber
	for _, sub := range s.subs {
		if !sub.State.Blocks() {
			continue
		}
		list := &s.paused
		if sub.State == StateStop {
			list = &s.stopped
		}
		for i < len(x.keys) && x.keys[i] < sub.ID {
			i++
		}
		for ; i < len(x.keys) && x.keys[i] == sub.ID; i++ {
			*list = slices.AppendSeq(*list, s.t.lines[x.refs[i]].Hosts4())
		}
	}
	slices.SortFunc(s.stopped, netip.Addr.Compare)
	slices.SortFunc(s.paused, netip.Addr.Compare)
}

// WithStates returns a copy in which the named subscribers have the given states.
// It shares everything else with s; only if one of them disputes an address
// with another subscriber are the lines chosen anew.
func (s *Snapshot) WithStates(states map[SubscriberID]State) *Snapshot {
	if s == nil {
		return nil
	}
	subs := slices.Clone(s.subs)
	for id, st := range states {
		if i, ok := findSubscriber(s.subs, id); ok {
			subs[i].State = st
		} else {
			subs = append(subs, Subscriber{ID: id, State: st})
		}
	}
	if len(subs) > len(s.subs) {
		slices.SortFunc(subs, func(a, b Subscriber) int { return cmp.Compare(a.ID, b.ID) })
	}
	t := s.t
	if t.disputes(func(id SubscriberID) bool { _, in := states[id]; return in }) {
		t = t.again(subs)
	}
	return s.with(t, subs)
}

// with returns a copy that has other states, and the lines chosen by them.
func (s *Snapshot) with(t *tables, subs []Subscriber) *Snapshot {
	nets := s.nets
	if nets != nil && (t != s.t || nets.disputed) {
		nets = newSubnets(nets.claims, nets.gateways, t, subs)
	}
	if t == s.t { // the lines are the same, so what is counted of them is
		next := &Snapshot{t: t, subs: subs, source: s.source, fetchedAt: s.fetchedAt, counts: s.counts, word: s.word, nets: nets}
		next.countStates()
		return next
	}
	next := newSnapshot(t, subs, s.source, s.fetchedAt)
	next.word, next.nets = s.word, nets
	return next
}

// disputes reports whether one of some subscribers claims an address that another claims too.
func (t *tables) disputes(some func(SubscriberID) bool) bool {
	for i := range t.contested {
		if c := &t.contested[i]; some(c.Subscriber) || some(t.holder(c.Addresses[0])) {
			return true
		}
	}
	return false
}

// again returns the tables of the same claims by other states.
func (t *tables) again(subs []Subscriber) *tables {
	c := &claims{}
	c.addAll(t.lines)
	c.addAll(t.contested)
	return newTables(c, t.kept, subs, t.devices, nil)
}

// holder returns whose an address is that is contested.
func (t *tables) holder(a Address) SubscriberID {
	if i, ok := slices.BinarySearch(t.byIP.keys, ipKey(a.Prefix.Addr())); ok && a.Kind == Host4 {
		return t.lines[t.byIP.refs[i]].Subscriber
	}
	for i := range t.lines { // of subnets there are few
		if slices.Contains(t.lines[i].Addresses, a) {
			return t.lines[i].Subscriber
		}
	}
	return 0
}

func newSnapshot(t *tables, subs []Subscriber, src Source, at time.Time) *Snapshot {
	s := &Snapshot{t: t, subs: subs, source: src, fetchedAt: at}
	c := Counts{Bindings: len(t.byIP.keys), Subscribers: t.bound, Devices: len(t.devices), Contested: len(t.contested), Seats: t.vacant}
	for _, ref := range t.byIP.refs {
		if t.lines[ref].MAC.IsZero() {
			c.WithoutMAC++
		}
		if !t.lines[ref].HasPort() {
			c.WithoutPort++
		}
	}
	s.counts = c
	s.countStates()
	return s
}

func (s *Snapshot) countStates() {
	c := &s.counts
	c.Active, c.Paused, c.Stopped, c.Unknown = 0, 0, 0, 0
	for _, sub := range s.subs {
		switch sub.State {
		case StateActive:
			c.Active++
		case StatePause:
			c.Paused++
		case StateStop:
			c.Stopped++
		default:
			c.Unknown++
		}
	}
}

func findSubscriber(subs []Subscriber, id SubscriberID) (int, bool) {
	return slices.BinarySearchFunc(subs, id, func(s Subscriber, id SubscriberID) int {
		return cmp.Compare(s.ID, id)
	})
}

func ipKey(ip netip.Addr) uint32 {
	a := ip.As4()
	return binary.BigEndian.Uint32(a[:])
}

func addrOf(key uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], key)
	return netip.AddrFrom4(b)
}

func hostOf(key uint32) Address { return Address{Host4, netip.PrefixFrom(addrOf(key), 32)} }

func macKey(m MAC) uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 |
		uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}
