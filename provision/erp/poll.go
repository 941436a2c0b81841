package erp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// FetchStates reads who is stopped and who is paused: two get_customers_id
// calls, and one for each further state that the policy blocks by. Where the ERP
// does not take state_id=0 for a condition, the active and the paused are read
// instead. Customers who left these lists are read one list of cards at a time.
// It builds on what an earlier Fetch found, also before a restart, and asks for one
// (provision.ErrFetchFirst) before the first, and when what it sees is not
// plausible.
func (f *Fetcher) FetchStates(ctx context.Context, prev *provision.Snapshot) (syncer.StatesAnswer, error) {
	return f.FetchStatesEarly(ctx, prev, func(syncer.StatesAnswer) {})
}

// FetchStatesEarly implements syncer.EarlyStates. That cards cannot be read, or take long, takes nothing from what lists told.
func (f *Fetcher) FetchStatesEarly(ctx context.Context, prev *provision.Snapshot, early func(syncer.StatesAnswer)) (syncer.StatesAnswer, error) {
	prior, zero, whole := f.memory.prior()
	if !whole {
		return syncer.StatesAnswer{}, syncer.ErrFetchFirst
	}
	b := f.newBatch(prev)
	asked := []int{1}
	if !zero {
		asked = []int{2, 1}
	}
	for _, n := range b.furtherStates() {
		if st := f.policy.States[n]; st == provision.StateStop || st == provision.StatePause {
			asked = append(asked, n)
		}
	}
	// A list that the last whole fetch did not believe tells nothing now either; whom it is right about a whole fetch finds by the card.
	asked = slices.DeleteFunc(asked, f.memory.doubts)
	for _, n := range asked {
		if err := b.list(ctx, n); err != nil {
			b.fails(ctx, syncer.SourceStates, err)
			return syncer.StatesAnswer{}, err
		}
	}
	if zero {
		if err := b.listStopped(ctx, false); err != nil {
			b.fails(ctx, syncer.SourceStates, err)
			return syncer.StatesAnswer{}, err
		}
		asked = append(asked, 0)
	}
	if b.doubted != nil || !b.plausible(prior) {
		return syncer.StatesAnswer{}, syncer.ErrFetchFirst
	}
	var left []int64
	for id, n := range prior {
		if _, listed := b.numbers[id]; !listed && slices.Contains(asked, n) {
			left = append(left, id)
		}
	}
	var later []int64
	if len(left) > b.opts.MaxAsk {
		before, fresh := f.memory.untoldOf(left)
		if len(fresh) > b.opts.MaxAsk {
			f.memory.setUntold(left) // what the whole fetch leaves so is no reason for another one
			return syncer.StatesAnswer{}, syncer.ErrFetchFirst
		}
		slices.SortFunc(before, func(x, y int64) int { return cmp.Compare(f.memory.lastRead(x), f.memory.lastRead(y)) })
		left, later = append(fresh, before...)[:b.opts.MaxAsk], before[b.opts.MaxAsk-len(fresh):]
	}
	if len(left)+len(b.twice) > 0 {
		early(b.statesOfLists(prev))
	}
	answer := syncer.StatesAnswer{States: make(map[provision.SubscriberID]provision.State), FetchedAt: b.in.FetchedAt}
	b.readLeft(ctx, left, later, prior, &answer)
	if err := ctx.Err(); err != nil {
		return syncer.StatesAnswer{}, err
	}
	f.memory.setStates(b.numbers)
	for id, n := range b.numbers {
		if !b.unheard[id] {
			b.tellPolled(&answer, id, n)
		}
	}
	if !f.memory.fromBefore() {
		b.freed(prior, prev, answer.States)
	}
	answer.FirstRead = f.memory.firstReadOnes(&f.policy, prev)
	answer.Refresh = answer.Refresh || f.unreadAtFirst.Swap(false)
	if f.again(devicesUnread, prev.DevicesUnread()) {
		answer.Refresh = true
	}
	return answer, nil
}

