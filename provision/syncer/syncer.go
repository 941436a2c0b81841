// Package syncer polls the ERP and publishes snapshots: what a fetch guard lets
// pass, what hints ask for, and the stored one of the last run.
package syncer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
)

// Options direct a Syncer. Fields with a tag are keys of the configuration
// (package config).
type Options struct {
	// How often the ERP is asked who is stopped and who is paused, two cheap calls:
	// the longest time until a change of state is seen here. 1s to 24h.
	PollInterval time.Duration `cfg:"poll_interval" default:"1m" min:"1s" max:"24h"` // zero: a minute

	// How often it is asked for everything: bindings, states and devices. The
	// default is ten times poll_interval, but not more than 10m unless poll_interval
	// is. Not longer than poll_interval: every poll is a whole one. 1s to 24h.
	RefreshInterval time.Duration `cfg:"refresh_interval" min:"1s" max:"24h" example:"10m"` // zero, or no StateFetcher: every poll is a whole one

	// Each wait is this much longer or shorter by chance, so that several hosts do
	// not ask at the same instant. 0% to 50%.
	PollJitter   float64       `cfg:"poll_jitter" read:"share" default:"10%" max:"50%"`
	FetchTimeout time.Duration // of one fetch; zero: five minutes

	// ERP tells one ERP from another, as erp.Identity does; empty: not told. What is known of customers of one is not applied to those of another.
	ERP string

	Guard    GuardLimits
	Subnets  []netip.Prefix        // see Input
	Reserved []netip.Addr          // see Input
	Pools    []provision.AddrRange // see Input
	Relays   []netip.Prefix        // see Input
	// KeepVacant is for pools of subscribers; see Input.
	KeepVacant bool

	// OwnMAC reports whether a client with the MAC was seen at an address here, or the ERP was told of it: that it has it now is no
	// mistake of a list. Of the zero Addr: at any address, for a row of a pool has none. It may be called at any time. nil: new MACs are no
	// change for the guard, for none is seen here.
	OwnMAC func(ip netip.Addr, mac provision.MAC) bool
}

func (o Options) filled() Options {
	if o.PollInterval <= 0 {
		o.PollInterval = time.Minute
	}
	o.PollJitter = min(max(o.PollJitter, 0), 0.5)
	if o.FetchTimeout <= 0 {
		o.FetchTimeout = 5 * time.Minute
	}
	o.Subnets = slices.Clone(o.Subnets)
	o.Reserved = slices.Clone(o.Reserved)
	o.Pools = slices.Clone(o.Pools)
	o.Relays = slices.Clone(o.Relays)
	return o
}

// SnapshotStore keeps the last good snapshot over restarts; see Store.
type SnapshotStore interface {
	Load() (*provision.Snapshot, error)
	Save(*provision.Snapshot) error
}

const (
	// firstRetry is the wait after a first failed fetch. It doubles with each
	// failure and is never longer than the poll interval, which goes on as it is
	// while the ERP is down.
	firstRetry = time.Second
	// refreshGap is the least time between two fetches, so that a flood of
	// Refresh calls does not become a flood of requests.
	refreshGap = 200 * time.Millisecond
	// saveGap is the least time between two writes of the store.
	saveGap = time.Second
	// saveUnchanged is how old the stored copy of an unchanged snapshot may get.
	saveUnchanged = 10 * time.Minute
	// maxListedProblems bounds the list in the status.
	maxListedProblems = 1000
)

