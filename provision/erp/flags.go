package erp

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// What of a customer's flags is known when: composed fetches read every card, so
// they know all flags. Direct ones read none; where the policy heeds flags, each
// whole fetch reads the cards of up to MaxFlags customers: first of those who
// were blocked and would not be any more, then of those never read, then of
// those read longest ago. Hints read the card of their customer. The list of
// former customers comes whole with each whole fetch. A card tells the customer's subnets too, so that of those who
// are stopped some are read besides.

// readFormer asks for the list of former customers, one call.
func (b *batch) readFormer(ctx context.Context) {
	if !b.policy.HeedsFormer() {
		return
	}
	yes := true
	list, err := b.client.CustomerIDs(ctx, userside.CustomerFilter{Former: &yes})
	if err == nil {
		// A server that does not know the filter answers everybody, or everybody
		// that is not former. Active former customers are an oddity.
		active, both := 0, 0
		for _, n := range b.numbers {
			if b.policy.State(n, provision.Flags{}) == provision.StateActive {
				active++
			}
		}
		for _, id := range list {
			if n, ok := b.numbers[id]; ok && b.policy.State(n, provision.Flags{}) == provision.StateActive {
				both++
			}
		}
		if both > 1 && both > active/2 {
			err = errImplausible
		}
	}
	b.once(ctx, "former customers cannot be listed", err != nil, err)
	if err == nil {
		b.memory.setFormer(list)
	}
}

var errImplausible = errors.New("more than half of the active customers are in the list")

// learnFlags reads cards for the flags on them. That it fails is no reason to do
// without the rest: what was read before goes on to count.
func (b *batch) learnFlags(ctx context.Context) {
	if !b.policy.Heeds() {
		return
	}
	type candidate struct {
		id      int64
		blocked bool
		read    uint32
	}
	var list, stopped []candidate
	seen := make(map[int64]struct{})
	for i := range b.in.Lines {
		id := int64(b.in.Lines[i].Subscriber)
		n, listed := b.numbers[id]
		if _, again := seen[id]; again || !listed || b.cards[id] {
			continue
		}
		seen[id] = struct{}{}
		if b.policy.State(n, provision.Flags{}) == provision.StateStop {
			stopped = append(stopped, candidate{id: id, read: b.memory.lastRead(id)}) // no flag can do more
			continue
		}
		now, was := b.policy.State(n, b.memory.flags(id)), b.prev.State(provision.SubscriberID(id))
		blocked := was == provision.StateStop || was == provision.StatePause && now != provision.StateStop
		list = append(list, candidate{id, blocked && was != now, b.memory.lastRead(id)})
	}
	order := func(x, y candidate) int {
		if x.blocked != y.blocked {
			if x.blocked {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(x.read, y.read), cmp.Compare(x.id, y.id))
	}
	// A tenth of the cards is for the subnets of those who are stopped.
	share := min(len(stopped), max(b.opts.MaxFlags/10, b.opts.MaxFlags-len(list)))
	var err error
	for _, part := range []struct {
		of []candidate
		n  int
	}{{list, min(len(list), b.opts.MaxFlags-share)}, {stopped, share}} {
		slices.SortFunc(part.of, order)
		ids := make([]int64, 0, part.n)
		for _, c := range part.of[:part.n] {
			ids = append(ids, c.id)
		}
		if err == nil {
			_, err = b.ask(ctx, ids, b.card)
		}
	}
	b.once(ctx, "flags of customers cannot be read", err != nil, err)
}

// card takes state and flags from a customer's card.
func (b *batch) card(c *userside.Customer) {
	b.cards[c.ID] = true
	b.memory.card(c, cardSubnets(c, b))
	b.setState(c.ID, c.State)
}