// statesOfLists is what lists tell of those who are in one of them alone.
func (b *batch) statesOfLists(prev *provision.Snapshot) syncer.StatesAnswer {
	answer := syncer.StatesAnswer{States: make(map[provision.SubscriberID]provision.State, len(b.numbers)), FetchedAt: b.in.FetchedAt}
	for id, n := range b.numbers {
		if _, twice := b.twice[id]; !twice {
			b.tellPolled(&answer, id, n)
		}
	}
	answer.FirstRead = b.memory.firstReadOnes(&b.policy, prev)
	return answer
}

// tellPolled tells the state of a customer with a state_id in the answer to a poll of states. Of one for whom the list of former
// customers is not in use it tells what blocks more without that: all else would take back what is held, or rejected, of that list.
func (b *batch) tellPolled(answer *syncer.StatesAnswer, id int64, n int) {
	sub := provision.SubscriberID(id)
	was := b.prev.State(sub)
	if st, unused := b.withoutFormer(id, n, was); !unused {
		answer.States[sub] = b.state(id, n)
	} else if stricter(st, was) {
		answer.States[sub] = st
	}
}

// withoutFormer returns what the state_id and the flags on the card alone make of a customer, if it is not in use, in state was, that the
// list of former ones blocks more than these do. That list comes into use by a whole fetch, of which the guard may hold just that;
// neither a card nor a poll of states reads it again.
func (f *Fetcher) withoutFormer(id int64, n int, was provision.State) (st provision.State, unused bool) {
	flags := f.memory.flags(id)
	with := f.policy.State(n, flags)
	flags.Former = provision.FlagUnread
	st = f.policy.State(n, flags)
	return st, st != with && stricter(with, was)
}

// readLeft reads the cards of those in two lists, and of those in no list any more, but of later ones, who were asked for in vain
// before and are too many. No longer than cardTime, and quickList after
// a time when that was too short: the next poll of states waits for it. Who is in no list and cannot be read is not told of: the
// state in use stands, which may be newer than what lists told before.
func (b *batch) readLeft(ctx context.Context, left, later []int64, prior map[int64]int, answer *syncer.StatesAnswer) {
	most := cardTime
	if b.cardsHung.Load() {
		most = quickList
	}
	part, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	began := time.Now()
	err := b.askLeft(part, left, later, prior, answer)
	twice := b.settleTwice(part)
	if twice != nil {
		err = twice
	}
	if b.again(twoListsUnread, twice != nil) {
		answer.Refresh = true // until then the stricter state stands
	}
	if len(left)+len(b.twice) > 0 {
		b.cardsHung.Store(err != nil && time.Since(began) >= quickList)
	}
}

// freed adds customers who are blocked in prev and whom an earlier read, of which
// nothing came, found active: a whole fetch that the guard held, a hint that came
// too late. They left the lists then, so no list tells of them any more.
func (b *batch) freed(prior map[int64]int, prev *provision.Snapshot, states map[provision.SubscriberID]provision.State) {
	for _, sub := range prev.Subscribers() {
		if sub.State != provision.StateStop && sub.State != provision.StatePause {
			continue
		}
		if _, listed := states[sub.ID]; listed || b.unheard[int64(sub.ID)] {
			continue
		}
		n, known := prior[int64(sub.ID)]
		if known && b.state(int64(sub.ID), n) == provision.StateActive {
			states[sub.ID] = provision.StateActive
		}
	}
}

// plausible reports whether each list can be one of blocked customers. An ERP that answers everybody is left to a
// whole fetch, which sees all lists.
func (b *batch) plausible(prior map[int64]int) bool {
	active, fell := 0, make(map[int]int)
	for id, n := range prior {
		if n != 2 {
			continue
		}
		active++
		if now, listed := b.numbers[id]; listed && b.policy.State(now, provision.Flags{}).Blocks() {
			fell[now]++
		}
	}
	for _, n := range fell {
		if n > 1 && n > active/2 {
			return false
		}
	}
	return true
}

