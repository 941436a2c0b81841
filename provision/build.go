package provision

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Build joins what a fetch saw into a Snapshot and says every defect it met,
// sorted. It never fails: a row that cannot be used is left out, a row that can
// is kept whatever else is wrong. The result does not depend on the order of
// the input, which is left as it is.
//
// An address belongs to one subscriber. Of several that claim it an active one
// wins, then the row with a port, then the row with a MAC, then the lowest id:
// an active customer is never blocked because somebody else's row says stop.
// Rows of one subscriber and address that complete each other become one.
func Build(in Input) (*Snapshot, []Problem) {
	p := &problems{list: slices.Clone(in.Problems)}
	subs := buildSubscribers(in.Subscribers, in.Problems, p)
	rows, seats := cleanRows(in, p)
	t := newTables(rows, seats, in.KeepSeats, subs, buildDevices(in.Devices, p), p)
	p.unlisted(t, subs)
	p.unlistedSeats(t, subs)
	return newSnapshot(t, subs, in.Source, in.FetchedAt), p.sorted()
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

// unlisted reports subscribers and devices that rows name and no list has, once
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
		if j == len(subs) || subs[j].ID != id {
			p.add(Problem{Kind: ProblemUnknownSubscriber, Subscriber: id,
				Detail: "has a binding but is in no state list; never blocked"})
		}
	}
	for i := range t.rows {
		d := t.rows[i].Device
		if d == 0 || i > 0 && t.rows[i-1].Device == d {
			continue
		}
		if _, ok := findDevice(t.devices, d); !ok {
			p.add(Problem{Kind: ProblemUnknownDevice, Device: d,
				Detail: "bindings name a switch that the ERP does not list; option 82 cannot match them"})
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

// cleanRows leaves out what cannot be a binding and gives a copy of the rest, those
// without an address apart.
func cleanRows(in Input, p *problems) ([]Binding, []Seat) {
	nets := newSubnetTable(in.Subnets)
	reserved := make(map[uint32]bool, len(in.Reserved))
	for _, a := range in.Reserved {
		if a = a.Unmap(); a.Is4() {
			reserved[ipKey(a)] = true
		}
	}
	names := make(map[string]string) // one copy of each interface name
	rows := make([]Binding, 0, len(in.Bindings))
	var seats []Seat
	for i := range in.Bindings {
		r := in.Bindings[i]
		r.IP = r.IP.Unmap()
		if r.Device <= 0 { // a port without its switch says nothing
			r.Device, r.Port, r.PortName = 0, 0, ""
		}
		if seat, ok := seatOf(&r); ok && !r.IP.IsValid() {
			switch {
			case in.KeepSeats:
				seat.PortName = oneCopy(names, seat.PortName)
				seats = append(seats, seat)
				continue
			case r.MAC.IsZero():
				continue // a customer without an address is no defect
			}
		}
		if kind, why := rowDefect(&r, nets, reserved); kind != "" {
			p.add(Problem{Kind: kind, Subscriber: r.Subscriber, IP: r.IP, MAC: r.MAC, Device: r.Device, Port: r.Port, Detail: why})
			if kind != ProblemOutsideSubnets {
				continue
			}
		}
		r.PortName = oneCopy(names, r.PortName)
		rows = append(rows, r)
	}
	return rows, seats
}

// oneCopy gives the copy of a text that all rows share.
func oneCopy(names map[string]string, text string) string {
	name, ok := names[text]
	if !ok && text != "" {
		name = strings.Clone(text)
		names[name] = name
	}
	return name
}

// rowDefect says what is wrong with one row by itself; empty if nothing is.
func rowDefect(r *Binding, nets *subnetTable, reserved map[uint32]bool) (ProblemKind, string) {
	switch {
	case !r.IP.IsValid() && !r.MAC.IsZero():
		return ProblemNoAddress, "row has a MAC but no IP"
	case !r.IP.IsValid():
		return ProblemBadRow, "row has neither IP nor MAC"
	case !r.IP.Is4():
		return ProblemBadRow, "address is not IPv4"
	case r.Subscriber <= 0:
		return ProblemBadRow, "row names no customer"
	case reserved[ipKey(r.IP)]:
		return ProblemReservedAddress, "address of a gateway"
	}
	if a := r.IP.As4(); a[0] == 0 || a[0] == 127 || a[0] >= 224 {
		return ProblemReservedAddress, "not a unicast address of a host"
	}
	subnet, ok := nets.find(r.IP)
	switch {
	case !ok && nets.empty():
		return "", ""
	case !ok:
		return ProblemOutsideSubnets, "address is in no served subnet"
	case subnet.Bits() >= 31: // RFC 3021: no network or broadcast address
		return "", ""
	case ipKey(r.IP) == ipKey(subnet.Addr()):
		return ProblemReservedAddress, "network address of " + subnet.String()
	case ipKey(r.IP) == ipKey(subnet.Addr())|1<<(32-subnet.Bits())-1:
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
