package erp

import (
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
