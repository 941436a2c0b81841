package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
)

// The waits after failures double and have a jitter of a fifth. One report that
// fails waits by itself; an ERP that does not answer at all makes everything
// wait, so that an outage costs one call a minute whatever the number of reports.
const (
	firstEntryWait = 5 * time.Second
	maxEntryWait   = time.Hour
	firstPause     = time.Second
	maxPause       = time.Minute
)

func backoff(first, longest time.Duration, failures int) time.Duration {
	wait := min(first<<min(failures-1, 20), longest)
	return time.Duration(float64(wait) * (0.8 + 0.4*rand.Float64()))
}

// Run delivers until ctx ends, and writes what a failing disk did not take; it gives nil then. One call is made at a time.
func (o *Outbox) Run(ctx context.Context) error {
	var writer sync.WaitGroup
	writer.Go(func() { o.write(ctx) })
	defer writer.Wait()
	for ctx.Err() == nil {
		e, wait := o.next()
		if e == nil {
			if !o.sleep(ctx, wait) {
				return nil
			}
			continue
		}
		if o.passed(e) || o.settle(e) || o.foreign(e) || o.putOff(e) {
			continue
		}
		if o.limit.Wait(ctx) != nil || o.reads(e) && o.limit.Wait(ctx) != nil {
			return nil
		}
		if !o.current(e) || o.overruled(ctx, e) || o.passed(e) || o.foreign(e) {
			continue // replaced, switched off or overtaken while it waited
		}
		if ctx.Err() != nil {
			return nil
		}
		o.send(ctx, e)
	}
	return nil
}

// next returns the entry to send now, or how long to wait; less than zero: until
// something changes.
func (o *Outbox) next() (*entry, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.enabled || len(o.queue) == 0 {
		return nil, -1
	}
	e, now := o.queue[0], time.Now()
	at := e.due
	if o.pausedUntil.After(at) {
		at = o.pausedUntil
	}
	if at.After(now) {
		return nil, at.Sub(now)
	}
	return e, 0
}

func (o *Outbox) current(e *entry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.enabled && o.entries[e.report.IP] == e
}

// sleep waits for a change of the schedule or the time given; false when ctx ended.
func (o *Outbox) sleep(ctx context.Context, wait time.Duration) bool {
	var timeout <-chan time.Time
	if wait >= 0 {
		timeout = time.After(wait)
	}
	select {
	case <-ctx.Done():
		return false
	case <-o.wake:
	case <-timeout:
	}
	return true
}

// settle drops a report that the ERP knows already.
func (o *Outbox) settle(e *entry) bool {
	settled := o.opts.Settled != nil && o.opts.Settled(e.report) || o.toldSince(e.report) ||
		e.damped && o.opts.Overtaken != nil && o.opts.Overtaken(e.report)
	if !settled {
		return false
	}
	o.finish(e, ResultSettled)
	return true
}

// send makes one call and deals with its result.
func (o *Outbox) send(ctx context.Context, e *entry) {
	changes := o.changes(e.report) // as it is now: soon a snapshot may have what is sent
	if o.opts.Sending != nil {
		o.opts.Sending(e.report)
	}
	sctx, cancel := context.WithTimeout(ctx, o.opts.SendTimeout)
	err := o.sender.SetMAC(sctx, e.report.IP, e.report.MAC)
	cancel()
	answers := false // the ERP does, whatever became of this report
	if errors.Is(err, provision.ErrUncertain) {
		o.doubt(e)
		err, answers = o.lookBack(ctx, e, err)
	}
	if o.opts.Told != nil && (err == nil || errors.Is(err, provision.ErrRefused) || e.attempts == 0) {
		o.opts.Told(e.report, e.attempts+1, err)
	}
	switch {
	case err == nil:
		o.answered()
		o.taken(e, changes)
	case errors.Is(err, provision.ErrRefused):
		o.answered()
		o.refuse(e, err)
		o.finish(e, ResultRefused)
	case ctx.Err() != nil: // our own end, not the ERP's failure
	case answers:
		o.answered()
		if e.attempts == 0 {
			o.log.Warn("mac report was sent, its answer says nothing and the ERP does not have it; will try again",
				"ip", e.report.IP, "mac", e.report.MAC, "error", err)
		}
		o.again(e, err)
	default:
		o.fail(e, err)
	}
}

