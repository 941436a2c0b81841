package erp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// maxConfirm is how many customers who are in the list of former ones no more one fetch looks up.
const maxConfirm = 20

var errImplausible = errors.New("more than half of the active customers are in the list: a server that has no such list answers so, and wants policy.former to be allow")

// readFormer asks for the list of former customers, one call. Who is not in it any more is looked up, and opened if the ERP
// finds the customer among those who are not former. Where it cannot be asked that, a few are believed to have left a list that
// has others.
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
		still, known := b.stillFormer(part, left)
		few := len(list) > 0 && !b.tooMany(len(left), len(left)+len(list))
		if len(still) > 0 && (known || !few) {
			st.Judgement, st.GoodAt = syncer.JudgedHeld, b.memory.source(syncer.SourceFormer).GoodAt
			st.Error = fmt.Sprintf("the list lacks %d of %d customers who were in it; asked for by themselves %d of them are not known to be former no more", len(left), len(left)+len(list), len(still))
			list = append(list, still...)
		}
	}
	b.memory.setFormer(list)
	b.tell(ctx, st)
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

// stillFormer returns those of some customers whom look-ups do not show to be former no more. If they show it of all that
// one fetch asks for, it is believed of all. known is false if the ERP could not be asked about one of them.
func (b *batch) stillFormer(ctx context.Context, left []int64) (still []int64, known bool) {
	ask := rotate(left, b.turn*maxConfirm)[:min(len(left), maxConfirm)]
	got, err := b.client.Customers(ctx, ask)
	if err != nil {
		return left, false
	}
	normal := make(map[int64]bool)
	answered := 0
	for i := range got.Customers {
		c := &got.Customers[i]
		if !slices.Contains(ask, c.ID) {
			continue
		}
		found, err := b.normal(ctx, c)
		if normal[c.ID] = found; err == nil {
			answered++
		}
	}
	still = slices.DeleteFunc(slices.Clone(left), func(id int64) bool { return normal[id] })
	if len(left)-len(still) == len(ask) {
		return nil, true
	}
	return still, answered == len(ask)
}

// normal reports whether the ERP finds a customer among those who are not former.
func (b *batch) normal(ctx context.Context, c *userside.Customer) (bool, error) {
	by, what := userside.LookupLogin, c.Login.Text()
	if what == "" {
		by, what = userside.LookupAccount, c.Account.Text()
	}
	if what == "" {
		return false, errors.New("the customer has neither login nor account")
	}
	found, err := b.client.FindCustomers(ctx, by, what, true)
	if errors.Is(err, userside.ErrNotFound) {
		err = nil
	}
	return slices.Contains(found, c.ID), err
}
