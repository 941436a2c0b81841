// Package outbox keeps MAC reports for the ERP until they are delivered: one
// per address, the newest wins, over restarts.
package outbox

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Sender delivers one report. An error that is provision.ErrRefused drops the
// report; after any other it is sent again, unless the ERP turns out to have it.
type Sender interface {
	SetMAC(ctx context.Context, ip netip.Addr, mac provision.MAC) error
}

// Result is what became of one report. A closed set: it is a metric label.
type Result string

// The results.
const (
	ResultSent      Result = "sent"      // the ERP took it
	ResultRefused   Result = "refused"   // the ERP said no; dropped
	ResultFailed    Result = "failed"    // not delivered; kept, sent again later
	ResultSettled   Result = "settled"   // the ERP had it already, or another client has the address; dropped unsent
	ResultOverruled Result = "overruled" // the ERP has a third MAC by now, which is newer, or gave the address to another customer; dropped unsent
	ResultForeign   Result = "foreign"   // the MAC is known as another client's, who would be found by it no more; dropped unsent
	ResultDamped    Result = "damped"    // put off: the ERP was told of another change of the address within DampTime
)

// Observer sees what an Outbox does. Its methods may be called by several
// goroutines at a time, must not block and must not call back.
type Observer interface {
	Delivered(r Result)
	Depth(n int) // reports that wait, after each change
}

type noObserver struct{}

func (noObserver) Delivered(Result) {}
func (noObserver) Depth(int)        {}

// Options direct an Outbox. Fields with a tag are keys of the configuration
// (package config).
type Options struct {
	Enabled bool `cfg:"enabled" default:"true"` // false: reports are kept, not sent

	// Calls per second in the long run, and how many may go at once after a pause.
	Rate        float64       `cfg:"rate" default:"5" min:"0.01" max:"1000"` // zero or less: one
	Burst       int           `cfg:"burst" default:"10" min:"1" max:"10000"` // zero or less: one
	SendTimeout time.Duration // of one call; zero: 30 s
	// Settled says that r need not be sent any more: a snapshot fetched after
	// r.At has the MAC for the address. An earlier snapshot proves nothing, for
	// another report may have been delivered since. nil: never.
	Settled func(r provision.MACReport) bool
	// Fetched returns when the snapshot in use was fetched: what the ERP was told later may not be in it. A report that the ERP
	// took since is not sent again. nil: reports are sent as often as they come.
	Fetched func() time.Time
	// Changes says that r would change the MAC that the ERP has for the address, as far as
	// known: it is not the first one. Of such reports one is sent per address and DampTime.
	// nil: as many as there are.
	Changes func(r provision.MACReport) bool
	// Overtaken says of a report that was put off that it is not true any more: another
	// client has the address. It is dropped, for it comes again if it is. nil: never.
	Overtaken func(r provision.MACReport) bool
	// Passed returns whose an address is by now, if that is another customer than the one of a report: then the report would be
	// written into that one's row. It is dropped, for it comes again if it is true. nil: nobody knows.
	Passed func(r provision.MACReport) (provision.SubscriberID, bool)
	// Foreign returns whose the MAC of a report is, if it is another customer's, or a guest's (zero), who would lose by it, and the address
	// that this one has, if any. The report is dropped, for it comes again as long as it is true. nil: nobody knows.
	Foreign func(r provision.MACReport) (owner provision.SubscriberID, ip netip.Addr, foreign bool)
	// Row reads the MAC that the ERP has for the address of a report now; zero: none. It is asked before each call for a report that
	// says what it replaces, and after one of which nobody knows whether it was taken. nil, or an error: Accepted is asked.
	// After provision.ErrNoRow, which says that the customer has not got the address any more, the report waits for a whole fetch that began later.
	Row func(ctx context.Context, r provision.MACReport) (provision.MAC, error)
	// Accepted returns the MAC that a whole fetch has for the address which was accepted and began after the report
	// was made; false: there is none. nil: never.
	Accepted func(r provision.MACReport) (provision.MAC, bool)
	// Ours says that the ERP may have mac for the address of a report without anybody's having written it since: it had it when the
	// client got the address, or it was sent from here. nil: what r replaces alone.
	Ours func(r provision.MACReport, mac provision.MAC) bool
	// Sending is called before each call of the ERP, Taken after one that the ERP took, with the time. nil: nobody wants to know.
	Sending func(r provision.MACReport)
	Taken   func(r provision.MACReport, at time.Time)
	// Told is called after a call of the ERP with how it ended: every call that was
	// taken or refused, and the first of a report that found no ERP. attempts are
	// those of the report, this one included. It must not block. nil: nobody wants to know.
	Told func(r provision.MACReport, attempts int, err error)
}

