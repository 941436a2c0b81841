package erp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

const (
	// maxLookups is how many devices that lines name and the list lacks one fetch asks for by themselves.
	maxLookups = 50
	// fewDevices may lose what clients are found by at once, if single look-ups tell the same: that is an operator's work.
	fewDevices = 2
	// goneFetches is in how many fetches in a row the ERP must say of a device by itself that there is none; and in how many it
	// is waited for what the ERP says of one of which nothing is known.
	goneFetches = 2
)

// device is a switch with its ports.
type device struct {
	provision.Device
	Ports []port `json:"ports,omitempty"`
}

type port struct {
	Number uint32 `json:"n"`
	Name   string `json:"name"`
}

func deviceOf(d *userside.Device) device {
	out := device{Device: provision.Device{ID: provision.DeviceID(d.ID), Name: d.Name.Text(), Model: d.Model, MAC: provision.MAC(d.MAC), IP: d.IP}}
	if len(d.Ifaces) > 0 {
		out.Ports = make([]port, len(d.Ifaces))
		for i := range d.Ifaces {
			out.Ports[i] = port{d.Ifaces[i].Number, d.Ifaces[i].Name}
		}
	}
	return out
}

// naming tells how many rows of the fetch name which device of those in a table, and which port of it.
type naming func(*deviceTable) namedDevices

type namedDevices struct {
	rows  map[provision.DeviceID]int
	ports map[provision.DeviceID]map[port]int // as the rows tell them: by number, by name or by both
}

func newNamedDevices() namedDevices {
	return namedDevices{make(map[provision.DeviceID]int), make(map[provision.DeviceID]map[port]int)}
}

func (n *namedDevices) add(id provision.DeviceID, p port) {
	n.rows[id]++
	if p == (port{}) {
		return
	}
	if n.ports[id] == nil {
		n.ports[id] = make(map[port]int)
	}
	n.ports[id][p]++
}

// firstDevicesTime is how long a fetch waits for the switches where nothing is in use yet: clients wait for it.
const firstDevicesTime = 20 * time.Second

// readDevices reads the switches. Where that fails those of the last good list stay. Without one they are made of what rows
// tell, and the fetch says so: ACLs and matching by MAC do not need them, and nobody is taken for unknown for a switch that they lack.
func (b *batch) readDevices(ctx context.Context, named naming) error {
	never, earlier := b.neverListed(), b.earlierDevices()
	part, cancel := within(ctx, 3)
	defer cancel()
	if b.prev == nil {
		first, done := context.WithTimeout(part, firstDevicesTime)
		defer done()
		part = first
	}
	got, err := b.client.Devices(part, userside.DeviceFilter{})
	if err == nil {
		b.defects("devices", got.Defects)
		listed := make([]device, len(got.Devices))
		for i := range got.Devices {
			listed[i] = deviceOf(&got.Devices[i])
		}
		open := b.judgeDevices(part, listed, earlier, named)
		b.in.DevicesUnread = never && open
		return nil
	}
	b.fails(ctx, syncer.SourceDevices, err)
	if ctx.Err() != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	if b.in.DevicesUnread = never; len(earlier) == 0 {
		b.problem(provision.Problem{Kind: provision.ProblemUnknownDevice, Detail: "device list cannot be read, devices are taken from the rows: " + err.Error()})
	}
	b.devices = newDeviceTable(earlier, false)
	return nil
}

// neverListed reports whether no list of switches was ever read as a whole.
func (b *batch) neverListed() bool {
	if b.prev != nil {
		return b.prev.DevicesUnread()
	}
	return len(b.memory.knownDevices()) == 0 && b.memory.source(syncer.SourceDevices).GoodAt.IsZero()
}

