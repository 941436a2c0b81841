// Package wal keeps records under keys in an append-only log of files: of each key
// the record that was committed last.
//
// A Commit is on disk when it returns, one sync for all that wait at the same
// time. Files are never written over: changes go to the newest one, and in the
// background all older ones are brought together in a snapshot, which holds no
// writer up. Each record has its own checksum, and a reader finds the next one
// behind whatever is damaged: a record that cannot be read costs itself alone, is
// told, and its file is put aside. Nothing in a file can stop or crash a reader,
// or make it take longer than to read the file.
package wal

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Record is one change: Key of Kind has Value now, or, with Delete, nothing.
type Record struct {
	Kind   uint8 // below 0xfe
	Key    []byte
	Value  []byte
	Delete bool
}

// Options direct a Log.
type Options struct {
	// Dir is the directory of the files. It is made if its parent is there.
	Dir string
	// Content is the form of the values. A file that says a higher one is refused with a *NewerError.
	Content uint16
	Log     *slog.Logger
	// Committed is called after each group of commits, by the goroutine that runs
	// their fill, before any of them returns: with the error of all. nil: nobody wants to know.
	Committed func(error)

	disk     disk  // of tests
	capacity int64 // of tests: of all files
	large    int64 // of tests: in place of largeLog
}

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("another process has the log open")

// ErrGone says that the directory, or a file in it, was taken away or replaced while the log was
// open. What was committed may be lost: the log has to be opened anew and everything written again.
var ErrGone = errors.New("the directory of the log, or a file of it, was taken away or replaced")

// ErrClosed says that the log is closed.
var ErrClosed = errors.New("the log is closed")

const (
	// The first file after a start has this room, each further one twice as much up to the
	// second: a quiet agent needs little disk, a busy one few files.
	firstCapacity, maxCapacity = 1 << 20, 16 << 20
	// maxGroup bounds what one sync writes: more waits for the next.
	maxGroup = 4 << 20
	// tick is how often a log that fails tries again by itself, and one that works looks whether its directory is still there.
	tick = time.Second
	// retryWait is how soon after a failure a commit tries again: who comes earlier has the same error.
	retryWait = 100 * time.Millisecond
)

// Health is how a log and its disk are.
type Health struct {
	Err   error     // why the last commit is not on disk; nil: it is, or there was none
	Since time.Time // since when commits fail
}

// Status is what a log consists of.
type Status struct {
	Files     int   `json:"files"`
	Bytes     int64 `json:"bytes"`    // of records in them
	Snapshot  int64 `json:"snapshot"` // of these in the snapshot
	Snapshots int   `json:"snapshots"`

	// SnapshotError says why no snapshot could be written since SnapshotFails; empty: the last one could, or none was due.
	SnapshotError string    `json:"snapshot_error,omitempty"`
	SnapshotFails time.Time `json:"snapshot_fails_since,omitzero"`
}

// Log is an open log. Its methods are safe for concurrent use.
type Log struct {
	opts   Options
	disk   disk
	unlock func() error

	ended   chan struct{} // closed by Close: nothing is looked at any more
	closing sync.Once
	stop    context.CancelFunc
	workers sync.WaitGroup
	health  atomic.Pointer[Health]
	halted  atomic.Pointer[Health] // why there is no snapshot; nil: there is, or none was due

	files   filesOf    // guarded by its own mutex
	reading sync.Mutex // held by who reads files, so that none is removed meanwhile
	damage  damages
	missed  atomic.Bool // a file was taken away that a snapshot is to be made of

	calmUntil time.Time // before it a snapshot waits; zero: it need not

	waiting sync.Mutex // guards queue and closed
	queue   []*commit  // that nobody writes yet
	closed  bool

	// Whoever holds the mutex is the writer, the one owner of the newest file: a commit that comes alone goes to disk without
	// another goroutine being woken, and one that comes while somebody writes goes with all others that do.
	writing  sync.Mutex
	group    []*commit
	seq      uint64
	capacity int64
	active   *segment
	spare    chan made // the file after the active one, made beforehand
	making   bool      // somebody is at it, or it is in spare
	buf      Frames
	failed   time.Time // the last failure
	gone     bool
}

// commit is one call of Commit on its way.
type commit struct {
	fill func(*Frames) error
	err  error
	done bool // of the writer
}

// segment is the file that is written.
type segment struct {
	name     name
	file     file
	seal     seal
	at       int64 // where the next frame goes
	capacity int64
	made     time.Time
}

// made is a file that was made beforehand; nil: it could not be.
type made struct{ s *segment }

// Frames are the records of commits that go to disk together.
type Frames struct {
	seal seal
	buf  []byte

	// Of the commit that is being filled.
	start, n int // where it begins, and its records
	err      error
}