// maxRefusals bounds the lists of refusals, of what was overruled and of foreign MACs that are kept for the status.
const maxRefusals = 100

// Outbox is the durable queue. Its methods are safe for concurrent use; Run
// runs once.
//
// The store holds the truth, the memory follows each commit; while the disk fails the memory goes on
// alone and the store follows later (unwritten.go). A report leaves
// both only if it is still the one that was dealt with, so that a newer one which
// came in the meantime stays.
type Outbox struct {
	store  lease.Store
	sender Sender
	obs    Observer
	log    *slog.Logger
	opts   Options // as given; Enabled, Rate and Burst live below
	limit  *rate.Limiter
	wake   chan struct{} // the schedule changed; one slot, coalescing

	mu          sync.Mutex // guards everything below
	enabled     bool
	entries     map[netip.Addr]*entry
	queue       schedule // the same entries by the time of the next try
	failures    int      // calls in a row that found no ERP
	pausedUntil time.Time
	late        late
	told        tellings
	refusals    []Refusal // newest last
	overrules   []Overrule
	foreigns    []Foreign
	totals      Status // counters and last error only
}

// entry is one report that waits. Its report never changes: a newer report is a
// new entry.
type entry struct {
	report   provision.MACReport
	attempts int
	due      time.Time
	err      string
	damped   bool // it waits because another change of the address was sent lately
	sent     bool // a call of it was sent, and nobody knows whether the ERP took it
	place    int  // in the queue

	gone time.Time // when the customer's card was found without the address; zero: it was not
}

// Open reads the reports kept in store; those of a disk that cannot be used yet come later. A record that cannot be read is skipped,
// counted and logged; a later report for its address replaces it. obs may be nil.
func Open(store lease.Store, opts Options, sender Sender, obs Observer, log *slog.Logger) (*Outbox, error) {
	if obs == nil {
		obs = noObserver{}
	}
	if opts.SendTimeout <= 0 {
		opts.SendTimeout = 30 * time.Second
	}
	o := &Outbox{
		store: store, sender: sender, obs: obs, log: log, opts: opts,
		limit: rate.NewLimiter(limits(opts.Rate, opts.Burst)), wake: make(chan struct{}, 1),
		entries: make(map[netip.Addr]*entry), enabled: opts.Enabled, late: newLate(),
	}
	err := store.Reports(func(r provision.MACReport, err error) {
		if err != nil {
			o.mu.Lock()
			o.totals.BadRecords++
			o.mu.Unlock()
			log.Warn("kept mac report cannot be read, skipped", "error", err)
			return
		}
		o.found(r)
	})
	if err != nil {
		return nil, fmt.Errorf("open mac report outbox: %w", err)
	}
	store.Replaced(o.writeAll)
	obs.Depth(o.Status(0).Depth)
	return o, nil
}

// Add puts r into a batch of the same store; it is sent after the commit. An
// older report never replaces a newer one: that is no error. It implements
// lease.Queue.
func (o *Outbox) Add(b *lease.Batch, r provision.MACReport) error {
	r, err := r.Normal()
	if err != nil {
		return err
	}
	b.Reports = append(b.Reports, r)
	b.OnCommit(func() { o.take(r, true) })
	return nil
}

