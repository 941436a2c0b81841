package provision

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// newTables chooses one row per address and indexes the result. It takes rows
// over and writes to them, but keeps none of their memory. Fed with its own rows and contested it
// gives the same tables again, which is how stored snapshots and changed states
// are handled. subs must be sorted.
func newTables(rows []Binding, seats []Seat, keepSeats bool, subs []Subscriber, devices []Device, p *problems) *tables {
	t := &tables{devices: devices, seats: seatTables{kept: keepSeats}}
	chosen := t.chooseRows(rows, subs, p)
	t.sortRows(rows, chosen)
	t.indexRows(p)
	t.indexPorts(p)
	t.chooseSeats(seats, p)
	t.indexVLANs()
	t.indexDevices(p)
	return t
}

// chooseRows gives one row per address, sorted by address: the address in the
// upper half, the place in rows in the lower one, which sorts fast and spares a
// copy. It keeps the rows of other subscribers that lost in t.contested.
func (t *tables) chooseRows(rows []Binding, subs []Subscriber, p *problems) []uint64 {
	order := make([]uint64, len(rows))
	for i := range rows {
		order[i] = uint64(ipKey(rows[i].IP))<<32 | uint64(i)
	}
	slices.Sort(order)
	chosen := order[:0]
	var group []Binding
	for i := 0; i < len(order); {
		first := order[i]
		j := i + 1
		for j < len(order) && order[j]>>32 == first>>32 {
			j++
		}
		if j > i+1 {
			group = group[:0]
			for _, o := range order[i:j] {
				group = append(group, rows[uint32(o)])
			}
			rows[uint32(first)] = t.chooseRow(group, subs, p)
		}
		chosen = append(chosen, first)
		i = j
	}
	return chosen
}

// chooseRow settles who has one address; group has at least two rows of it.
func (t *tables) chooseRow(group []Binding, subs []Subscriber, p *problems) Binding {
	active := func(id SubscriberID) bool {
		i, ok := findSubscriber(subs, id)
		return ok && subs[i].State == StateActive
	}
	slices.SortFunc(group, func(a, b Binding) int {
		return cmp.Or(
			compareTrueFirst(active(a.Subscriber), active(b.Subscriber)),
			compareTrueFirst(a.HasPort(), b.HasPort()),
			compareTrueFirst(!a.MAC.IsZero(), !b.MAC.IsZero()),
			compareRows(&a, &b))
	})
	win := group[0]
	for _, r := range group[1:] {
		if r.Subscriber == win.Subscriber && absorb(&win, r) {
			continue
		}
		if r.Subscriber != win.Subscriber {
			if n := len(t.contested); n == 0 || t.contested[n-1] != r {
				t.contested = append(t.contested, r)
			}
			p.add(Problem{Kind: ProblemDuplicateIP, Subscriber: r.Subscriber, IP: r.IP, MAC: r.MAC, Device: r.Device, Port: r.Port,
				Detail: fmt.Sprintf("address is used by subscriber %d, whose row is kept", win.Subscriber)})
			continue
		}
		p.add(Problem{Kind: ProblemDuplicateIP, Subscriber: r.Subscriber, IP: r.IP, MAC: r.MAC, Device: r.Device, Port: r.Port,
			Detail: fmt.Sprintf("subscriber has the address twice; the row of device %d port %d mac %q is kept", win.Device, win.Port, win.MAC)})
	}
	return win
}

// absorb fills what win does not know from r, unless they contradict.
func absorb(win *Binding, r Binding) bool {
	samePort := win.Device == r.Device && win.Port == r.Port && win.PortName == r.PortName
	switch {
	case !win.MAC.IsZero() && !r.MAC.IsZero() && win.MAC != r.MAC,
		win.VLAN != 0 && r.VLAN != 0 && win.VLAN != r.VLAN,
		win.Device != 0 && r.Device != 0 && !samePort:
		return false
	}
	if win.MAC.IsZero() {
		win.MAC = r.MAC
	}
	if win.VLAN == 0 {
		win.VLAN = r.VLAN
	}
	if win.Device == 0 {
		win.Device, win.Port, win.PortName = r.Device, r.Port, r.PortName
	}
	return true
}

func compareTrueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// compareRows is a total order of rows.
func compareRows(a, b *Binding) int {
	return cmp.Or(
		cmp.Compare(a.Subscriber, b.Subscriber), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.PortName, b.PortName), compareMAC(a.MAC, b.MAC), cmp.Compare(a.VLAN, b.VLAN))
}

