package provision

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Build joins what a fetch saw into a Snapshot and says every defect it met,
// sorted. It never fails: a row that cannot be used is left out, a row that can
// is kept whatever else is wrong. The result does not depend on the order of
// the input, which is left as it is.
//
// An address belongs to one subscriber. Of several that claim it an active one
// wins, then the row with a port, then the row with a MAC, then the lowest id:
// an active customer is never blocked because somebody else's row says stop.
// Rows of one subscriber and address that complete each other become one. Addresses
// of one subscriber with the same port, MAC and VLAN are on one line.
//
// With KeepVacant subscribers who have a port, a MAC or a VLAN but no address get a
// vacant line with an Owner.
func Build(in Input) (*Snapshot, []Problem) {
	p := &problems{list: slices.Clone(in.Problems)}
	subs := buildSubscribers(in.Subscribers, in.Problems, p)
	c := readClaims(in, p)
	t := newTables(c, in.KeepVacant, subs, buildDevices(in.Devices, p), p)
	p.unlisted(t, subs)
	s := newSnapshot(t, subs, in.Source, in.FetchedAt)
	s.nets = newSubnets(readSubnets(&in, t, p), in.Reserved, t, subs)
	s.nets.report(&in, p)
	s.word = newWord(t, &in)
	return s, p.sorted()
}

// problems collects defects; a nil *problems drops them.
type problems struct{ list []Problem }

func (p *problems) add(q Problem) {
	if p != nil {
		p.list = append(p.list, q)
	}
}

func (p *problems) sorted() []Problem {
	slices.SortFunc(p.list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Subscriber, b.Subscriber), a.IP.Compare(b.IP),
			compareMAC(a.MAC, b.MAC), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.Detail, b.Detail))
	})
	p.list = slices.Compact(p.list)
	return p.list
}

// unlisted reports subscribers and devices that lines name and no list has, once
// each.
func (p *problems) unlisted(t *tables, subs []Subscriber) {
	j := 0
	for i, id := range t.bySubscriber.keys { // sorted, as subs are
		if i > 0 && t.bySubscriber.keys[i-1] == id {
			continue
		}
		for j < len(subs) && subs[j].ID < id {
			j++
		}
		if j < len(subs) && subs[j].ID == id {
			continue
		}
		what := "a binding"
		if t.lines[t.bySubscriber.refs[i]].Vacant() { // the others come first
			what = "a row without an address"
		}
		p.add(Problem{Kind: ProblemUnknownSubscriber, Subscriber: id, Detail: "has " + what + " but is in no state list; never blocked"})
	}
	for _, d := range t.ports {
		if _, ok := findDevice(t.devices, d.device); ok {
			continue
		}
		bound, vacant := false, false
		for i := range t.lines[d.lo:d.hi] {
			v := t.lines[int(d.lo)+i].Vacant()
			bound, vacant = bound || !v, vacant || v
		}
		if bound {
			p.add(Problem{Kind: ProblemUnknownDevice, Device: d.device,
				Detail: "bindings name a switch that the ERP does not list; option 82 cannot match them"})
		}
		if vacant {
			p.add(Problem{Kind: ProblemUnknownDevice, Device: d.device,
				Detail: "rows without an address name a switch that the ERP does not list; option 82 cannot match them"})
		}
	}
}

func findDevice(devices []Device, id DeviceID) (int, bool) {
	return slices.BinarySearchFunc(devices, id, func(d Device, id DeviceID) int { return cmp.Compare(d.ID, id) })
}

// buildSubscribers sorts the state lists. One who is in several gets the most
// permissive state of them.
func buildSubscribers(in []Subscriber, told []Problem, p *problems) []Subscriber {
	explained := make(map[SubscriberID]bool) // the fetch said why already
	for i := range told {
		if told[i].Kind == ProblemUnknownState {
			explained[told[i].Subscriber] = true
		}
	}
	subs := make([]Subscriber, 0, len(in))
	for _, s := range in {
		if s.ID <= 0 {
			p.add(Problem{Kind: ProblemBadRow, Subscriber: s.ID, Detail: fmt.Sprintf("state list: customer id %d is not positive", s.ID)})
			continue
		}
		if s.State > StateActive {
			s.State = StateUnknown
		}
		subs = append(subs, s)
	}
	slices.SortFunc(subs, func(a, b Subscriber) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return int(b.State) - int(a.State)
	})
	out := subs[:0]
	for _, s := range subs {
		if n := len(out); n > 0 && out[n-1].ID == s.ID {
			if out[n-1].State != s.State {
				p.add(Problem{Kind: ProblemBadRow, Subscriber: s.ID,
					Detail: fmt.Sprintf("listed as %s and as %s; %s is used", out[n-1].State, s.State, out[n-1].State)})
			}
			continue
		}
		if s.State == StateUnknown && !explained[s.ID] {
			p.add(Problem{Kind: ProblemUnknownState, Subscriber: s.ID, Detail: "state is none of stop, pause, active; never blocked"})
		}
		out = append(out, s)
	}
	return out
}

