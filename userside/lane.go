package userside

import (
	"context"
	"time"
)

// Lane is the way of a call beside others. A call waits for those of its own
// lane alone, so an answer that does not come holds up nothing but its like.
// Where requests wait for the budget, the later lane goes first.
type Lane uint8

// The lanes.
const (
	LaneBulk    Lane = iota // what a whole fetch reads: MaxConcurrent calls at a time, for Timeout each
	LaneReport              // MACs that the agent saw: one call at a time, for Timeout, because the ERP's own hooks may run in it
	LaneQuick               // lists of ids and single cards: one call at a time, for QuickTimeout
	LaneUrgent              // reads that somebody waits for: one call at a time, for QuickTimeout
	LaneCommand             // every other write, the same way

	laneCount = iota
)

// otherLanes is how many calls may be in flight beside those of LaneBulk.
const otherLanes = laneCount - 1

// String returns bulk, report, quick, urgent or command.
func (l Lane) String() string {
	if int(l) >= laneCount {
		return "unknown"
	}
	return [laneCount]string{"bulk", "report", "quick", "urgent", "command"}[l]
}

type laneKey struct{}

// WithLane makes the reads under the context that it returns take a lane,
// whatever their action says. Writes are commands or reports all the same.
func WithLane(ctx context.Context, l Lane) context.Context {
	return context.WithValue(ctx, laneKey{}, l)
}

// lane returns that of a call.
func (a *Action) lane(ctx context.Context) Lane {
	switch {
	case action(a.Label()) == actCustomerSetMAC:
		return LaneReport // nobody waits for it
	case a.Write:
		return LaneCommand
	}
	if l, ok := ctx.Value(laneKey{}).(Lane); ok {
		return l
	}
	if a.Bulk {
		return LaneBulk
	}
	return LaneQuick
}

// newGates returns the gate of each lane: one token for each request in flight.
func newGates(bulk int) (gates [laneCount]chan struct{}) {
	for l := range gates {
		gates[l] = make(chan struct{}, 1)
	}
	gates[LaneBulk] = make(chan struct{}, bulk)
	return gates
}

// enter waits for a call's turn in its lane; leave is to be called when the
// request is done.
func (c *Client) enter(ctx context.Context, spec *Action, l Lane) (leave func(), err *failure) {
	gate := c.gates[l]
	select {
	case gate <- struct{}{}:
		return func() { <-gate }, nil
	case <-ctx.Done():
		return nil, c.fail(spec, 0, ErrUnavailable, "waiting for another call to end", ctx.Err())
	}
}

// timeout is how long one request in a lane may take.
func (c *Client) timeout(l Lane) time.Duration {
	switch l {
	case LaneQuick, LaneUrgent:
		return min(c.opts.QuickTimeout, c.opts.Timeout)
	default:
		return c.opts.Timeout
	}
}
