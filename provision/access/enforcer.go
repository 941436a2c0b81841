// Package access decides what subscribers may reach, and keeps the kernel at it.
//
// Want makes the wanted ACL of a snapshot and of Inputs, which Sources gather: the
// configuration, live leases, interfaces, gardens. An Enforcer brings a Kernel to
// it, in rounds that compare everything. A Follower tells it of leases that change
// between them, whose elements alone are then worked out and changed.
package access

import (
	"context"
	"errors"
	"fmt"
	"github.com/usher-agent/usher/provision"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Kernel is where an ACL is enforced. All methods are called by one goroutine.
// A Kernel that has a method Generation() uint64 gets it shown in the status.
type Kernel interface {
	// Observe reads back what the kernel has. Order does not matter.
	Observe(ctx context.Context) (ACL, error)
	// Apply commits the changes, additions first. After an error the kernel's
	// state is taken as unknown and observed anew.
	Apply(ctx context.Context, changes []Change) error
	// Changed says cheaply whether anybody else may have written since our
	// last Observe or Apply.
	Changed(ctx context.Context) (bool, error)
}

// A Watcher is a Kernel that tells of foreign writes by itself. Without it they
// are found at the next look.
type Watcher interface {
	// Watch calls wake soon after each commit, not ours, that touched the table.
	// It may call it more often. It returns when ctx ends, and with an error when
	// something may have been missed; it is called again then.
	Watch(ctx context.Context, wake func()) error
	// Writers names who wrote to the table, us excepted, since the last call, as
	// far as is known.
	Writers() []string
}

// A Repairer is a Kernel that puts more right than elements in Observe: rules,
// or the whole table.
type Repairer interface {
	// Repairs counts that, from the start on.
	Repairs() uint64
}

// A Replacer is a Kernel that can be brought to an ACL without being read.
type Replacer interface {
	// Replace puts a table with exactly these elements in place of what is there, in one commit.
	Replace(ctx context.Context, want ACL) error
}

// An Opener is a Kernel with a switch that lets everybody through for a time.
// The switch is no part of an ACL: it is the kernel that ends the time.
type Opener interface {
	// OpenUntil tells when it ends; zero: it is not on.
	OpenUntil() time.Time
}

// A Surveyor is a Kernel that sees what of other tables keeps HTTP from the portal.
type Surveyor interface {
	// Obstacles tells it for people, as of the newest Observe.
	Obstacles() []string
}

// Flows is the table of live connections.
type Flows interface {
	// Forget deletes the connections from and to the addresses in IPv4 prefixes in one pass
	// and returns the number deleted. They are sorted; those of one address are most.
	Forget(ctx context.Context, of []netip.Prefix) (int, error)
}

// A Teller is Flows that can tell both ends of a connection that it is over.
type Teller interface {
	// ForgetAndTell is Forget, and tells that of the connections of told, some of them, but for those with
	// an address that goes on being reached.
	ForgetAndTell(ctx context.Context, of, told []netip.Prefix, reached func(netip.Addr) bool) (int, error)
}

// Options direct an Enforcer. Fields with a tag are keys of the configuration
// (package config).
type Options struct {
	// Compute and report the difference, change no rules. "usher run --dry-run" is that
	// for the whole agent.
	DryRun bool `cfg:"dry_run" default:"false" restart:"true"`

	// How often the kernel is compared with what is wanted, besides after every
	// change of ours. 1s to 1h.
	VerifyInterval time.Duration `cfg:"verify_interval" default:"30s" min:"1s" max:"1h"` // zero: five minutes

	// The entries of newly blocked subscribers in the connection tracking table are deleted in passes that read all of it; at least
	// this lies between two of them. The blocks themselves hold from the first moment. 100ms to 1m.
	FlowsInterval time.Duration `cfg:"flows_interval" default:"1s" min:"100ms" max:"1m" layout:"close"` // zero: one second

	// Inputs returns what is wanted besides the snapshot, at each look; nil: nothing.
	// Who knows that it gives something else now calls Kick; else that is found
	// within five seconds, but for the leases, which a Follower tells of.
	Inputs func() Inputs
}

func (o Options) filled() Options {
	if o.VerifyInterval <= 0 {
		o.VerifyInterval = 5 * time.Minute
	}
	if o.FlowsInterval <= 0 {
		o.FlowsInterval = time.Second
	}
	if o.Inputs == nil {
		o.Inputs = func() Inputs { return Inputs{} }
	}
	return o
}

// ErrNoSnapshot says that nothing is known yet that could be enforced.
var ErrNoSnapshot = errors.New("no snapshot yet")

const (
	// checkInterval is how often the kernel is asked, cheaply, whether anybody
	// else wrote, and the Inputs whether they are others.
	checkInterval = 5 * time.Second
	// firstEnforceRetry and maxEnforceRetry bound the wait after a failed round;
	// it doubles with each.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 30 * time.Second
	// storedPatience is how long the first round waits for a fetch while there is
	// only a stored snapshot. What is in the kernel then was made of a newer one if the last
	// run was killed soon after a change.
	storedPatience = 2 * time.Second
	// roundTimeout bounds one round.
	roundTimeout = 30 * time.Second
	// slowVerify is how long nothing is read back after it took longer than a round may, unless somebody else writes.
	slowVerify = 10 * time.Minute
)

// Enforcer keeps the kernel equal to the ACL of the snapshot in use. Without a
// snapshot it leaves the kernel as it is: after a restart that is what the last
// run put there. All methods are safe for concurrent use; Run runs once.
type Enforcer struct {
	kernel   Kernel
	snapshot func() *provision.Snapshot
	obs      Observer
	log      *slog.Logger
	wake     chan struct{} // one slot, coalescing
	noFetch  atomic.Bool   // no fetch will end soon
	cleaner  *flowCleaner  // nil without Flows

	shown atomic.Pointer[picture] // nil before the first round that succeeded
	ready chan struct{}           // closed with the first one

	// Owned by the goroutine of Run.
	known     bool      // the kernel has what is shown
	adopted   bool      // what the kernel has was known once: a later difference is drift
	checkDue  time.Time // a look at what may have changed unheard then
	verifyDue time.Time // full read-back then
	retryAt   time.Time // after a failure; zero: there was none
	repairs   uint64    // of the Repairer, as last told
	memory    memory    // of the newest round, if it succeeded or not
	slow      bool      // reading back took too long: the next round replaces what is there
	unclean   bool      // blocks may stand of which the connections were left alone: by the last run, or a batch whose outcome is unknown
	refused   refusals

	mu      sync.Mutex // guards everything below
	opts    Options
	waiters []chan error            // of Sync, not yet in a round
	full    bool                    // the next step is a whole round
	verify  bool                    // the next round reads everything back
	check   bool                    // the next step looks whether the Inputs are others
	busy    bool                    // a step is on: what changes now it may have seen or not
	touched map[netip.Addr]struct{} // to be looked at in the next step
	inHand  map[netip.Addr]struct{} // looked at in the step that is on
	coming  *picture                // what the round that is on brings the kernel to; nil before it is worked out
	admits  []chan struct{}         // of those who wait for that
	ends    ends                    // of the leases behind what is shown
	ended   bool                    // Run is over
	status  Status
}

// NewEnforcer makes an Enforcer. flows and obs may be nil; kernel may be nil
// with DryRun.
func NewEnforcer(opts Options, kernel Kernel, flows Flows, snapshot func() *provision.Snapshot, obs Observer, log *slog.Logger) *Enforcer {
	if obs == nil {
		obs = noObserver{}
	}
	e := &Enforcer{kernel: kernel, snapshot: snapshot, obs: obs, log: log,
		wake: make(chan struct{}, 1), ready: make(chan struct{}), opts: opts.filled(), unclean: true}
	if flows != nil {
		e.cleaner = newFlowCleaner(flows, e.opts.FlowsInterval, e.reached, obs, log)
	}
	return e
}

// reached reports whether whoever is paused may reach an address: a payment under way goes on.
func (e *Enforcer) reached(a netip.Addr) bool {
	p := e.shown.Load()
	return p != nil && inPrefixes(p.rules.reached, a)
}

// Run enforces until ctx ends; it gives nil then, and leaves the kernel as it is.
func (e *Enforcer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer e.end()
	if e.cleaner != nil {
		wg.Go(func() { e.cleaner.run(ctx) })
	}
	if w, ok := e.kernel.(Watcher); ok {
		wg.Go(func() { e.watch(ctx, w) })
	}
	e.memory.snap = e.snapshot() // what was stored knows who has gone since
	e.awaitFetch(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-e.wake:
		}
		if ctx.Err() != nil {
			return nil
		}
		timer.Reset(e.step(ctx))
	}
}

