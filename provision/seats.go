package provision

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// Seat is a subscriber to whom the ERP gives an access port, a MAC or a VLAN
// but no address: it may have one of a pool. Seats are no Bindings, so that nobody
// meets a row without an address.
type Seat struct {
	Subscriber SubscriberID
	MAC        MAC      // zero: whoever is on the port or in the VLAN
	Device     DeviceID // zero: not linked to a switch
	Port       uint32   // as of a Binding
	PortName   string
	VLAN       uint16
	// Key is what pools know the seat by. It stays the same while the subscriber
	// keeps the port, whatever router is there, and is the MAC of no client: it is a group address.
	Key MAC
}

// hasPort reports whether the seat names an access port, by number or name.
func (s *Seat) hasPort() bool { return s.Device != 0 && (s.Port != 0 || s.PortName != "") }

// Row returns the seat as a Binding without an address.
func (s *Seat) Row() Binding {
	return Binding{Subscriber: s.Subscriber, MAC: s.MAC, Device: s.Device, Port: s.Port, PortName: s.PortName, VLAN: s.VLAN}
}

// seatOf gives a row without an address as a seat; false: it names no place.
func seatOf(r *Binding) (Seat, bool) {
	s := Seat{Subscriber: r.Subscriber, MAC: r.MAC, Device: r.Device, Port: r.Port, PortName: r.PortName, VLAN: r.VLAN}
	return s, r.Subscriber > 0 && (!r.MAC.IsZero() || s.hasPort() || r.VLAN != 0)
}

func compareSeats(a, b *Seat) int {
	return cmp.Or(
		cmp.Compare(a.Subscriber, b.Subscriber), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.PortName, b.PortName), compareMAC(b.MAC, a.MAC), cmp.Compare(a.VLAN, b.VLAN))
}

func sameSeatPort(a, b *Seat) bool {
	return a.Device == b.Device && a.Port == b.Port && a.PortName == b.PortName
}

// seatTables are the seats of a Snapshot and their indexes.
type seatTables struct {
	kept   bool   // the fetch asked for seats; else there are none
	rows   []Seat // by subscriber, port and MAC
	alone  int    // distinct subscribers in rows that have no Binding
	byPort []*Seat
	byName []*Seat
	byMAC  []*Seat
}

// chooseSeats takes those of the seats whose subscribers have no address there,
// and indexes them. The Bindings are ready. Fed with its own rows it gives the same again.
func (t *tables) chooseSeats(seats []Seat, p *problems) {
	list := slices.Clone(seats)
	slices.SortFunc(list, func(a, b Seat) int { return compareSeats(&a, &b) })
	disputed := make(map[SubscriberID][]*Binding, len(t.contested))
	for i := range t.contested {
		r := &t.contested[i]
		disputed[r.Subscriber] = append(disputed[r.Subscriber], r)
	}
	for lo := 0; lo < len(list); {
		id, hi := list[lo].Subscriber, lo+1
		for hi < len(list) && list[hi].Subscriber == id {
			hi++
		}
		t.seatsOf(list[lo:hi], slices.Concat(t.bySubscriber.find(id), disputed[id]), p)
		lo = hi
	}
	x := &t.seats
	x.rows = slices.Clip(x.rows)
	for i := range x.rows {
		s := &x.rows[i]
		if s.hasPort() && s.Port != 0 {
			x.byPort = append(x.byPort, s)
		}
		if s.hasPort() && s.PortName != "" {
			x.byName = append(x.byName, s)
		}
		if !s.MAC.IsZero() {
			x.byMAC = append(x.byMAC, s)
		}
		if (i == 0 || x.rows[i-1].Subscriber != s.Subscriber) && len(t.bySubscriber.find(s.Subscriber)) == 0 {
			x.alone++
		}
	}
	slices.SortStableFunc(x.byPort, func(a, b *Seat) int { return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Port, b.Port)) })
	slices.SortStableFunc(x.byName, func(a, b *Seat) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.PortName, b.PortName))
	})
	slices.SortStableFunc(x.byMAC, func(a, b *Seat) int { return compareMAC(a.MAC, b.MAC) })
	if p != nil {
		t.reportSeats(p)
	}
}

