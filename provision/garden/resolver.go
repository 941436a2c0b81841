package garden

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision/statedir"
)

const (
	lookupTimeout = 5 * time.Second
	// lookupsAtOnce bounds the load on the name server and the goroutines.
	lookupsAtOnce = 4
	// firstRetry is the wait after a look-up that gave nothing; it doubles with
	// each, up to the interval.
	firstRetry = 5 * time.Second
	// saveAtLeast is how old the times in the file may get.
	saveAtLeast = 10 * time.Minute
)

// Resolver keeps both gardens. All methods are safe for concurrent use and none
// of them waits for the DNS; Run runs once.
type Resolver struct {
	file store
	own  func() []netip.Addr
	obs  Observer
	log  *slog.Logger
	wake chan struct{} // one slot, coalescing
	rand func() float64

	mu      sync.Mutex // guards everything below
	opts    Options
	lookup  Lookup
	names   map[string]*entry
	paused  []netip.Prefix // published: never written to
	guests  []netip.Prefix
	updates []chan struct{}
	dirty   bool // the file is behind
	savedAt time.Time
	saveErr string
	unread  string // why the file could not be used at the start
}

// New makes a Resolver that knows what the file at path has; an empty path keeps
// nothing. own gives the addresses of this router; it and obs may be nil. A file
// that a newer usher wrote is an error; one that cannot be read is none.
func New(opts Options, lookup Lookup, own func() []netip.Addr, path string, obs Observer, log *slog.Logger) (*Resolver, error) {
	if obs == nil {
		obs = noObserver{}
	}
	if own == nil {
		own = func() []netip.Addr { return nil }
	}
	r := &Resolver{file: store(path), own: own, obs: obs, log: log, wake: make(chan struct{}, 1), rand: rand.Float64,
		opts: opts.filled(), lookup: lookup}
	known, err := r.file.load()
	if newer := new(statedir.NewerError); errors.As(err, &newer) {
		return nil, newer
	}
	if err != nil {
		log.Warn("stored addresses of the garden cannot be used; names are looked up anew", "error", err)
		r.unread = err.Error()
	}
	r.names = known
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adoptLocked()
	return r, nil
}

// adoptLocked brings names in line with the options: new ones are due at once,
// others are forgotten, and what may not be used any longer goes.
func (r *Resolver) adoptLocked() {
	own, want := r.own(), r.opts.names()
	names := make(map[string]*entry, len(want))
	for _, name := range want {
		e := r.names[name]
		if e == nil {
			e = &entry{}
		}
		for a := range e.seen {
			if refusal(a, r.opts.Refuse, own) != "" {
				delete(e.seen, a)
			}
		}
		e.due = time.Time{}
		names[name] = e
	}
	r.names = names
	r.publishLocked()
}

// Reconfigure takes new options and another way to look names up.
func (r *Resolver) Reconfigure(opts Options, lookup Lookup) {
	r.mu.Lock()
	r.opts, r.lookup = opts.filled(), lookup
	r.adoptLocked()
	r.mu.Unlock()
	notify(r.wake)
}

// Paused returns what paused subscribers may reach, sorted and without overlaps.
// The slice is shared: it must not be written to.
func (r *Resolver) Paused() []netip.Prefix {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused
}

// Guests returns what guests may reach, like Paused.
func (r *Resolver) Guests() []netip.Prefix {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.guests
}

// Updates returns a channel with one slot that gets a value after every change of
// either garden; several may become one. Call it once per consumer.
func (r *Resolver) Updates() <-chan struct{} {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.updates = append(r.updates, c)
	return c
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will look anyway
	}
}

// Run looks names up when they are due until ctx ends; it gives nil then.
func (r *Resolver) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			r.save()
			return nil
		case <-timer.C:
		case <-r.wake:
		}
		r.round(ctx)
		if ctx.Err() != nil {
			continue
		}
		if r.shouldSave(time.Now()) {
			r.save()
		}
		timer.Reset(r.untilDue(time.Now()))
	}
}

// untilDue returns the time until the next look-up.
func (r *Resolver) untilDue(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := r.opts.Interval
	for _, e := range r.names {
		wait = min(wait, e.due.Sub(now))
	}
	return max(wait, 0)
}

// round looks up what is due and waits for it.
func (r *Resolver) round(ctx context.Context) {
	now := time.Now()
	r.mu.Lock()
	lookup := r.lookup
	var due []string
	for name, e := range r.names {
		if !e.due.After(now) {
			due = append(due, name)
		}
	}
	r.mu.Unlock()
	if len(due) == 0 {
		return
	}
	slices.Sort(due)
	own := r.own()
	next := make(chan string)
	var all sync.WaitGroup
	for range min(lookupsAtOnce, len(due)) {
		all.Go(func() {
			for name := range next {
				lctx, cancel := context.WithTimeout(ctx, lookupTimeout)
				answer, err := lookup(lctx, name)
				cancel()
				if ctx.Err() == nil { // else the end cut it off
					r.take(name, answer, err, own, time.Now())
				}
			}
		})
	}
	for _, name := range due {
		select {
		case next <- name:
		case <-ctx.Done():
		}
	}
	close(next)
	all.Wait()
}