// Syncer polls the ERP, guards what it says and publishes snapshots. One whole
// fetch runs at a time, and one poll of states beside it; what states were read
// later than a whole fetch began outlasts it. A fetch that fails or is held leaves
// the snapshot in use as it is. All methods are safe for concurrent use; Run runs
// once.
type Syncer struct {
	source Fetcher
	store  SnapshotStore // may be nil
	obs    Observer
	log    *slog.Logger

	current atomic.Pointer[provision.Snapshot]
	loaded  atomic.Pointer[provision.Snapshot] // what LoadStored read; nil if nothing
	wake    chan struct{}                      // Refresh and Reconfigure; one slot, coalescing
	replan  chan struct{}                      // the next poll may be due earlier; one slot, coalescing
	dirty   chan struct{}                      // the store is behind; one slot, coalescing
	hints   *hintQueue
	tasks   sync.WaitGroup // what Run started

	mu        sync.Mutex // guards everything below; the observer is called under it to keep its order
	opts      Options
	overrides map[provision.SubscriberID]override
	held      *heldFetch
	updates   []chan struct{}

	known
	storedKnown []byte        // what is known by the store, as LoadStored found it
	openings    *openingCheck // of the openings that are held; nil: none are, or an operator rejected them
	statesAt    time.Time     // when the states in use were read: what changed after may be missing
	lastFull    time.Time     // start of the newest whole fetch that succeeded here
	whole       *wholeFetch   // that runs; nil: none
	pollEnded   time.Time
	wantFull    bool      // the next poll is a whole fetch
	fullDue     time.Time // a poll from then on is a whole fetch; zero: by the interval

	status Status // without what Status computes
}

type override struct {
	state provision.State
	at    time.Time
}

// New makes a Syncer. store and obs may be nil.
func New(opts Options, source Fetcher, store SnapshotStore, obs Observer, log *slog.Logger) *Syncer {
	if obs == nil {
		obs = noObserver{}
	}
	s := &Syncer{
		source: source, store: store, obs: obs, log: log,
		wake: make(chan struct{}, 1), replan: make(chan struct{}, 1), dirty: make(chan struct{}, 1), hints: newHintQueue(),
		opts: opts.filled(), overrides: make(map[provision.SubscriberID]override), known: newKnown(),
	}
	s.erp = opts.ERP
	return s
}

// LoadStored publishes the stored snapshot, if there is one and nothing newer
// is in use. Call it before Run. An error is for the log, and fatal only if it is
// a *statedir.NewerError; no stored snapshot is no error.
func (s *Syncer) LoadStored() error {
	if s.store == nil {
		return nil
	}
	before, kerr := s.loadKnown()
	if errors.As(kerr, new(*statedir.NewerError)) {
		return kerr
	} else if kerr != nil {
		s.log.Error("what the guard let pass and an operator rejected before the start is not known", "error", kerr)
	}
	if body, err := before.encode(); err == nil {
		s.storedKnown = body
	}
	snap, err := s.store.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Unread = nil
	if kerr != nil {
		s.status.Unread = append(s.status.Unread, kerr.Error())
	}
	if s.Current() == nil {
		s.known = s.ofThisERPLocked(before) // whatever became of the snapshot
		s.hints.restore(s.known.hints)
		s.known.hints = nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		s.status.StoreError = err.Error()
		s.status.Unread = append(s.status.Unread, err.Error())
		return err
	}
	if snap == nil || s.current.Load() != nil {
		return nil
	}
	snap = snap.WithGateways(s.opts.Reserved)
	s.loaded.Store(snap)
	s.publishLocked(s.overriddenLocked(snap, snap.FetchedAt()), nil, snap.FetchedAt())
	return nil
}

// ofThisERPLocked returns what is known if it is of the ERP that is read now, else nothing, and logs that.
func (s *Syncer) ofThisERPLocked(k known) known {
	if !k.of(s.opts.ERP) && !k.empty() {
		rejected := 0
		for _, kind := range changeKinds {
			rejected += len(k.rejected[kind])
		}
		s.log.Warn("what the guard let pass and an operator rejected was said of another ERP (userside.url), it is forgotten", "rejected", rejected, "contradicted", len(k.contradicted))
	}
	if !k.of(s.opts.ERP) {
		k = newKnown()
	}
	k.erp = s.opts.ERP
	return k
}

// loadKnown returns what the guard knew before the start.
func (s *Syncer) loadKnown() (known, error) {
	if store, able := s.store.(knownStore); able {
		return store.loadKnown(time.Now())
	}
	return newKnown(), nil
}