// earlierDevices returns those of the last good list, and of the snapshot in use those that it does not have.
func (b *batch) earlierDevices() []device {
	earlier := b.memory.knownDevices()
	if b.neverListed() {
		return earlier // those in use are made of rows: no list ever told of them
	}
	have := make(map[provision.DeviceID]bool, len(earlier))
	for i := range earlier {
		have[earlier[i].ID] = true
	}
	added := make(map[provision.DeviceID]int)
	for _, d := range b.prev.Devices() {
		if !have[d.ID] && !d.ID.Made() {
			added[d.ID] = len(earlier)
			earlier = append(earlier, device{Device: d})
		}
	}
	if len(added) == 0 {
		return earlier
	}
	for l := range b.prev.Lines().All() { // their ports are known as far as lines name them
		if i, ok := added[l.Device]; ok && l.Port != 0 && l.PortName != "" {
			earlier[i].Ports = append(earlier[i].Ports, port{l.Port, l.PortName})
		}
	}
	return earlier
}

// deviceChange is what a list does to the devices that rows name.
type deviceChange struct {
	all       int                  // rows that name a device
	missing   []provision.DeviceID // not in the list, ascending
	absent    int                  // rows of missing ones of which earlier lists told
	lost      []provision.DeviceID // in the list without the MAC, address, name or ports that they had
	changed   []provision.DeviceID // in the list with another MAC, address or name, or other names of ports
	lostRows  int
	otherRows int                  // of changed
	taken     []provision.DeviceID // whom the list takes something from: missing ones of which earlier lists told, lost, changed
}

// What an operator accepted counts for nothing.
func compareDevices(listed, earlier map[provision.DeviceID]*device, named namedDevices, accepted map[provision.DeviceID]bool) deviceChange {
	var c deviceChange
	count := func(to *int, id provision.DeviceID, n int) {
		if !accepted[id] {
			*to += n
		}
	}
	for id, n := range named.rows {
		c.all += n
		was, now := earlier[id], listed[id]
		switch {
		case now == nil:
			c.missing = append(c.missing, id)
			if was != nil {
				count(&c.absent, id, n)
				c.taken = append(c.taken, id)
			}
		case was == nil:
		case lacks(now, was):
			c.lost = append(c.lost, id)
			count(&c.lostRows, id, n)
		case !was.MAC.IsZero() && now.MAC != was.MAC || was.IP.IsValid() && now.IP != was.IP || was.Name != "" && now.Name != was.Name:
			c.changed = append(c.changed, id)
			count(&c.otherRows, id, n)
		default:
			lost, other := comparePorts(now.Ports, was.Ports, named.ports[id])
			if count(&c.lostRows, id, lost); lost > 0 {
				c.lost = append(c.lost, id)
			}
			if count(&c.otherRows, id, other); other > 0 {
				c.changed = append(c.changed, id)
			}
		}
	}
	c.taken = slices.Concat(c.taken, c.lost, c.changed)
	slices.Sort(c.missing)
	slices.Sort(c.lost)
	slices.Sort(c.changed)
	return c
}

// comparePorts counts the rows that name a port by its number or name alone and of which the other one is told no more, or is
// another than it was.
func comparePorts(now, was []port, rows map[port]int) (lost, other int) {
	if slices.Equal(now, was) {
		return 0, 0
	}
	is, had := bothWays(now), bothWays(was)
	for p, n := range rows {
		before, known := had[p]
		after, told := is[p]
		switch {
		case !known:
		case !told:
			lost += n
		case after != before:
			other += n
		}
	}
	return lost, other
}

// bothWays finds ports by their number or their name alone. Of two that share one the first counts, as to completePort.
func bothWays(ports []port) map[port]port {
	m := make(map[port]port, 2*len(ports))
	for _, p := range ports {
		for _, by := range []port{{Number: p.Number}, {Name: p.Name}} {
			if _, have := m[by]; !have && p.Number != 0 && p.Name != "" {
				m[by] = p
			}
		}
	}
	return m
}

func samePorts(a, b []port) bool {
	sorted := func(ports []port) []port {
		return slices.SortedFunc(slices.Values(ports), func(x, y port) int { return cmp.Or(cmp.Compare(x.Number, y.Number), cmp.Compare(x.Name, y.Name)) })
	}
	return slices.Equal(sorted(a), sorted(b))
}

// lacks reports whether a device has lost something that clients are found by.
func lacks(now, was *device) bool {
	return now.MAC.IsZero() && !was.MAC.IsZero() || !now.IP.IsValid() && was.IP.IsValid() ||
		now.Name == "" && was.Name != "" || len(now.Ports) == 0 && len(was.Ports) > 0
}

