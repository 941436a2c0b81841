package lease

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
	"github.com/usher-agent/usher/provision/wal"
)

// logName is the directory of the log in state_dir.
const logName = "leases"

// Kinds of records in the log; their keys are addresses.
const (
	kindLease  = 'l'
	kindReport = 'r'
)

const (
	// lookAgain is how often a disk that cannot be used is tried again.
	lookAgain = time.Second
	// sayAgain is how often the log says that it still cannot.
	sayAgain = time.Minute
	// calm is how long it has to work before the log says that it does: a disk that hangs now and then is one.
	calm = 5 * time.Second
)

// logStore is the Store in a log of provision/wal. What is in a turn of Commit is the log's
// writer, of which there is one.
type logStore struct {
	dir  string // state_dir
	seed maphash.Seed
	path string // of the log
	log  *slog.Logger
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup // look and tell

	underway underway

	wal    atomic.Pointer[wal.Log] // nil: it cannot be used yet
	health atomic.Pointer[Health]  // of a log that cannot be used, and what is known beside the log's own

	loading  sync.Mutex // held by who opens or reads the log; guards the fields below
	leases   *sink
	found    func(provision.MACReport, error)
	replaced []func()
	loaded   atomic.Bool // reports are those of the log
	damages  int         // in what was read to the end; what is found later memory has

	mu      sync.Mutex // guards the fields below
	unread  []string
	nUnread int
	told    map[uint64]struct{} // hashes of what was counted: a disk that comes back is read again
	former  wal.Damages         // of a log that was taken away
	old     *oldState           // read from state.db and not yet in the log

	// Of whoever has the turn of a Commit, under queueMu since Reports reads it.
	queueMu sync.Mutex
	reports map[netip.Addr]provision.MACReport
	batch   Batch
	room    []byte
	undo    []undo
	older   []wal.Record // of state.db, that a group overtakes which is not on disk yet
}

// undo is what a report of a group that is not on disk yet took the place of.
type undo struct {
	ip   netip.Addr
	had  bool
	what provision.MACReport
}