// Run polls until ctx ends; it gives nil then, after the store has been brought
// up to date.
func (s *Syncer) Run(ctx context.Context) error {
	defer s.tasks.Wait()
	if s.store != nil {
		s.tasks.Go(func() { s.keepStored(ctx) })
	}
	s.tasks.Go(func() { s.followHints(ctx) })
	for {
		began := time.Now()
		s.poll(ctx)
		if !s.rest(ctx, began) {
			return nil
		}
	}
}

// overriddenLocked puts those overrides onto snap that a fetch begun at that
// time cannot have seen.
func (s *Syncer) overriddenLocked(snap *provision.Snapshot, began time.Time) *provision.Snapshot {
	var states map[provision.SubscriberID]provision.State
	for id, o := range s.overrides {
		if o.at.After(began) && snap.State(id) != o.state {
			if states == nil {
				states = make(map[provision.SubscriberID]provision.State)
			}
			states[id] = o.state
		}
	}
	if states == nil {
		return snap
	}
	return snap.WithStates(states)
}

// publishLocked puts a snapshot into use whose states were read at statesAt. problems is nil for a stored one.
func (s *Syncer) publishLocked(snap *provision.Snapshot, problems []provision.Problem, statesAt time.Time) {
	s.settleLocked(statesAt)
	var counts map[provision.ProblemKind]int
	if snap.Source() != provision.SourceStored {
		counts = make(map[provision.ProblemKind]int)
		for i := range problems {
			counts[problems[i].Kind]++
		}
	}
	s.status.Problems = counts
	s.status.ProblemsList = someOfEach(problems, counts, maxListedProblems)
	if old := s.Current(); old == nil || old.Source() != snap.Source() {
		s.log.Info("snapshot source", "source", snap.Source(), "rows", snap.Len(), "problems", len(problems), "fetched_at", snap.FetchedAt())
	}
	s.installLocked(snap, counts)
}

// settleLocked notes when the states in use were read, and drops the overrides
// that this read has seen. One that a whole fetch which runs or is held may not have seen is kept for it.
func (s *Syncer) settleLocked(began time.Time) {
	if now := time.Now(); began.After(now) {
		began = now // stored by a clock that was ahead: what comes from now on is newer all the same
	}
	s.statesAt = began
	if s.whole != nil && s.whole.began.Before(began) {
		began = s.whole.began
	}
	if s.held != nil && s.held.began.Before(began) {
		began = s.held.began
	}
	for id, o := range s.overrides {
		if !o.at.After(began) {
			delete(s.overrides, id)
		}
	}
}

// someOfEach returns at most n problems, with a fair part of every kind: a flood of
// one must not hide the others. problems are sorted by kind.
func someOfEach(problems []provision.Problem, counts map[provision.ProblemKind]int, n int) []provision.Problem {
	if len(problems) <= n {
		return problems
	}
	out := make([]provision.Problem, 0, n)
	part := n / len(counts)
	for i, taken := 0, 0; i < len(problems); i++ {
		if i > 0 && problems[i].Kind != problems[i-1].Kind {
			taken = 0
		}
		if taken < part {
			out = append(out, problems[i])
			taken++
		}
	}
	return out
}

// installLocked makes snap the current one and tells everybody.
func (s *Syncer) installLocked(snap *provision.Snapshot, counts map[provision.ProblemKind]int) {
	if change := blockedDiff(s.Current(), snap); change != "" {
		s.log.Info("blocked customers changed", "change", change)
	}
	s.current.Store(snap)
	s.status.PublishedAt = time.Now()
	s.obs.Published(snap, counts)
	for _, c := range s.updates {
		notify(c)
	}
	notify(s.dirty)
}

// notify fills the one slot of a coalescing channel.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Current returns the snapshot in use, nil before the first.
func (s *Syncer) Current() *provision.Snapshot { return s.current.Load() }

// Refresh asks for a whole fetch now; many calls may become one. A call during a
// fetch makes another fetch after it.
func (s *Syncer) Refresh() {
	s.mu.Lock()
	s.wantFull = true
	s.mu.Unlock()
	notify(s.wake)
}