// judgeDevices takes over a list, or holds it where it takes too much from the customers on the devices of before:
// those stay then, and what is new is added. A device that rows name and the list lacks is asked for by itself, and
// stays until the ERP has said twice that there is none, or no row names it any more. It reports whether rows name one of which
// nothing is known, and which was not asked for twice yet: one that can never be asked for keeps nobody waiting for good.
func (b *batch) judgeDevices(ctx context.Context, list, earlier []device, named naming) (open bool) {
	before := newDeviceTable(earlier, true)
	names := named(&before)
	rows := names.rows
	listed, old := byID(list), byID(earlier)
	accepted := b.memory.acceptedOnes()
	c := compareDevices(listed, old, names, accepted)
	why := b.holdDevices(ctx, &c, listed, len(list))
	st := syncer.SourceStatus{Source: syncer.SourceDevices, Judgement: syncer.JudgedGood, Rows: len(list), GoodAt: b.in.FetchedAt}
	var use []device
	if why != "" {
		use = addNew(earlier, list)
		b.memory.setAbsences(nil)
		st.Fingerprint = printOf(c.taken, listed)
		b.memory.holdDevices(c.taken, st.Fingerprint)
		st.Judgement, st.Error, st.GoodAt = syncer.JudgedHeld, why, b.memory.source(syncer.SourceDevices).GoodAt
	} else {
		b.memory.passDevices(c.missing)
		found, gone, lookup := b.lookUp(ctx, c.missing, accepted)
		have := byID(found)
		var kept []device
		var unknown []provision.DeviceID
		for _, id := range c.missing {
			switch d := old[id]; {
			case have[id] != nil || gone[id]:
			case d != nil:
				kept = append(kept, *d)
			default:
				unknown = append(unknown, id)
			}
		}
		open = b.memory.waitsForDevices(unknown)
		use = slices.Concat(withoutRivals(list, kept, rows), found, kept)
		n := len(found) + len(kept)
		if len(list) > 0 {
			n += len(unknown)
		}
		if n > 0 {
			st.Judgement = syncer.JudgedPartial
			st.Error = fmt.Sprintf("the list lacks %d of %d devices that bindings name", n, len(rows))
			if lookup != nil {
				st.Error += "; asked for by themselves: " + lookup.Error()
			}
		} else if len(list) == 0 && c.all > 0 {
			st.Judgement, st.Error = syncer.JudgedPartial, fmt.Sprintf("the list is empty, and bindings name %d devices", len(rows))
			if b.neverListed() { // nothing of before stands for them
				st.Judgement, st.GoodAt, open = syncer.JudgedFailed, time.Time{}, true
			}
		}
	}
	b.devices = newDeviceTable(use, true)
	b.memory.setDevices(append(slices.Clip(use), b.stillNamed(use, earlier)...))
	b.tell(ctx, st)
	return open
}

// holdDevices says why a list is held; empty: it is not. A list that changes devices with many rows passes if single look-ups of
// some of them tell the same, and so does one that takes something from a few: two may carry all customers.
func (b *batch) holdDevices(ctx context.Context, c *deviceChange, listed map[provision.DeviceID]*device, n int) string {
	switch {
	case n == 0 && c.absent > 0:
		return "the list is empty"
	case b.tooMany(c.absent, c.all) && len(c.missing) > fewDevices:
		return fmt.Sprintf("the list lacks %d devices that bindings name, with %d of %d rows", len(c.missing), c.absent, c.all)
	case b.tooMany(c.lostRows, c.all) && (len(c.lost) > fewDevices || !b.confirmed(ctx, c.lost, listed)):
		return fmt.Sprintf("%d devices with %d of %d rows would lose their MAC, address, name or ports", len(c.lost), c.lostRows, c.all)
	case b.tooMany(c.otherRows, c.all) && !b.confirmed(ctx, c.changed, listed):
		return fmt.Sprintf("%d devices with %d of %d rows would get another MAC, address or name, or other names of ports, and asked for by themselves they do not tell so", len(c.changed), c.otherRows, c.all)
	}
	return ""
}