// buildDevices sorts the switches by id, one row each.
func buildDevices(in []Device, p *problems) []Device {
	devices := make([]Device, 0, len(in))
	for _, d := range in {
		d.IP = d.IP.Unmap().WithZone("")
		if d.ID <= 0 {
			p.add(Problem{Kind: ProblemBadRow, Device: d.ID, IP: d.IP, MAC: d.MAC,
				Detail: fmt.Sprintf("device list: id %d is not positive", d.ID)})
			continue
		}
		devices = append(devices, d)
	}
	slices.SortFunc(devices, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), compareMAC(b.MAC, a.MAC), b.IP.Compare(a.IP), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Model, b.Model))
	})
	out := devices[:0]
	for _, d := range devices {
		if n := len(out); n > 0 && out[n-1].ID == d.ID {
			if out[n-1] != d {
				p.add(Problem{Kind: ProblemDuplicateDevice, Device: d.ID, MAC: d.MAC, IP: d.IP, Detail: "one id, two different devices"})
			}
			continue
		}
		out = append(out, d)
	}
	return out
}

// claims are what lines say, before it is settled who has which address: each row has one
// address or none.
type claims struct {
	rows   []Line
	hosts  []uint64 // the address in the upper half, its place in rows in the lower: that sorts fast
	routed []claim
	vacant []uint32 // places of rows without an address
}

// claim is a subnet and the place of its row.
type claim struct {
	subnet netip.Prefix
	row    uint32
	alone  bool // no host address is on the same line
}

func (c *claims) add(l *Line, a Address) {
	row := uint32(len(c.rows))
	switch a.Kind {
	case Host4:
		c.hosts = append(c.hosts, uint64(ipKey(a.Prefix.Addr()))<<32|uint64(row))
	case Routed4:
		c.routed = append(c.routed, claim{subnet: a.Prefix, row: row})
	default:
		c.vacant = append(c.vacant, row)
	}
	c.rows = append(c.rows, *l)
	c.rows[row].Owner, c.rows[row].Addresses = Owner{}, nil
}

// addAll adds lines that were settled before: they come apart as they came in.
func (c *claims) addAll(lines []Line) {
	for i := range lines {
		l := &lines[i]
		for _, a := range l.Addresses {
			c.add(l, a)
		}
		if !l.Owner.IsZero() {
			c.add(l, Address{})
		}
	}
}

// Stored collects what a Snapshot had, so that it need not be checked again. Its zero value is empty.
type Stored struct {
	Subscribers []Subscriber
	Devices     []Device
	FetchedAt   time.Time
	Origin      Source // where the rows came from first
	// DevicesUnread is as a Snapshot tells it.
	DevicesUnread bool
	claims        claims
	subnets       []Subnet
}

// Add adds one address of a line, or with the zero Address a vacant line.
func (x *Stored) Add(l *Line, a Address) { x.claims.add(l, a) }

// AddSubnet adds a customer's subnet.
func (x *Stored) AddSubnet(n Subnet) { x.subnets = append(x.subnets, n) }

// Snapshot builds the Snapshot again. It can be called once.
func (x *Stored) Snapshot() *Snapshot {
	subs := buildSubscribers(x.Subscribers, nil, nil)
	t := newTables(&x.claims, len(x.claims.vacant) > 0, subs, buildDevices(x.Devices, nil), nil)
	s := newSnapshot(t, subs, SourceStored, x.FetchedAt)
	s.nets = newSubnets(x.subnets, nil, t, subs)
	if x.Origin.fetched() {
		s.word.origin = x.Origin
	}
	s.word.devicesUnread = x.DevicesUnread
	return s
}

