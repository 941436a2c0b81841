package userside

import (
	"context"
	"errors"
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

// Budget gives the limit and what of it was used.
func (c *Client) Budget() Budget { return c.budget.look(time.Now()) }

// budget holds requests back so that the ERP gets no more of them per minute
// than agreed, in the long run. A tenth of a minute's requests may go at once.
type budget struct {
	perMinute int
	limit     *rate.Limiter // nil: no limit

	mu      sync.Mutex
	seconds [60]int
	newest  int64 // Unix second of the newest request
	waited  time.Duration
}

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
func (b *budget) take(ctx context.Context) error {
	began := time.Now()
	if b.limit != nil {
		if err := b.limit.Wait(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return errBudget
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