// confirmed reports whether some devices, each asked for by itself, are as the list has them.
func (b *batch) confirmed(ctx context.Context, ids []provision.DeviceID, listed map[provision.DeviceID]*device) bool {
	const sample = 20
	step := max(len(ids)/sample, 1)
	for i := 0; i < len(ids); i += step {
		d, err := b.lookUpDevice(ctx, ids[i])
		now := listed[ids[i]]
		if err != nil || d == nil || d.MAC != now.MAC || d.IP != now.IP || d.Name != now.Name || !samePorts(d.Ports, now.Ports) {
			return false
		}
	}
	return true
}

// lookUp asks for devices by themselves, at most maxLookups of them and others in each fetch. gone are those of which the
// ERP has said often enough that there are none; of one that an operator does not miss it must say so once. One that cannot be
// read costs itself alone; err is the first failure.
func (b *batch) lookUp(ctx context.Context, ids []provision.DeviceID, accepted map[provision.DeviceID]bool) (found []device, gone map[provision.DeviceID]bool, err error) {
	absences := b.memory.absences(ids)
	enough := func(id provision.DeviceID) bool {
		return absences[id] >= goneFetches || absences[id] > 0 && accepted[id]
	}
	ask := slices.DeleteFunc(slices.Clone(ids), enough)
	if n := len(ask); n > 0 { // another one first each time: after one that hangs the others are not asked for
		at := b.turn % n
		if n > maxLookups {
			at = b.turn * maxLookups % n
		}
		ask = append(ask[at:], ask[:at]...)[:min(n, maxLookups)]
	}
	for _, id := range ask {
		d, failed := b.lookUpDevice(ctx, id)
		if failed != nil {
			err = cmp.Or(err, failed)
		}
		switch {
		case d != nil:
			found = append(found, *d)
			delete(absences, id)
		case failed == nil:
			absences[id]++
		}
		if failed != nil && (ctx.Err() != nil || errors.Is(failed, userside.ErrUnavailable)) {
			break
		}
	}
	b.memory.askedDevices(ids, ask)
	b.memory.setAbsences(absences)
	gone = make(map[provision.DeviceID]bool)
	for id := range absences {
		gone[id] = enough(id)
	}
	return found, gone, err
}

// errNoAnswer says that an answer has something in it that cannot be read, so that something is not in it says nothing.
var errNoAnswer = errors.New("the answer cannot be read")

// lookUpDevice returns one device, nil if the ERP says that there is none.
func (b *batch) lookUpDevice(ctx context.Context, id provision.DeviceID) (*device, error) {
	got, err := b.client.Devices(ctx, userside.DeviceFilter{ObjectID: int64(id)})
	if errors.Is(err, userside.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range got.Devices {
		if got.Devices[i].ID == int64(id) {
			d := deviceOf(&got.Devices[i])
			return &d, nil
		}
	}
	if got.Defects.Count > 0 {
		return nil, errNoAnswer
	}
	return nil, nil
}

func byID(list []device) map[provision.DeviceID]*device {
	m := make(map[provision.DeviceID]*device, len(list))
	for i := range list {
		if d := &list[i]; m[d.ID] == nil {
			m[d.ID] = d
		}
	}
	return m
}

// identities are the MACs and addresses by which devices are found.
type identities struct {
	macs map[provision.MAC]bool
	ips  map[netip.Addr]bool
}

func identitiesOf(list []device) identities {
	x := identities{make(map[provision.MAC]bool, len(list)), make(map[netip.Addr]bool, len(list))}
	for i := range list {
		x.macs[list[i].MAC], x.ips[list[i].IP] = true, true
	}
	delete(x.macs, provision.MAC{})
	delete(x.ips, netip.Addr{})
	return x
}

func (x identities) have(d *device) bool { return x.macs[d.MAC] || x.ips[d.IP] }

// addNew returns the earlier devices and those of a list that are neither one of them nor found by the same.
func addNew(earlier, list []device) []device {
	have, taken := byID(earlier), identitiesOf(earlier)
	out := slices.Clip(earlier)
	for i := range list {
		if d := &list[i]; have[d.ID] == nil && !taken.have(d) {
			out = append(out, *d)
		}
	}
	return out
}

// withoutRivals returns a list without those devices that no row names and that are found by the same as one that is kept.
func withoutRivals(list, kept []device, rows map[provision.DeviceID]int) []device {
	if len(kept) == 0 {
		return list
	}
	taken := identitiesOf(kept)
	return slices.DeleteFunc(slices.Clone(list), func(d device) bool { return rows[d.ID] == 0 && taken.have(&d) })
}

// stillNamed returns the earlier devices that are not in use and that lines of the snapshot in use name: the fetch may be held.
func (b *batch) stillNamed(use, earlier []device) []device {
	have, named := byID(use), make(map[provision.DeviceID]bool)
	for l := range b.prev.Lines().All() {
		named[l.Device] = true
	}
	var out []device
	for _, d := range earlier {
		if have[d.ID] == nil && named[d.ID] {
			out = append(out, d)
		}
	}
	return out
}

// knownDevices returns the devices of the last good list and those that were kept beside it.
func (m *Memory) knownDevices() []device {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.devices)
}