// watch has foreign writes looked at at once. What was missed while nobody
// listened is found by the look that follows.
func (e *Enforcer) watch(ctx context.Context, w Watcher) {
	for failures := 0; ; failures++ {
		began := time.Now()
		err := w.Watch(ctx, e.Kick)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxRetry {
			failures = 0
		}
		wait := min(firstRetry<<min(failures, 20), maxRetry)
		e.log.Warn("the kernel's events were not all heard, listening again", "error", err, "retry_in", wait)
		e.Kick()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// NoFetchSoon says that the ERP is down: with a stored snapshot the first round
// need not wait for what a fetch tells.
func (e *Enforcer) NoFetchSoon() {
	if !e.noFetch.Swap(true) {
		e.Kick()
	}
}

// awaitFetch leaves the kernel as it is while the first fetch may still tell more
// than the stored snapshot. Whoever calls Kick after a publication wakes it. A kernel that
// had nothing of ours, as after a boot, blocks nobody: there what was stored holds at once.
func (e *Enforcer) awaitFetch(ctx context.Context) {
	if k, ok := e.kernel.(interface{ Fresh() bool }); ok && k.Fresh() {
		return
	}
	timer := time.NewTimer(storedPatience)
	defer timer.Stop()
	for e.snapshot().Source() == provision.SourceStored && !e.noFetch.Load() {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-e.wake:
		}
	}
}

// job is what one step has to do.
type job struct {
	opts    Options
	waiters []chan error
	admits  []chan struct{}
	touched map[netip.Addr]struct{}
	ended   []uint32 // networks of /24 in which a lease may have run out
	full    bool
	check   bool
}

// step does what is to be done now, answers those who wait for it and gives the
// time until the next.
func (e *Enforcer) step(ctx context.Context) time.Duration {
	now := time.Now()
	j, wait := e.begin(now)
	if j == nil {
		return wait
	}
	sctx, cancel := context.WithTimeout(ctx, roundTimeout)
	err := e.work(sctx, j, now)
	cancel()
	wait = e.record(ctx, err)
	for _, w := range j.waiters {
		w <- err // has one slot
	}
	for _, w := range j.admits {
		close(w)
	}
	return wait
}

// begin takes what waits. It gives nil, and the time until then, while what failed
// is to be tried later and nobody asks for a round: there is no sense in single
// changes of a kernel that nobody knows.
func (e *Enforcer) begin(now time.Time) (*job, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := &job{opts: e.opts, waiters: e.waiters, full: e.full || len(e.waiters) > 0, check: e.check}
	if !j.full && now.Before(e.retryAt) {
		return nil, e.retryAt.Sub(now)
	}
	j.admits, j.touched, j.ended = e.admits, e.touched, e.ends.due(now)
	e.waiters, e.admits, e.touched, e.full, e.check, e.busy = nil, nil, nil, false, false, true
	e.inHand = j.touched
	if e.verify {
		e.verify, e.verifyDue = false, time.Time{}
	}
	return j, 0
}

// record remembers how a step ended and gives the time until the next.
func (e *Enforcer) record(ctx context.Context, err error) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy, e.inHand, e.coming = false, nil, nil
	e.retryAt = time.Time{}
	switch {
	case err == nil:
		if n := e.status.ConsecutiveFailures; n > 0 {
			e.log.Info("kernel is as wanted again", "failures", n)
		}
		e.status.ConsecutiveFailures = 0
		return e.restLocked()
	case errors.Is(err, ErrNoSnapshot) || ctx.Err() != nil:
		e.full = true // what was to be looked at is in it
		return checkInterval
	}
	e.known = false
	n := e.status.ConsecutiveFailures
	e.status.ConsecutiveFailures++
	e.status.LastError, e.status.LastErrorAt = err.Error(), time.Now()
	wait := min(firstRetry<<min(n, 20), maxRetry)
	e.retryAt = time.Now().Add(wait)
	e.log.Error("kernel could not be brought to the wanted state, will try again",
		"error", err, "failures", n+1, "retry_in", wait)
	return wait
}