// OpenStore opens the log of leases and MAC reports in dir, which is state_dir. What
// an older usher kept in state.db is moved into it. The error is ErrInUse, a *statedir.NewerError for
// what a newer usher wrote, or that of ctx. A disk that cannot be used is none: it is tried again each second, and what it has comes later.
func OpenStore(ctx context.Context, dir string, log *slog.Logger) (Store, error) {
	s := &logStore{dir: dir, path: filepath.Join(dir, logName), log: log, underway: underway{made: time.Now()}, reports: map[netip.Addr]provision.MACReport{}, told: map[uint64]struct{}{}, seed: maphash.MakeSeed()}
	s.health.Store(&Health{})
	l, err := s.open(ctx)
	switch {
	case ctx.Err() != nil, errors.Is(err, ErrInUse), errors.As(err, new(*statedir.NewerError)):
		err = cmp.Or(context.Cause(ctx), err)
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, err
	case err != nil:
		s.fails(err)
	default:
		s.wal.Store(l)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.work.Go(func() { s.watch(s.ctx) })
	s.work.Go(func() { s.tell(s.ctx) })
	return s, nil
}

// open opens the log and moves into it what state.db still has, as far as the log can be written.
func (s *logStore) open(ctx context.Context) (*wal.Log, error) {
	l, err := wal.Open(wal.Options{Dir: s.path, Content: contentVersion, Log: s.log, Committed: s.committed})
	switch {
	case errors.Is(err, wal.ErrInUse):
		return nil, fmt.Errorf("%s: %w", s.path, ErrInUse)
	case err != nil:
		return nil, s.newer(err)
	}
	if err := s.readOld(ctx, l); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.moveOld(l)
	return l, nil
}

// newer turns the log's word for a newer file into that of all files of state_dir.
func (s *logStore) newer(err error) error {
	var n *wal.NewerError
	if !errors.As(err, &n) {
		return err
	}
	return &statedir.NewerError{
		Path: filepath.Join(s.path, n.File), Has: fmt.Sprintf("layout %d and content %d", n.Layout, n.Content), Knows: fmt.Sprintf("content %d", contentVersion), Lost: lostWithLeases,
	}
}

// watch tries a disk that cannot be used again, until ctx ends.
func (s *logStore) watch(ctx context.Context) {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	var tried *wal.Log
	for {
		if l := s.wal.Load(); l != nil && l != tried { // a disk that takes nothing is told before a client needs it
			tried = l
			_ = s.commit(l, func(*wal.Frames) error { return nil }) // the log's health tells
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.look(ctx)
	}
}

// tell has the log say now and then that the disk cannot be used, until ctx ends. Unlike watch it never waits for the disk.
func (s *logStore) tell(ctx context.Context) {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	var said, failed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		h := s.Health()
		if h.Failing() {
			failed = time.Now()
		}
		switch {
		case h.Failing() && time.Since(said) >= sayAgain:
			said = failed
			s.log.Error("leases and MAC reports are not on disk; pools lease nothing, bound addresses are served from memory, until the disk can be used",
				"path", s.path, "error", h.Error, "since", h.Since)
		case !said.IsZero() && time.Since(failed) >= calm:
			said = time.Time{}
			s.log.Info("leases and MAC reports are on disk again", "path", s.path)
		}
	}
}

// look makes one attempt at what is left to do.
func (s *logStore) look(ctx context.Context) {
	s.loading.Lock()
	defer s.loading.Unlock()
	l := s.wal.Load()
	if l != nil && errors.Is(l.Health().Err, wal.ErrGone) {
		s.fails(wal.ErrGone)
		s.mu.Lock()
		s.former = moreOf(s.former, l.Damages())
		s.mu.Unlock()
		s.wal.Store(nil)
		_ = l.Close() // there is nothing that it could lose
		l = nil
	}
	if l != nil {
		s.moveOld(l)
		s.mend(l)
		return
	}
	l, err := s.open(ctx)
	if err == nil {
		err = s.catchUp(ctx, l)
	}
	if err != nil {
		s.fails(err)
	}
}

// mend has everything written again where a snapshot came upon damage: memory read it while it was whole.
func (s *logStore) mend(l *wal.Log) {
	n := found(l.Damages())
	if !s.loaded.Load() || n <= s.damages {
		return
	}
	s.damages = n
	for _, f := range s.replaced {
		f()
	}
}

// catchUp delivers what a log has that could not be read at the start, before anything is committed to it, and then has
// everything that memory knows written again.
func (s *logStore) catchUp(ctx context.Context, l *wal.Log) error {
	s.loaded.Store(false)
	if s.leases != nil || s.found != nil {
		if err := s.load(ctx, l, s.leases, s.found); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	s.wal.Store(l)
	s.health.Store(&Health{})
	for _, f := range s.replaced {
		f()
	}
	return nil
}

// fails notes why the log cannot be used.
func (s *logStore) fails(err error) {
	h := &Health{Error: err.Error(), Since: time.Now()}
	if before := s.health.Load(); before.Failing() {
		h.Since = before.Since
	}
	s.health.Store(h)
}

// Health implements Store.
func (s *logStore) Health() Health {
	h := *s.health.Load()
	h.Path = s.path
	s.mu.Lock()
	h.Unread, h.What = s.nUnread, slices.Clone(s.unread)
	waiting, damages := s.old != nil, s.former
	s.mu.Unlock()
	l := s.wal.Load()
	if l != nil {
		damages = moreOf(damages, l.Damages())
	}
	h.Unread += found(damages)
	for _, x := range damages.Some {
		h.What = append(h.What, sayDamage(x))
	}
	for _, x := range damages.Loose {
		h.What = append(h.What, "not put aside yet: "+x)
	}
	h.PutAside = damages.Aside
	if l == nil {
		h.Error = cmp.Or(h.Error, beingRead)
		return h
	}
	if err := l.Health().Err; err != nil {
		h.Error, h.Since = err.Error(), l.Health().Since
	}
	if since, stuck := s.underway.stuck(); stuck && !h.Failing() {
		h.Error, h.Since = NoAnswer, since
	}
	h.Log = l.Status()
	if waiting && !h.Failing() {
		h.Error = "what state.db had could not be written to the log yet"
	}
	return h
}

// moreOf returns what tells of more: a log that was taken away and comes back tells of the same again, an empty one in its place of nothing.
func moreOf(a, b wal.Damages) wal.Damages {
	if found(a) > found(b) {
		return a
	}
	return b
}

// found is how many stretches could not be read, wherever in their files they are: what a record at the end was may be known as well.
func found(d wal.Damages) int { return d.Count + d.Tails }

// beingRead is why nothing can be committed while a disk is back and what it has is still to come.
const beingRead = "it is being read"

// Failing implements Store.
func (s *logStore) Failing() bool {
	if s.health.Load().Failing() {
		return true
	}
	if _, stuck := s.underway.stuck(); stuck {
		return true
	}
	l := s.wal.Load()
	return l == nil || l.Failing()
}

// sayDamage tells of a stretch of a file and whose it seems to be.
func sayDamage(d wal.Damage) string {
	text := fmt.Sprintf("%s, bytes %d to %d: %s", d.File, d.From, d.To, d.What)
	ip, ok := netip.AddrFromSlice(d.Key)
	switch {
	case ok && d.Kind == kindLease:
		return fmt.Sprintf("%s; it seems to be the lease of %s", text, ip)
	case ok && d.Kind == kindReport:
		return fmt.Sprintf("%s; it seems to be the MAC report of %s", text, ip)
	}
	return text
}

// Replaced implements Store.
func (s *logStore) Replaced(f func()) {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.replaced = append(s.replaced, f)
}

// Leases implements Store.
func (s *logStore) Leases(each func(Record, error)) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.leases = recordSink(each)
	return s.loadOrWait(s.leases, nil)
}

// leasesInto implements sinkStore.
func (s *logStore) leasesInto(to *sink) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.leases = to
	return s.loadOrWait(to, nil)
}

