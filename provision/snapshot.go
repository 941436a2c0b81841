package provision

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Snapshot is what should hold, as one fetch saw it: every bound address with
// its subscriber and access port, the subscribers' states and the switches. It
// never changes after Build, so it is shared without locks. All lookups are
// free of allocation. Rows that a lookup returns belong to the Snapshot and must
// not be written to. A nil *Snapshot answers like an empty one.
type Snapshot struct {
	t         *tables      // shared with copies that WithStates made
	subs      []Subscriber // by ID
	source    Source
	fetchedAt time.Time
	counts    Counts

	blockedOnce     sync.Once
	stopped, paused []netip.Addr

	fpOnce      sync.Once
	fingerprint uint64
}

// tables is the part of a Snapshot that states do not touch.
type tables struct {
	rows      []Binding // by Device, Port (PortName where Port is zero), IP
	contested []Binding // rows that lost their address to another subscriber's row
	devices   []Device  // by ID
	seats     seatTables

	byIP         index[uint32]
	byMAC        index[uint64]
	bySubscriber index[SubscriberID]
	ports        []portSpan
	portNames    []nameSpan
	vlans        []vlanRows // by VLAN
	loose        []Binding  // copies of rows whose port name stands on several ports
	deviceByMAC  map[MAC]*Device
	deviceByIP   map[netip.Addr]*Device
	deviceByName map[string]*Device // nil: several have it
	bound        int                // distinct subscribers in rows
}

// index finds rows by a key that several rows may share. keys are sorted and
// stand apart from the rows, so that a search stays in few cache lines.
type index[K cmp.Ordered] struct {
	keys []K
	rows []*Binding
}

func (x *index[K]) find(k K) []*Binding {
	lo, ok := slices.BinarySearch(x.keys, k)
	if !ok {
		return nil
	}
	hi := lo + 1
	for hi < len(x.keys) && x.keys[hi] == k {
		hi++
	}
	return x.rows[lo:hi:hi]
}

// portSpan is the place of one access port's rows in tables.rows.
type portSpan struct {
	device DeviceID
	port   uint32
	lo, hi uint32
}

// nameSpan is the place of one interface name's rows, in tables.rows or, if
// loose, in tables.loose.
type nameSpan struct {
	device DeviceID
	name   string
	lo, hi uint32
	loose  bool
}

// Counts are sizes of a Snapshot.
type Counts struct {
	Bindings    int `json:"bindings"`
	Subscribers int `json:"subscribers"` // distinct ones that have a binding
	Devices     int `json:"devices"`
	WithoutMAC  int `json:"without_mac"`  // bindings
	WithoutPort int `json:"without_port"` // bindings
	Contested   int `json:"contested"`    // rows left out because another subscriber has the address
	Seats       int `json:"seats"`        // rows of customers without an address, for pools

	// Listed subscribers by state, with or without a binding.
	Active  int `json:"active"`
	Paused  int `json:"paused"`
	Stopped int `json:"stopped"`
	Unknown int `json:"unknown"`
}

// ByIP gives the row of an address, or nil.
func (s *Snapshot) ByIP(ip netip.Addr) *Binding {
	if s == nil || !ip.Is4() && !ip.Is4In6() {
		return nil
	}
	if rows := s.t.byIP.find(ipKey(ip.Unmap())); len(rows) > 0 {
		return rows[0]
	}
	return nil
}

// ByMAC gives the rows that the ERP has with this MAC, sorted by IP. The zero
// MAC has none.
func (s *Snapshot) ByMAC(m MAC) []*Binding {
	if s == nil || m.IsZero() {
		return nil
	}
	return s.t.byMAC.find(macKey(m))
}

// BySubscriber gives a subscriber's rows, sorted by IP.
func (s *Snapshot) BySubscriber(id SubscriberID) []*Binding {
	if s == nil {
		return nil
	}
	return s.t.bySubscriber.find(id)
}

// ByPort gives the rows of an access port, sorted by IP. Device or port zero has
// none.
func (s *Snapshot) ByPort(d DeviceID, port uint32) []Binding {
	if s == nil || d == 0 || port == 0 {
		return nil
	}
	return s.t.portRows(d, port)
}

func comparePortSpan(a, b portSpan) int {
	if c := cmp.Compare(a.device, b.device); c != 0 {
		return c
	}
	return cmp.Compare(a.port, b.port)
}

// ByPortName gives the rows of an access port by its interface name, compared
// byte by byte, sorted by IP.
func (s *Snapshot) ByPortName(d DeviceID, name []byte) []Binding {
	if s == nil || d == 0 || len(name) == 0 {
		return nil
	}
	// By hand, for a string made of name would be an allocation.
	lo, hi := 0, len(s.t.portNames)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		n := &s.t.portNames[mid]
		switch {
		case n.device < d, n.device == d && n.name < string(name):
			lo = mid + 1
		case n.device == d && n.name == string(name):
			if n.loose {
				return s.t.loose[n.lo:n.hi:n.hi]
			}
			return s.t.rows[n.lo:n.hi:n.hi]
		default:
			hi = mid
		}
	}
	return nil
}

// Device gives a switch by the ERP's id, or nil.
func (s *Snapshot) Device(id DeviceID) *Device {
	if s == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.t.devices, id, func(d Device, id DeviceID) int {
		return cmp.Compare(d.ID, id)
	})
	if !ok {
		return nil
	}
	return &s.t.devices[i]
}