// restLocked returns the time until something is due by itself.
func (e *Enforcer) restLocked() time.Duration {
	if len(e.touched) > 0 { // while the step was on
		return 0
	}
	wait := time.Until(e.checkDue)
	if len(e.refused.all) > 0 {
		wait = min(wait, time.Until(e.refused.retry))
	}
	if !e.ends.next.IsZero() {
		wait = min(wait, max(time.Until(e.ends.next), endsApart))
	}
	return max(wait, 0)
}

// work makes a whole round if there is a reason for one, else it only looks at
// the addresses of the job.
func (e *Enforcer) work(ctx context.Context, j *job, now time.Time) error {
	p := e.shown.Load()
	whole := j.full || p == nil || e.refused.due(now) || !e.known && !j.opts.DryRun || e.snapshot() != p.snap || !now.Before(e.verifyDue)
	if !whole && (j.check || !now.Before(e.checkDue)) {
		var err error
		if whole, err = e.unheard(ctx, p, j.opts); err != nil {
			return err
		}
		e.checkDue = now.Add(checkInterval)
	}
	if !whole {
		return e.patch(ctx, j, p)
	}
	e.checkDue = now.Add(checkInterval)
	return e.round(ctx, j.opts)
}

// unheard looks for what nobody may have told of: that somebody else wrote, or that
// the Inputs are others.
func (e *Enforcer) unheard(ctx context.Context, p *picture, opts Options) (bool, error) {
	if in := opts.Inputs(); !in.same(&p.in) {
		return true, nil
	}
	if opts.DryRun {
		return false, nil
	}
	e.tellMaintenance()
	changed, err := e.kernel.Changed(ctx)
	if err != nil {
		return false, fmt.Errorf("ask for foreign changes: %w", err)
	}
	return changed, nil
}

