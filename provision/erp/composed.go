package erp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// compose builds the rows of customers, commutation and devices (API page
// section 5.4).
func (b *batch) compose(ctx context.Context) error {
	b.in.Source = provision.SourceComposed
	if err := b.readStates(ctx); err != nil {
		return err
	}
	links, err := b.client.CustomerCommutation(ctx)
	if err != nil {
		return fmt.Errorf("read commutation: %w", err)
	}
	b.defects("commutation", links.Defects)
	ports := make(map[int64][]userside.Link, len(links.Customers))
	var chained []int64
	for _, c := range links.Customers {
		switches := onlySwitches(c.Links)
		if len(switches) == 0 {
			chained = append(chained, c.Customer)
		} else {
			ports[c.Customer] = append(ports[c.Customer], switches...)
		}
	}
	if err := b.followChains(ctx, chained, ports); err != nil {
		return err
	}
	named := func(*deviceTable) namedDevices {
		n := newNamedDevices()
		for _, of := range ports {
			for _, l := range of {
				n.add(provision.DeviceID(l.ObjectID), port{l.Port, l.PortName})
			}
		}
		return n
	}
	if err := b.readDevices(ctx, named); err != nil {
		return err
	}

	ids := slices.Collect(maps.Keys(b.numbers))
	for id := range b.kept {
		ids = append(ids, id) // their states are those in use, their addresses are on their cards
	}
	var unlisted []int64
	for _, c := range links.Customers {
		if !b.knows(c.Customer) {
			unlisted = append(unlisted, c.Customer) // of a state of its own, or missed by the lists
		}
	}
	unlisted = append(unlisted, b.leftOut()...)
	unlisted = append(unlisted, b.unsure...)
	slices.Sort(unlisted)
	unlisted = slices.Compact(unlisted)
	ids = append(ids, unlisted...)
	slices.Sort(ids)

	contrary := 0
	got, err := b.ask(ctx, ids, func(c *userside.Customer) {
		if _, known := slices.BinarySearch(unlisted, c.ID); known && b.listed[stateID(c.State)] {
			contrary++
		}
		b.rows(c, ports[c.ID])
	})
	if err != nil {
		b.failCards(ctx, err)
		return err // also a permission error: without customers there are no rows
	}
	b.keepUnanswered(ids, got)
	b.keepAbsent(unlisted, got)
	b.tell(ctx, syncer.SourceStatus{Source: syncer.SourceBindings, Judgement: syncer.JudgedGood, Rows: len(b.in.Lines)})
	if !b.in.StatesKept && !b.judgeStates(ctx, true, len(unlisted), contrary, len(ids)) {
		b.keepStates()
	}
	b.in.StatesKept = false // the cards have told them
	list := make([]candidate, len(ids))
	for i, id := range ids {
		list[i].id = id
	}
	b.judgeCards(ctx, list, nil, got, nil)
	b.finish()
	return nil
}

// leftOut returns the customers in use and of earlier fetches whom no list of states has: that is no proof that they are gone,
// their cards tell.
func (b *batch) leftOut() []int64 {
	var out []int64
	for _, s := range b.prev.Subscribers() {
		if !b.knows(int64(s.ID)) {
			out = append(out, int64(s.ID))
		}
	}
	earlier, _, _ := b.memory.prior()
	for id := range earlier {
		if !b.knows(id) {
			out = append(out, id)
		}
	}
	return out
}

// failCards tells that none of what stands on cards can be read: with this source that is nearly everything.
func (b *batch) failCards(ctx context.Context, err error) {
	if b.policy.Heeds() {
		b.fails(ctx, syncer.SourceFlags, err)
	}
	b.fails(ctx, syncer.SourceSubnets, err)
	b.fails(ctx, syncer.SourceBindings, err)
}

// keepAbsent keeps what is known of customers in no list of whom the ERP has no card, where that is said of more than may be
// gone at once.
func (b *batch) keepAbsent(unlisted []int64, got *asked) {
	if !b.tooMany(got.asked-len(got.found), got.asked) {
		return
	}
	for _, id := range unlisted {
		if !got.found[id] {
			b.kept[id] = b.prev.State(provision.SubscriberID(id))
		}
	}
}

// onlySwitches keeps the links to switch ports.
func onlySwitches(links []userside.Link) []userside.Link {
	var out []userside.Link
	for _, l := range links {
		if l.ObjectType == "switch" && l.ObjectID > 0 {
			out = append(out, l)
		}
	}
	return out
}

// rows makes the rows of one customer: every address on every port.
func (b *batch) rows(c *userside.Customer, ports []userside.Link) {
	b.card(c)
	subnet := func(a userside.CustomerAddress) bool { return a.Net != "" } // in no row: see batch.subnets
	if !slices.ContainsFunc(c.Addresses, func(a userside.CustomerAddress) bool { return !subnet(a) }) {
		// A pool may have one.
		if len(ports) > 0 {
			b.row(provision.Line{Subscriber: provision.SubscriberID(c.ID)}, ports)
		} else {
			b.keepVLANs(provision.SubscriberID(c.ID))
		}
		return
	}
	for _, a := range c.Addresses {
		if subnet(a) || !a.IP.IsValid() && a.MAC == (userside.MAC{}) {
			continue
		}
		b.row(provision.Line{Subscriber: provision.SubscriberID(c.ID), MAC: provision.MAC(a.MAC), Addresses: provision.Hosts4(a.IP)}, ports)
	}
}

