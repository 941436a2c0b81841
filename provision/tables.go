package provision

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// tables is the part of a Snapshot that states do not touch: one array of lines, one of
// their addresses, and indexes of places in the former.
type tables struct {
	kept      bool     // the fetch asked for vacant lines; else there is none with an Owner
	lines     []Line   // by Device, Port (PortName where Port is zero), then as Lines says
	contested []Line   // of each address that a line lost to another subscriber's; in no index
	devices   []Device // by ID

	byIP         index[uint32]
	byMAC        index[uint64]
	bySubscriber index[SubscriberID]
	ports        []deviceSpan
	byName       []uint32    // places of lines: those of each device's span by PortName
	vlans        []vlanLines // by VLAN
	deviceByMAC  map[MAC]*Device
	deviceByIP   map[netip.Addr]*Device
	deviceByName map[string]*Device // nil: several have it

	bound  int // distinct subscribers with a host address
	alone  int // distinct subscribers with vacant lines and no host address
	vacant int // lines with an Owner
}

// index finds lines by a key that several may share. keys are sorted and stand
// apart from the lines, so that a search stays in few cache lines.
type index[K cmp.Ordered] struct {
	keys []K
	refs []uint32
}

// deviceSpan is the place of one device's lines in tables.lines.
type deviceSpan struct {
	device DeviceID
	lo, hi uint32
}

// vlanLines are the lines of one VLAN.
type vlanLines struct {
	vlan        uint16
	subscribers int          // of several no lines are kept
	last        SubscriberID // of them, by number
	refs        []uint32
}

// newTables chooses one line per address and indexes the result. It takes c over
// and writes to it, but keeps none of its memory. Fed with its own lines and contested it
// makes the same tables again, which is how stored snapshots and changed states
// are handled. subs must be sorted.
func newTables(c *claims, keepVacant bool, subs []Subscriber, devices []Device, p *problems) *tables {
	t := &tables{devices: devices, kept: keepVacant}
	t.choose(c, subs, p)
	l := newLayout(c)
	t.chooseVacant(c, l, p)
	order := t.lay(c, l)
	t.indexNames(order)
	t.indexVLANs()
	t.indexDevices(p)
	if p != nil {
		t.reportPorts(p)
		t.reportMACs(p)
	}
	return t
}

// choose leaves one row per address, sorted by address. It keeps those of other
// subscribers that lost in t.contested.
func (t *tables) choose(c *claims, subs []Subscriber, p *problems) {
	var group []Line
	settle := func(rows []uint32, a Address) {
		group = group[:0]
		for _, row := range rows {
			group = append(group, c.rows[row])
		}
		c.rows[rows[0]] = t.chooseRow(group, a, subs, p)
	}
	var rows []uint32
	slices.Sort(c.hosts)
	hosts := c.hosts[:0]
	for i := 0; i < len(c.hosts); {
		first := c.hosts[i]
		j := i + 1
		for j < len(c.hosts) && c.hosts[j]>>32 == first>>32 {
			j++
		}
		if j > i+1 {
			rows = rows[:0]
			for _, h := range c.hosts[i:j] {
				rows = append(rows, uint32(h))
			}
			settle(rows, hostOf(uint32(first>>32)))
		}
		hosts = append(hosts, first)
		i = j
	}
	c.hosts = hosts
	slices.SortFunc(c.routed, func(a, b claim) int { return cmp.Or(a.subnet.Compare(b.subnet), cmp.Compare(a.row, b.row)) })
	routed := c.routed[:0]
	for i := 0; i < len(c.routed); {
		first := c.routed[i]
		rows = rows[:0]
		for ; i < len(c.routed) && c.routed[i].subnet == first.subnet; i++ {
			rows = append(rows, c.routed[i].row)
		}
		if len(rows) > 1 {
			settle(rows, Address{Routed4, first.subnet})
		}
		routed = append(routed, first)
	}
	c.routed = routed
}

