package console

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/usher-agent/usher/provision"
)

// StateOutcome says how it is known what the ERP made of a change of state. A closed set.
type StateOutcome string

// The outcomes of a change of state that was not refused.
const (
	StateTaken     StateOutcome = "taken"     // the ERP said yes
	StateFound     StateOutcome = "found"     // its answer said nothing, and the subscriber's card has the state
	StateUncertain StateOutcome = "uncertain" // its answer said nothing, and neither did the card within readBackFor
)

const (
	// askFor bounds the ERP's call of a change of state: the rest of changeTimeout is
	// for the card and the kernel.
	askFor = changeTimeout - readBackFor - 10*time.Second
	// readBackFor is how long a card is looked at when the answer of a change was
	// lost: an ERP may work on it for long after nobody listens any more.
	readBackFor = 30 * time.Second
	// The waits between two looks double from the first to the longest.
	readBackFirst   = 500 * time.Millisecond
	readBackLongest = 4 * time.Second
)

// askState has the ERP change a state, once, and notes in ch how it is known what
// became of it. The error says that it was not changed. called is called when the call ended.
func (d *Deps) askState(ctx context.Context, id provision.SubscriberID, st provision.State, ch *StateChange, called func()) error {
	ectx, cancel := context.WithTimeout(ctx, askFor)
	err := d.ERP.ChangeState(ectx, id, st)
	cancel()
	called()
	ch.Outcome = StateTaken
	if !errors.Is(err, provision.ErrUncertain) {
		return err
	}
	ch.Outcome, ch.Detail = StateFound, strings.TrimPrefix(err.Error(), provision.ErrUncertain.Error()+": ")
	if !d.readBack(ctx, id, st) {
		ch.Outcome = StateUncertain
	}
	return nil
}

// readBack looks at the card of a subscriber until it has a state, and reports
// whether it does.
func (d *Deps) readBack(ctx context.Context, id provision.SubscriberID, st provision.State) bool {
	ctx, cancel := context.WithTimeout(ctx, readBackFor)
	defer cancel()
	for wait := readBackFirst; ; wait = min(2*wait, readBackLongest) {
		if has, err := d.ERP.HasState(ctx, id, st); err == nil && has {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}