// row adds one row for each of the ports, or one without a port.
func (b *batch) row(row provision.Line, ports []userside.Link) {
	if len(ports) == 0 {
		b.in.Lines = append(b.in.Lines, b.inUse(row))
		return
	}
	for _, l := range ports {
		row.Device = b.devices.resolve(&userside.BindingRow{Device: l.ObjectID})
		row.Port, row.PortName = l.Port, l.PortName
		b.devices.completePort(&row)
		b.in.Lines = append(b.in.Lines, b.inUse(row))
	}
}

// inUse returns a row with what composed bindings do not tell, as the snapshot in use has it for the same line: its VLAN, and the
// number or name of its port. The fallback is for a while, and who is found by one of them is not to be lost meanwhile. Bindings
// that are composed for good have none.
func (b *batch) inUse(row provision.Line) provision.Line {
	if b.opts.Bindings != ModeAuto {
		return row
	}
	var like *provision.Line
	several := false
	for l := range b.prev.BySubscriber(row.Subscriber).All() {
		switch {
		case row.HasPort() && l.HasPort() && !row.SamePort(l):
		case !row.Vacant() && slices.Contains(l.Addresses, row.Addresses[0]), row.Vacant() && l.Vacant() && row.MAC == l.MAC:
			return told(row, l)
		default:
			several, like = like != nil, l
		}
	}
	if like == nil || several {
		return row
	}
	return told(row, like)
}

// told returns a row with what another of the same line tells beside.
func told(row provision.Line, l *provision.Line) provision.Line {
	row.VLAN = cmp.Or(row.VLAN, l.VLAN)
	if row.HasPort() && l.HasPort() {
		row.Port = cmp.Or(row.Port, l.Port)
		row.PortName = cmp.Or(row.PortName, l.PortName)
	}
	return row
}

// keepVLANs keeps the lines of a customer without address and port that are told by their VLAN.
func (b *batch) keepVLANs(id provision.SubscriberID) {
	if b.opts.Bindings != ModeAuto {
		return
	}
	for l := range b.prev.BySubscriber(id).All() {
		if l.Vacant() && !l.HasPort() && l.VLAN != 0 {
			b.in.Lines = append(b.in.Lines, provision.Line{Subscriber: id, VLAN: l.VLAN, MAC: l.MAC})
		}
	}
}

// keepUnanswered keeps the rows of customers that get_data is refused for, one
// by one: they are listed, so they exist, and a refusal says nothing about
// their addresses.
func (b *batch) keepUnanswered(ids []int64, got *asked) {
	for _, id := range ids {
		if got.found[id] || got.missing[id] {
			continue
		}
		sub := provision.SubscriberID(id)
		lines, rows := b.prev.BySubscriber(sub), 0
		for l := range lines.All() {
			rows += max(1, len(l.Addresses))
			b.in.Lines = append(b.in.Lines, *l)
		}
		b.problem(provision.Problem{Kind: provision.ProblemBadRow, Subscriber: sub,
			Detail: fmt.Sprintf("get_data is refused for this customer; %d rows of the last fetch are kept", rows)})
		b.kept[id] = b.prev.State(sub)
		b.in.Earlier = append(b.in.Earlier, sub)
	}
}

// chainCache remembers where cabling that does not lead straight to a switch ends.
type chainCache struct {
	ends map[int64]chainEnd
}

type chainEnd struct {
	link userside.Link // ObjectID 0: nowhere
	turn int           // when it was asked
}

// followChains finds the far end of fibre. That is one call per customer, so
// each fetch asks for MaxChains of them: new ones first, then those asked for
// longest ago. Until a customer was asked, the port of the previous snapshot stands.
func (b *batch) followChains(ctx context.Context, customers []int64, ports map[int64][]userside.Link) error {
	if b.chains.ends == nil {
		b.chains.ends = make(map[int64]chainEnd)
	}
	present := make(map[int64]bool, len(customers))
	for _, id := range customers {
		present[id] = true
	}
	maps.DeleteFunc(b.chains.ends, func(id int64, _ chainEnd) bool { return !present[id] })
	for id := range b.memory.takeStale() {
		delete(b.chains.ends, id)
	}
	order := slices.Clone(customers)
	slices.Sort(order)
	slices.SortStableFunc(order, func(x, y int64) int { return b.chains.ends[x].turn - b.chains.ends[y].turn })
	for _, id := range order[:min(len(order), b.opts.MaxChains)] {
		c, err := b.client.CustomerChain(ctx, id)
		switch {
		case err == nil:
			end := chainEnd{turn: b.turn}
			if c.Finish != nil && (c.Finish.ObjectType == "switch" || c.Finish.ObjectType == "olt") {
				end.link = *c.Finish
			}
			b.defects("commutation of a customer", c.Defects)
			b.chains.ends[id] = end
		case errors.Is(err, userside.ErrRefused) || errors.Is(err, userside.ErrNotFound) || errors.Is(err, userside.ErrUnknownShape):
			b.chains.ends[id] = chainEnd{link: b.chains.ends[id].link, turn: b.turn}
		default:
			return fmt.Errorf("read commutation of customer %d: %w", id, err)
		}
	}
	for _, id := range customers {
		end, asked := b.chains.ends[id]
		switch {
		case end.link.ObjectID > 0:
			ports[id] = []userside.Link{end.link}
		case !asked:
			for row := range b.prev.BySubscriber(provision.SubscriberID(id)).All() {
				if row.Device != 0 {
					ports[id] = []userside.Link{{ObjectType: "switch", ObjectID: int64(row.Device), Port: row.Port, PortName: row.PortName}}
					break
				}
			}
		}
	}
	return nil
}