// Put stores r durably in a batch of its own. While the disk fails it is kept in memory, which is no
// error.
func (o *Outbox) Put(r provision.MACReport) error {
	r, err := r.Normal()
	if err != nil {
		return err
	}
	if err := o.store.Commit(func(b *lease.Batch) error { return o.Add(b, r) }); err != nil {
		o.Keep(r)
	}
	return nil
}

// take brings a report into memory, which is on disk or waits for it. Two commits may come here in
// either order.
func (o *Outbox) take(r provision.MACReport, onDisk bool) {
	o.mu.Lock()
	old := o.entries[r.IP]
	if old != nil && old.report.Outranks(r, time.Now()) {
		o.mu.Unlock()
		return
	}
	e := &entry{report: r, due: time.Now()}
	if old != nil {
		o.queue.remove(old)
		if old.report.MAC == r.MAC { // no news for the ERP: what failed still has to wait
			e.attempts, e.due, e.err, e.damped, e.sent, e.gone = old.attempts, old.due, old.err, old.damped, old.sent, old.gone
		}
	}
	o.putLocked(e)
	if onDisk {
		o.onDiskLocked(e)
	} else {
		o.late.waiting[r.IP] = struct{}{}
		o.late.kick()
	}
	depth := len(o.entries)
	o.mu.Unlock()
	o.obs.Depth(depth)
	o.kick()
}

func (o *Outbox) putLocked(e *entry) {
	o.entries[e.report.IP] = e
	o.queue.push(e)
}

// drop removes an entry that is dealt with, unless a newer report has taken its
// place. The disk may follow later.
func (o *Outbox) drop(e *entry) {
	ip := e.report.IP
	err := o.store.Commit(func(b *lease.Batch) error {
		o.mu.Lock()
		_, late := o.late.waiting[ip]
		o.mu.Unlock()
		if late { // the disk may have it from a commit that failed
			b.Reports = append(b.Reports, e.report)
		}
		b.Done = append(b.Done, e.report)
		return nil
	})
	o.mu.Lock()
	if o.entries[ip] == e {
		delete(o.entries, ip)
		delete(o.late.waiting, ip)
		o.queue.remove(e)
	}
	if other, ok := o.late.settled[ip]; err != nil && (!ok || !other.Outranks(e.report, time.Now())) {
		o.late.settled[ip] = e.report
		o.late.kick()
	}
	depth := len(o.entries)
	o.mu.Unlock()
	o.obs.Depth(depth)
}

// Reconfigure changes the rate, in calls per second, the burst and whether
// anything is sent at all. Reports are kept either way.
func (o *Outbox) Reconfigure(perSecond float64, burst int, enabled bool) {
	limit, burst := limits(perSecond, burst)
	o.limit.SetLimit(limit)
	o.limit.SetBurst(burst)
	o.mu.Lock()
	o.enabled = enabled
	o.mu.Unlock()
	o.kick()
}

// limits fills in the defaults.
func limits(perSecond float64, burst int) (rate.Limit, int) {
	if perSecond <= 0 {
		perSecond = 1
	}
	return rate.Limit(perSecond), max(burst, 1)
}

