package erp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// What of a customer's flags and subnets is known when: both stand on the customer's card alone. Composed fetches read
// every card. Direct ones need none, so where the policy heeds flags each whole fetch reads as many cards as MaxFlags and
// cardTime allow: first of those who were blocked and would not be any more, then of those never read, then of those
// read longest ago; after them, for their subnets, of those who are stopped whatever the flags say or have no row. Hints read the card of
// their customer. What was read is kept over restarts.
//
// module get_user_list, which answers everybody at once, is not used: of what it tells the flags are not documented, its
// numbers of states may be the billing's, and keys often have no right to it. get_data takes any number of ids by POST, so
// lists of ids grow as long as the ERP answers them quickly.

const (
	// cardTime is how long one whole fetch goes on to read cards.
	cardTime = 10 * time.Second
	// firstCardTime is the same where nothing is in use yet: clients wait for it. The rest is read at once after it.
	firstCardTime = time.Second / 5
	// quickList is the time in which a list of cards must be answered for the next one to be twice as long.
	quickList = time.Second
	// longestList is how many cards are asked for at once at most.
	longestList = 1000
)

// cardLists says how long lists of cards may be.
type cardLists struct {
	size int // of the next one; 0: Options.BatchSize
	most int // a longer one failed; 0: none did
}

// next returns how many cards to ask for at once.
func (l *cardLists) next(least int) int {
	if l.size == 0 {
		l.size = least
	}
	return l.size
}

// note takes into account how a list of n cards was answered.
func (l *cardLists) note(n, least int, took time.Duration, err error) {
	longest := cmp.Or(l.most, max(longestList, least))
	switch {
	case err != nil:
		l.size, l.most = least, max(n/2, least)
	case n == l.size && took < quickList:
		l.size = min(2*l.size, longest)
	case took > 4*quickList:
		l.size = max(l.size/2, least)
	}
}

// candidate is a customer whose card may be read.
type candidate struct {
	id   int64
	free bool // blocked in the snapshot in use, and would not be any more
	read uint64
}