// askLeft reads the cards of customers who are in no list any more that had them.
func (b *batch) askLeft(ctx context.Context, left, later []int64, prior map[int64]int, answer *syncer.StatesAnswer) error {
	if len(left) == 0 {
		b.judgeStates(ctx, false, 0, 0, len(prior))
		b.again(listsContradicted, false)
		b.memory.setUntold(nil)
		return nil
	}
	slices.Sort(left)
	for _, id := range left {
		b.numbers[id] = prior[id] // stays known unless the card tells
	}
	b.unheard = make(map[int64]bool)
	for _, id := range slices.Concat(left, later) {
		b.unheard[id] = true
	}
	contrary, told := 0, make(map[int64]bool, len(left))
	_, err := b.ask(ctx, left, func(c *userside.Customer) {
		b.card(c)
		if n := stateID(c.State); n != noStateID {
			told[c.ID] = true
			delete(b.unheard, c.ID)
			if b.listed[n] {
				contrary++
			}
			return
		}
		sub := provision.SubscriberID(c.ID)
		if st, tells := b.cardState(c, noStateID, b.prev.State(sub)); tells {
			answer.States[sub] = st
		}
	})
	believed := b.judgeStates(ctx, false, contrary, contrary, len(prior))
	// Gone from the ERP, no card to be had, none with a state, or cards that tell otherwise than the lists: only a whole fetch can
	// tell. Of whom it told nothing another one will not either; their cards are read again all the same.
	untold := slices.DeleteFunc(slices.Clone(left), func(id int64) bool { return told[id] })
	others := b.memory.setUntold(append(untold, later...))
	answer.Refresh = b.again(listsContradicted, !believed) || others
	return err
}