// Put adds a record: it takes the place of what its key had. What it shares with the caller may be written to afterwards.
func (f *Frames) Put(r Record) {
	switch {
	case r.Kind >= commitKind || len(r.Key) == 0 || len(r.Key) > maxKey || len(r.Value) > maxValue:
		f.err = errors.Join(f.err, fmt.Errorf("log: a record of kind %d with a key of %d and a value of %d bytes cannot be kept", r.Kind, len(r.Key), len(r.Value)))
	default:
		f.add(r)
	}
}

// begin begins a commit.
func (f *Frames) begin() { f.start, f.n, f.err = len(f.buf), 0, nil }

func (f *Frames) add(r Record) {
	part := byte(0)
	if f.n > 0 {
		part = flagMore
	}
	if f.n == 1 { // it is one of several now
		first := f.buf[f.start:]
		first[flagsAt] |= flagFirst
		f.seal.sum(first)
	}
	f.buf = f.seal.append(f.buf, r, part)
	f.n++
}

// end ends a commit, which is as if it had not begun if it has failed.
func (f *Frames) end() {
	switch {
	case f.err != nil:
		f.buf = f.buf[:f.start]
	case f.n > 1:
		f.buf = f.seal.end(f.buf)
	}
}

// Open takes the directory for this process and looks at what is in it, without
// reading it: Load does. That nothing can be written there is no error of Open but one of each Commit,
// until it works. The error is ErrInUse, a *NewerError, or that of a directory that cannot be read.
func Open(opts Options) (*Log, error) {
	l := &Log{
		opts: opts, disk: opts.disk, ended: make(chan struct{}), capacity: cmp.Or(opts.capacity, firstCapacity), spare: make(chan made, 1),
		files: filesOf{due: make(chan struct{}, 1)},
	}
	if l.disk == nil {
		l.disk = dir(opts.Dir)
	}
	if l.opts.Committed == nil {
		l.opts.Committed = func(error) {}
	}
	var err error
	if l.unlock, err = l.disk.Lock(); err != nil && !errors.Is(err, errNoLock) {
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := l.list(); err != nil {
		return nil, errors.Join(fmt.Errorf("log: %w", err), l.letGo())
	}
	l.health.Store(&Health{})
	if l.Status().Bytes > cmp.Or(l.opts.large, largeLog) {
		l.calmUntil = time.Now().Add(startTime)
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.workers.Go(func() { l.compactor(ctx) })
	l.workers.Go(l.run)
	return l, nil
}

// Health returns how the log is now.
func (l *Log) Health() Health { return *l.health.Load() }

// Failing reports whether the last commit is not on disk.
func (l *Log) Failing() bool { return l.health.Load().Err != nil }

// Commit writes what fill adds: on return it is on disk. After an error it
// may be there nevertheless, and be found at the next start, whole or not at all if the process was killed meanwhile. Fill is called when the
// commit has its turn, after those before it; it must be quick and not call the
// Log. Its own error is returned as it is, and nothing of the commit is written.
func (l *Log) Commit(fill func(*Frames) error) error {
	c := &commit{fill: fill}
	l.waiting.Lock()
	if l.closed {
		l.waiting.Unlock()
		return ErrClosed
	}
	l.queue = append(l.queue, c)
	l.waiting.Unlock()

	l.writing.Lock()
	defer l.writing.Unlock()
	if !c.done { // nobody has written it with others
		l.writeQueue()
	}
	return c.err
}

// Close lets the directory go after the commits that wait. A Commit after it fails.
func (l *Log) Close() error {
	l.closing.Do(func() {
		l.stop()
		l.waiting.Lock()
		l.closed = true
		l.waiting.Unlock()
		l.writing.Lock()
		defer l.writing.Unlock()
		l.writeQueue()
		l.end()
		close(l.ended)
	})
	l.workers.Wait()
	return l.letGo()
}

// letGo gives the directory to others, also when it is called again.
func (l *Log) letGo() error {
	unlock := l.unlock
	if l.unlock = nil; unlock == nil {
		return nil
	}
	return unlock()
}

// run looks after the newest file now and then, until Close.
func (l *Log) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-l.ended:
			return
		case <-ticker.C:
		}
		l.writing.Lock()
		select {
		case <-l.ended:
		default:
			l.look()
		}
		l.writing.Unlock()
	}
}

// writeQueue writes all commits that wait.
func (l *Log) writeQueue() {
	l.waiting.Lock()
	l.group, l.queue = l.queue, l.group[:0]
	l.waiting.Unlock()
	l.write(l.group)
	clear(l.group)
}

