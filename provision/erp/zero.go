package erp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// Whether an ERP takes state_id=0 for a condition is documented nowhere (API page
// section 11), and one that does not answers other customers as well, who would
// be blocked. Two things tell: customers who are in another list, too, and the
// cards of some who are in none.

// ZeroAnswer says what an ERP makes of state_id=0. A closed set.
type ZeroAnswer string

// The answers.
const (
	ZeroUnknown   ZeroAnswer = "unknown"   // it has not been asked, or no card could be compared
	ZeroCondition ZeroAnswer = "condition" // the list is that of state 0
	ZeroIgnored   ZeroAnswer = "ignored"   // others are in it: nobody is blocked by it
	ZeroRefused   ZeroAnswer = "refused"   // there is no list
)

var errZeroIgnored = errors.New("the list of state 0 has customers of other states: nobody is blocked by it, cards are read instead")

// zeroCheck is what was found out about state_id=0.
type zeroCheck struct {
	Answer   ZeroAnswer `json:"answer"`
	Compared int        `json:"compared,omitempty"` // cards of customers in the list that told a state
	Other    int        `json:"other,omitempty"`    // of these, cards with another state than 0
	Version  string     `json:"version,omitempty"`  // of the ERP, as it told it then
}

// zeroSamples are how many cards are compared: the first, and the second when one
// card of the first differs. That may be a customer who changed between two calls.
var zeroSamples = [...]int{20, 100}

// holds reports whether the check still counts for a list of n customers that
// the lists of other states do not have.
func (z zeroCheck) holds(version string, n int) bool {
	return z.Compared > 0 && z.Version == version &&
		(z.Answer == ZeroIgnored || z.Answer == ZeroCondition && z.Compared >= min(n, zeroSamples[0]))
}

// compareZero finds out by cards whether the customers in a list of state 0 are in
// state 0: once for each version of the ERP. It gives the cards that were read
// for it, which are newer than the lists. That cards cannot be read proves nothing: a list that had others in it
// is not believed again for that, after a restart or an upgrade of the ERP neither.
func (b *batch) compareZero(ctx context.Context, list []int64) (ZeroAnswer, []*userside.Customer) {
	version := b.client.Level(ctx).Text
	known := b.memory.zeroChecked()
	if known.holds(version, len(list)) {
		return known.Answer, nil
	}
	z := zeroCheck{Answer: ZeroUnknown, Version: version}
	var cards []*userside.Customer
	for _, n := range zeroSamples {
		z.Compared, z.Other, cards = 0, 0, cards[:0]
		_, err := b.ask(ctx, spread(list, n), func(c *userside.Customer) {
			state := stateID(c.State)
			if state == noStateID {
				return
			}
			cards = append(cards, c)
			z.Compared++
			if state != 0 {
				z.Other++
			}
		})
		if err != nil || z.Other != 1 || len(list) <= n {
			break
		}
	}
	switch {
	case z.Other > 1:
		z.Answer = ZeroIgnored
	case z.Compared > z.Other:
		z.Answer = ZeroCondition
	case known.Answer == ZeroIgnored && known.Compared > 0: // that everybody was in it once shows in the lists themselves
		return known.Answer, cards
	}
	b.memory.setZeroCheck(z)
	return z.Answer, cards
}

// listStopped asks for the customers in state 0. With compare, cards tell whether
// they are; composed fetches read every card anyway.
func (b *batch) listStopped(ctx context.Context, compare bool) error {
	stopped, refused, err := b.stopped(ctx)
	if err != nil {
		return fmt.Errorf("read customers in state %s: %w", provision.StateStop, err)
	}
	overlap := 0
	only := make([]int64, 0, len(stopped)) // in no other list
	for _, id := range stopped {
		if _, listed := b.numbers[id]; listed {
			overlap++
		} else {
			only = append(only, id)
		}
	}
	answer := ZeroUnknown
	var cards []*userside.Customer
	switch {
	case refused:
		b.memory.setZeroCheck(zeroCheck{Answer: ZeroRefused})
	// Without a condition everybody is in the list. A few customers in two lists
	// are only quick, not everybody.
	case overlap > 1 && overlap > len(b.numbers)/2:
		answer = ZeroIgnored
		b.memory.setZeroCheck(zeroCheck{Answer: ZeroIgnored})
	case compare && len(only) > 0:
		slices.Sort(only)
		answer, cards = b.compareZero(ctx, only)
	}
	ignored := answer == ZeroIgnored
	b.once(ctx, "state_id=0 is no condition", ignored, errZeroIgnored)
	b.zero = len(stopped) > 0 && !ignored
	b.listed[0] = b.zero
	b.heeds = b.heeds || !refused && !ignored
	if ignored {
		b.unsure = append(b.unsure, only...)
	} else {
		for _, id := range stopped {
			b.inList(id, 0)
		}
	}
	for _, c := range cards {
		b.card(c)
	}
	return nil
}

// setZeroCheck notes what was found out about state_id=0.
func (m *Memory) setZeroCheck(z zeroCheck) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = m.changed || z != m.zeroCheck
	m.zeroCheck = z
}

// zeroChecked returns what was found out about state_id=0.
func (m *Memory) zeroChecked() zeroCheck {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.zeroCheck
}