// chooseRow settles who has one address; group has at least two rows of it.
func (t *tables) chooseRow(group []Line, a Address, subs []Subscriber, p *problems) Line {
	active := func(id SubscriberID) bool {
		i, ok := findSubscriber(subs, id)
		return ok && subs[i].State == StateActive
	}
	slices.SortFunc(group, func(a, b Line) int {
		return cmp.Or(
			compareTrueFirst(active(a.Subscriber), active(b.Subscriber)),
			compareTrueFirst(a.HasPort(), b.HasPort()),
			compareTrueFirst(!a.MAC.IsZero(), !b.MAC.IsZero()),
			compareLines(&a, &b))
	})
	win := group[0]
	for _, r := range group[1:] {
		if r.Subscriber == win.Subscriber && absorb(&win, &r) {
			continue
		}
		q := Problem{Kind: ProblemDuplicateIP, Subscriber: r.Subscriber, IP: a.Prefix.Addr(), MAC: r.MAC, Device: r.Device, Port: r.Port}
		if r.Subscriber != win.Subscriber {
			if n := len(t.contested); n == 0 || compareLines(&t.contested[n-1], &r) != 0 || t.contested[n-1].Addresses[0] != a {
				r.Addresses = []Address{a}
				t.contested = append(t.contested, r)
			}
			q.Detail = fmt.Sprintf("address is used by subscriber %d, whose row is kept", win.Subscriber)
		} else {
			q.Detail = fmt.Sprintf("subscriber has the address twice; the row of device %d port %d mac %q is kept", win.Device, win.Port, win.MAC)
		}
		p.add(q)
	}
	return win
}