func (o *Outbox) kick() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Status is the state of an Outbox for people and programs.
type Status struct {
	Enabled     bool      `json:"enabled"`
	Depth       int       `json:"depth"`
	OldestAt    time.Time `json:"oldest_at,omitzero"`
	PausedUntil time.Time `json:"paused_until,omitzero"` // the ERP does not answer; no call before
	Sent        uint64    `json:"sent"`                  // since the start, as the six below
	Refused     uint64    `json:"refused"`
	Failed      uint64    `json:"failed"`
	Settled     uint64    `json:"settled"`
	Damped      uint64    `json:"damped"`
	Overruled   uint64    `json:"overruled"`
	Foreign     uint64    `json:"foreign"`
	BadRecords  int       `json:"bad_records"` // skipped when the database was opened
	// Unwritten are reports, waiting or dealt with, of which the disk does not know yet: it fails.
	Unwritten   int       `json:"unwritten"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	Entries     []Entry   `json:"entries,omitempty"`
	RefusedList []Refusal `json:"refused_list,omitempty"` // the newest 100, newest first

	OverruledList []Overrule `json:"overruled_list,omitempty"` // the newest 100, newest first
	ForeignList   []Foreign  `json:"foreign_list,omitempty"`   // the newest 100 of each address and MAC, newest first
}

// Entry is one report that waits.
type Entry struct {
	provision.MACReport
	Attempts  int       `json:"attempts"`
	NextTry   time.Time `json:"next_try"` // not before
	LastError string    `json:"last_error,omitempty"`
	Damped    bool      `json:"damped,omitempty"` // it waits because the ERP was told of another change of the address
}

// Refusal is a report that the ERP did not want.
type Refusal struct {
	provision.MACReport
	RefusedAt time.Time `json:"refused_at"`
	Reason    string    `json:"reason"`
}

// Overrule is a report that was dropped since the ERP had a third MAC, or the address was not its customer's any more.
type Overrule struct {
	provision.MACReport
	DroppedAt time.Time              `json:"dropped_at"`
	Has       provision.MAC          `json:"erp_has"`
	Passed    bool                   `json:"passed,omitempty"`    // the address is not the customer's any more; Has says nothing
	Owner     provision.SubscriberID `json:"erp_owner,omitempty"` // who has it then; zero: not known
}

// Reason says why the report was dropped.
func (x *Overrule) Reason() string {
	switch {
	case x.Owner != 0:
		return fmt.Sprintf("the address is of customer %d by now, not of %d", x.Owner, x.Subscriber)
	case x.Passed:
		return fmt.Sprintf("customer %d has not got the address any more", x.Subscriber)
	}
	return "the ERP has " + x.Has.String()
}

// Status tells the state; at most n entries are listed, the oldest first.
func (o *Outbox) Status(n int) Status {
	o.mu.Lock()
	st := o.totals
	st.Enabled, st.Depth, st.Unwritten = o.enabled, len(o.entries), len(o.late.waiting)+len(o.late.settled)
	if o.pausedUntil.After(time.Now()) {
		st.PausedUntil = o.pausedUntil
	}
	st.RefusedList, st.OverruledList, st.ForeignList = slices.Clone(o.refusals), slices.Clone(o.overrules), slices.Clone(o.foreigns)
	all := make([]Entry, 0, len(o.entries))
	for _, e := range o.entries {
		all = append(all, Entry{e.report, e.attempts, e.due, e.err, e.damped})
	}
	o.mu.Unlock()
	slices.Reverse(st.RefusedList)
	slices.Reverse(st.OverruledList)
	slices.Reverse(st.ForeignList)
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Or(a.At.Compare(b.At), a.IP.Compare(b.IP)) })
	if len(all) > 0 {
		st.OldestAt = all[0].At
	}
	st.Entries = all[:min(len(all), max(n, 0)):min(len(all), max(n, 0))]
	return st
}

// schedule is a heap of entries by the time of their next try.
type schedule []*entry

func (s schedule) Len() int { return len(s) }
func (s schedule) Less(i, j int) bool {
	a, b := s[i], s[j]
	return cmp.Or(a.due.Compare(b.due), a.report.At.Compare(b.report.At), a.report.IP.Compare(b.report.IP)) < 0
}
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

// Push implements heap.Interface.
func (s *schedule) Push(x any) {
	e := x.(*entry)
	e.place = len(*s)
	*s = append(*s, e)
}

// Pop implements heap.Interface.
func (s *schedule) Pop() any {
	old := *s
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	return e
}

func (s *schedule) push(e *entry)   { heap.Push(s, e) }
func (s *schedule) remove(e *entry) { heap.Remove(s, e.place) }
func (s *schedule) fix(e *entry)    { heap.Fix(s, e.place) }