// readClaims takes the lines of a fetch apart and leaves out what cannot be one.
func readClaims(in Input, p *problems) *claims {
	nets := newSubnetTable(in.Subnets)
	reserved := make(map[uint32]bool, len(in.Reserved))
	for _, a := range in.Reserved {
		if a = a.Unmap(); a.Is4() {
			reserved[ipKey(a)] = true
		}
	}
	names := make(map[string]string) // one copy of each interface name
	c := &claims{rows: make([]Line, 0, len(in.Lines)), hosts: make([]uint64, 0, len(in.Lines))}
	none := []Address{{}}
	for i := range in.Lines {
		l := in.Lines[i]
		if l.Device <= 0 { // a port without its switch says nothing
			l.Device, l.Port, l.PortName = 0, 0, ""
		}
		addresses := l.Addresses
		if len(addresses) == 0 {
			addresses = none
		}
		for _, a := range addresses {
			a = a.tidy()
			switch place := l.Subscriber > 0 && (!l.MAC.IsZero() || l.HasPort() || l.VLAN != 0); {
			case a.Prefix.IsValid() || !place:
			case in.KeepVacant:
				l.PortName = oneCopy(names, l.PortName)
				c.add(&l, Address{})
				continue
			case l.MAC.IsZero():
				continue // a customer without an address is no defect
			}
			if kind, why := defect(&l, a, nets, reserved); kind != "" {
				p.add(Problem{Kind: kind, Subscriber: l.Subscriber, IP: a.Prefix.Addr(), MAC: l.MAC, Device: l.Device, Port: l.Port, Detail: why})
				if kind != ProblemOutsideSubnets {
					continue
				}
			}
			l.PortName = oneCopy(names, l.PortName)
			c.add(&l, a)
		}
	}
	return c
}

// tidy returns the address as a Snapshot has it: no IPv4 within IPv6, no zone, no bits
// beyond the length. One that says nothing is the zero Address.
func (a Address) tidy() Address {
	ip, bits := a.Prefix.Addr(), a.Prefix.Bits()
	if ip.Is4() && bits == 32 { // as nearly all are
		return a
	}
	if ip.Is4In6() {
		ip, bits = ip.Unmap(), bits-96
	}
	p, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return Address{}
	}
	return Address{a.Kind, p}
}

// oneCopy returns the copy of a text that all rows share.
func oneCopy(names map[string]string, text string) string {
	name, ok := names[text]
	if !ok && text != "" {
		name = strings.Clone(text)
		names[name] = name
	}
	return name
}

// defect says what is wrong with one address of a line by itself; empty if nothing is.
func defect(l *Line, a Address, nets *subnetTable, reserved map[uint32]bool) (ProblemKind, string) {
	ip := a.Prefix.Addr()
	switch {
	case !ip.IsValid() && !l.MAC.IsZero():
		return ProblemNoAddress, "row has a MAC but no IP"
	case !ip.IsValid():
		return ProblemBadRow, "row has neither IP nor MAC"
	case !ip.Is4() || a.Kind != Host4 && a.Kind != Routed4 || a.Kind == Host4 && a.Prefix.Bits() != 32:
		return ProblemBadRow, "address is not IPv4"
	case l.Subscriber <= 0:
		return ProblemBadRow, "row names no customer"
	case a.Kind == Host4 && reserved[ipKey(ip)]:
		return ProblemReservedAddress, "address of a gateway"
	}
	if b := ip.As4(); b[0] == 0 || b[0] == 127 || b[0] >= 224 {
		return ProblemReservedAddress, "not a unicast address of a host"
	}
	subnet, ok := nets.find(ip)
	switch {
	case a.Kind == Routed4, !ok && nets.empty():
		return "", ""
	case !ok:
		return ProblemOutsideSubnets, "address is in no served subnet"
	}
	switch network, broadcast := NetworkAndBroadcast(subnet); ip {
	case network:
		return ProblemReservedAddress, "network address of " + subnet.String()
	case broadcast:
		return ProblemReservedAddress, "broadcast address of " + subnet.String()
	}
	return "", ""
}

// subnetTable finds the longest prefix that holds an address: one map per
// prefix length in use, which are few.
type subnetTable struct {
	bits []int // descending
	sets map[int]map[uint32]struct{}
}

func newSubnetTable(prefixes []netip.Prefix) *subnetTable {
	t := &subnetTable{sets: make(map[int]map[uint32]struct{})}
	for _, p := range prefixes {
		if !p.IsValid() || !p.Addr().Is4() {
			continue
		}
		if t.sets[p.Bits()] == nil {
			t.sets[p.Bits()] = make(map[uint32]struct{})
			t.bits = append(t.bits, p.Bits())
		}
		t.sets[p.Bits()][ipKey(p.Masked().Addr())] = struct{}{}
	}
	slices.SortFunc(t.bits, func(a, b int) int { return b - a })
	return t
}

func (t *subnetTable) empty() bool { return len(t.bits) == 0 }

func (t *subnetTable) find(ip netip.Addr) (netip.Prefix, bool) {
	k := ipKey(ip)
	for _, bits := range t.bits {
		if _, ok := t.sets[bits][k&^uint32(1<<(32-bits)-1)]; ok {
			p, err := ip.Prefix(bits)
			return p, err == nil
		}
	}
	return netip.Prefix{}, false
}

func compareMAC(a, b MAC) int { return cmp.Compare(macKey(a), macKey(b)) }