// FetchCustomers reads the cards of customers that hints named. Other addresses
// than prev has, or a customer that it has and the ERP does not, ask for a
// whole fetch.
func (f *Fetcher) FetchCustomers(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (syncer.StatesAnswer, error) {
	ctx = userside.WithLane(ctx, userside.LaneUrgent)
	b := f.newBatch(prev)
	answer := syncer.StatesAnswer{States: make(map[provision.SubscriberID]provision.State), FetchedAt: b.in.FetchedAt}
	want := make([]int64, 0, len(ids))
	for _, id := range ids {
		if id > 0 {
			want = append(want, int64(id))
		}
	}
	got := newAsked()
	for list := range slices.Chunk(want, f.opts.BatchSize) {
		err := b.askList(ctx, list, got, func(c *userside.Customer) {
			id, nets := provision.SubscriberID(c.ID), cardSubnets(c, nil)
			if f.otherSubnets(id, nets, prev) {
				answer.Refresh = true
			}
			n, flags := f.memory.card(c, nets)
			if st, tells := f.cardState(c, n, prev.State(id)); tells {
				answer.States[id] = st
			}
			if flags.Former == provision.FlagYes || otherAddresses(c, prev.BySubscriber(id)) || otherMACs(c, prev) {
				answer.Refresh = true // the card does not tell who is former no more
			}
		})
		if err != nil {
			return syncer.StatesAnswer{}, fmt.Errorf("read customers that hints named: %w", err)
		}
	}
	for id := range got.missing {
		if _, known := prev.Subscriber(provision.SubscriberID(id)); known {
			answer.Refresh = true
		}
	}
	return answer, nil
}

// cardState returns the state that a card tells of its customer, who is in state was; n is the state_id that is known. Without
// a state_id the card tells no more than what its own flags block: the number in Memory is what lists said, which are no proof
// of themselves. Nor does a card tell who is former, or is no more: where the list of these is not in use, it tells what it says
// without that, and nothing of one who is not blocked, whom a fetch that runs may be about to stop for being former.
func (f *Fetcher) cardState(c *userside.Customer, n int, was provision.State) (st provision.State, tells bool) {
	if stateID(c.State) != noStateID {
		if own, unused := f.withoutFormer(c.ID, n, was); unused {
			return own, own.Blocks() || was.Blocks()
		}
		st = f.state(c.ID, n)
		return st, st.Blocks() || !was.Blocks() || !f.memory.hasLeftFormer(c.ID)
	}
	st = f.policy.State(noStateID, cardFlags(c))
	return st, st == provision.StateStop || st == provision.StatePause && was != provision.StateStop
}

// otherAddresses reports whether a card has other addresses or MACs than lines.
func otherAddresses(c *userside.Customer, lines provision.Lines) bool {
	has := make(map[netip.Addr]provision.MAC, lines.Len())
	for l := range lines.All() {
		for ip := range l.Hosts4() {
			has[ip] = l.MAC
		}
	}
	n := 0
	for _, a := range c.Addresses {
		if !a.IP.IsValid() {
			continue
		}
		n++
		if mac, ok := has[a.IP]; !ok || mac != provision.MAC(a.MAC) {
			return true
		}
	}
	return n != len(has)
}

// otherMACs reports whether the card of a customer without an address has other
// MACs than its vacant lines, where pools are to know them.
func otherMACs(c *userside.Customer, prev *provision.Snapshot) bool {
	if !prev.KeepsVacant() || slices.ContainsFunc(c.Addresses, func(a userside.CustomerAddress) bool { return a.IP.IsValid() }) {
		return false
	}
	has := make(map[provision.MAC]bool)
	for l := range prev.BySubscriber(provision.SubscriberID(c.ID)).All() {
		if l.Vacant() && !l.MAC.IsZero() {
			has[l.MAC] = true
		}
	}
	told := make(map[provision.MAC]bool, len(c.Addresses))
	for _, a := range c.Addresses {
		if mac := provision.MAC(a.MAC); !mac.IsZero() {
			told[mac] = true
		}
	}
	return !maps.Equal(has, told)
}

// Moved follows the cabling of each customer, one call each, and tells if one of
// them is on another port than prev has. A difference is told once: two sources
// of one ERP may disagree for good.
func (f *Fetcher) Moved(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (bool, error) {
	ctx = userside.WithLane(ctx, userside.LaneQuick) // the answer for one customer is short
	moved := false
	for _, id := range ids {
		lines := prev.BySubscriber(id)
		if lines.Len() == 0 {
			continue
		}
		chain, err := f.client.CustomerChain(ctx, int64(id))
		switch {
		case noDirect(err):
			continue // the key may not see cabling, or this ERP tells none
		case err != nil:
			return moved, err
		}
		links := onlySwitches(chain.Links)
		if len(links) == 0 && chain.Finish != nil {
			links = []userside.Link{*chain.Finish}
		}
		if !samePort(links, lines) && f.memory.newlyMoved(int64(id), cabling(links)) {
			moved = true
		}
	}
	return moved, nil
}

// samePort reports whether every line is at one of the links.
func samePort(links []userside.Link, lines provision.Lines) bool {
	for line := range lines.All() {
		switch {
		case line.Device.Made():
			continue // the ERP has no id for it: nothing to compare
		case line.Device == 0 && len(links) == 0:
			continue
		case !slices.ContainsFunc(links, func(l userside.Link) bool {
			return l.ObjectID == int64(line.Device) && (l.Port == line.Port || l.Port == 0 && l.PortName == line.PortName)
		}):
			return false
		}
	}
	return true
}

func cabling(links []userside.Link) string {
	var b strings.Builder
	for _, l := range links {
		b.WriteString(strconv.FormatInt(l.ObjectID, 10) + "/" + strconv.FormatUint(uint64(l.Port), 10) + "/" + l.PortName + ";")
	}
	return b.String() + "."
}