// write puts a group of commits on disk, by one sync if it is not too large for it.
func (l *Log) write(group []*commit) {
	for len(group) > 0 {
		if err := l.ready(); err != nil {
			l.opts.Committed(err)
			finish(group, err)
			return
		}
		n := l.fill(group)
		var err error
		if len(l.buf.buf) > 0 {
			err = l.append()
		}
		l.opts.Committed(err)
		finish(group[:n], err)
		group = group[n:]
	}
}

// finish lets the callers of commits go; what fill said counts first.
func finish(group []*commit, err error) {
	for _, c := range group {
		if c.err == nil {
			c.err = err
		}
		c.done = true
	}
}

// fill has commits say what they write, and returns how many had room.
func (l *Log) fill(group []*commit) int {
	l.buf.seal, l.buf.buf = l.active.seal, l.buf.buf[:0]
	for i, c := range group {
		if len(l.buf.buf) > maxGroup {
			return i
		}
		l.buf.begin()
		l.buf.err = errors.Join(c.fill(&l.buf), l.buf.err)
		l.buf.end()
		c.err = l.buf.err
	}
	return len(group)
}

// ready sees to a file that can be written.
func (l *Log) ready() error {
	switch h := l.health.Load(); {
	case l.gone:
		return ErrGone
	case l.active != nil:
		return nil
	case h.Err != nil && time.Since(l.failed) < retryWait:
		return h.Err
	}
	return l.begin(0)
}

// append writes the group behind what is in the newest file, or begins another one where there is no room.
func (l *Log) append() error {
	if l.active.at+int64(len(l.buf.buf)) > l.active.capacity {
		old := l.active.seal
		if err := l.begin(int64(len(l.buf.buf))); err != nil {
			return err
		}
		l.reseal(old)
	}
	s := l.active
	_, err := s.file.WriteAt(l.buf.buf, s.at)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		// What the kernel could not write it may have forgotten: this file is not written any more. What it still shows of the
		// group is wiped out, or the next start would take for kept what a loss of power then takes away.
		_, _ = l.active.file.WriteAt(make([]byte, len(l.buf.buf)), s.at)
		l.drop()
		return l.fail(err)
	}
	s.at += int64(len(l.buf.buf))
	l.files.grown(s.name, s.at)
	l.works()
	return nil
}

// reseal makes the frames of the group those of the file that is written now.
func (l *Log) reseal(old seal) {
	for rest := l.buf.buf; len(rest) > 0; {
		n := old.length(rest)
		l.active.seal.reseal(rest[:n])
		rest = rest[n:]
	}
}

// begin makes a new newest file with room for need bytes of frames.
func (l *Log) begin(need int64) error {
	before := l.active
	l.drop()
	if l.unlock == nil {
		unlock, err := l.disk.Lock()
		if err != nil {
			return l.fail(err)
		}
		l.unlock = unlock
	}
	s, err := l.nextSegment(need)
	if errors.Is(err, fs.ErrNotExist) { // a file is made there: it is the directory that is missing
		l.gone, err = true, ErrGone
	}
	if err != nil {
		return l.fail(err)
	}
	if before != nil && before.name.seq+1 == s.name.seq {
		// It goes to disk with the first commit; where it cannot be written, that fails.
		_, _ = s.file.WriteAt(appendHeader(nil, s.name, l.opts.Content, s.capacity, before.at, s.made), 0)
	}
	l.active = s
	l.seq = s.name.seq
	l.files.add(s.name, headerLen)
	l.capacity = cmp.Or(l.opts.capacity, min(2*l.capacity, maxCapacity))
	next, capacity := l.seq+1, l.capacity
	l.making = true
	l.workers.Go(func() { // beforehand, so that nobody waits for it
		s, _ := l.makeSegment(next, capacity) // whoever needs it tries again and tells
		l.spare <- made{s}
	})
	return nil
}

// nextSegment returns the file that was made beforehand, if it is large enough, or makes one.
func (l *Log) nextSegment(need int64) (*segment, error) {
	if s := l.takeSpare(); s != nil {
		if s.capacity-headerLen >= need {
			return s, nil
		}
		_ = s.file.Close() // it stays in its place, without a record
		l.seq = s.name.seq
		l.files.add(s.name, headerLen)
		l.files.seal(s.name)
	}
	s, err := l.makeSegment(l.seq+1, max(l.capacity, need+headerLen))
	if least := max(firstCapacity, need+headerLen); err != nil && least < l.capacity {
		return l.makeSegment(l.seq+1, least) // a disk that is nearly full
	}
	return s, err
}

// takeSpare waits for the file that is made beforehand; nil: there is none.
func (l *Log) takeSpare() *segment {
	if !l.making {
		return nil
	}
	l.making = false
	return (<-l.spare).s
}