// Updates returns a channel with one slot that gets a value after every
// publication; several may become one. Each call makes a channel of its own,
// for the life of the Syncer: call it once per consumer.
func (s *Syncer) Updates() <-chan struct{} {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updates = append(s.updates, c)
	return c
}

// Override applies a state at once that the ERP has confirmed at the time at. A
// fetch that began before does not undo it; the first one published that began
// later replaces it.
func (s *Syncer) Override(id provision.SubscriberID, st provision.State, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := map[provision.SubscriberID]provision.State{id: st}
	next := s.withLocked(states, at)
	s.noteLocked(states, at)
	if next != nil {
		s.installLocked(next, s.status.Problems)
	}
	if _, able := s.source.(CustomerFetcher); able {
		s.hints.add(id, time.Now()) // flags and policy may say otherwise than the state alone
	}
}

// noteLocked remembers states of the time at, so that no earlier read undoes them.
func (s *Syncer) noteLocked(states map[provision.SubscriberID]provision.State, at time.Time) {
	if s.Current() != nil && !at.After(s.statesAt) {
		return // what is in use was read later
	}
	s.keepLocked(states, at)
}

// keepLocked is noteLocked for what is in use by now.
func (s *Syncer) keepLocked(states map[provision.SubscriberID]provision.State, at time.Time) {
	for id, st := range states {
		if o, ok := s.overrides[id]; !ok || !o.at.After(at) {
			s.overrides[id] = override{st, at}
		}
	}
}

// withLocked returns the snapshot that states of the time at make of the one in
// use; nil if it stays, for they are the same or what is known is newer.
func (s *Syncer) withLocked(states map[provision.SubscriberID]provision.State, at time.Time) *provision.Snapshot {
	cur := s.Current()
	if cur == nil || !at.After(s.statesAt) {
		return nil
	}
	changed := make(map[provision.SubscriberID]provision.State)
	for id, st := range states {
		if o, ok := s.overrides[id]; ok && o.at.After(at) {
			continue
		}
		if sub, known := cur.Subscriber(id); !known || sub.State != st {
			changed[id] = st
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return cur.WithStates(changed)
}

// Reconfigure takes new options and asks for a poll with them.
func (s *Syncer) Reconfigure(opts Options) {
	s.mu.Lock()
	s.opts = opts.filled()
	if !s.known.of(s.opts.ERP) {
		s.clearHeldLocked() // it is judged anew
		s.known = s.ofThisERPLocked(s.known)
		notify(s.dirty)
	}
	s.mu.Unlock()
	s.Refresh()
}

// Status tells everything for "usher status" and the console.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	snap := s.Current()
	st.Source, st.FetchedAt, st.Counts = snap.Source(), snap.FetchedAt(), snap.Counts()
	if snap != nil {
		st.AgeSeconds = max(time.Since(snap.FetchedAt()).Seconds(), 0)
		st.Fingerprint = fmt.Sprintf("%016x", snap.Fingerprint())
	}
	problems := make(map[provision.ProblemKind]int, len(st.Problems))
	for k, n := range st.Problems {
		problems[k] = n
	}
	st.Problems = problems
	for _, o := range s.overrides {
		if o.at.After(s.statesAt) {
			st.Overrides++
		}
	}
	st.Fetching = st.Fetching || s.whole != nil
	st.StatesAt = s.statesAt
	if !s.statesAt.IsZero() {
		st.StatesAgeSeconds = max(time.Since(s.statesAt).Seconds(), 0)
	}
	st.NextFull, st.Fallback = s.nextFullLocked(), s.fallbackLocked()
	st.Hints.Pending = s.hints.len()
	st.Held = s.heldStatusLocked()
	if st.Unconfirmed != nil && time.Since(st.Unconfirmed.At) > guardWindow {
		st.Unconfirmed = nil
	}
	st.Sources = s.sourcesLocked()
	return st
}