// seatsOf takes the seats of one subscriber; bound are the addresses that it has or, with
// another, claims.
func (t *tables) seatsOf(list []Seat, bound []*Binding, p *problems) {
	from := len(t.seats.rows)
	for i := range list {
		s := &list[i]
		if why := spare(s, list[:i], list, bound); why != "" {
			p.add(Problem{Kind: ProblemNoAddress, Subscriber: s.Subscriber, MAC: s.MAC, Device: s.Device, Port: s.Port, Detail: why})
			continue
		}
		t.seats.rows = append(t.seats.rows, *s)
	}
	mine := t.seats.rows[from:]
	for i := range mine {
		several := false
		for j := range mine {
			several = several || i != j && sameSeatPort(&mine[i], &mine[j])
		}
		mine[i].Key = seatKey(&mine[i], several)
	}
}

// spare says why a seat is not one; empty if it is. A subscriber who has an address gets a second
// one only on another port: the row is about that port then and not a half of the first.
func spare(s *Seat, before, all []Seat, bound []*Binding) string {
	for i := range before {
		if b := &before[i]; sameSeatPort(s, b) && (s.MAC == b.MAC || s.MAC.IsZero() && s.hasPort()) {
			return "the customer has this row without an address twice"
		}
	}
	if !s.hasPort() && !s.MAC.IsZero() {
		for i := range all {
			if all[i].hasPort() && all[i].MAC == s.MAC {
				return "the customer has the MAC on a port too"
			}
		}
	}
	row := s.Row()
	for _, b := range bound {
		if !s.hasPort() || !b.HasPort() || row.SamePort(b) {
			return fmt.Sprintf("row has no IP, and the customer has %s", b.IP)
		}
	}
	return ""
}

// seatKey must stay as it is: stored leases have it.
func seatKey(s *Seat, byMAC bool) MAC {
	b := make([]byte, 0, 64)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Subscriber))
	if s.hasPort() {
		b = binary.BigEndian.AppendUint64(b, uint64(s.Device))
		b = binary.BigEndian.AppendUint32(b, s.Port)
		if s.Port == 0 {
			b = append(b, s.PortName...)
		}
	}
	if byMAC || !s.hasPort() {
		b = append(b, s.MAC[:]...)
	}
	if !s.hasPort() && s.MAC.IsZero() {
		b = binary.BigEndian.AppendUint16(b, s.VLAN)
	}
	sum := sha256.Sum256(b)
	key := MAC(sum[:6])
	key[0] |= 3 // a group address, locally administered
	return key
}

// reportSeats says where seats of several subscribers cannot be told apart.
func (t *tables) reportSeats(p *problems) {
	x := &t.seats
	for i, s := range x.byPort {
		switch rows := t.portRows(s.Device, s.Port); {
		case len(rows) > 0 && rows[0].Subscriber != s.Subscriber:
			p.add(Problem{Kind: ProblemPortConflict, Subscriber: s.Subscriber, MAC: s.MAC, Device: s.Device, Port: s.Port,
				Detail: fmt.Sprintf("has no address, and subscriber %d is on the same port with %s", rows[0].Subscriber, rows[0].IP)})
		case i > 0 && x.byPort[i-1].Device == s.Device && x.byPort[i-1].Port == s.Port && x.byPort[i-1].Subscriber != s.Subscriber:
			p.add(Problem{Kind: ProblemPortConflict, Subscriber: s.Subscriber, MAC: s.MAC, Device: s.Device, Port: s.Port,
				Detail: fmt.Sprintf("has no address, nor has subscriber %d on the same port", x.byPort[i-1].Subscriber)})
		}
	}
	for i, s := range x.byMAC {
		switch rows := t.byMAC.find(macKey(s.MAC)); {
		case len(rows) > 0 && rows[0].Subscriber != s.Subscriber:
			p.add(Problem{Kind: ProblemDuplicateMAC, Subscriber: s.Subscriber, MAC: s.MAC,
				Detail: fmt.Sprintf("has no address, and subscriber %d has the same MAC at %s", rows[0].Subscriber, rows[0].IP)})
		case i > 0 && x.byMAC[i-1].MAC == s.MAC && x.byMAC[i-1].Subscriber != s.Subscriber:
			p.add(Problem{Kind: ProblemDuplicateMAC, Subscriber: s.Subscriber, MAC: s.MAC,
				Detail: fmt.Sprintf("has no address, nor has subscriber %d with the same MAC", x.byMAC[i-1].Subscriber)})
		}
	}
}

func (t *tables) portRows(d DeviceID, port uint32) []Binding {
	i, ok := slices.BinarySearchFunc(t.ports, portSpan{device: d, port: port}, comparePortSpan)
	if !ok {
		return nil
	}
	p := t.ports[i]
	return t.rows[p.lo:p.hi:p.hi]
}