func (e *Enforcer) tellMaintenance() {
	if o, ok := e.kernel.(Opener); ok {
		e.obs.Maintenance(!o.OpenUntil().IsZero())
	}
}

// round brings the kernel to the snapshot in use: everything is worked out and compared.
func (e *Enforcer) round(ctx context.Context, opts Options) error {
	e.update(func(s *Status) { s.Rounds++ })
	snap := e.snapshot()
	if snap == nil {
		return ErrNoSnapshot
	}
	p := &picture{snap: snap, in: opts.Inputs()}
	p.rules = newRules(&p.in)
	p.rules.before = e.memory
	have, looked, err := e.lookFirst(ctx, p, opts)
	if err != nil {
		return err
	}
	var runOut ends
	all := p.rules.want(snap, &p.in, func(g *Grant) { runOut.add(g.IP.Unmap(), g.Until) })
	e.memory = memory{snap, p.rules.last}
	want := all.acl
	p.base, p.wires, p.nets, p.counts = want, all.wires, all.nets, want.Counts()
	p.ties = p.rules.ties
	p.watch(runOut.add)
	e.mu.Lock()
	e.coming = p
	e.mu.Unlock()
	e.update(func(s *Status) {
		s.DryRun, s.Want = opts.DryRun, p.counts
		s.WantStopped, s.WantPaused = s.Want[SetStopped], s.Want[SetPaused]
	})
	e.tellWithheld(all.held)
	if opts.DryRun {
		e.known = false // whoever switches it off finds what is there then
		e.verifyDue = time.Now().Add(opts.VerifyInterval)
		e.show(p, runOut)
		e.update(func(s *Status) { s.Pending, s.Ready = want.Len(), true })
		return nil
	}
	if r, ok := e.kernel.(Replacer); ok && e.slow {
		have, err = e.replace(ctx, r, want, opts)
	} else if !looked {
		have, err = e.look(ctx, opts)
	}
	if err != nil {
		return err
	}
	fresh, again := e.refused.apart(Plan(want, have))
	e.update(func(s *Status) { s.Pending = len(fresh) + len(again) })
	if !e.refused.due(time.Now()) {
		again = nil
	}
	for _, changes := range [][]Change{fresh, again} { // who was refused before keeps nobody waiting
		if len(changes) == 0 {
			continue
		}
		if err := e.commit(ctx, want, have, changes); err != nil {
			return err
		}
	}
	e.show(p, runOut)
	if e.unclean && e.cleaner != nil { // once it is known what goes on being reached
		e.cleaner.add(newlyBlocked(want, ACL{}), nil, want.stops)
	}
	e.unclean = false
	e.tellMaintenance()
	e.tellHave(p.counts)
	return nil
}