// take judges one answer.
func (r *Resolver) take(name string, answer []netip.Addr, err error, own []netip.Addr, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.names[name]
	if e == nil {
		return // a reload took it out meanwhile
	}
	good, bad := judge(answer, r.opts.Refuse, own)
	if r.opts.Bound != nil {
		good = e.unbound(r.opts.Bound(), good, bad)
	}
	r.reportRefusedLocked(name, e, bad)
	result := ResultOK
	dnsErr := (*net.DNSError)(nil)
	switch {
	case errors.As(err, &dnsErr) && dnsErr.IsNotFound:
		result = ResultEmpty
		r.failedLocked(name, e, "the DNS has no such name, or no IPv4 address for it")
	case err != nil:
		result = ResultFailed
		r.failedLocked(name, e, err.Error())
	case len(good) == 0:
		result = ResultEmpty
		r.failedLocked(name, e, "the answer has no address that may be used")
	default:
		if e.failures > 0 {
			r.log.Info("name of the garden is found again", "name", name, "failures", e.failures)
		}
		e.answered(good, now)
	}
	wait := time.Duration(float64(r.opts.Interval) * (0.9 + 0.2*r.rand()))
	if e.failures > 0 {
		wait = min(wait, firstRetry<<min(e.failures-1, 16))
	}
	e.due = now.Add(wait)
	e.expire(now, r.opts.Keep)
	r.obs.GardenLookup(result)
	r.publishLocked()
}

func (r *Resolver) failedLocked(name string, e *entry, why string) {
	e.failures++
	if e.failures == 1 { // the text of an error may differ each time
		r.log.Warn("name of the garden cannot be looked up; what is known of it stays", "name", name, "error", why, "known", len(e.seen))
	}
	e.err = why
}

// reportRefusedLocked counts each refused address. One line in the log tells of
// an answer that has new ones.
func (r *Resolver) reportRefusedLocked(name string, e *entry, bad map[netip.Addr]Refusal) {
	var example netip.Addr
	for a, why := range bad {
		r.obs.GardenRefused(why)
		if e.refused[a] != why && (!example.IsValid() || a.Less(example)) {
			example = a
		}
	}
	if example.IsValid() {
		r.log.Warn("an answer for a name of the garden has addresses that are refused",
			"name", name, "count", len(bad), "address", example, "reason", string(bad[example]))
	}
	e.refused = bad
}

// publishLocked makes both lists anew and says so if one is another.
func (r *Resolver) publishLocked() {
	paused, guests := prefixes(r.opts.Paused, r.names), prefixes(r.opts.Guests, r.names)
	failing, addresses := 0, 0
	for _, e := range r.names {
		addresses += len(e.seen)
		if e.failures > 0 {
			failing++
		}
	}
	r.obs.GardenSize(len(r.names), failing, addresses)
	if slices.Equal(paused, r.paused) && slices.Equal(guests, r.guests) {
		return
	}
	r.paused, r.guests, r.dirty = paused, guests, true
	for _, c := range r.updates {
		notify(c)
	}
}

func (r *Resolver) shouldSave(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.names) > 0 && (r.dirty || now.Sub(r.savedAt) >= saveAtLeast)
}

// save writes what is known, so that a restart with the DNS down keeps it.
func (r *Resolver) save() {
	r.mu.Lock()
	if len(r.names) == 0 {
		r.mu.Unlock()
		return
	}
	data, err := encode(r.names)
	r.dirty, r.savedAt = false, time.Now()
	r.mu.Unlock()
	if err == nil {
		err = r.file.save(data)
	}
	why := ""
	if err != nil {
		why = err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if why != "" && why != r.saveErr {
		r.log.Warn("addresses of the garden cannot be stored; a restart would look them up anew", "error", err)
	}
	r.saveErr = why
}

// Status is what is known of the gardens.
type Status struct {
	Paused []netip.Prefix `json:"paused"` // what paused subscribers may reach
	Guests []netip.Prefix `json:"guests"`
	Names  []NameStatus   `json:"names"` // sorted

	Unread     string `json:"unread,omitempty"`      // why the file could not be used at the start, and where a damaged one is kept
	StoreError string `json:"store_error,omitempty"` // why it cannot be written
}

// NameStatus is what is known of one name.
type NameStatus struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`         // sorted
	GoodAt    time.Time    `json:"good_at,omitzero"`  // of the newest answer that could be used
	Error     string       `json:"error,omitempty"`   // of the newest look-up
	Refused   []Refused    `json:"refused,omitempty"` // addresses of the newest answer, sorted
}

// Refused is an address that is not used.
type Refused struct {
	Address netip.Addr `json:"address"`
	Reason  Refusal    `json:"reason"`
}

// Status tells everything for "usher status" and the console.
func (r *Resolver) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := Status{Paused: slices.Clone(r.paused), Guests: slices.Clone(r.guests), Names: []NameStatus{}, Unread: r.unread, StoreError: r.saveErr}
	for _, name := range r.opts.names() {
		e := r.names[name]
		n := NameStatus{Name: name, Addresses: e.byAge(), GoodAt: e.good, Error: e.err}
		slices.SortFunc(n.Addresses, netip.Addr.Compare)
		for a, why := range e.refused {
			n.Refused = append(n.Refused, Refused{a, why})
		}
		slices.SortFunc(n.Refused, func(a, b Refused) int { return a.Address.Compare(b.Address) })
		st.Names = append(st.Names, n)
	}
	return st
}
