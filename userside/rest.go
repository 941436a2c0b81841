package userside

import (
	"fmt"
	"sync"
	"time"
)

// maxRest bounds how long one answer of the server keeps all reads from it.
const maxRest = 15 * time.Minute

// rest is the time in which the server wants no reads: a Retry-After longer than
// a call waits is the server's word about itself, not about that call. Without it
// each poll would ask again.
type rest struct {
	mu    sync.Mutex // guards what follows
	asked Pending    // that the server asked for it; RetryAt is its end
}

// begin notes that an answer to a read asks for a rest.
func (r *rest) begin(spec *Action, lane Lane, f *failure, now time.Time) {
	until := now.Add(min(f.retryAfter, maxRest))
	r.mu.Lock()
	defer r.mu.Unlock()
	if until.After(r.asked.RetryAt) {
		r.asked = Pending{
			Action: spec.Label(), Lane: lane.String(), Since: now, Attempt: 1, RetryAt: until, Error: f.reason(), Told: true, AllReads: true,
		}
	}
}

// now returns what asked for the rest, if it lasts.
func (r *rest) now(now time.Time) (asked Pending, lasts bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked, now.Before(r.asked.RetryAt)
}

// resting returns why a call is not sent now; nil: it may go. Changes go, for an
// operator waits for them and nobody repeats them.
func (c *Client) resting(spec *Action) *failure {
	asked, lasts := c.rest.now(time.Now())
	if !lasts || spec.Write {
		return nil
	}
	f := c.fail(spec, 0, ErrUnavailable, fmt.Sprintf("not sent: the server asks to be left alone until %s (Retry-After of %s)",
		asked.RetryAt.Local().Format(time.TimeOnly), asked.Action), nil)
	f.retry = false
	return f
}