// lookFirst looks at the kernel before the first round works out what is wanted: what the last run heard follows from what it left there.
// Later rounds look afterwards.
func (e *Enforcer) lookFirst(ctx context.Context, p *picture, opts Options) (have ACL, looked bool, err error) {
	if e.adopted || opts.DryRun || e.slow || p.in.heard == nil {
		return ACL{}, false, nil
	}
	if have, err = e.look(ctx, opts); err != nil {
		return ACL{}, false, err
	}
	p.rules.hearAgain(p.snap, &p.in, &have)
	return have, true, nil
}

// show publishes what the kernel has now.
func (e *Enforcer) show(p *picture, runOut ends) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shown.Swap(p) == nil {
		close(e.ready)
	}
	e.ends = runOut
}

// tellHave tells the number of elements in the kernel.
func (e *Enforcer) tellHave(n SetCounts) {
	n = e.refused.adjust(n)
	e.obs.Elements(n)
	e.obs.Refused(len(e.refused.all))
	e.update(func(s *Status) {
		s.Ready, s.Pending = true, len(e.refused.all)
		s.Refused = e.refused.list()
		s.Have = n
		s.HaveStopped, s.HavePaused = n[SetStopped], n[SetPaused]
		if g, ok := e.kernel.(interface{ Generation() uint64 }); ok {
			s.Generation = g.Generation()
		}
	})
}

// look returns what the kernel has. It is read back if what we know of it may be wrong.
func (e *Enforcer) look(ctx context.Context, opts Options) (ACL, error) {
	now := time.Now()
	if e.known && now.Before(e.verifyDue) {
		changed, err := e.kernel.Changed(ctx)
		if err != nil {
			return ACL{}, fmt.Errorf("ask for foreign changes: %w", err)
		}
		if !changed {
			return e.refused.without(e.shown.Load().whole()), nil
		}
	}
	seen, err := e.kernel.Observe(ctx)
	if err != nil {
		// Else nobody would be blocked or opened any more, for the next reading takes as long.
		e.slow = errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
		return ACL{}, fmt.Errorf("read the sets back: %w", err)
	}
	seen = seen.Sorted()
	if e.known {
		e.drift(e.refused.without(e.shown.Load().whole()), seen)
	} else if !e.adopted {
		n := seen.Counts()
		e.log.Info("adopting what the kernel has", "stopped", n[SetStopped], "paused", n[SetPaused], "elements", seen.Len())
	}
	if r, ok := e.kernel.(Repairer); ok && !e.adopted {
		e.repairs = r.Repairs()
	}
	e.known, e.adopted = true, true
	e.verifyDue = now.Add(opts.VerifyInterval)
	e.update(func(s *Status) { s.LastVerifiedAt = now })
	return seen, nil
}

// replace brings the kernel to what is wanted without reading what it has, and returns what it has then.
func (e *Enforcer) replace(ctx context.Context, r Replacer, want ACL, opts Options) (ACL, error) {
	e.slow = false // if this fails, a reading is tried again
	want = e.refused.without(want)
	if err := r.Replace(ctx, want); err != nil {
		return ACL{}, fmt.Errorf("replace the sets: %w", err)
	}
	e.log.Warn("reading the sets back took too long, replaced them by what is wanted", "elements", want.Len())
	if r, ok := e.kernel.(Repairer); ok {
		e.repairs = r.Repairs()
	}
	e.unclean = true // what was blocked before is not known
	e.known, e.adopted = true, true
	e.verifyDue = time.Now().Add(max(opts.VerifyInterval, slowVerify))
	return want, nil
}