// unlistedSeats is unlisted for seats.
func (p *problems) unlistedSeats(t *tables, subs []Subscriber) {
	devices := make(map[DeviceID]bool)
	for i := range t.seats.rows {
		s := &t.seats.rows[i]
		if i == 0 || t.seats.rows[i-1].Subscriber != s.Subscriber {
			if _, ok := findSubscriber(subs, s.Subscriber); !ok && len(t.bySubscriber.find(s.Subscriber)) == 0 {
				p.add(Problem{Kind: ProblemUnknownSubscriber, Subscriber: s.Subscriber,
					Detail: "has a row without an address but is in no state list; never blocked"})
			}
		}
		if _, ok := findDevice(t.devices, s.Device); s.Device != 0 && !ok && !devices[s.Device] {
			devices[s.Device] = true
			p.add(Problem{Kind: ProblemUnknownDevice, Device: s.Device,
				Detail: "rows without an address name a switch that the ERP does not list; option 82 cannot match them"})
		}
	}
}

// Seats gives the subscribers without an address, sorted by subscriber and port.
// There are none unless the Input asked for them.
func (s *Snapshot) Seats() []Seat {
	if s == nil {
		return nil
	}
	return s.t.seats.rows
}

// KeepsSeats reports whether the fetch asked for seats: if not, that there is none says nothing.
func (s *Snapshot) KeepsSeats() bool { return s != nil && s.t.seats.kept }

// WithSeatsOnly returns the number of subscribers who have seats and no binding.
func (s *Snapshot) WithSeatsOnly() int { return s.t.seats.alone }

// Empty reports whether there is neither a Binding nor a Seat.
func (s *Snapshot) Empty() bool { return s.Len() == 0 && len(s.Seats()) == 0 }

// SeatsOf gives the seats of a subscriber, sorted by port and MAC.
func (s *Snapshot) SeatsOf(id SubscriberID) []Seat {
	if s == nil {
		return nil
	}
	return s.t.seats.of(id)
}

func (x *seatTables) of(id SubscriberID) []Seat {
	lo, ok := slices.BinarySearchFunc(x.rows, id, func(s Seat, id SubscriberID) int { return cmp.Compare(s.Subscriber, id) })
	if !ok {
		return nil
	}
	hi := lo + 1
	for hi < len(x.rows) && x.rows[hi].Subscriber == id {
		hi++
	}
	return x.rows[lo:hi:hi]
}

// SeatByKey gives the seat of a subscriber that pools know by key, or nil.
func (s *Snapshot) SeatByKey(id SubscriberID, key MAC) *Seat {
	seats := s.SeatsOf(id)
	for i := range seats {
		if seats[i].Key == key {
			return &seats[i]
		}
	}
	return nil
}

// SeatsByPort gives the seats on an access port. Device or port zero has none.
func (s *Snapshot) SeatsByPort(d DeviceID, port uint32) []*Seat {
	if s == nil || d == 0 || port == 0 {
		return nil
	}
	return span(s.t.seats.byPort, func(x *Seat) int { return cmp.Or(cmp.Compare(x.Device, d), cmp.Compare(x.Port, port)) })
}

// SeatsByPortName gives the seats on an access port by its interface name,
// compared byte by byte.
func (s *Snapshot) SeatsByPortName(d DeviceID, name []byte) []*Seat {
	if s == nil || d == 0 || len(name) == 0 {
		return nil
	}
	return span(s.t.seats.byName, func(x *Seat) int {
		switch { // not cmp.Compare: a string made of name would be an allocation
		case x.Device != d:
			return cmp.Compare(x.Device, d)
		case x.PortName < string(name):
			return -1
		case x.PortName == string(name):
			return 0
		}
		return 1
	})
}

// SeatsByMAC gives the seats that the ERP has with this MAC. The zero MAC has none.
func (s *Snapshot) SeatsByMAC(m MAC) []*Seat {
	if s == nil || m.IsZero() {
		return nil
	}
	return span(s.t.seats.byMAC, func(x *Seat) int { return compareMAC(x.MAC, m) })
}

// SeatsByVLAN gives the seats in a VLAN, by the rules of ByVLAN.
func (s *Snapshot) SeatsByVLAN(vlan uint16) (seats []*Seat, shared bool) {
	if v := s.vlanAt(vlan); v != nil {
		return v.seats, v.shared
	}
	return nil, false
}

// span gives the part of a sorted list for which order is zero.
func span(list []*Seat, order func(*Seat) int) []*Seat {
	lo, hi := 0, len(list)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); order(list[mid]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for hi < len(list) && order(list[hi]) == 0 {
		hi++
	}
	return list[lo:hi:hi]
}
