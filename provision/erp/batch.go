package erp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// batch is the work of one Fetch.
type batch struct {
	*Fetcher
	prev      *provision.Snapshot
	turn      int // which customers are asked this time
	in        provision.Input
	directErr error // why the direct source was given up
	rowsRead  bool  // the direct source answered: later errors are not its own
	rowless   bool  // the direct source may have no row

	numbers map[int64]int             // state_id of customers; noStateID: the card tells none
	kept    map[int64]provision.State // state of the previous snapshot, of those that gave no answer
	cards   map[int64]bool            // customers whose card was read
	listed  map[int]bool              // states whose customers were listed
	zero    bool                      // state 0 can be listed
	unsure  []int64                   // in a list alone that is none: see listStopped and blocksMost
	doubted error                     // why a list of a state counts for nothing; nil: none does, but perhaps that of state 0
	dubious map[int]bool              // states of such lists
	heeds   bool                      // a list of a state that blocks is believed: the ERP takes states for a condition
	twice   map[int64]struct{}        // in the lists of two states
	unheard map[int64]bool            // of a poll of states: in no list any more, and no card told anything
	blamed  bool                      // a source was told to be what failed
	devices deviceTable
}

func (f *Fetcher) newBatch(prev *provision.Snapshot) *batch {
	return &batch{
		Fetcher: f, prev: prev, turn: int(f.turns.Load()), in: provision.Input{FetchedAt: f.now()},
		numbers: make(map[int64]int), kept: make(map[int64]provision.State), cards: make(map[int64]bool), listed: make(map[int]bool),
	}
}

// direct reads rows, states and devices.
func (b *batch) direct(ctx context.Context) error {
	rows, err := b.client.CustomerBindingList(ctx)
	if err != nil {
		return fmt.Errorf("read bindings: %w", err)
	}
	if rows.Len() == 0 && b.opts.Bindings == ModeAuto && !b.rowless {
		return errNoRows
	}
	b.rowsRead = true
	b.in.Source = provision.SourceDirect
	b.defects("bindings", rows.Defects)
	b.tell(ctx, syncer.SourceStatus{Source: syncer.SourceBindings, Judgement: syncer.JudgedGood, Rows: rows.Len()})
	if err := b.readStates(ctx); err != nil {
		return err
	}
	named := func(t *deviceTable) namedDevices {
		n := newNamedDevices()
		for r := range rows.All() {
			if d := t.find(&r); d != 0 {
				n.add(d, port{r.Port, r.PortName})
			}
		}
		return n
	}
	if err := b.readDevices(ctx, named); err != nil {
		return err
	}
	b.in.Lines = make([]provision.Line, 0, rows.Len())
	unlisted := make(map[int64]struct{})
	for r := range rows.All() {
		b.in.Lines = append(b.in.Lines, b.line(&r))
		if !b.knows(r.Customer) {
			unlisted[r.Customer] = struct{}{}
		}
	}
	if err := b.askUnlisted(ctx, unlisted, rows.Len()); err != nil {
		return err
	}
	b.readCards(ctx)
	b.readDisputed(ctx)
	b.finish()
	return nil
}

// knows reports whether it is settled what a customer's state is: a list told it, or that of before stays.
func (b *batch) knows(customer int64) bool {
	_, listed := b.numbers[customer]
	_, kept := b.kept[customer]
	return listed || kept
}

// line turns a row into our vocabulary, its device found by id, MAC or address.
func (b *batch) line(r *userside.BindingRow) provision.Line {
	d := b.devices.resolve(r)
	out := provision.Line{
		Subscriber: provision.SubscriberID(r.Customer),
		Device:     d,
		Port:       r.Port,
		PortName:   r.PortName,
		VLAN:       r.VLAN,
		MAC:        provision.MAC(r.MAC),
		Addresses:  provision.Hosts4(r.IP),
	}
	b.devices.completePort(&out)
	return out
}

// finish writes subscribers and devices into the input.
func (b *batch) finish() {
	if b.in.StatesKept {
		b.memory.setStates(b.numbers)
	} else {
		b.keepBlocked()
		b.memory.remember(b.numbers, b.kept, b.zero)
		b.memory.setDubious(b.dubious)
	}
	b.in.Subscribers = make([]provision.Subscriber, 0, len(b.numbers)+len(b.kept))
	for id, n := range b.numbers {
		b.in.Subscribers = append(b.in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(id), State: b.state(id, n)})
	}
	for id, st := range b.kept {
		if _, told := b.numbers[id]; !told {
			b.in.Subscribers = append(b.in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(id), State: st})
			b.in.StatesOfBefore = append(b.in.StatesOfBefore, provision.SubscriberID(id))
		}
	}
	slices.Sort(b.in.StatesOfBefore)
	b.in.Devices = b.devices.list()
	b.in.CustomerSubnets = b.subnets()
}