// sortRows lays the chosen rows out by port and address, each port in one piece.
func (t *tables) sortRows(rows []Binding, chosen []uint64) {
	row := func(i uint32) *Binding { return &rows[uint32(chosen[i])] }
	type key struct {
		device DeviceID
		port   uint32
		i      uint32 // chosen is sorted by address
	}
	keys := make([]key, len(chosen))
	for i := range keys {
		r := row(uint32(i))
		keys[i] = key{r.Device, r.Port, uint32(i)}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.device != b.device {
			return cmp.Compare(a.device, b.device)
		}
		if a.port != b.port {
			return cmp.Compare(a.port, b.port)
		}
		if a.port == 0 {
			if c := cmp.Compare(row(a.i).PortName, row(b.i).PortName); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.i, b.i)
	})
	t.rows = make([]Binding, len(chosen))
	t.byIP = index[uint32]{make([]uint32, len(chosen)), make([]*Binding, len(chosen))}
	for i, k := range keys {
		t.rows[i] = *row(k.i)
		t.byIP.keys[k.i] = uint32(chosen[k.i] >> 32)
		t.byIP.rows[k.i] = &t.rows[i]
	}
}

// indexRows makes the indexes by MAC and subscriber; both list rows by address.
func (t *tables) indexRows(p *problems) {
	type key struct {
		k uint64
		i uint32 // in byIP
	}
	byKey := func(a, b key) int {
		if a.k != b.k {
			return cmp.Compare(a.k, b.k)
		}
		return cmp.Compare(a.i, b.i)
	}
	keys := make([]key, 0, len(t.rows))
	for i, r := range t.byIP.rows {
		keys = append(keys, key{uint64(r.Subscriber), uint32(i)})
	}
	slices.SortFunc(keys, byKey)
	t.bySubscriber = index[SubscriberID]{make([]SubscriberID, len(keys)), make([]*Binding, len(keys))}
	for i, k := range keys {
		t.bySubscriber.keys[i], t.bySubscriber.rows[i] = SubscriberID(k.k), t.byIP.rows[k.i]
		if i == 0 || keys[i-1].k != k.k {
			t.bound++
		}
	}
	keys = keys[:0]
	for i, r := range t.byIP.rows {
		if !r.MAC.IsZero() {
			keys = append(keys, key{macKey(r.MAC), uint32(i)})
		}
	}
	slices.SortFunc(keys, byKey)
	t.byMAC = index[uint64]{make([]uint64, len(keys)), make([]*Binding, len(keys))}
	for i, k := range keys {
		t.byMAC.keys[i], t.byMAC.rows[i] = k.k, t.byIP.rows[k.i]
	}
	if p != nil {
		t.reportMACs(p)
	}
}

// reportMACs says each MAC that two subscribers have.
func (t *tables) reportMACs(p *problems) {
	x := &t.byMAC
	for i := 0; i < len(x.keys); {
		first := x.rows[i]
		var other *Binding
		for ; i < len(x.keys) && x.keys[i] == macKey(first.MAC); i++ {
			if other == nil && x.rows[i].Subscriber != first.Subscriber {
				other = x.rows[i]
			}
		}
		if other != nil {
			p.add(Problem{Kind: ProblemDuplicateMAC, Subscriber: other.Subscriber, IP: other.IP, MAC: other.MAC,
				Detail: fmt.Sprintf("subscriber %d has the same MAC at %s", first.Subscriber, first.IP)})
		}
	}
}

// indexPorts marks the span of each access port, by number and by name.
func (t *tables) indexPorts(p *problems) {
	t.reservePorts()
	from := 0 // the first name of the device at hand
	for lo := 0; lo < len(t.rows); {
		first := &t.rows[lo]
		if lo > 0 && t.rows[lo-1].Device != first.Device {
			t.sortPortNames(from)
			from = len(t.portNames)
		}
		hi := lo
		var other *Binding
		for ; hi < len(t.rows) && samePort(first, &t.rows[hi]); hi++ {
			if other == nil && t.rows[hi].Subscriber != first.Subscriber {
				other = &t.rows[hi]
			}
		}
		if first.Device != 0 {
			if first.Port != 0 {
				t.ports = append(t.ports, portSpan{first.Device, first.Port, uint32(lo), uint32(hi)})
			}
			t.addPortNames(lo, hi)
		}
		if other != nil && first.HasPort() {
			p.add(Problem{Kind: ProblemPortConflict, Subscriber: other.Subscriber, IP: other.IP, MAC: other.MAC, Device: other.Device, Port: other.Port,
				Detail: fmt.Sprintf("subscriber %d is on the same port with %s", first.Subscriber, first.IP)})
		}
		lo = hi
	}
	t.sortPortNames(from)
}