// absorb fills what win does not know from r, unless they contradict.
func absorb(win, r *Line) bool {
	switch {
	case !win.MAC.IsZero() && !r.MAC.IsZero() && win.MAC != r.MAC,
		win.VLAN != 0 && r.VLAN != 0 && win.VLAN != r.VLAN,
		win.Device != 0 && r.Device != 0 && !sameExactPort(win, r):
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

// layout is which rows of chosen claims make one line. Lines are numbered in the order in
// which those that share a key are told: by their lowest address, then the vacant ones.
type layout struct {
	rows         []uint32     // of each line: the place of the row that says where it is
	firsts       []netip.Addr // of each line that is not vacant: its lowest address
	ofHost       []uint32     // of each chosen host address: its line
	ofNet        []uint32     // of each chosen subnet: its line
	bySubscriber []rank
	open         []uint32 // room for the vacant rows of one subscriber that a pool may give an address
}

// rank is a line with the key that it is sorted by.
type rank struct {
	key  uint64
	line uint32
}

func compareRanks(a, b rank) int {
	if a.key != b.key {
		return cmp.Compare(a.key, b.key)
	}
	return cmp.Compare(a.line, b.line)
}

// newLayout makes one line of the rows that agree in all but the address. The vacant
// ones are not in it yet, nor those that have nothing but subnets.
func newLayout(c *claims) *layout {
	n := len(c.hosts)
	at := func(i uint32) uint32 { // the row of a host address, or after them of a subnet
		if int(i) < n {
			return uint32(c.hosts[i])
		}
		return c.routed[int(i)-n].row
	}
	keys := make([]rank, n+len(c.routed))
	for i := range keys {
		keys[i] = rank{uint64(c.rows[at(uint32(i))].Subscriber), uint32(i)}
	}
	slices.SortFunc(keys, compareRanks)
	head := make([]uint32, len(keys)) // the first that is on the same line
	heads := keys[:0]
	for lo := 0; lo < len(keys); {
		hi := lo + 1
		for hi < len(keys) && keys[hi].key == keys[lo].key {
			hi++
		}
		from, run := len(heads), keys[lo:hi]
		if len(run) > 1 {
			slices.SortFunc(run, func(a, b rank) int {
				return cmp.Or(compareLines(&c.rows[at(a.line)], &c.rows[at(b.line)]), cmp.Compare(a.line, b.line))
			})
		}
		for _, k := range run {
			if last := len(heads) - 1; last >= from && compareLines(&c.rows[at(heads[last].line)], &c.rows[at(k.line)]) == 0 {
				head[k.line] = heads[last].line
				continue
			}
			head[k.line] = k.line
			heads = append(heads, k)
		}
		slices.SortFunc(heads[from:], compareRanks)
		lo = hi
	}
	l := &layout{rows: make([]uint32, 0, len(heads)), firsts: make([]netip.Addr, 0, len(heads)), ofHost: make([]uint32, n), ofNet: make([]uint32, len(c.routed))}
	for i, h := range c.hosts {
		if head[i] == uint32(i) {
			l.ofHost[i] = uint32(len(l.rows))
			l.rows = append(l.rows, uint32(h))
			l.firsts = append(l.firsts, addrOf(uint32(h>>32)))
		} else {
			l.ofHost[i] = l.ofHost[head[i]]
		}
	}
	for i := range c.routed {
		if h := int(head[n+i]); h < n {
			l.ofNet[i] = l.ofHost[h]
		} else {
			c.routed[i].row, c.routed[i].alone = c.routed[h-n].row, true
		}
	}
	l.bySubscriber = heads[:0]
	for _, k := range heads {
		if int(k.line) < n {
			l.bySubscriber = append(l.bySubscriber, rank{k.key, l.ofHost[k.line]})
		}
	}
	return l
}

// lay sorts the lines by port, gives them their addresses and makes the indexes that list
// lines by a number. It returns the number that each line had in l.
func (t *tables) lay(c *claims, l *layout) []uint32 {
	type key struct {
		device DeviceID
		port   uint32
		line   uint32
	}
	keys := make([]key, len(l.rows))
	for i, row := range l.rows {
		keys[i] = key{c.rows[row].Device, c.rows[row].Port, uint32(i)}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.device != b.device {
			return cmp.Compare(a.device, b.device)
		}
		if a.port != b.port {
			return cmp.Compare(a.port, b.port)
		}
		if a.port == 0 {
			if c := strings.Compare(c.rows[l.rows[a.line]].PortName, c.rows[l.rows[b.line]].PortName); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.line, b.line)
	})
	t.lines = make([]Line, len(keys))
	order, pos, count := make([]uint32, len(keys)), make([]uint32, len(keys)), make([]uint32, len(keys))
	for i, k := range keys {
		order[i], pos[k.line] = k.line, uint32(i)
		t.lines[i] = c.rows[l.rows[k.line]]
		if d := k.device; d != 0 && (len(t.ports) == 0 || t.ports[len(t.ports)-1].device != d) {
			t.ports = append(t.ports, deviceSpan{d, uint32(i), uint32(i)})
		}
		if k.device != 0 {
			t.ports[len(t.ports)-1].hi++
		}
	}
	t.giveAddresses(c, l, pos, count)

	t.byIP = index[uint32]{make([]uint32, len(c.hosts)), make([]uint32, len(c.hosts))}
	for i, h := range c.hosts {
		t.byIP.keys[i], t.byIP.refs[i] = uint32(h>>32), pos[l.ofHost[i]]
	}
	ranks := l.bySubscriber
	for i := len(l.firsts); i < len(l.rows); i++ {
		ranks = append(ranks, rank{uint64(c.rows[l.rows[i]].Subscriber), uint32(i)})
	}
	if len(l.rows) > len(l.firsts) {
		slices.SortFunc(ranks, compareRanks)
	}
	t.bySubscriber = newIndex[SubscriberID](ranks, pos)
	for i, k := range ranks {
		switch first := i == 0 || ranks[i-1].key != k.key; {
		case first && int(k.line) < len(l.firsts):
			t.bound++
		case first:
			t.alone++
		}
	}
	ranks = ranks[:0]
	for i, row := range l.rows {
		if m := c.rows[row].MAC; !m.IsZero() {
			ranks = append(ranks, rank{macKey(m), uint32(i)})
		}
	}
	slices.SortFunc(ranks, compareRanks)
	t.byMAC = newIndex[uint64](ranks, pos)
	return order
}

// giveAddresses writes the addresses of every line into one array, in the order of the lines.
func (t *tables) giveAddresses(c *claims, l *layout, pos, count []uint32) {
	for _, line := range l.ofHost {
		count[pos[line]]++
	}
	for _, line := range l.ofNet {
		count[pos[line]]++
	}
	all, end := make([]Address, len(l.ofHost)+len(l.ofNet)), uint32(0)
	for i, n := range count {
		count[i] = end // from now on where the next address goes
		if end += n; n > 0 {
			t.lines[i].Addresses = all[end-n : end : end]
		}
	}
	give := func(line uint32, a Address) {
		at := &count[pos[line]]
		all[*at] = a
		*at++
	}
	for i, h := range c.hosts {
		give(l.ofHost[i], hostOf(uint32(h>>32)))
	}
	for i := range c.routed {
		give(l.ofNet[i], Address{Routed4, c.routed[i].subnet})
	}
}

func newIndex[K ~uint64 | ~int64](ranks []rank, pos []uint32) index[K] {
	x := index[K]{make([]K, len(ranks)), make([]uint32, len(ranks))}
	for i, k := range ranks {
		x.keys[i], x.refs[i] = K(k.key), pos[k.line]
	}
	return x
}

// indexNames sorts the lines of each device by port name; order says which of one name comes first.
func (t *tables) indexNames(order []uint32) {
	t.byName = make([]uint32, len(t.lines))
	for i := range t.byName {
		t.byName[i] = uint32(i)
	}
	for _, d := range t.ports {
		slices.SortFunc(t.byName[d.lo:d.hi], func(a, b uint32) int {
			if c := strings.Compare(t.lines[a].PortName, t.lines[b].PortName); c != 0 {
				return c
			}
			return cmp.Compare(order[a], order[b])
		})
	}
}

// maxVLAN is the highest VLAN id (IEEE 802.1Q; 0 and 4095 are reserved).
const maxVLAN = 4094

// indexVLANs makes the look-up by VLAN. Of a shared one, which may hold every
// subscriber there is, no lines are kept.
func (t *tables) indexVLANs() {
	var place [maxVLAN + 1]int32 // in t.vlans, from 1
	for _, ref := range t.bySubscriber.refs {
		l := &t.lines[ref]
		if l.VLAN == 0 || l.VLAN > maxVLAN {
			continue
		}
		if place[l.VLAN] == 0 {
			t.vlans = append(t.vlans, vlanLines{vlan: l.VLAN})
			place[l.VLAN] = int32(len(t.vlans))
		}
		v := &t.vlans[place[l.VLAN]-1]
		if v.subscribers == 0 || v.last != l.Subscriber {
			v.subscribers, v.last = v.subscribers+1, l.Subscriber
		}
		if v.subscribers > 1 {
			v.refs = nil
			continue
		}
		v.refs = append(v.refs, ref)
	}
	slices.SortFunc(t.vlans, func(a, b vlanLines) int { return cmp.Compare(a.vlan, b.vlan) })
}

// indexDevices makes the look-ups of switches; see Snapshot.DeviceByMAC.
func (t *tables) indexDevices(p *problems) {
	used := make(map[DeviceID]bool, len(t.ports))
	for _, d := range t.ports {
		used[d.device] = true
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

// reportPorts says each port on which several subscribers are.
func (t *tables) reportPorts(p *problems) {
	for lo := 0; lo < len(t.lines); {
		first := &t.lines[lo]
		hi := lo + 1
		for hi < len(t.lines) && sameGroup(first, &t.lines[hi]) {
			hi++
		}
		if first.HasPort() {
			t.reportSharing(p, ProblemPortConflict, hi-lo, func(i int) *Line { return &t.lines[lo+i] })
		}
		lo = hi
	}
}

// reportMACs says each MAC that several subscribers have.
func (t *tables) reportMACs(p *problems) {
	x := &t.byMAC
	for lo := 0; lo < len(x.keys); {
		hi := lo + 1
		for hi < len(x.keys) && x.keys[hi] == x.keys[lo] {
			hi++
		}
		t.reportSharing(p, ProblemDuplicateMAC, hi-lo, func(i int) *Line { return &t.lines[x.refs[lo+i]] })
		lo = hi
	}
}

// reportSharing says that subscribers share a port or a MAC: of the lines with addresses the
// first other one, of the vacant ones each whose subscriber is not that of the first line
// with an address, or not that of the vacant one before it.
func (t *tables) reportSharing(p *problems, kind ProblemKind, n int, at func(int) *Line) {
	first, bound, told := at(0), 0, false
	for ; bound < n && !at(bound).Vacant(); bound++ {
		l := at(bound)
		if told || l.Subscriber == first.Subscriber {
			continue
		}
		told = true
		q := Problem{Kind: kind, Subscriber: l.Subscriber, IP: l.first(), MAC: l.MAC}
		if kind == ProblemPortConflict {
			q.Device, q.Port = l.Device, l.Port
			q.Detail = fmt.Sprintf("subscriber %d is on the same port with %s", first.Subscriber, first.first())
		} else {
			q.Detail = fmt.Sprintf("subscriber %d has the same MAC at %s", first.Subscriber, first.first())
		}
		p.add(q)
	}
	for i := bound; i < n; i++ {
		l := at(i)
		q := Problem{Kind: kind, Subscriber: l.Subscriber, MAC: l.MAC}
		same, with := "with the same MAC", "has the same MAC at"
		if kind == ProblemPortConflict {
			if l.Port == 0 {
				continue // a port by its name alone
			}
			q.Device, q.Port = l.Device, l.Port
			same, with = "on the same port", "is on the same port with"
		}
		switch {
		case bound > 0 && first.Subscriber != l.Subscriber:
			q.Detail = fmt.Sprintf("has no address, and subscriber %d %s %s", first.Subscriber, with, first.first())
		case i > bound && at(i-1).Subscriber != l.Subscriber:
			q.Detail = fmt.Sprintf("has no address, nor has subscriber %d %s", at(i-1).Subscriber, same)
		default:
			continue
		}
		p.add(q)
	}
}
