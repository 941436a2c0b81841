package erp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// Each source of the ERP is read by itself: one that cannot be read, or whose answer is not believed, leaves what it said
// last in use, and the others go on. Without an earlier answer there is nothing to go on with: devices are then taken from
// the rows where the ERP refuses the list, flags count for nothing, and without bindings or states the fetch fails.

// Sources implements syncer.SourceTeller: those that the policy makes use of.
func (f *Fetcher) Sources() []syncer.SourceStatus {
	var list []syncer.SourceStatus
	for _, name := range syncer.SourceNames() {
		switch {
		case name == syncer.SourceFlags && !f.policy.Heeds(), name == syncer.SourceFormer && !f.policy.HeedsFormer():
			continue // it counts for nothing
		case name == syncer.SourceSubnets && !f.policy.Heeds() && f.memory.source(name).Judgement == syncer.JudgedUnread:
			continue // without flags no cards are read, unless bindings are composed of them
		}
		list = append(list, f.memory.source(name))
	}
	return list
}

// AcceptSource implements syncer.SourceAccepter. What is held of the list of devices can be accepted; the other sources are held
// by what the ERP itself says of single customers, which an operator cannot know better.
func (f *Fetcher) AcceptSource(name syncer.SourceName, fingerprint string) error {
	if name != syncer.SourceDevices {
		return fmt.Errorf("only devices can be accepted; %s come into use when the cards of customers say the same", name)
	}
	return f.memory.acceptDevices(fingerprint)
}

// Save writes what the ERP said last to the file of its Memory, if that is behind.
func (f *Fetcher) Save() error { return f.memory.save(f.now()) }

// conditions are what the log calls a source that is not as it should be.
func conditions(name syncer.SourceName) string {
	switch name {
	case syncer.SourceBindings:
		return "bindings cannot be read"
	case syncer.SourceStates:
		return "states of customers cannot be read"
	case syncer.SourceDevices:
		return "devices cannot be read"
	case syncer.SourceFormer:
		return "former customers cannot be listed"
	case syncer.SourceSubnets:
		return "subnets of customers cannot be read"
	default:
		return "flags of customers cannot be read"
	}
}

// tell notes how a source stands, and logs when it begins or ceases to be bad.
func (b *batch) tell(ctx context.Context, st syncer.SourceStatus) {
	if st.Judgement == syncer.JudgedGood && st.GoodAt.IsZero() {
		st.GoodAt = b.in.FetchedAt
	}
	b.memory.tell(st, b.now())
	b.once(ctx, conditions(st.Source), st.Bad(), errors.New(st.Error), "source", string(st.Source))
}

// fails notes that a source cannot be read; the last good answer stays.
func (b *batch) fails(ctx context.Context, name syncer.SourceName, err error) {
	b.blamed = true
	if errors.Is(ctx.Err(), context.Canceled) {
		return // it is we who end
	}
	b.tell(ctx, syncer.SourceStatus{Source: name, Judgement: syncer.JudgedFailed, Error: err.Error()})
}

// lacks notes that this ERP does not have what it never told: is_ex came with 3.15.26 (API page section 3.1). Nothing of before
// stands in for it and nothing will come, so it is logged once, and no fault that "usher status" is to fail for.
func (b *batch) lacks(ctx context.Context, name syncer.SourceName, err error) {
	b.memory.tell(syncer.SourceStatus{Source: name, Judgement: syncer.JudgedPartial, Error: "this ERP has none: " + err.Error()}, b.now())
	b.once(ctx, conditions(name), true, err, "source", string(name))
}

// hasNot reports whether an ERP says that it does not have what it was asked for. That a key may not read it is for an administrator
// to mend.
func hasNot(err error) bool {
	return errors.Is(err, userside.ErrRefused) || errors.Is(err, userside.ErrNotFound) || errors.Is(err, userside.ErrUnknownShape)
}

// blame notes that a fetch failed, if no source was told to be the reason: then it is that of bindings.
func (b *batch) blame(ctx context.Context, err error) {
	if !b.blamed {
		b.fails(ctx, syncer.SourceBindings, err)
	}
}

// state returns what a customer with a state_id may do, by the policy and all that is known of the customer.
func (f *Fetcher) state(id int64, n int) provision.State { return f.memory.state(&f.policy, id, n) }

// tooMany reports whether n of all rows are more than one answer may harm: what the fetch guard allows for moves.
func (f *Fetcher) tooMany(n, all int) bool {
	return n > *f.opts.MinChanged && float64(n) > *f.opts.MaxMoved*float64(all)
}