// makeSegment makes a file of zeros, on disk with its name: to write into it later changes its content only,
// which is the quickest that a disk can do, and needs no room.
func (l *Log) makeSegment(seq uint64, capacity int64) (_ *segment, err error) {
	s := &segment{name: name{seq: seq, salt: newSalt()}, at: headerLen, capacity: capacity, made: time.Now()}
	s.seal = sealOf(s.name.salt)
	tmp := s.name.String() + tmpSuffix
	if s.file, err = l.disk.Create(tmp); err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<16)
	head := appendHeader(nil, s.name, l.opts.Content, capacity, 0, s.made)
	for at := int64(0); at < capacity && err == nil; at += int64(len(zeros)) {
		_, err = s.file.WriteAt(zeros[:min(int64(len(zeros)), capacity-at)], at)
	}
	if err == nil {
		_, err = s.file.WriteAt(head, 0)
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, s.file.Close(), l.disk.Remove(tmp))
	}
	if err = l.disk.Rename(tmp, s.name.String()); err == nil {
		err = l.disk.SyncDir()
	}
	if err != nil { // each try would leave one more; what stays nevertheless, under whichever name, has no record
		err = errors.Join(err, s.file.Close())
		_, _ = l.disk.Remove(tmp), l.disk.Remove(s.name.String())
		return nil, err
	}
	return s, nil
}

// newSalt returns a number that nobody can guess, and whose marker is not all zeros as unused room is.
func newSalt() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // it never fails
		if s := binary.BigEndian.Uint64(b[:]); s>>32 != 0 {
			return s
		}
	}
}

// drop ends the file that is written; what is in it stays.
func (l *Log) drop() {
	if l.active == nil {
		return
	}
	_ = l.active.file.Close() // what counts was synced
	l.files.seal(l.active.name)
	l.active = nil
}

// look tries again where the log fails, and whether its files are still where they were.
func (l *Log) look() {
	switch {
	case l.gone:
	case l.active == nil && l.health.Load().Err != nil:
		if l.begin(0) == nil {
			l.works()
		}
	case l.missed.Load(), l.active != nil && !l.disk.Same(l.active.name.String(), l.active.file):
		l.gone = true
		l.drop()
		_ = l.fail(ErrGone)
	}
}

// fail notes that a commit is not on disk, and returns why.
func (l *Log) fail(err error) error {
	l.failed = time.Now()
	h := Health{Err: err, Since: l.failed}
	if before := l.health.Load(); before.Err != nil {
		h.Since = before.Since
	}
	l.health.Store(&h)
	return err
}

func (l *Log) works() {
	if l.health.Load().Err != nil {
		l.health.Store(&Health{})
	}
}

// end closes the files.
func (l *Log) end() {
	if s := l.takeSpare(); s != nil {
		_ = errors.Join(s.file.Close(), l.disk.Remove(s.name.String())) // where it stays, it is an empty file
	}
	l.drop()
}

// filesOf is what the directory has, in the order of the files.
type filesOf struct {
	mu  sync.Mutex
	all []fileInfo
	due chan struct{} // something may be to compact; one slot
}

type fileInfo struct {
	name   name
	bytes  int64 // up to the last frame
	acked  int64 // up to the last commit that this process wrote into it; 0: none
	sealed bool
	bad    bool // damaged: it is put aside
}

func (f *filesOf) add(n name, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, fileInfo{name: n, bytes: bytes})
}

func (f *filesOf) change(n name, do func(*fileInfo)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.IndexFunc(f.all, func(x fileInfo) bool { return x.name == n }); i >= 0 {
		do(&f.all[i])
	}
}

func (f *filesOf) grown(n name, bytes int64) {
	f.change(n, func(x *fileInfo) { x.bytes, x.acked = bytes, bytes })
}

func (f *filesOf) seal(n name) {
	f.change(n, func(x *fileInfo) { x.sealed = true })
	f.wake()
}

func (f *filesOf) wake() {
	select {
	case f.due <- struct{}{}:
	default:
	}
}

// list returns all files, the oldest first.
func (f *filesOf) list() []fileInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

// sealed returns the files that are not written any more, the oldest first.
func (f *filesOf) sealed() []fileInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fileInfo
	for _, x := range f.all {
		if x.sealed {
			out = append(out, x)
		}
	}
	return out
}

// Status returns what the log consists of.
func (l *Log) Status() Status {
	l.files.mu.Lock()
	defer l.files.mu.Unlock()
	var st Status
	for _, x := range l.files.all {
		st.Files++
		st.Bytes += x.bytes
		if x.name.snapshot {
			st.Snapshots++
			st.Snapshot += x.bytes
		}
	}
	if h := l.halted.Load(); h != nil {
		st.SnapshotError, st.SnapshotFails = h.Err.Error(), h.Since
	}
	return st
}
