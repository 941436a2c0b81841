package userside

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Pending is a call that is not done yet, or one that the server answered with the wish to be left alone.
type Pending struct {
	Action  string    `json:"action"`                // its Label
	Lane    string    `json:"lane"`                  // bulk, report, quick, urgent or command
	Since   time.Time `json:"since"`                 // when the call was made
	Attempt int       `json:"attempt"`               // 1: the first
	SentAt  time.Time `json:"sent_at,omitzero"`      // when this attempt was sent; absent: it was not yet
	RetryAt time.Time `json:"retry_at,omitzero"`     // when the next attempt is made, if this one failed
	Error   string    `json:"error,omitempty"`       // of the attempt before
	Told    bool      `json:"retry_after,omitempty"` // RetryAt is the server's word

	AllReads bool `json:"all_reads,omitempty"` // no read is sent before RetryAt, whichever it is
}

// slowCall is from when on a call is worth a word.
const slowCall = 5 * time.Second

// Slow reports whether people should know of the call: it has taken 5 s, or it
// failed and waits for another attempt.
func (p Pending) Slow(now time.Time) bool {
	return now.Sub(p.Since) >= slowCall || !p.RetryAt.IsZero()
}

// Text says what the call waits for.
func (p Pending) Text(now time.Time) string {
	seconds := func(d time.Duration) time.Duration { return max(d.Round(time.Second), 0) }
	switch {
	case p.AllReads:
		return fmt.Sprintf("nothing is read for %s, as the server asked in answer to %s (Retry-After): %s", seconds(p.RetryAt.Sub(now)), p.Action, p.Error)
	case !p.RetryAt.IsZero():
		text := fmt.Sprintf("%s failed, the next attempt is made in %s", p.Action, seconds(p.RetryAt.Sub(now)))
		if p.Told {
			text += ", as the server asks (Retry-After)"
		}
		return text + ": " + p.Error
	case p.SentAt.IsZero():
		return fmt.Sprintf("%s has been waiting %s for its turn", p.Action, seconds(now.Sub(p.Since)))
	}
	text := fmt.Sprintf("%s has been waiting %s for its answer", p.Action, seconds(now.Sub(p.SentAt)))
	if p.Attempt > 1 {
		text += fmt.Sprintf(" (attempt %d; the one before: %s)", p.Attempt, p.Error)
	}
	return text
}

// Pending returns the calls that are not done yet, the oldest first.
func (c *Client) Pending() []Pending {
	list := c.pending.list()
	if asked, lasts := c.rest.now(time.Now()); lasts {
		list = append(list, asked)
		slices.SortFunc(list, comparePending)
	}
	return list
}

func comparePending(x, y Pending) int {
	return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Action, y.Action))
}

// pendings are the calls that are not done yet.
type pendings struct {
	mu sync.Mutex
	of map[*outgoing]*Pending
}

// begin notes a call until done is called.
func (p *pendings) begin(ctx context.Context, out *outgoing) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[*outgoing]*Pending)
	}
	p.of[out] = &Pending{Action: out.spec.Label(), Lane: out.spec.lane(ctx).String(), Since: time.Now()}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.of, out)
	}
}

// note changes what is told of a call.
func (p *pendings) note(out *outgoing, change func(*Pending)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p.of[out])
}

func (p *pendings) list() []Pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Pending, 0, len(p.of))
	for _, x := range p.of {
		out = append(out, *x)
	}
	slices.SortFunc(out, comparePending)
	return out
}