// drift counts what somebody else did to our sets and to the table.
func (e *Enforcer) drift(have, seen ACL) {
	changes := Plan(have, seen)
	var extra, missing int
	for _, c := range changes {
		if c.Op == provision.OpAdd {
			missing++
		} else {
			extra++
		}
	}
	var writers []string
	if w, ok := e.kernel.(Watcher); ok {
		writers = w.Writers()
	}
	var rebuilt uint64
	if r, ok := e.kernel.(Repairer); ok {
		n := r.Repairs()
		rebuilt, e.repairs = n-e.repairs, n
	}
	e.obs.Drift(extra, missing, int(rebuilt))
	if extra+missing == 0 && rebuilt == 0 {
		return
	}
	e.log.Warn("somebody else changed our table, repairing", "extra", extra, "missing", missing,
		"table_rebuilt", rebuilt > 0, "what", describe(changes), "by", writers)
	e.update(func(s *Status) {
		s.DriftExtra += uint64(extra)
		s.DriftMissing += uint64(missing)
		s.TableRepairs += rebuilt
		s.LastDriftAt, s.LastDriftBy, s.LastDrift = time.Now(), writers, describe(changes)
	})
}

// describe tells the first few of the changes that repair, as what was done
// before them: what must be added was missing.
func describe(changes []Change) []string {
	const most = 5
	out := make([]string, 0, min(len(changes), most+1))
	for i, c := range changes {
		if i == most {
			return append(out, fmt.Sprintf("and %d more", len(changes)-most))
		}
		what := "missing"
		if c.Op == provision.OpRemove {
			what = "extra"
		}
		out = append(out, fmt.Sprintf("%s in %s: %s", what, c.Set, c.Element))
	}
	return out
}

// commit applies one batch, which leads from have to want, and hands the newly
// blocked addresses on. The rules block them from the commit on; forgetting their
// flows is a clean-up which no later batch has to wait for.
func (e *Enforcer) commit(ctx context.Context, want, have ACL, changes []Change) error {
	began := time.Now()
	err := e.kernel.Apply(ctx, changes)
	took := time.Since(began)
	e.obs.Batch(len(changes), took, err)
	var part *RefusedError
	if errors.As(err, &part) {
		e.noteRefused(part)
		err = nil
	}
	if err == nil && len(e.refused.all) > 0 {
		var refused []RefusedChange
		if part != nil {
			refused = part.Changes
		}
		e.refused.taken(changes, refused)
	}
	if err != nil {
		e.unclean = true
		return fmt.Errorf("apply %d changes: %w", len(changes), err)
	}
	e.update(func(s *Status) {
		s.LastBatchAt, s.LastBatchChanges, s.LastBatchSeconds = began, len(changes), took.Seconds()
	})
	if e.cleaner != nil {
		var blocked []netip.Prefix
		if !e.unclean { // else the round hands on all who are
			blocked = newlyBlocked(want, have)
		}
		e.cleaner.add(blocked, freed(want, have), want.stops)
	}
	e.log.Debug("kernel sets changed", "changes", len(changes), "took", took)
	return nil
}

// noteRefused remembers what the kernel has refused while all else holds.
func (e *Enforcer) noteRefused(r *RefusedError) {
	e.refused.note(r.Changes, time.Now())
	e.log.Error("the kernel refuses some elements; all others hold, these are tried again", "error", r, "elements", len(r.Changes), "retry_in", time.Until(e.refused.retry))
}

func (e *Enforcer) update(f func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.status)
}

// Kick asks for a round now; many calls may become one.
func (e *Enforcer) Kick() {
	e.mu.Lock()
	e.full = true
	e.mu.Unlock()
	notify(e.wake)
}

// recheck asks for a round if the Inputs are others by now.
func (e *Enforcer) recheck() {
	e.mu.Lock()
	e.check = true
	e.mu.Unlock()
	notify(e.wake)
}

