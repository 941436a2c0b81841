package erp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// maxConfirm is how many customers who are in the list of former ones no more one fetch looks up.
const maxConfirm = 20

var errImplausible = errors.New("more than half of the active customers are in the list: a server that has no such list answers so, and wants policy.former to be allow")

// readFormer asks for the list of former customers, one call. Who is not in it any more is looked up, and opened if the ERP
// finds the customer among those who are not former, and is known to leave out those who are: one that does not heed that finds
// everybody. Where it cannot be asked that, a few are believed to have left a list that has others.
func (b *batch) readFormer(ctx context.Context) {
	if !b.policy.HeedsFormer() {
		return
	}
	part, cancel := within(ctx, 4)
	defer cancel()
	yes := true
	list, err := b.client.CustomerIDs(part, userside.CustomerFilter{Former: &yes})
	never := b.memory.source(syncer.SourceFormer).GoodAt.IsZero()
	switch {
	case err != nil && never && hasNot(err):
		b.lacks(ctx, syncer.SourceFormer, err)
		return
	case err != nil:
		b.fails(ctx, syncer.SourceFormer, err)
		return
	case never && b.everybody(list):
		b.lacks(ctx, syncer.SourceFormer, errImplausible)
		return
	}
	st := syncer.SourceStatus{Source: syncer.SourceFormer, Judgement: syncer.JudgedGood, Rows: len(list)}
	if b.everybody(list) {
		st.Judgement, st.Error, st.GoodAt = syncer.JudgedHeld, errImplausible.Error(), b.memory.source(syncer.SourceFormer).GoodAt
		b.tell(ctx, st)
		return
	}
	if left := b.leftFormer(list); len(left) > 0 {
		still, known := b.stillFormer(part, left, list)
		few := len(list) > 0 && !b.tooMany(len(left), len(left)+len(list))
		if len(still) > 0 && (known || !few) {
			st.Judgement, st.GoodAt = syncer.JudgedHeld, b.memory.source(syncer.SourceFormer).GoodAt
			st.Error = fmt.Sprintf("the list lacks %d of %d customers who were in it; asked for by themselves %d of them are not known to be former no more", len(left), len(left)+len(list), len(still))
			list = append(list, still...)
		}
	}
	if st.Judgement == syncer.JudgedGood && !b.memory.skipsFormer(b.skipVersion(ctx)) {
		b.proveSkip(part, list)
	}
	b.memory.setFormer(list)
	b.memory.settleFormer(b.prev)
	b.tell(ctx, st)
}

// skipVersion names the version of the ERP that the proof of proveSkip is good for.
func (b *batch) skipVersion(ctx context.Context) string { return "version " + b.client.Level(ctx).Text }

// proveSkip looks a customer up who is in the list of former ones: an ERP that leaves out former customers where it is asked to
// finds that one only where it is not. Without a proof look-ups show of nobody to be former no more.
func (b *batch) proveSkip(ctx context.Context, list []int64) {
	if len(list) == 0 {
		return
	}
	part, cancel := context.WithTimeout(ctx, 2*quickList)
	defer cancel()
	id := list[b.turn%len(list)]
	got, err := b.client.Customers(part, []int64{id})
	if err != nil || len(got.Customers) == 0 {
		return
	}
	c := &got.Customers[0]
	if found, err := b.finds(part, c, true); err == nil && !found {
		b.proveBy(part, c)
	}
}

// proveBy notes that the ERP leaves out former customers where it is asked to, if it finds one only where it is not.
func (b *batch) proveBy(ctx context.Context, c *userside.Customer) (proved bool) {
	found, err := b.finds(ctx, c, false)
	if proved = err == nil && found; proved {
		b.memory.noteSkipsFormer(b.skipVersion(ctx))
	}
	return proved
}

// everybody reports whether the list is that of a server which does not know the filter: it answers everybody, or
// everybody who is not former. Active former customers are an oddity.
func (b *batch) everybody(list []int64) bool {
	plain := func(n int) bool { return b.policy.State(n, provision.Flags{}) == provision.StateActive }
	active, both := 0, 0
	for _, n := range b.numbers {
		if plain(n) {
			active++
		}
	}
	for _, id := range list {
		if n, ok := b.numbers[id]; ok && plain(n) {
			both++
		}
	}
	return both > 1 && both > active/2
}

// leftFormer returns the customers who were former in the last good list and are not in this one, ascending.
func (b *batch) leftFormer(list []int64) []int64 {
	former, _ := b.memory.formerOnes()
	for _, id := range list {
		delete(former, id)
	}
	var left []int64
	for id := range former {
		if _, listed := b.numbers[id]; listed {
			left = append(left, id)
		}
	}
	slices.Sort(left)
	return left
}

// stillFormer returns those of some customers who left a list whom look-ups do not show to be former no more. If they show it of
// all that one fetch asks for, it is believed of all. known is false if the ERP told nothing certain of one of them.
func (b *batch) stillFormer(ctx context.Context, left, list []int64) (still []int64, known bool) {
	ask := rotate(left, b.turn*maxConfirm)[:min(len(left), maxConfirm)]
	got, err := b.client.Customers(ctx, ask)
	if err != nil {
		return left, false
	}
	normal := make(map[int64]bool)
	var denied []*userside.Customer
	for i := range got.Customers {
		c := &got.Customers[i]
		found, err := b.finds(ctx, c, true)
		switch {
		case err != nil:
		case found:
			normal[c.ID] = true
		default:
			denied = append(denied, c)
		}
	}
	proved := b.memory.skipsFormer(b.skipVersion(ctx))
	if !proved && len(denied) > 0 {
		proved = b.proveBy(ctx, denied[0])
	}
	if !proved && len(list) > 0 {
		b.proveSkip(ctx, list)
		proved = b.memory.skipsFormer(b.skipVersion(ctx))
	}
	if !proved { // they may be found because everybody is
		return left, len(denied) > 0
	}
	still = slices.DeleteFunc(slices.Clone(left), func(id int64) bool { return normal[id] })
	if len(left)-len(still) == len(ask) {
		return nil, true
	}
	return still, len(denied) > 0 || len(normal) == len(ask)
}

// finds reports whether the ERP finds a customer, among those who are not former or among all.
func (b *batch) finds(ctx context.Context, c *userside.Customer, skipFormer bool) (bool, error) {
	by, what := userside.LookupLogin, c.Login.Text()
	if what == "" {
		by, what = userside.LookupAccount, c.Account.Text()
	}
	if what == "" {
		return false, errors.New("the customer has neither login nor account")
	}
	found, err := b.client.FindCustomers(ctx, by, what, skipFormer)
	if errors.Is(err, userside.ErrNotFound) {
		err = nil
	}
	return slices.Contains(found, c.ID), err
}

// skipsFormer reports whether the ERP of a version was seen to leave out former customers where it is asked to.
func (m *Memory) skipsFormer(version string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.skips == version
}

func (m *Memory) noteSkipsFormer(version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = m.changed || m.skips != version
	m.skips = version
}

// settleFormer forgets who left the list of former customers and is not blocked in the snapshot in use.
func (m *Memory) settleFormer(prev *provision.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.leftFormer)
	maps.DeleteFunc(m.leftFormer, func(id int64, _ bool) bool { return !prev.State(provision.SubscriberID(id)).Blocks() })
	m.changed = m.changed || len(m.leftFormer) != before
}

// hasLeftFormer reports whether a customer left the list of former ones while blocked.
func (m *Memory) hasLeftFormer(id int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leftFormer[id]
}