// reservePorts makes room for the spans: grown slices would keep a quarter too much.
func (t *tables) reservePorts() {
	ports, names := 0, 0
	for i := range t.rows {
		r := &t.rows[i]
		if r.Device == 0 {
			continue
		}
		next := i == 0 || !samePort(&t.rows[i-1], r)
		if next && r.Port != 0 {
			ports++
		}
		if r.PortName != "" && (next || t.rows[i-1].PortName != r.PortName) {
			names++
		}
	}
	t.ports = make([]portSpan, 0, ports)
	t.portNames = make([]nameSpan, 0, names)
}

func samePort(a, b *Binding) bool {
	return a.Device == b.Device && a.Port == b.Port && (a.Port != 0 || a.PortName == b.PortName)
}

// addPortNames appends a span for each run of one name among the rows of a port.
func (t *tables) addPortNames(lo, hi int) {
	for i := lo; i < hi; {
		name := t.rows[i].PortName
		j := i + 1
		for j < hi && t.rows[j].PortName == name {
			j++
		}
		if name != "" {
			t.portNames = append(t.portNames, nameSpan{t.rows[i].Device, name, uint32(i), uint32(j), false})
		}
		i = j
	}
}

// sortPortNames sorts the spans of one device, which begin at from, and makes
// those of one name one.
func (t *tables) sortPortNames(from int) {
	spans := t.portNames[from:]
	slices.SortFunc(spans, func(a, b nameSpan) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return cmp.Compare(a.lo, b.lo)
	})
	out := t.portNames[:from]
	for i := 0; i < len(spans); {
		j := i + 1
		for j < len(spans) && spans[j].name == spans[i].name {
			j++
		}
		span := spans[i]
		if j > i+1 {
			lo := len(t.loose)
			for _, s := range spans[i:j] {
				t.loose = append(t.loose, t.rows[s.lo:s.hi]...)
			}
			slices.SortFunc(t.loose[lo:], func(a, b Binding) int { return a.IP.Compare(b.IP) })
			span.lo, span.hi, span.loose = uint32(lo), uint32(len(t.loose)), true
		}
		out = append(out, span)
		i = j
	}
	t.portNames = out
}

// indexDevices makes the look-ups of switches; see Snapshot.DeviceByMAC.
func (t *tables) indexDevices(p *problems) {
	used := make(map[DeviceID]bool)
	for i := range t.rows {
		if i == 0 || t.rows[i-1].Device != t.rows[i].Device {
			used[t.rows[i].Device] = true
		}
	}
	for i := range t.seats.rows {
		used[t.seats.rows[i].Device] = true
	}
	t.deviceByMAC = make(map[MAC]*Device, len(t.devices))
	t.deviceByIP = make(map[netip.Addr]*Device, len(t.devices))
	t.deviceByName = make(map[string]*Device, len(t.devices))
	for i := range t.devices {
		d := &t.devices[i]
		if !d.MAC.IsZero() {
			old := t.deviceByMAC[d.MAC]
			if old != nil {
				p.add(Problem{Kind: ProblemDuplicateDevice, Device: d.ID, MAC: d.MAC,
					Detail: fmt.Sprintf("device %d has the same MAC", old.ID)})
			}
			if old == nil || !used[old.ID] && used[d.ID] {
				t.deviceByMAC[d.MAC] = d
			}
		}
		if d.IP.IsValid() && !d.IP.IsUnspecified() {
			old := t.deviceByIP[d.IP]
			if old != nil {
				p.add(Problem{Kind: ProblemDuplicateDevice, Device: d.ID, IP: d.IP,
					Detail: fmt.Sprintf("device %d has the same address", old.ID)})
			}
			if old == nil || !used[old.ID] && used[d.ID] {
				t.deviceByIP[d.IP] = d
			}
		}
		if d.Name != "" {
			if _, twice := t.deviceByName[d.Name]; twice {
				t.deviceByName[d.Name] = nil // two switches of one name: neither can be told by it
			} else {
				t.deviceByName[d.Name] = d
			}
		}
	}
}