// Sync waits for a whole round that began after the call and gives its error:
// ErrNoSnapshot while there is no snapshot. The clean-up of flows may still be
// going on then. It needs Run running.
func (e *Enforcer) Sync(ctx context.Context) error {
	w := make(chan error, 1)
	e.mu.Lock()
	if e.ended {
		e.mu.Unlock()
		return errEnforcerEnded
	}
	e.waiters = append(e.waiters, w)
	e.mu.Unlock()
	e.Kick()
	select {
	case err := <-w:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the kernel: %w", context.Cause(ctx))
	}
}

// Verification is what a full comparison of the kernel with what is wanted found,
// all of which is repaired by now.
type Verification struct {
	Extra    uint64    `json:"extra"`   // elements that were in the kernel and should not have been
	Missing  uint64    `json:"missing"` // elements that were not in the kernel
	Rebuilt  bool      `json:"rebuilt"` // rules or the whole table were not as they should be
	What     []string  `json:"what,omitempty"`
	By       []string  `json:"by,omitempty"` // who did it, as far as is known
	Elements SetCounts `json:"elements"`     // in the kernel now
	Seconds  float64   `json:"seconds"`
	DryRun   bool      `json:"dry_run"`
	// PortalObstacles are what of other tables keeps HTTP from the portal. They are not repaired.
	PortalObstacles []string `json:"portal_obstacles,omitempty"`
}

// Equal tells that nothing was to be repaired.
func (v Verification) Equal() bool { return v.Extra+v.Missing == 0 && !v.Rebuilt }

// Verify reads everything back now, repairs what is not as wanted, and tells what
// that was. It needs Run running.
func (e *Enforcer) Verify(ctx context.Context) (Verification, error) {
	began := time.Now()
	e.mu.Lock()
	e.verify = true
	before := e.status
	e.mu.Unlock()
	if err := e.Sync(ctx); err != nil {
		return Verification{}, err
	}
	st := e.Status()
	v := Verification{
		Extra: st.DriftExtra - before.DriftExtra, Missing: st.DriftMissing - before.DriftMissing,
		Rebuilt: st.TableRepairs > before.TableRepairs, Elements: st.Have,
		Seconds: time.Since(began).Seconds(), DryRun: st.DryRun, PortalObstacles: st.PortalObstacles,
	}
	if !v.Equal() {
		v.What, v.By = st.LastDrift, st.LastDriftBy
	}
	return v, nil
}

// Want returns what is wanted now; ErrNoSnapshot while nothing is known.
func (e *Enforcer) Want() (ACL, error) {
	e.mu.Lock()
	inputs := e.opts.Inputs
	e.mu.Unlock()
	snap := e.snapshot()
	if snap == nil {
		return ACL{}, ErrNoSnapshot
	}
	in := inputs()
	r := newRules(&in)
	if p := e.shown.Load(); p != nil {
		r.before = memory{p.snap, p.rules.last}
	}
	return r.want(snap, &in, nil).acl, nil
}

var errEnforcerEnded = errors.New("the enforcer has ended")

// end answers those who still wait.
func (e *Enforcer) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	for _, w := range e.waiters {
		w <- errEnforcerEnded
	}
	for _, w := range e.admits {
		close(w)
	}
	e.waiters, e.admits, e.touched = nil, nil, nil
}

// Status tells everything for "usher status" and the console.
func (e *Enforcer) Status() Status {
	e.mu.Lock()
	st := e.status
	st.DryRun = e.opts.DryRun
	e.mu.Unlock()
	if o, ok := e.kernel.(Opener); ok && !st.DryRun {
		st.OpenUntil = o.OpenUntil()
	}
	if v, ok := e.kernel.(Surveyor); ok && !st.DryRun {
		st.PortalObstacles = v.Obstacles()
	}
	st.IPv6 = e.ipv6Status(st.DryRun)
	if e.cleaner != nil {
		st.FlowsDeleted, st.FlowsError = e.cleaner.totals()
	}
	return st
}

// Reconfigure takes new options.
func (e *Enforcer) Reconfigure(opts Options) {
	e.mu.Lock()
	e.opts = opts.filled()
	if e.cleaner != nil {
		e.cleaner.every(e.opts.FlowsInterval)
	}
	e.mu.Unlock()
	e.Kick()
}

// notify fills the one slot of a coalescing channel.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