// defects turns what the client could not read into problems.
func (b *batch) defects(what string, d userside.Defects) {
	for _, e := range d.First {
		b.problem(provision.Problem{Kind: provision.ProblemBadRow, Detail: what + ": " + e.Error()})
	}
	if more := d.Count - len(d.First); more > 0 {
		b.problem(provision.Problem{Kind: provision.ProblemBadRow, Detail: fmt.Sprintf("%s: %d more defects", what, more)})
	}
}

func (b *batch) problem(p provision.Problem) { b.in.Problems = append(b.in.Problems, p) }

// deviceTable finds devices and their port names.
type deviceTable struct {
	listed bool // the ERP's list could be read
	byID   map[provision.DeviceID]*provision.Device
	byMAC  map[provision.MAC]provision.DeviceID
	byIP   map[netip.Addr]provision.DeviceID
	ports  map[provision.DeviceID][]port
	all    []provision.Device // as listed, duplicates too: Build reports them
}

func newDeviceTable(in []device, listed bool) deviceTable {
	t := deviceTable{
		listed: listed,
		byID:   make(map[provision.DeviceID]*provision.Device, len(in)),
		byMAC:  make(map[provision.MAC]provision.DeviceID, len(in)),
		byIP:   make(map[netip.Addr]provision.DeviceID, len(in)),
		ports:  make(map[provision.DeviceID][]port, len(in)),
	}
	for i := range in {
		t.add(in[i].Device)
		t.ports[in[i].ID] = in[i].Ports
	}
	return t
}

func (t *deviceTable) add(d provision.Device) {
	t.all = append(t.all, d)
	if _, ok := t.byID[d.ID]; !ok {
		t.byID[d.ID] = &d
	}
	if _, ok := t.byMAC[d.MAC]; !ok && !d.MAC.IsZero() {
		t.byMAC[d.MAC] = d.ID
	}
	if _, ok := t.byIP[d.IP]; !ok && d.IP.IsValid() {
		t.byIP[d.IP] = d.ID
	}
}

// Ids of switches that the ERP never gave one: made of their MAC or address, so
// that they stay the same from fetch to fetch. See provision.DeviceID.Made.
const (
	madeOfMAC = 1 << 52
	madeOfIP  = 1 << 51
)

// resolve returns the device of a row. One that the list does not have is added
// as far as the row tells about it.
func (t *deviceTable) resolve(r *userside.BindingRow) provision.DeviceID {
	id, mac := provision.DeviceID(r.Device), provision.MAC(r.DeviceMAC)
	switch {
	case id != 0:
		if d, ok := t.byID[id]; ok {
			t.complete(d, r)
			return id
		}
		if !r.DeviceIP.IsValid() && mac.IsZero() && t.listed {
			return id // Build reports it
		}
	case mac.IsZero() && !r.DeviceIP.IsValid():
		return 0
	default:
		if id := t.find(r); id != 0 {
			return id
		}
		id = madeID(mac, r.DeviceIP)
	}
	t.add(provision.Device{ID: id, Name: r.DeviceName, MAC: mac, IP: r.DeviceIP})
	return id
}

// find returns the device that a row names, by its id or else by what the table has; 0: none.
func (t *deviceTable) find(r *userside.BindingRow) provision.DeviceID {
	if r.Device != 0 {
		return provision.DeviceID(r.Device)
	}
	if id, ok := t.byMAC[provision.MAC(r.DeviceMAC)]; ok {
		return id
	}
	return t.byIP[r.DeviceIP] // neither map has what says nothing
}

func madeID(mac provision.MAC, ip netip.Addr) provision.DeviceID {
	n := int64(0)
	if !mac.IsZero() {
		for _, b := range mac {
			n = n<<8 | int64(b)
		}
		return provision.DeviceID(madeOfMAC | n)
	}
	for _, b := range ip.As4() {
		n = n<<8 | int64(b)
	}
	return provision.DeviceID(madeOfIP | n)
}

// complete fills a device that rows made with what a further row tells. A
// listed one is left alone: the list is newer than nothing, and rows repeat it.
func (t *deviceTable) complete(d *provision.Device, r *userside.BindingRow) {
	if t.listed {
		return
	}
	if d.MAC.IsZero() {
		d.MAC = provision.MAC(r.DeviceMAC)
	}
	if !d.IP.IsValid() {
		d.IP = r.DeviceIP
	}
	if d.Name == "" {
		d.Name = r.DeviceName
	}
}

// list returns the devices for Build.
func (t *deviceTable) list() []provision.Device {
	if !t.listed { // rows may have completed them since
		for i := range t.all {
			t.all[i] = *t.byID[t.all[i].ID]
		}
	}
	return t.all
}

// completePort fills the name of a numbered port, or the number of a named one.
func (t *deviceTable) completePort(l *provision.Line) {
	if l.Device == 0 || (l.Port != 0) == (l.PortName != "") {
		return
	}
	for _, i := range t.ports[l.Device] {
		if l.Port != 0 && i.Number == l.Port {
			l.PortName = i.Name
			return
		}
		if l.Port == 0 && i.Name == l.PortName {
			l.Port = i.Number
			return
		}
	}
}