func (m *Memory) setDevices(list []device) {
	m.mu.Lock()
	defer m.mu.Unlock()
	same := func(a, b device) bool { return a.Device == b.Device && slices.Equal(a.Ports, b.Ports) }
	m.changed = m.changed || !slices.EqualFunc(m.devices, list, same)
	m.devices = list
}

// absences returns in how many fetches in a row the ERP had none of some devices.
func (m *Memory) absences(ids []provision.DeviceID) map[provision.DeviceID]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[provision.DeviceID]int)
	for _, id := range ids {
		if n := m.gone[id]; n > 0 {
			out[id] = n
		}
	}
	return out
}

func (m *Memory) setAbsences(absences map[provision.DeviceID]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = absences
}

// askedDevices notes that it was the turn of some of the devices that a list lacks to be asked for by themselves, whatever came.
func (m *Memory) askedDevices(missing, asked []provision.DeviceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.deviceTurns, func(id provision.DeviceID, _ int) bool { _, lacks := slices.BinarySearch(missing, id); return !lacks })
	for _, id := range asked {
		m.deviceTurns[id]++
	}
}

// waitsForDevices reports whether one of some devices was not asked for goneFetches times yet.
func (m *Memory) waitsForDevices(ids []provision.DeviceID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(ids, func(id provision.DeviceID) bool { return m.deviceTurns[id] < goneFetches })
}

// holdDevices notes whom a list that is held takes something from.
func (m *Memory) holdDevices(ids []provision.DeviceID, fingerprint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heldDevices, m.heldPrint = ids, fingerprint
}

// printOf is the fingerprint of what a list makes of some devices.
func printOf(ids []provision.DeviceID, listed map[provision.DeviceID]*device) string {
	h := fnv.New64a()
	for _, id := range slices.Sorted(slices.Values(ids)) {
		_, _ = fmt.Fprintf(h, "%d:", id) // never fails
		if d := listed[id]; d != nil {
			_, _ = fmt.Fprintf(h, "%+v", *d)
		}
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// passDevices notes that a list is in use that lacks some devices. What was accepted counts as long as a device is missing.
func (m *Memory) passDevices(missing []provision.DeviceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heldDevices, m.heldPrint = nil, ""
	before := len(m.accepted)
	maps.DeleteFunc(m.accepted, func(id provision.DeviceID, _ bool) bool { return !slices.Contains(missing, id) })
	m.changed = m.changed || len(m.accepted) != before
}

// acceptedOnes returns the devices that an operator does not miss.
func (m *Memory) acceptedOnes() map[provision.DeviceID]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.accepted)
}

// acceptDevices has what is held of the list of devices count from the next fetch on, if it has the fingerprint; empty: any.
func (m *Memory) acceptDevices(fingerprint string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fingerprint != "" && fingerprint != m.heldPrint {
		return &syncer.OtherHeldError{Fingerprint: m.heldPrint}
	}
	for _, id := range m.heldDevices {
		m.accepted[id] = true
	}
	m.changed = m.changed || len(m.heldDevices) > 0
	return nil
}