// DeviceByMAC gives the switch with this MAC, as a remote-id names it, or nil.
// Where the ERP has the MAC twice, the switch that bindings name wins, then the
// lower id.
func (s *Snapshot) DeviceByMAC(m MAC) *Device {
	if s == nil || m.IsZero() {
		return nil
	}
	return s.t.deviceByMAC[m]
}

// DeviceByIP gives the switch with this management address, by the rule of
// DeviceByMAC, or nil.
func (s *Snapshot) DeviceByIP(ip netip.Addr) *Device {
	if s == nil {
		return nil
	}
	return s.t.deviceByIP[ip.Unmap().WithZone("")]
}

// DeviceByName gives the switch that alone has this name, compared byte by
// byte, or nil.
func (s *Snapshot) DeviceByName(name []byte) *Device {
	if s == nil || len(name) == 0 {
		return nil
	}
	return s.t.deviceByName[string(name)]
}

// Devices gives all switches, sorted by id.
func (s *Snapshot) Devices() []Device {
	if s == nil {
		return nil
	}
	return s.t.devices
}

// Subscriber gives a subscriber that a state list of the ERP had.
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

// Subscribers gives all listed subscribers, sorted by id.
func (s *Snapshot) Subscribers() []Subscriber {
	if s == nil {
		return nil
	}
	return s.subs
}

// State gives a subscriber's state, StateUnknown if no list had one.
func (s *Snapshot) State(id SubscriberID) State {
	sub, _ := s.Subscriber(id)
	return sub.State
}

// Bindings gives all rows, sorted by device, port and IP.
func (s *Snapshot) Bindings() []Binding {
	if s == nil {
		return nil
	}
	return s.t.rows
}

// Len gives the number of rows.
func (s *Snapshot) Len() int { return len(s.Bindings()) }

// Counts gives the sizes.
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

// findBlocked walks subscribers and rows side by side: both are sorted by id.
func (s *Snapshot) findBlocked() {
	i, x := 0, &s.t.bySubscriber
	for _, sub := range s.subs {
		if !sub.State.Blocks() {
			continue
		}
		for i < len(x.keys) && x.keys[i] < sub.ID {
			i++
		}
		for ; i < len(x.keys) && x.keys[i] == sub.ID; i++ {
			if sub.State == StateStop {
				s.stopped = append(s.stopped, x.rows[i].IP)
			} else {
				s.paused = append(s.paused, x.rows[i].IP)
			}
		}
	}
	slices.SortFunc(s.stopped, netip.Addr.Compare)
	slices.SortFunc(s.paused, netip.Addr.Compare)
}

// WithStates gives a copy in which the named subscribers have the given states.
// It shares everything else with s; only if one of them disputes an address
// with another subscriber are the rows chosen anew.
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
	for i := range t.contested {
		c := &t.contested[i]
		_, mine := states[c.Subscriber]
		_, theirs := states[s.ByIP(c.IP).Subscriber]
		if mine || theirs {
			t = newTables(slices.Concat(t.rows, t.contested), t.seats.rows, t.seats.kept, subs, t.devices, nil)
			break
		}
	}
	if t == s.t { // the rows are the same, so what is counted of them is
		next := &Snapshot{t: t, subs: subs, source: s.source, fetchedAt: s.fetchedAt, counts: s.counts}
		next.countStates()
		return next
	}
	return newSnapshot(t, subs, s.source, s.fetchedAt)
}

func newSnapshot(t *tables, subs []Subscriber, src Source, at time.Time) *Snapshot {
	s := &Snapshot{t: t, subs: subs, source: src, fetchedAt: at}
	c := Counts{Bindings: len(t.rows), Subscribers: t.bound, Devices: len(t.devices), Contested: len(t.contested), Seats: len(t.seats.rows)}
	for i := range t.rows {
		if t.rows[i].MAC.IsZero() {
			c.WithoutMAC++
		}
		if !t.rows[i].HasPort() {
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

// hasPort reports whether a row names an access port, by number or name.
// HasPort reports whether the row names an access port, by number or name.
func (b *Binding) HasPort() bool { return b.Device != 0 && (b.Port != 0 || b.PortName != "") }

func ipKey(ip netip.Addr) uint32 {
	a := ip.As4()
	return binary.BigEndian.Uint32(a[:])
}

func macKey(m MAC) uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 |
		uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

// SamePort reports whether two rows name the same access port; a number or name
// that one of them lacks is no difference, for sources differ in what they tell.
func (a *Binding) SamePort(b *Binding) bool {
	if a.Device != b.Device {
		return false
	}
	if a.Port != 0 && b.Port != 0 {
		return a.Port == b.Port
	}
	if a.PortName != "" && b.PortName != "" {
		return a.PortName == b.PortName
	}
	return b.HasPort()
}

// RowsBySubscriber returns every row, by subscriber and address. It is shared and must not be written to.
func (s *Snapshot) RowsBySubscriber() []*Binding {
	if s == nil {
		return nil
	}
	return s.t.bySubscriber.rows
}

// SameRows reports whether both snapshots have the very rows of one fetch: only states differ.
func (s *Snapshot) SameRows(o *Snapshot) bool { return s.t == o.t }

// Contested returns the rows whose address another subscriber has. It is shared and must not be written to.
func (s *Snapshot) Contested() []Binding {
	if s == nil {
		return nil
	}
	return s.t.contested
}