// within gives a source its share of the time that the fetch has: one that hangs must not take it from the others.
func within(ctx context.Context, parts int) (context.Context, context.CancelFunc) {
	end, bounded := ctx.Deadline()
	if !bounded {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(end)/time.Duration(parts))
}

func (m *Memory) source(name syncer.SourceName) syncer.SourceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	st, told := m.sources[name]
	if !told {
		st = syncer.SourceStatus{Source: name, Judgement: syncer.JudgedUnread}
	}
	return st
}

func (m *Memory) tell(st syncer.SourceStatus, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.sources[st.Source]
	if st.Since = old.Since; st.Judgement != old.Judgement || st.Since.IsZero() {
		st.Since = now
	}
	if st.GoodAt.IsZero() {
		st.GoodAt = old.GoodAt
	}
	if st.Judgement == syncer.JudgedFailed {
		st.Rows, st.Unread, st.RoundSeconds = old.Rows, old.Unread, old.RoundSeconds
	}
	m.sources[st.Source] = st
}

// listStates asks for the customers of each state that has a meaning.
func (b *batch) listStates(ctx context.Context) error {
	for _, n := range append([]int{2, 1}, b.furtherStates()...) {
		if err := b.list(ctx, n); err != nil {
			return err
		}
	}
	if err := b.listStopped(ctx, b.in.Source == provision.SourceDirect); err != nil {
		return err
	}
	if b.ignoresStates() {
		b.doubtOpen()
	}
	if err := b.settleTwice(ctx); err != nil && (b.prev == nil || ctx.Err() != nil) {
		return err // else the stricter state stands
	}
	return nil
}

// keepStates has everybody keep the state in use whom no list tells.
func (b *batch) keepStates() {
	for _, s := range b.prev.Subscribers() {
		if !b.knows(int64(s.ID)) {
			b.kept[int64(s.ID)] = s.State
		}
	}
}

// judgeStates judges the lists by the cards of customers who are in none of them: contrary is how many of those cards
// tell a state whose list was read, or are lacking of customers who have rows, out is how many of all customers are in no list. It reports whether the lists are
// believed. A poll of states reads fewer lists than a whole fetch, so it does not make good what that found bad.
func (b *batch) judgeStates(ctx context.Context, whole bool, out, contrary, all int) (believed bool) {
	st := syncer.SourceStatus{Source: syncer.SourceStates, Judgement: syncer.JudgedGood, Rows: all}
	believed = contrary <= *b.opts.MinChanged || !b.tooMany(out, all)
	switch {
	case b.doubted != nil:
		st.Judgement, st.Error = syncer.JudgedHeld, b.doubted.Error()
		st.GoodAt = b.memory.source(syncer.SourceStates).GoodAt
	case !believed:
		st.Judgement = syncer.JudgedHeld
		st.Error = fmt.Sprintf("the lists lack %d of %d customers; they keep their states or are asked for by themselves", out, all)
		st.GoodAt = b.memory.source(syncer.SourceStates).GoodAt
	}
	if b.memory.judgesStates(whole, believed && b.doubted == nil) {
		b.tell(ctx, st)
	}
	return believed
}

// keepBlocked has those stay blocked whom nothing that is known explains to be, as long as their cards were never read: the
// first fetch of a version that keeps what cards said, or after the file was lost, opens nobody while get_data is refused. Where the
// number of a customer is known, what blocked was that: then the snapshot is only behind, since the guard holds what was read, or
// it was read beside.
func (b *batch) keepBlocked() {
	blocked := make(map[int64]provision.State)
	if b.policy.Heeds() {
		for _, sub := range b.prev.Subscribers() {
			id := int64(sub.ID)
			n, listed := b.numbers[id]
			if !listed || !sub.State.Blocks() || b.memory.lastRead(id) != 0 {
				continue
			}
			if _, known := b.memory.number(id); known && !b.memory.keeps(id) {
				continue
			}
			if b.policy.State(n, b.memory.flags(id)) != sub.State {
				blocked[id] = sub.State
			}
		}
	}
	b.memory.keep(blocked)
}

// BlockedBy implements syncer.BlockTeller by what is known of the customer now.
func (f *Fetcher) BlockedBy(id provision.SubscriberID, st provision.State) syncer.SourceName {
	n, known := f.memory.number(int64(id))
	if !known {
		n = noStateID
	}
	flags := f.memory.flags(int64(id))
	card := flags
	card.Former = provision.FlagUnread
	switch {
	case f.policy.State(n, provision.Flags{}) == st:
		return syncer.SourceStates
	case f.policy.State(n, card) == st:
		return syncer.SourceFlags
	case f.policy.State(n, flags) == st:
		return syncer.SourceFormer
	}
	return syncer.SourceStates
}
