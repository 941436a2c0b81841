package erp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// readStates asks for the customers of each state that has a meaning. Of one who
// is in two lists, or slipped through all of them, the card is read afterwards.
// Where a list cannot be read, everybody keeps the state in use.
func (b *batch) readStates(ctx context.Context) error {
	part, cancel := within(ctx, 2)
	defer cancel()
	if err := b.listStates(part); err != nil {
		b.memory.judgesStates(true, false)
		b.fails(ctx, syncer.SourceStates, err)
		if ctx.Err() != nil || len(b.prev.Subscribers()) == 0 {
			return err
		}
		clear(b.numbers)
		clear(b.listed)
		b.unsure, b.twice, b.doubted, b.dubious = nil, nil, nil, nil
		b.keepStates()
		b.in.StatesKept = true
		return nil
	}
	b.readFormer(ctx)
	return nil
}

// furtherStates returns the numbers beside 0, 1 and 2 that the policy knows.
func (b *batch) furtherStates() []int {
	var out []int
	for n := range b.policy.States {
		if n > 2 {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// list asks for the customers in one state.
func (b *batch) list(ctx context.Context, n int) error {
	list, err := b.client.CustomerIDs(ctx, userside.CustomerFilter{State: &n})
	if err != nil {
		return fmt.Errorf("read customers in state %s: %w", stateName(n), err)
	}
	if b.blocksMost(n, list) {
		return nil
	}
	if len(b.numbers) == 0 { // the first list is the one of nearly everybody
		b.numbers = make(map[int64]int, len(list)+len(list)/8)
	}
	for _, id := range list {
		b.inList(id, n)
	}
	b.listed[n] = true
	b.heeds = b.heeds || b.policy.State(n, provision.Flags{}).Blocks()
	return nil
}

// errHasMost says that a list of blocked customers cannot be one.
var errHasMost = errors.New("more than half of the customers in a list that blocks nobody are in it too")

// blocksMost reports whether a list of customers in a state that blocks has most of those whom another list has in a state that
// does not: a server that does not take the condition answers everybody. It blocks nobody then, and who is in it alone is
// asked for by the card.
func (b *batch) blocksMost(n int, list []int64) bool {
	if !b.policy.State(n, provision.Flags{}).Blocks() {
		return false
	}
	open, both := 0, 0
	for _, other := range b.numbers {
		if !b.policy.State(other, provision.Flags{}).Blocks() {
			open++
		}
	}
	var only []int64
	for _, id := range list {
		other, listed := b.numbers[id]
		switch {
		case !listed:
			only = append(only, id)
		case !b.policy.State(other, provision.Flags{}).Blocks():
			both++
		}
	}
	if both <= 1 || both <= open/2 { // a few were only quick
		return false
	}
	b.unsure = append(b.unsure, only...)
	if b.dubious == nil {
		b.dubious = make(map[int]bool)
	}
	b.dubious[n] = true
	b.doubted = fmt.Errorf("the list of customers in state %s: %w; nobody is blocked by it", stateName(n), errHasMost)
	return true
}

// ignoresStates reports whether the ERP takes no state for a condition: each list of a state that blocks has those of the lists
// that block nobody, and nobody beside. One customer may be new meanwhile.
func (b *batch) ignoresStates() bool {
	beside := slices.Sorted(slices.Values(b.unsure))
	return !b.heeds && len(b.dubious) > 0 && len(slices.Compact(beside)) <= 1
}

// doubtOpen has the lists that block nobody open nobody: of who is blocked the card decides, else the state in use stands.
func (b *batch) doubtOpen() {
	for _, sub := range b.prev.Subscribers() {
		id := int64(sub.ID)
		if _, listed := b.numbers[id]; listed && sub.State.Blocks() {
			delete(b.numbers, id)
			b.unsure = append(b.unsure, id)
		}
	}
	for n, read := range b.listed {
		if read {
			b.dubious[n] = true // for polls of states, too
		}
	}
	clear(b.listed)
	b.doubted = fmt.Errorf("every list has the same customers: the ERP does not take states for a condition; nobody is blocked or opened by them (%w)", b.doubted)
}

// inList takes a customer from the list of a state. If another list has it, too,
// it changed in between, or the ERP contradicts itself: the stricter state counts
// until settleTwice has read the card.
func (b *batch) inList(id int64, n int) {
	if was, twice := b.numbers[id]; twice && was != n {
		if b.twice == nil {
			b.twice = make(map[int64]struct{})
		}
		b.twice[id] = struct{}{}
		if stricter(b.policy.State(was, provision.Flags{}), b.policy.State(n, provision.Flags{})) {
			return
		}
	}
	b.numbers[id] = n
}

// stricter reports whether a blocks more than other.
func stricter(a, other provision.State) bool {
	return a.Blocks() && a != other && other != provision.StateStop
}

// settleTwice reads the cards of customers in the lists of two states, MaxAsk at
// most. Where there is none to be had, the stricter state stands.
func (b *batch) settleTwice(ctx context.Context) error {
	if len(b.twice) == 0 {
		return nil
	}
	ids := rotate(slices.Sorted(maps.Keys(b.twice)), b.turn*b.opts.MaxAsk)
	_, err := b.ask(ctx, ids[:min(len(ids), b.opts.MaxAsk)], b.card)
	if errors.Is(err, userside.ErrPermission) || errors.Is(err, errTooManySplits) {
		return nil
	}
	return err
}

func stateName(n int) string {
	if st := provision.PlainPolicy().States[n]; st != provision.StateUnknown {
		return st.String()
	}
	return strconv.Itoa(n)
}

// stopped asks for state 0. Whether the ERP takes 0 for a condition is unknown;
// if it refuses, a balance that everybody has is put beside it. When that is
// refused too, nobody is in the list and customers are asked one list at a time.
func (b *batch) stopped(ctx context.Context) (list userside.IDs, refused bool, err error) {
	zero, least := 0, -1e12
	list, err = b.client.CustomerIDs(ctx, userside.CustomerFilter{State: &zero})
	if errors.Is(err, userside.ErrRefused) || errors.Is(err, userside.ErrUnknownShape) {
		list, err = b.client.CustomerIDs(ctx, userside.CustomerFilter{State: &zero, BalanceFrom: &least})
	}
	refused = errors.Is(err, userside.ErrRefused) || errors.Is(err, userside.ErrUnknownShape)
	b.once(ctx, "stopped customers cannot be listed", refused, err)
	if refused {
		return nil, true, nil
	}
	return list, false, err
}

// askUnlisted learns the state of customers with rows that are in no list, of those
// of whom a list says nothing certain, and of those without a row who are known and in no list any more. At most MaxAsk are asked, other ones
// in each fetch; the rest keep the state that they had, and so does who is blocked and has a row, but no card. all is how many rows there are.
func (b *batch) askUnlisted(ctx context.Context, unlisted map[int64]struct{}, all int) error {
	contrary := 0
	if !b.in.StatesKept {
		defer func() {
			if !b.judgeStates(ctx, true, len(unlisted), contrary, all) {
				b.keepStates() // also of those who have no row
			}
		}()
	}
	rowless := b.withoutRow(unlisted)
	if len(unlisted) == 0 && len(rowless) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(unlisted))
	// Those whose state nobody knows come first, then the others in turns.
	var fresh, known []int64
	for _, id := range ids {
		if b.prev.State(provision.SubscriberID(id)) == provision.StateUnknown {
			fresh = append(fresh, id)
		} else {
			known = append(known, id)
		}
	}
	ids = slices.Concat(rotate(fresh, b.turn*b.opts.MaxAsk), rotate(known, b.turn*b.opts.MaxAsk), rotate(rowless, b.turn*b.opts.MaxAsk))
	ask := ids[:min(len(ids), b.opts.MaxAsk)]
	got, err := b.ask(ctx, ask, func(c *userside.Customer) {
		b.card(c)
		if b.listed[stateID(c.State)] {
			contrary++
		}
	})
	refused := errors.Is(err, userside.ErrPermission) || errors.Is(err, errTooManySplits)
	if err != nil && !refused && (ctx.Err() != nil || b.prev == nil) {
		b.fails(ctx, syncer.SourceFlags, err)
		return err
	}
	if err != nil {
		b.problem(provision.Problem{Kind: provision.ProblemBadRow, Detail: "states of customers in no list: " + err.Error()})
	}
	for _, id := range ids {
		if got.found[id] {
			continue
		}
		st := b.prev.State(provision.SubscriberID(id))
		_, hasRow := unlisted[id]
		if got.missing[id] {
			// The ERP contradicts itself where it has the rows of who was known: that opens nobody, and of many is held.
			if hasRow && st != provision.StateUnknown {
				contrary++
			}
			if hasRow && st.Blocks() {
				b.kept[id] = st
			}
			continue // Build reports them
		}
		if nets, _ := b.memory.subnetsOf(id); !hasRow && st == provision.StateUnknown && len(nets) == 0 {
			continue // nobody needs it
		}
		b.kept[id] = st
		if hasRow && st == provision.StateUnknown {
			b.problem(provision.Problem{Kind: provision.ProblemUnknownState, Subscriber: provision.SubscriberID(id),
				Detail: "is in no state list and could not be asked for this time; not blocked"})
		}
	}
	return nil
}

// rowless returns, ascending, those of whom a list says nothing certain, or who are known and in no list, and who are not
// among some others.
func (b *batch) withoutRow(unlisted map[int64]struct{}) []int64 {
	ids := b.unsure
	if !b.in.StatesKept {
		ids = slices.Concat(ids, b.leftOut())
	}
	out := make([]int64, 0, len(ids))
	for _, id := range ids {
		if _, hasRow := unlisted[id]; !hasRow && !b.cards[id] {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// setState takes a state_id from get_data. A card without one leaves what the
// lists told, and else the state in use, unless a flag blocks.
func (b *batch) setState(id int64, state userside.Int) {
	n := stateID(state)
	if n == noStateID && b.knows(id) {
		return
	}
	if was := b.prev.State(provision.SubscriberID(id)); n == noStateID && was != provision.StateUnknown && !b.policy.State(n, b.memory.flags(id)).Blocks() {
		b.kept[id] = was
		return
	}
	b.numbers[id] = n
	if b.policy.Knows(n) {
		return
	}
	detail := "has no state_id; not blocked"
	if state.Set {
		detail = "state_id " + strconv.FormatInt(state.Value, 10) + " is none of those that the policy knows; not blocked"
	}
	b.problem(provision.Problem{Kind: provision.ProblemUnknownState, Subscriber: provision.SubscriberID(id), Detail: detail})
}

func rotate(ids []int64, by int) []int64 {
	if len(ids) == 0 {
		return nil
	}
	by %= len(ids)
	return append(slices.Clone(ids[by:]), ids[:by]...)
}

// asked says what get_data answered for which ids. Ids in neither map got no answer.
type asked struct {
	found   map[int64]bool
	missing map[int64]bool // the ERP has no such customer
	asked   int            // ids in lists that were answered
	splits  int
}

func newAsked() *asked { return &asked{found: make(map[int64]bool), missing: make(map[int64]bool)} }

// maxSplits bounds the extra calls for lists that are refused as a whole.
const maxSplits = 64

// errTooManySplits ends the search for the customers that make lists fail.
var errTooManySplits = errors.New("too many refused lists")

// ask reads customers in batches and visits each one that came. Customers that
// the ERP will not talk about are left without an answer. With an error, what
// came before it stands.
func (b *batch) ask(ctx context.Context, ids []int64, visit func(*userside.Customer)) (*asked, error) {
	out := newAsked()
	var err error
	for list := range slices.Chunk(ids, b.opts.BatchSize) {
		if err = b.askList(ctx, list, out, visit); err != nil {
			err = fmt.Errorf("read customers: %w", err)
			break
		}
		out.asked += len(list)
	}
	b.once(ctx, "customers cannot be read", errors.Is(err, userside.ErrPermission), err)
	return out, err
}

// askList asks for one list. Some servers may refuse a list because of one id
// in it, so a refused one is asked for again in halves.
func (b *batch) askList(ctx context.Context, ids []int64, out *asked, visit func(*userside.Customer)) error {
	got, err := b.client.Customers(ctx, ids)
	switch {
	case err == nil:
		b.defects("customers", got.Defects)
		for i := range got.Customers {
			if c := &got.Customers[i]; !out.found[c.ID] {
				out.found[c.ID] = true
				visit(c)
			}
		}
		for _, id := range got.Missing {
			out.missing[id] = true
		}
		return nil
	case !errors.Is(err, userside.ErrRefused) && !errors.Is(err, userside.ErrNotFound):
		return err
	case len(ids) == 1:
		if errors.Is(err, userside.ErrNotFound) {
			out.missing[ids[0]] = true
		}
		return nil
	}
	if out.splits++; out.splits > maxSplits {
		return fmt.Errorf("%w: %w", errTooManySplits, err)
	}
	if err := b.askList(ctx, ids[:len(ids)/2], out, visit); err != nil {
		return err
	}
	return b.askList(ctx, ids[len(ids)/2:], out, visit)
}
