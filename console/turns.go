package console

import (
	"context"
	"sync"

	"github.com/usher-agent/usher/provision"
)

// turns puts changes of state in order. Those of one subscriber come one after
// another, from the ERP's call to the kernel, so that the last one asked for
// is the last one in use. Of different subscribers only the ERP's calls do: nobody waits
// while the answer to another's call is looked for, or for the kernel.
type turns struct {
	calling chan struct{} // one slot

	mu sync.Mutex
	of map[provision.SubscriberID]*turn
}

// turn is one slot and how many have it or wait for it.
type turn struct {
	slot  chan struct{}
	users int
}

func newTurns() *turns {
	return &turns{calling: make(chan struct{}, 1), of: make(map[provision.SubscriberID]*turn)}
}

// take waits for a subscriber's turn and for the ERP; false if ctx ends before. called
// lets the next one call the ERP, done ends the turn; both may be called more than once.
func (t *turns) take(ctx context.Context, id provision.SubscriberID) (called, done func(), ok bool) {
	leave, ok := t.enter(ctx, id)
	if !ok {
		return nil, nil, false
	}
	select {
	case t.calling <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, nil, false
	}
	called = sync.OnceFunc(func() { <-t.calling })
	return called, sync.OnceFunc(func() { called(); leave() }), true
}

// enter waits for a subscriber's turn.
func (t *turns) enter(ctx context.Context, id provision.SubscriberID) (leave func(), ok bool) {
	t.mu.Lock()
	x := t.of[id]
	if x == nil {
		x = &turn{slot: make(chan struct{}, 1)}
		t.of[id] = x
	}
	x.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if x.users--; x.users == 0 {
			delete(t.of, id)
		}
	}
	select {
	case x.slot <- struct{}{}:
		return func() { <-x.slot; forget() }, true
	case <-ctx.Done():
		forget()
		return nil, false
	}
}
