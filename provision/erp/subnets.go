package erp

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// Customers' subnets stand on their cards alone. What a card told counts until it is read again; of customers
// whose card was not read since the start, what the earlier snapshot has.

// cardSubnets returns the subnets on a card, in order. What cannot be read is a problem of the batch, if there is one.
func cardSubnets(c *userside.Customer, b *batch) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range c.Addresses {
		if a.Net == "" {
			continue
		}
		p, err := userside.ParseSubnet(a.Net.Text())
		if err != nil {
			if b != nil {
				b.problem(provision.Problem{Kind: provision.ProblemBadSubnet, Subscriber: provision.SubscriberID(c.ID), Detail: "card of the customer: " + err.Error()})
			}
			continue
		}
		out = append(out, p)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// subnets returns those of all customers.
func (b *batch) subnets() []provision.Subnet {
	out := b.memory.subnets()
	for _, n := range b.prev.SubnetClaims() {
		id := int64(n.Subscriber)
		_, listed := b.numbers[id]
		_, kept := b.kept[id]
		if (listed || kept) && b.memory.lastRead(id) == 0 {
			out = append(out, n)
		}
	}
	return out
}

// maxDisputed bounds how many cards a fetch reads because of subnets that overlap: one call, as a rule.
const maxDisputed = 100

// readDisputed reads the cards of customers whose subnets overlap, if this fetch has not read them: a subnet that went from one
// to another would else stay with the first until its turn comes.
func (b *batch) readDisputed(ctx context.Context) {
	if b.in.StatesKept {
		return
	}
	var list []candidate
	for id := range disputed(b.subnets()) {
		if _, listed := b.numbers[int64(id)]; listed && !b.cards[int64(id)] {
			list = append(list, candidate{id: int64(id), read: b.memory.lastRead(int64(id))})
		}
	}
	if len(list) == 0 {
		return
	}
	slices.SortFunc(list, compareCandidates)
	ids := make([]int64, 0, maxDisputed)
	for _, c := range list[:min(len(list), maxDisputed)] {
		ids = append(ids, c.id)
	}
	part, cancel := within(ctx, 4)
	defer cancel()
	got := newAsked()
	var err error
	for some := range slices.Chunk(ids, b.opts.BatchSize) {
		if err = b.askList(part, some, got, b.card); err != nil {
			break
		}
	}
	b.once(ctx, "cards of customers whose subnets overlap", err != nil, err)
}

// disputed returns the customers of subnets that overlap another customer's.
func disputed(nets []provision.Subnet) map[provision.SubscriberID]bool {
	slices.SortFunc(nets, func(a, b provision.Subnet) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Subscriber, b.Subscriber))
	})
	out := make(map[provision.SubscriberID]bool)
	var around []provision.Subnet // those that hold the next one, perhaps, the longest last
	for _, n := range nets {
		for len(around) > 0 && !around[len(around)-1].Prefix.Overlaps(n.Prefix) {
			around = around[:len(around)-1]
		}
		for _, a := range slices.Backward(around) { // the others overlap this one, so they are known
			if a.Subscriber != n.Subscriber {
				out[a.Subscriber], out[n.Subscriber] = true, true
				break
			}
		}
		around = append(around, n)
	}
	return out
}

// otherSubnets reports whether a card has other subnets than it had when it was read last or, if it was not, than prev has.
func (f *Fetcher) otherSubnets(id provision.SubscriberID, nets []netip.Prefix, prev *provision.Snapshot) bool {
	before, read := f.memory.subnetsOf(int64(id))
	if !read {
		for _, n := range prev.SubnetClaims() { // by prefix
			if n.Subscriber == id {
				before = append(before, n.Prefix)
			}
		}
	}
	return !slices.Equal(before, nets)
}

// subnets returns those on all cards that were read.
func (m *Memory) subnets() []provision.Subnet {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []provision.Subnet
	for id, nets := range m.nets {
		for _, p := range nets {
			out = append(out, provision.Subnet{Prefix: p, Subscriber: provision.SubscriberID(id)})
		}
	}
	return out
}

// subnetsOf returns those on a customer's card as it was read last, and whether it was.
func (m *Memory) subnetsOf(id int64) (nets []netip.Prefix, read bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nets[id], m.customers[id].read != 0
}