func compareCandidates(x, y candidate) int {
	if x.free != y.free {
		if x.free {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(x.read, y.read), cmp.Compare(x.id, y.id))
}

// readCards reads cards for the flags and subnets on them. That it fails is no reason to do without the rest: what was
// read before goes on to count.
func (b *batch) readCards(ctx context.Context) {
	if !b.policy.Heeds() || b.in.StatesKept {
		return
	}
	list, rest := b.candidates()
	// A tenth of the cards is for those who may have a subnet at most.
	share := min(len(rest), max(b.opts.MaxFlags/10, b.opts.MaxFlags-len(list)))
	part, cancel := within(ctx, 2)
	defer cancel()
	got := newAsked()
	began := time.Now()
	most := cardTime
	if b.prev == nil {
		most = firstCardTime
	}
	err := b.askCards(part, list[:min(len(list), b.opts.MaxFlags-share)], began.Add(most*9/10), got)
	if err == nil {
		err = b.askCards(part, rest[:share], began.Add(most), got)
	}
	b.judgeCards(ctx, list, rest, got, err)
}

// candidates returns the customers whose cards were not read yet in this fetch, in the order to read them: those with rows whose
// state may depend on flags, and the rest, who may have a subnet: those who are stopped whatever the flags say, and those in
// a list of states who have no row.
func (b *batch) candidates() (list, rest []candidate) {
	seen := make(map[int64]struct{})
	for i := range b.in.Lines {
		id := int64(b.in.Lines[i].Subscriber)
		n, listed := b.numbers[id]
		if _, again := seen[id]; again || !listed || b.cards[id] {
			continue
		}
		seen[id] = struct{}{}
		c := candidate{id: id, read: b.memory.lastRead(id)}
		if b.policy.State(n, provision.Flags{}) == provision.StateStop {
			rest = append(rest, c) // no flag can do more
			continue
		}
		now, was := b.policy.State(n, b.memory.flags(id)), b.prev.State(provision.SubscriberID(id))
		c.free = was != now && (was == provision.StateStop || was == provision.StatePause && now != provision.StateStop)
		list = append(list, c)
	}
	for id := range b.numbers {
		if _, hasRow := seen[id]; !hasRow && !b.cards[id] {
			rest = append(rest, candidate{id: id, read: b.memory.lastRead(id)})
		}
	}
	slices.SortFunc(list, compareCandidates)
	slices.SortFunc(rest, compareCandidates)
	return list, rest
}

// askCards reads cards in lists, which grow as long as the ERP is quick, until a time.
func (b *batch) askCards(ctx context.Context, of []candidate, until time.Time, got *asked) error {
	for len(of) > 0 && time.Now().Before(until) {
		n := min(len(of), b.lists.next(b.opts.BatchSize))
		ids := make([]int64, n)
		for i := range ids {
			ids[i] = of[i].id
		}
		began := time.Now()
		err := b.askList(ctx, ids, got, b.card)
		b.lists.note(n, b.opts.BatchSize, time.Since(began), err)
		if err != nil && n > b.opts.BatchSize && ctx.Err() == nil {
			continue // such a long list may be more than the server can
		}
		if err != nil {
			return fmt.Errorf("read customers: %w", err)
		}
		got.asked += n
		of = of[n:]
	}
	return nil
}

// judgeCards tells how flags and subnets stand after this fetch.
func (b *batch) judgeCards(ctx context.Context, list, rest []candidate, got *asked, err error) {
	now := b.in.FetchedAt
	all := append(slices.Clip(list), rest...)
	unread, oldest := b.memory.unread(all)
	period := b.memory.roundOf(now, oldest, got.asked == len(all))
	if period == 0 && got.asked > 0 && !b.lastFetch.IsZero() {
		period = now.Sub(b.lastFetch) * time.Duration(len(all)) / time.Duration(got.asked) // not once around yet
	}
	b.lastFetch = now
	flagsUnread, _ := b.memory.unread(list)
	b.memory.noteFresh(b.prev.Empty(), err == nil && flagsUnread <= got.asked-len(got.found))
	b.unreadAtFirst.Store(b.prev == nil && unread > 0)
	for _, st := range []syncer.SourceStatus{
		{Source: syncer.SourceFlags, Rows: len(list), Unread: flagsUnread}, {Source: syncer.SourceSubnets, Rows: len(all), Unread: unread},
	} {
		st.Judgement, st.GoodAt = syncer.JudgedGood, b.memory.roundBegan()
		if got.asked < len(all) {
			st.RoundSeconds = period.Seconds()
		}
		absent := got.asked - len(got.found)
		switch {
		case err != nil:
			st.Judgement, st.Error = syncer.JudgedFailed, err.Error()
		case got.asked > 0 && len(got.found) == 0:
			st.Judgement, st.Error = syncer.JudgedFailed, fmt.Sprintf("the ERP has no card of the %d customers it was asked for", got.asked)
		case b.tooMany(absent, got.asked):
			st.Judgement, st.Error = syncer.JudgedHeld, fmt.Sprintf("the ERP has no card of %d of the %d customers it was asked for; they keep what was read before", absent, got.asked)
		case st.Unread > 0:
			st.Judgement, st.Error = syncer.JudgedPartial, fmt.Sprintf("%d of %d cards were never read", st.Unread, st.Rows)
		}
		if st.Bad() || st.GoodAt.IsZero() {
			st.GoodAt = b.memory.source(st.Source).GoodAt
		}
		b.tell(ctx, st)
	}
}

// card takes state, flags and subnets from a customer's card.
func (b *batch) card(c *userside.Customer) {
	first := b.prev != nil && b.memory.isFresh() && b.memory.lastRead(c.ID) == 0
	b.cards[c.ID] = true
	_, flags := b.memory.card(c, cardSubnets(c, b))
	b.setState(c.ID, c.State)
	if first && b.policy.State(noStateID, flags).Blocks() {
		b.memory.noteFirst(c.ID)
	}
}

// isFresh reports whether this is an installation that began with nothing, and not every card was asked for yet. Elsewhere
// a card that was never read says nothing of its customer being new: the file may be lost, or a version have written none.
func (m *Memory) isFresh() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fresh
}

// noteFresh notes that a fetch with cards began with no row in use, or that all cards were asked for by now.
func (m *Memory) noteFresh(began, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := (m.fresh || began) && !done
	m.changed = m.changed || fresh != m.fresh
	m.fresh = fresh
}

// noteFirst notes that a card that was read for the first time blocks its customer.
func (m *Memory) noteFirst(id int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.firstRead[id] = true
}

// firstReadOnes returns, sorted, whom cards that were read for the first time block, but not in prev yet.
func (m *Memory) firstReadOnes(policy *provision.Policy, prev *provision.Snapshot) []provision.SubscriberID {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.firstRead, func(id int64, _ bool) bool {
		return prev.State(provision.SubscriberID(id)).Blocks() || !policy.State(noStateID, m.flagsLocked(id)).Blocks()
	})
	out := make([]provision.SubscriberID, 0, len(m.firstRead))
	for id := range m.firstRead {
		out = append(out, provision.SubscriberID(id))
	}
	slices.Sort(out)
	return out
}

// unread returns how many of some customers never had their card read, and when the one read longest ago was.
func (m *Memory) unread(of []candidate) (never int, oldest uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldest = m.reads
	for i := range of {
		read := m.customers[of[i].id].read
		if read == 0 {
			never++
		}
		oldest = min(oldest, read)
	}
	return never, oldest
}

// roundOf notes how far the reading of all cards is, and returns how long the last one took; 0: that is not known. whole
// says that this fetch, begun at now, read every card.
func (m *Memory) roundOf(now time.Time, oldest uint64, whole bool) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &m.round
	switch {
	case whole:
		*r = cardRound{began: now, good: now, mark: m.reads}
	case r.began.IsZero():
		r.began = now
	case oldest > r.mark:
		*r = cardRound{began: now, good: r.began, mark: m.reads, last: now.Sub(r.began)}
	}
	return r.last
}

// roundBegan returns when the oldest of all cards was read, zero if some were never.
func (m *Memory) roundBegan() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.round.good
}