// taken notes that the ERP has a report.
func (o *Outbox) taken(e *entry, changes bool) {
	o.tell(e.report, changes, time.Now())
	if o.opts.Taken != nil {
		o.opts.Taken(e.report, time.Now())
	}
	o.finish(e, ResultSent)
}

// maxUncertain is how often a report is sent whose answer says nothing each time, while the ERP can be read and does not have it:
// so a hook looks that answers in its place, and refuses.
const maxUncertain = 3

// lookBack finds out what became of a report that was sent and of which nobody knows whether the ERP took it; err is what came.
// It returns nil if the ERP has it, an error that is provision.ErrRefused if it is not to be sent again, else err, and whether
// the ERP could be read.
func (o *Outbox) lookBack(ctx context.Context, e *entry, err error) (result error, answers bool) {
	if o.opts.Row == nil || o.limit.Wait(ctx) != nil {
		return err, false
	}
	has, rowErr := o.row(ctx, e.report)
	switch {
	case rowErr != nil:
		return err, false
	case has == e.report.MAC:
		return nil, true
	case e.attempts+1 >= maxUncertain:
		return fmt.Errorf("%w: sent %d times, and the ERP does not have it: %w", provision.ErrRefused, maxUncertain, err), true
	}
	return err, true
}

// answered ends an outage: there is an ERP that says yes or no.
func (o *Outbox) answered() {
	o.mu.Lock()
	n := o.failures
	o.failures, o.pausedUntil = 0, time.Time{}
	o.mu.Unlock()
	if n > 0 {
		o.log.Info("mac reports are taken again", "failures", n)
	}
}

// finish drops an entry for good.
func (o *Outbox) finish(e *entry, r Result) {
	o.drop(e)
	o.mu.Lock()
	switch r {
	case ResultSent:
		o.totals.Sent++
	case ResultRefused:
		o.totals.Refused++
	case ResultSettled:
		o.totals.Settled++
	case ResultOverruled:
		o.totals.Overruled++
	case ResultForeign:
		o.totals.Foreign++
	}
	o.mu.Unlock()
	o.obs.Delivered(r)
	o.log.Debug("mac report done", "result", r, "ip", e.report.IP, "mac", e.report.MAC)
}

func (o *Outbox) refuse(e *entry, err error) {
	o.mu.Lock()
	o.refusals = append(o.refusals, Refusal{e.report, time.Now(), err.Error()})
	if n := len(o.refusals) - maxRefusals; n > 0 {
		o.refusals = append(o.refusals[:0], o.refusals[n:]...)
	}
	o.mu.Unlock()
	o.log.Warn("the ERP refuses a mac report, dropped", "ip", e.report.IP, "mac", e.report.MAC,
		"subscriber", e.report.Subscriber, "error", err)
}

// fail puts an entry off, and for a while all others.
func (o *Outbox) fail(e *entry, err error) {
	o.mu.Lock()
	o.failures++
	first := o.failures == 1
	pause := backoff(firstPause, maxPause, o.failures)
	o.pausedUntil = time.Now().Add(pause)
	depth := len(o.entries)
	o.mu.Unlock()
	o.again(e, err)
	if first {
		o.log.Warn("mac report could not be delivered, will try again", "error", err, "waiting", depth, "retry_in", pause)
	}
}

// again puts an entry off.
func (o *Outbox) again(e *entry, err error) {
	o.mu.Lock()
	now := time.Now()
	o.totals.Failed++
	o.totals.LastError, o.totals.LastErrorAt = err.Error(), now
	e.attempts++
	e.err = err.Error()
	e.due = now.Add(backoff(firstEntryWait, maxEntryWait, e.attempts))
	if o.entries[e.report.IP] == e {
		o.queue.fix(e)
	}
	o.mu.Unlock()
	o.obs.Delivered(ResultFailed)
}
