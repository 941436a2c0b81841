package userside

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Budget says how many requests the ERP gets.
type Budget struct {
	PerMinute  int           // the limit; 0: none
	LastMinute int           // requests of the last 60 seconds, retries included
	Waited     time.Duration // what requests have waited for the limit, all together
}

// Budget returns the limit and what of it was used.
func (c *Client) Budget() Budget { return c.budget.look(time.Now()) }

// budget holds requests back so that the ERP gets no more of them per minute
// than agreed, in the long run. A tenth of a minute's requests may go at once.
// Of those that wait, the latest lane goes first, but each third time the one
// that has waited for longest, so that every lane gets on.
type budget struct {
	perMinute int

	mu      sync.Mutex    // guards what follows
	limit   *rate.Limiter // nil: no limit
	queue   []*waiter     // in the order of their coming
	granted int           // requests that left the queue
	timer   *time.Timer   // runs while somebody waits
	seconds [60]int
	newest  int64 // Unix second of the newest request
	waited  time.Duration
}

// waiter is a request that waits.
type waiter struct {
	lane Lane
	goes chan struct{} // closed when it may go
}

// fairTurn is how often the request goes first that has waited for longest.
const fairTurn = 3

func newBudget(perMinute int) *budget {
	b := &budget{perMinute: perMinute}
	if perMinute > 0 {
		b.limit = rate.NewLimiter(rate.Limit(float64(perMinute)/60), max(perMinute/10, 1))
	}
	return b
}

// errBudget says that the wait would be longer than the caller has.
var errBudget = errors.New("the request budget is used up for longer than the call may last")

// take waits until a request may go.
func (b *budget) take(ctx context.Context, lane Lane) error {
	began := time.Now()
	w, err := b.enqueue(ctx, lane, began)
	if err != nil {
		return err
	}
	if w != nil {
		select {
		case <-w.goes:
		case <-ctx.Done():
			if b.leave(w) {
				return ctx.Err()
			}
		}
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waited += now.Sub(began)
	b.forget(now.Unix())
	b.seconds[b.newest%60]++
	return nil
}

// enqueue puts a request into the queue; nil: it may go at once.
func (b *budget) enqueue(ctx context.Context, lane Lane, now time.Time) (*waiter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ahead := 0
	for _, w := range b.queue {
		if w.lane >= lane {
			ahead++
		}
	}
	if b.limit == nil || ahead == 0 && b.limit.AllowN(now, 1) {
		return nil, nil
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(now.Add(b.until(ahead+1, now))) {
		return nil, errBudget
	}
	w := &waiter{lane: lane, goes: make(chan struct{})}
	if b.queue = append(b.queue, w); len(b.queue) == 1 {
		b.timer = time.AfterFunc(b.until(1, now), b.grant)
	}
	return w, nil
}

// until is how long it takes until n requests may go.
func (b *budget) until(n int, now time.Time) time.Duration {
	missing := float64(n) - b.limit.TokensAt(now)
	return max(time.Duration(missing/float64(b.limit.Limit())*float64(time.Second)), time.Microsecond)
}

// grant lets those go whom the limit allows.
func (b *budget) grant() {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 && b.limit.AllowN(now, 1) {
		i := b.next()
		close(b.queue[i].goes)
		b.queue = slices.Delete(b.queue, i, i+1)
		b.granted++
	}
	if len(b.queue) > 0 {
		b.timer.Reset(b.until(1, now))
	}
}

// next is the place in the queue of the request that goes next.
func (b *budget) next() int {
	first := 0
	if b.granted%fairTurn == fairTurn-1 {
		return first
	}
	for i, w := range b.queue {
		if w.lane > b.queue[first].lane {
			first = i
		}
	}
	return first
}

// leave takes a request out of the queue; false if it may go by now.
func (b *budget) leave(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, w)
	if i < 0 {
		return false
	}
	if b.queue = slices.Delete(b.queue, i, i+1); len(b.queue) == 0 {
		b.timer.Stop()
	}
	return true
}

// forget clears the seconds that passed since the newest request.
func (b *budget) forget(now int64) {
	for s := max(b.newest+1, now-59); s <= now; s++ {
		b.seconds[s%60] = 0
	}
	b.newest = max(b.newest, now)
}

func (b *budget) look(now time.Time) Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(now.Unix())
	out := Budget{PerMinute: b.perMinute, Waited: b.waited}
	for _, n := range b.seconds {
		out.LastMinute += n
	}
	return out
}