// Reports implements Store.
func (s *logStore) Reports(each func(provision.MACReport, error)) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.found = each
	if !s.loaded.Load() {
		return s.loadOrWait(nil, each)
	}
	s.queueMu.Lock()
	all := slices.SortedFunc(maps.Values(s.reports), func(a, b provision.MACReport) int { return a.IP.Compare(b.IP) })
	s.queueMu.Unlock()
	for _, r := range all {
		each(r, nil)
	}
	return nil
}

// loadOrWait is load at the start. A log that is not to be had, as one with a file of another owner, is a disk that cannot be
// used: watch tries again.
func (s *logStore) loadOrWait(leases *sink, reports func(provision.MACReport, error)) error {
	l := s.wal.Load()
	err := s.load(s.ctx, l, leases, reports)
	if err == nil || s.ctx.Err() != nil || errors.As(err, new(*statedir.NewerError)) {
		return err
	}
	s.fails(err)
	s.wal.Store(nil)
	_ = l.Close() // nothing was committed to it that it could lose
	return nil
}

// load reads the log, if it can be. Leases and reports may be nil: nobody wants them.
func (s *logStore) load(ctx context.Context, l *wal.Log, leases *sink, reports func(provision.MACReport, error)) error {
	if l == nil {
		return nil // later
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := reader{s: s, ctx: ctx, sink: leases, reports: reports, out: make(chan readLeases, 4)}
	done := make(chan error, 1)
	go func() { // two processors read a large log in half the time
		defer close(r.out)
		done <- r.read(l)
	}()
	for c := range r.out {
		leases.take(c.entries, c.bad)
	}
	if err := <-done; err != nil {
		return s.newer(err)
	}
	s.damages = found(l.Damages())
	s.loaded.Store(true)
	return nil
}

// queue keeps a report that was read; false: memory has a newer one.
func (s *logStore) queue(r provision.MACReport) bool {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if kept, ok := s.reports[r.IP]; ok && kept.At.After(r.At) {
		return false
	}
	s.reports[r.IP] = r
	return true
}

// mostTold bounds what is known to be counted, for a disk that has next to nothing else.
const mostTold = 1 << 16

// cannotRead notes a whole record that says nothing.
func (s *logStore) cannotRead(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := err.Error()
	hash := maphash.String(s.seed, text)
	if _, known := s.told[hash]; known {
		return
	}
	if len(s.told) < mostTold {
		s.told[hash] = struct{}{}
	}
	s.nUnread++
	if len(s.unread) < maxSkippedKept {
		s.unread = append(s.unread, text)
	}
}

// Commit implements Store.
func (s *logStore) Commit(fill func(*Batch) error) error {
	l := s.wal.Load()
	if l == nil {
		return notYet(errors.New(cmp.Or(s.health.Load().Error, beingRead)))
	}
	if err := s.knowReports(); err != nil {
		return err
	}
	var after []func()
	err := s.commit(l, func(f *wal.Frames) error {
		b := &s.batch
		b.reset()
		if err := fill(b); err != nil {
			return err
		}
		after = b.after
		s.addLeases(f, b)
		s.addReports(f, b)
		return nil
	})
	if err != nil {
		return err
	}
	for _, do := range after {
		do()
	}
	return nil
}

// commit is Commit of a log, and known to be under way.
func (s *logStore) commit(l *wal.Log, fill func(*wal.Frames) error) error {
	s.underway.begin()
	defer s.underway.end()
	return l.Commit(fill)
}

// knowReports reads the log if nobody did: which report outranks which is known from memory.
func (s *logStore) knowReports() error {
	if s.loaded.Load() {
		return nil
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.loaded.Load() {
		return nil
	}
	return s.load(s.ctx, s.wal.Load(), nil, nil)
}

func (s *logStore) addLeases(f *wal.Frames, b *Batch) {
	for i := range b.Leases {
		s.room = binary.BigEndian.AppendUint32(s.room[:0], ipKey(b.Leases[i].IP))
		s.room = encode(s.room, &b.Leases[i])
		f.Put(wal.Record{Kind: kindLease, Key: s.room[:4], Value: s.room[4:]})
		s.overtake(kindLease, b.Leases[i].IP)
	}
	for _, ip := range b.Forget {
		f.Put(wal.Record{Kind: kindLease, Key: keyBytes(ipKey(ip)), Delete: true})
		s.overtake(kindLease, ip)
	}
}

func (s *logStore) addReports(f *wal.Frames, b *Batch) {
	if len(b.Reports) == 0 && len(b.Done) == 0 {
		return
	}
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	now := time.Now()
	for _, r := range b.Reports {
		kept, had := s.reports[r.IP]
		if had && kept.Outranks(r, now) {
			continue
		}
		s.undo = append(s.undo, undo{r.IP, had, kept})
		s.reports[r.IP] = r
		f.Put(wal.Record{Kind: kindReport, Key: r.IP.AsSlice(), Value: encodeWhole(r)})
		s.overtake(kindReport, r.IP)
	}
	for _, r := range b.Done {
		kept, had := s.reports[r.IP]
		if !had || !sameReport(kept, r) {
			continue
		}
		s.undo = append(s.undo, undo{r.IP, had, kept})
		delete(s.reports, r.IP)
		f.Put(wal.Record{Kind: kindReport, Key: r.IP.AsSlice(), Delete: true})
		s.overtake(kindReport, r.IP)
	}
}

func sameReport(a, b provision.MACReport) bool {
	_, x := encodeReport(a)
	_, y := encodeReport(b)
	return bytes.Equal(x, y)
}

// overtake has what state.db still has of an address not written over what a commit writes of it now.
func (s *logStore) overtake(kind uint8, ip netip.Addr) {
	if o := s.pending(); o != nil {
		if r, had := o.overtake(kind, ip); had {
			s.older = append(s.older, r)
		}
	}
}

// pending is what state.db had and the log has not yet; nil: nothing.
func (s *logStore) pending() *oldState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.old
}

// committed is told by the log whether the group of the last turns is on disk.
func (s *logStore) committed(err error) {
	if err != nil && len(s.undo) > 0 {
		s.queueMu.Lock()
		for _, u := range slices.Backward(s.undo) {
			if u.had {
				s.reports[u.ip] = u.what
			} else {
				delete(s.reports, u.ip)
			}
		}
		s.queueMu.Unlock()
	}
	if o := s.pending(); err != nil && o != nil {
		for _, r := range s.older {
			o.putBack(r)
		}
	}
	s.undo, s.older = s.undo[:0], s.older[:0]
}

// Close implements Store.
func (s *logStore) Close() error {
	s.stop()
	s.work.Wait()
	return s.closeLog()
}

func (s *logStore) closeLog() error {
	if l := s.wal.Load(); l != nil {
		return l.Close()
	}
	return nil
}
